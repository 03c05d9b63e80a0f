"""Remedies that messages name are followed, on small inputs, and what was asked for goes through."""

import ast
import json
import re
import shlex
import shutil
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import rasterio
from archives import an_image, products, write_archive
from chip_folders import chip_folder, voc
from conftest import speckle, write_band
from polygons import feature, write_by_gdal, write_geojson
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from safes import Safe, write_safe
from spectrogram_folders import PICTURE, add_sample, write_version
from tiffs import write

import sarzarr as sz
from sarzarr.cli import main

PACKAGE = Path(sz.__file__).parent
SHAPE = (300, 300)


def at(east, north=0, size=10):
    return Affine(size, 0, 500_000 + east, 0, -size, 5_400_000 + north)


def classes(shape=SHAPE, dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(0, 5, shape).astype(dtype)


def beside(raw):
    """Write scenes with a companion that is no layer of theirs, products, and a raster beyond the end of its CRS."""
    heights = np.add.outer(np.arange(300.0), 3.0 * np.arange(300)).astype("float32")
    holed = heights.copy()
    holed[0, :9], holed[1, :9] = -9999, -32768
    others = {
        "grid_dem": heights[:60, :60],
        "fill_dem": holed,
        "unit_inc": 5000 + heights,
        "whose_dem": heights,
    }
    for name, pixels in others.items():
        folder = raw / name.split("_")[0]
        folder.mkdir()
        write_band(folder / f"{name if name != 'whose_dem' else 'dem'}.tif", pixels, transform=at(0))
        for scene in ("lake", "pond") if name == "whose_dem" else (name.split("_")[0],):
            write_band(folder / f"{scene}_vv.tif", speckle(SHAPE), transform=at(0))
    write_safe(raw / "old", Safe(ipf="002.36", noise_ipf_290=False))
    steep = write_safe(raw / "steep", Safe()) / "annotation" / f"{Safe().stem(1)}.xml"
    steep.write_text(re.sub(r"(<incidenceAngle>)[^<]*", r"\g<1>95", steep.read_text()))
    corner = Affine(30, 0, 20_036_000, 0, -30, 4_870_000)
    write_band(raw / "across_vv.tif", speckle(SHAPE), transform=corner, crs="EPSG:3857")


def older(raw):
    """Write patches and spectrograms of older pipelines."""
    write_archive(raw / "arch", products("x_vv", "y_vv", count=2, size=64), size=64, stride=32)
    for folder, patches in (("plain", an_image((2, 64, 64))), ("dbs", -20 * an_image((2, 64, 64)))):
        (raw / folder).mkdir()
        np.save(raw / folder / "a.npy", patches)
    shutil.copytree(raw / "plain", raw / "masked")
    np.save(raw / "masked" / "a_mask.npy", np.ones((2, 64, 64), bool))
    for folder, train, val in (("one", ["a"], ["b"]), ("other", ["b"], ["a"])):
        for name in "ab":
            add_sample(raw / folder / "signals" / "beep", name, PICTURE, {"boxes": []})
        write_version(raw / folder / "signals" / "beep", 1, train, val)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The rasters, chips and boxes that the rows are about."""
    raw = tmp_path_factory.mktemp("raw")
    for i, x in enumerate("abde"):
        write_band(raw / f"{x}_vv.tif", speckle(SHAPE, seed=i), transform=at(90_000 * i))
    write_band(raw / "ü_vv.tif", speckle(SHAPE))
    for name in ("p_vv", "p_vh", "m_20200101_vv", "g_vv"):
        write_band(raw / f"{name}.tif", speckle(SHAPE, seed=len(name)), transform=at(0))
    for name in ("m_20200113_vv", "g_vh"):
        write_band(raw / f"{name}.tif", speckle(SHAPE, seed=7), transform=at(5, 5))
    for folder in ("twin", "new"):
        (raw / folder).mkdir()
        write_band(raw / folder / "a_vv.tif", speckle(SHAPE, seed=9), transform=at(0))
    write_band(raw / "g_VV.tiff", speckle(SHAPE, seed=3), transform=at(0))
    write_band(
        raw / "odd.tif", np.random.default_rng(0).normal(0, 1, SHAPE).astype("float32"), transform=at(0)
    )
    write(raw / "phase.tif", speckle(SHAPE), tags={"UNITS": "radian"}, transform=at(0))
    write(raw / "two.tif", np.stack([classes(), classes(seed=1)]), transform=at(0))
    for name, i, seed, dtype in (("mask", 0, 0, "uint8"), ("mask2", 0, 1, "uint8"), ("mask_b", 1, 0, "uint8"),
                                 ("mask_b16", 1, 0, "int16")):  # fmt: skip
        write_band(raw / f"{name}.tif", classes(dtype=dtype, seed=seed), transform=at(90_000 * i))
    write_band(raw / "part.tif", classes((150, 300)), transform=at(0))
    write_band(raw / "wide_vv.tif", speckle((600, 9000)), tiles=256)
    write_band(raw / "block_vv.tif", speckle((2000, 2000)), blockysize=2000, compress="deflate")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        some = dict.fromkeys(("lake_vv", "gcps_vv", "gcps_20200101_vv", "gcps_20200113_vv"), speckle(SHAPE))
        for name, pixels in {**some, "pond_vv": speckle((400, 300)), "unplaced": classes()}.items():
            write_band(raw / f"{name}.tif", pixels, transform=None, crs=None)
            if name.startswith("gcps"):
                shift = 500 * ("13" in name)
                points = [
                    GroundControlPoint(row, col, 500_000 + shift + 10 * col, 5_400_000 - 10 * row)
                    for row in (0, 150, 300) for col in (0, 150, 300)
                ]  # fmt: skip
                with rasterio.open(raw / f"{name}.tif", "r+") as dataset:
                    dataset.gcps = points, "EPSG:32633"
    chip_folder(raw / "chips", count=3)
    older(raw)
    chip_folder(raw / "both", count=3)
    image = {"id": 1, "file_name": "chip_0.png", "width": 9, "height": 9}
    coco = {
        "images": [image],
        "annotations": [{"id": 1, "image_id": 1, "bbox": [1, 1, 5, 5]}],
        "categories": [],
    }
    (raw / "both" / "all.json").write_text(json.dumps(coco))
    write_band(raw / "dn_vv.tif", (1000 * speckle(SHAPE)).astype("uint16"))
    write_band(raw / "mask_20200113.tif", classes(seed=3), transform=at(0))
    for folder in ("texts", "others", "partly", "outside"):
        chip_folder(raw / folder, count=2)
        for file in (raw / folder / "xml").iterdir():
            if folder == "partly" and file.stem == "chip_1":
                continue
            if folder in ("others", "partly"):
                file.rename(file.with_name(f"other_{file.name}"))
                continue
            text = "no boxes" if folder == "texts" else voc([(5000, 5000, 5010, 5010)])
            file.with_suffix(".csv" if folder == "texts" else ".xml").write_text(text)
            if folder == "texts":
                file.unlink()
    beside(raw)
    ring = [[14.9, 48.6], [15.2, 48.6], [15.2, 48.8], [14.9, 48.8]]
    write_geojson(raw / "areas.json", [feature(ring, kind="a", half="x"), feature(ring, kind="b", half=None)])
    if find_spec("pyogrio"):
        write_by_gdal(raw / "areas.gpkg", [feature(ring, kind="a")], tables=("one", "two"))
    (raw / "boxes.csv").write_text("scene,x_min,y_min,x_max,y_max,label\na,1,2,30,40,ship\n")
    for folder, crs in (("tiles", "EPSG:32633"), ("adrift", None)):
        (raw / folder).mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            for i in range(4):
                where = at(2000 * i) if crs else None
                place = raw / folder / f"site{i % 3}_{i}_VV.tif"
                write_band(place, speckle((64, 64), seed=i), transform=where, crs=crs)
    kinds = "".join(f"site{i % 3}_{i},{'ab'[i % 2]},{i},x;y\n" for i in range(4))
    (raw / "kinds.csv").write_text(f"name,label,odd,both\n{kinds}")
    (raw / "numbers.csv").write_text("name,kind,odd\nsite0_0,5,6\n")
    (raw / "drawn.csv").write_text("chip,x_min,y_min,x_max,y_max\nsite0_0,1,2,30,40\nnobody,1,2,30,40\n")
    (raw / "no_scene.csv").write_text("scene,x_min,y_min,x_max,y_max,label\n,1,2,30,40,ship\n")
    return raw


def reader(options):
    return f"PY next(iter(sz.PatchReader('s.zarr', batch_size=1, min_valid=0, {options})))"


MASK, PADDED = reader("layers=['mask']"), reader("layers=['mask'], edge='pad'")
ONTO_GROUND = "ingest raw/gcps_vv.tif -o s.zarr --crs EPSG:32633 --pixel-size 10 --replace"
STACK = "PY sz.make_stack(sz.open_store('s.zarr'), ['{0}_20200101', '{0}_20200113'], mixed=True)"
SPLIT = "split create s.zarr --by scene --val 0.4"
GCPS = "ingest raw/gcps_20200101_vv.tif -o s.zarr --crs EPSG:32633 --pixel-size 10 --replace"
GCPS += "; ingest raw/gcps_20200113_vv.tif -o s.zarr --grid like:gcps_20200101 --replace"
FOUR = "ingest raw/a_vv.tif raw/b_vv.tif raw/d_vv.tif raw/e_vv.tif -o s.zarr"
SITES = "--site a=1 --site b=2 --site d=3 --site e=4"
A = "ingest raw/a_vv.tif -o s.zarr"
FOLD = "split='fold0:train'"
GONE = "PY import shutil; shutil.rmtree('s.zarr/{}')"
SHORT = "PY open('s.zarr/scenes/a/vv/c/0/0', 'wb').close()"
OTHER = (
    "PY from pathlib import Path; p = Path('s.zarr/scenes/a/zarr.json'); "
    'p.write_text(p.read_text().replace("a_vv.tif", "b_vv.tif"))'
)
ANOTHER_ROOT = (
    "PY from sarzarr.store.documents import update_node; "
    "update_node(sz.open_store('s.zarr').place, '', {'vmin': -50.0})"
)
TILES = "ingest raw/tiles -o s.zarr --collection t --representation power"
ADRIFT = "ingest raw/adrift -o s.zarr --collection t --representation power"
SIDES = "split create s.zarr --collection t --val 0.5"
DRAWN = "import boxes raw/drawn.csv -o s.zarr --collection t"
LABELS = "import labels raw/kinds.csv -o s.zarr --collection t"
CHIPS = "PY sz.CollectionReader('s.zarr', 't', {})"
KINDS, TRAIN = "labels='kinds'", "split='train'"
ROWS = [
    # a part of the message, what is there before, what is refused, and what each of its remedies comes to
    ("Ingest it alone with --id NAME", [], "ingest raw/ü_vv.tif -o s.zarr",
     ["ingest raw/ü_vv.tif -o s.zarr --id lake"]),
    ("Ingest one of them with --id", [], "ingest raw/a_vv.tif raw/twin/a_vv.tif -o s.zarr",
     [f"{A}; ingest raw/twin/a_vv.tif -o s.zarr --id b"]),
    ("Ingest one of them with --id", [], "ingest raw/g_vv.tif raw/g_VV.tiff -o s.zarr",
     ["ingest raw/g_vv.tif -o s.zarr; ingest raw/g_VV.tiff -o s.zarr --id h"]),
    ("Ingest one of them with --id", [], "ingest raw/g_vv.tif raw/g_vh.tif -o s.zarr",
     ["ingest raw/g_vv.tif -o s.zarr; ingest raw/g_vh.tif -o s.zarr --id h"]),
    ("Say what they are with --quantity and --representation", [], "ingest raw/odd.tif -o s.zarr",
     ["ingest raw/odd.tif -o s.zarr --quantity sigma0 --representation db", f"{A} --layer odd=raw/odd.tif"]),
    ("Store the raster as it is with --layer NAME=FILE", [], "ingest raw/phase.tif -o s.zarr --representation power",
     [f"{A} --layer phase=raw/phase.tif"]),
    ("or ingest them again with --layer", [f"{A} raw/b_vv.tif --layer mask=raw/mask.tif"], MASK,
     [reader("layers=['mask'], scenes=sz.open_store('s.zarr').scenes_with('mask')"),
      f"ingest raw/b_vv.tif -o s.zarr --layer mask=raw/mask_b.tif --replace; {MASK}"]),
    ("or ingest it with one: --layer", [f"{A} --layer mask=raw/mask.tif"], PADDED,
     [reader("layers=['mask'], edge='shift'"), reader("layers=['mask'], edge='drop'"),
      f"{A} --layer mask:nodata255=raw/mask.tif --replace; {PADDED}"]),
    ("or convert the files and ingest them again with --replace",
     [f"{A} --layer mask=raw/mask.tif", "ingest raw/b_vv.tif -o s.zarr --layer mask=raw/mask_b16.tif"],
     MASK,
     [reader("layers=['mask'], scenes=['a']"),
      f"ingest raw/b_vv.tif -o s.zarr --layer mask=raw/mask_b.tif --replace; {MASK}"]),
    ("Pass nodata= (--layer NAME:nodata255=FILE)", [], f"{A} --layer mask=raw/part.tif",
     [f"{A} --layer mask:nodata255=raw/part.tif"]),
    ("Say --site 'lake_2019*=lake'", [FOUR], f"{SPLIT} --site lake", [f"{SPLIT} --site 'a*=lake'"]),
    ("Pass -o STORE, or --check to check the files", [], "import npy raw/arch/metadata.npy",
     ["import npy raw/arch/metadata.npy -o s.zarr", "import npy raw/arch/metadata.npy --check"]),
    ("Say --representation normalized, db or power", [], "import npy raw/plain -o s.zarr",
     ["import npy raw/plain -o s.zarr --representation normalized --vmin -25 --vmax 5",
      "import npy raw/plain -o s.zarr --representation db", "import npy raw/plain -o s.zarr --representation power"]),
    ("Say --vmin and --vmax", [], "import npy raw/plain -o s.zarr --representation normalized",
     ["import npy raw/plain -o s.zarr --representation normalized --vmin -25 --vmax 5"]),
    ("Say what they are with --representation db or power", [],
     "import npy raw/dbs -o s.zarr --representation normalized --vmin -25 --vmax 5",
     ["import npy raw/dbs -o s.zarr --representation db"]),
    ("Bring them into a store with `sarzarr import npy --representation db`", [],
     ("PY from sarzarr.ingestion.archives import npy, rows as r; "
     "r.ArchivePatches(npy.read_one('raw/dbs/a.npy')).read([0])"),
     ["import npy raw/dbs -o s.zarr --representation db"]),
    ("Say --masks valid or invalid", [], "import npy raw/masked -o s.zarr --representation power",
     ["import npy raw/masked -o s.zarr --representation power --masks valid"]),
    ("--val, --seed, --fresh and --notes were expected", ["import npy raw/arch/metadata.npy -o s.zarr"],
     "split create s.zarr --samples arch --by scene",
     ["split create s.zarr --samples arch --val 0.5 --seed 3 --notes first"]),
    ("import the set under another --name", ["import npz raw/one/signals/beep -o s.zarr"],
     "import npz raw/other/signals/beep -o s.zarr --replace",
     ["import npz raw/other/signals/beep -o s.zarr --name other"]),
    ("Name another with --name, or pass --replace", ["import chips raw/chips -o s.zarr"],
     "import chips raw/chips -o s.zarr",
     ["import chips raw/chips -o s.zarr --name b", "import chips raw/chips -o s.zarr --replace"]),
    ("Name another with --name.", [A, "import boxes raw/boxes.csv -o s.zarr --name chips"],
     "import chips raw/chips -o s.zarr", ["import chips raw/chips -o s.zarr --name b"]),
    ("Choose with --annotations", [], "import chips raw/both -o s.zarr",
     ["import chips raw/both -o s.zarr --annotations voc"]),
    ("Choose with --annotations", [], "import chips raw/chips -o s.zarr --annotations yolo",
     ["import chips raw/chips -o s.zarr --annotations voc"]),
    ("Leave --pixel-size out, or georeference it", [], "ingest raw/lake_vv.tif -o s.zarr --pixel-size 10",
     ["ingest raw/lake_vv.tif -o s.zarr"]),
    ("got none. Pass --pixel-size", [], f"{A} --crs EPSG:32632", [f"{A} --crs EPSG:32632 --pixel-size 20"]),
    (". Pass --pixel-size 0.0001", [], f"{A} --crs EPSG:4326 --pixel-size 10",
     [f"{A} --crs EPSG:4326 --pixel-size 0.0001", f"{A} --crs EPSG:32632 --pixel-size 10"]),
    ("Say which: --layer", [], f"{A} --layer mask=raw/two.tif", [f"{A} --layer mask:band1=raw/two.tif"]),
    ("Pass --crs and --pixel-size, or give it in the scene's own shape", [],
     "ingest raw/gcps_vv.tif -o s.zarr --layer mask=raw/mask.tif",
     ["ingest raw/gcps_vv.tif -o s.zarr --layer mask:nodata255=raw/mask.tif --crs EPSG:32633 --pixel-size 10",
      "ingest raw/gcps_vv.tif -o s.zarr --layer mask=raw/unplaced.tif"]),
    ("Name one of these with --label", [A], "import boxes raw/boxes.csv -o s.zarr --label nope",
     ["import boxes raw/boxes.csv -o s.zarr --label label", "import boxes raw/boxes.csv -o s.zarr"]),
    ("Pass --replace to write it anew, or --id to add it under another name", [A],
     "ingest raw/new/a_vv.tif -o s.zarr",
     ["ingest raw/new/a_vv.tif -o s.zarr --replace", "ingest raw/new/a_vv.tif -o s.zarr --id b"]),
    ("Pass --replace to write the layer anew", [f"{A} --layer mask=raw/mask.tif"], f"{A} --layer mask=raw/mask2.tif",
     [f"{A} --layer mask=raw/mask2.tif --replace", f"{A} --layer other=raw/mask2.tif"]),
    ("or add it under another name with --id", ["ingest raw/p_vv.tif raw/p_vh.tif -o s.zarr"],
     "ingest raw/p_vv.tif -o s.zarr --border 3 --replace",
     ["ingest raw/p_vv.tif raw/p_vh.tif -o s.zarr --border 3 --replace",
      "remove s.zarr p; ingest raw/p_vv.tif -o s.zarr --border 3",
      "ingest raw/p_vv.tif -o s.zarr --border 3 --id q"]),
    ("Pass --replace to change it", [A], f"{A} --border 3", [f"{A} --border 3 --replace"]),
    ("Leave out --bounds, or make another store", [f"{A} --bounds fixed --vmin -20 --vmax 0"],
     "ingest raw/b_vv.tif -o s.zarr --bounds fixed --vmin -30 --vmax 0",
     ["ingest raw/b_vv.tif -o s.zarr", "ingest raw/b_vv.tif -o t.zarr --bounds fixed --vmin -30 --vmax 0"]),
    ("decoded. Pass --memory 0.5GB", [], "ingest raw/block_vv.tif -o s.zarr --memory 360MB",
     ["ingest raw/block_vv.tif -o s.zarr --memory 0.5GB"]),
    (" or a smaller --shard,", [], "ingest raw/wide_vv.tif -o s.zarr --memory 420MB --shard 8192",
     ["ingest raw/wide_vv.tif -o s.zarr --memory 420MB --shard 2048"]),
    ("Name it with --scene", [A], "import boxes raw/no_scene.csv -o s.zarr",
     ["import boxes raw/no_scene.csv -o s.zarr --scene a"]),
    ("alone. Pass --crs with --pixel-size, or --grid like:SCENE, or leave --resampling out",
     ["ingest raw/p_vv.tif -o s.zarr"], f"{A} --resampling cubic",
     [f"{A} --resampling cubic --crs EPSG:32632 --pixel-size 20", f"{A} --resampling cubic --grid like:p", A]),
    ("Pass --crs with --pixel-size, or --grid like:SCENE, or leave --exact out",
     ["ingest raw/p_vv.tif -o s.zarr"], f"{A} --exact",
     [f"{A} --exact --crs EPSG:32632 --pixel-size 20", f"{A} --exact --grid like:p", A]),
    ("Pass --bounds fixed, or leave --bounds out", [], f"{A} --border 3 --bounds percentile",
     [f"{A} --border 3 --bounds fixed", f"{A} --border 3"]),
    ("the second anew with --grid like:", ["ingest raw/m_20200101_vv.tif raw/m_20200113_vv.tif -o s.zarr"],
     STACK.format("m"),
     [f"ingest raw/m_20200113_vv.tif -o s.zarr --grid like:m_20200101 --replace; {STACK.format('m')}"]),
    ("one anew with --crs, --pixel-size and --replace",
     ["ingest raw/gcps_20200101_vv.tif raw/gcps_20200113_vv.tif -o s.zarr"], STACK.format("gcps"),
     [f"{GCPS}; {STACK.format('gcps')}"]),
    ("or pass fresh=True (--fresh) to begin a new one", [FOUR, SPLIT], f"{SPLIT} --seed 7",
     [f"{SPLIT} --seed 7 --fresh"]),
    ("the same ground: --site '", ["ingest raw/lake_vv.tif raw/pond_vv.tif -o s.zarr"], SPLIT,
     [f"{SPLIT} --seed 43 --site lake=1 --site pond=2"]),
    ("Make some with `sarzarr split create STORE --folds 5`", [FOUR], reader(FOLD),
     [f"split create s.zarr --folds 2; {reader(FOLD)}"]),
    ("Name it: --site '", [FOUR], "split create s.zarr --by site --val 0.4",
     [f"split create s.zarr --by site --val 0.4 {SITES}", "split create s.zarr --by ground --val 0.4"]),
    ("give scenes of one place the same --site", [FOUR, "ingest raw/p_vv.tif -o s.zarr"],
     f"{SPLIT} --dry-run --seed SEED",
     [f"split create s.zarr --by site --val 0.4 {SITES} --site p=1", "split create s.zarr --by ground --val 0.4"]),
    ("Pass --method fixed, or leave --vmin out", [A], "bounds s.zarr --vmin -30",
     ["bounds s.zarr --vmin -30 --method fixed", "bounds s.zarr"]),
    ("Name another place with -o", [], "ingest raw/a_vv.tif -o raw/boxes.csv", [A]),
    ("or leave out --column.", [A], "import polygons raw/areas.json -o s.zarr --layer w --column half",
     ["import polygons raw/areas.json -o s.zarr --layer w",
      "import polygons raw/areas.json -o s.zarr --layer w --column kind"]),
    ("Name one with --table", [A], "import polygons raw/areas.gpkg -o s.zarr --layer w",
     ["import polygons raw/areas.gpkg -o s.zarr --layer w --table two"]),
    ("Ingest it onto the ground first: --crs EPSG:CODE", ["ingest raw/gcps_vv.tif -o s.zarr"],
     "import polygons raw/areas.json -o s.zarr --layer w",
     [f"{ONTO_GROUND}; import polygons raw/areas.json -o s.zarr --layer w"]),
    ("Shares of a layer are columns when they have been found", [f"{A} --layer mask=raw/mask.tif"],
     "PY sz.open_store('s.zarr').patches(where='mask_fraction > 0.5')",
     ["index s.zarr --layer mask; PY sz.open_store('s.zarr').patches(where='mask_fraction > 0.5')"]),
    ("(--crs and --pixel-size georeference it)", [], "ingest raw/gcps_vv.tif -o s.zarr",
     ["ingest raw/gcps_vv.tif -o t.zarr --crs EPSG:32633 --pixel-size 10"]),
    ("expected a number of pixels or noise", [], f"{A} --border few", [f"{A} --border 3"]),
    ("Leave out the grid, or say how many pixels are border with --border N", [],
     f"{A} --border noise --crs EPSG:32632 --pixel-size 20", [f"{A} --border 3 --crs EPSG:32632 --pixel-size 20"]),
    ("or say how many pixels with --border N", [], f"{A} --border noise", [f"{A} --border 3"]),
    ("expected calibrated backscatter with --denoise", [], f"{A} --denoise --calibrate none",
     [f"{A} --calibrate none"]),
    ("expected digital numbers to calibrate", [], f"{A} --calibrate sigma0", [A]),
    ("or leave out --calibrate and --denoise", [], "ingest raw/dn_vv.tif -o s.zarr --calibrate sigma0",
     ["ingest raw/dn_vv.tif -o s.zarr"]),
    ("or leave out --annotation", [], f"{A} --annotation incidence_angle", [A]),
    ("got it by --layer and --annotation", [],
     f"{A} --annotation incidence_angle --layer incidence_angle=raw/mask.tif",
     [f"{A} --layer incidence_angle=raw/mask.tif"]),
    ("Convert them, or pass --annotations none", [], "import chips raw/texts -o s.zarr",
     ["import chips raw/texts -o s.zarr --annotations none"]),
    ("Give the folder of both, or pass --annotations none", [], "import chips raw/others -o s.zarr",
     ["import chips raw/others -o s.zarr --annotations none"]),
    ("Pass --leave-unmatched to leave these out", [], "import chips raw/partly -o s.zarr",
     ["import chips raw/partly -o s.zarr --leave-unmatched"]),
    ("Choose another with --name.", [A], "import boxes raw/boxes.csv -o s.zarr --name rotated",
     ["import boxes raw/boxes.csv -o s.zarr --name ships"]),
    ("Check that they are in pixels of these pictures, or pass --annotations none", [],
     "import chips raw/outside -o s.zarr", ["import chips raw/outside -o s.zarr --annotations none"]),
    ("of a scene's date, got none", [], "ingest raw/m_20200101_vv.tif -o s.zarr --layer mask=raw/mask_20200113.tif",
     ["ingest raw/m_20200101_vv.tif -o s.zarr --layer mask:static=raw/mask_20200113.tif"]),
    ("which is of one date, got", [],
     "ingest raw/m_20200113_vv.tif raw/a_vv.tif -o s.zarr --layer mask:nodata255=raw/mask_20200113.tif",
     ["ingest raw/m_20200113_vv.tif raw/a_vv.tif -o s.zarr --layer mask:nodata255:static=raw/mask_20200113.tif"]),
    ("--layer brings it there", [], "ingest raw/grid -o s.zarr",
     ["ingest raw/grid/grid_vv.tif -o s.zarr --layer dem=raw/grid/grid_dem.tif"]),
    ("--layer says its nodata", [], "ingest raw/fill -o s.zarr",
     ["ingest raw/fill/fill_vv.tif -o s.zarr --layer dem:nodata-9999=raw/fill/fill_dem.tif"]),
    ("--layer keeps it as it is", [], "ingest raw/unit -o s.zarr",
     ["ingest raw/unit/unit_vv.tif -o s.zarr --layer inc=raw/unit/unit_inc.tif"]),
    ("--layer says of which", [], "ingest raw/whose -o s.zarr",
     ["ingest raw/whose/lake_vv.tif -o s.zarr --layer dem=raw/whose/dem.tif"]),
    ("Say how many pixels are border with --border N", [], "ingest raw/old -o s.zarr --border noise",
     ["ingest raw/old -o s.zarr --border 3"]),
    ("Leave out --annotation.", [], "ingest raw/steep -o s.zarr --annotation incidence_angle",
     ["ingest raw/steep -o s.zarr"]),
    (" --from FILES`", [A, SHORT], "verify s.zarr", ["verify s.zarr --repair a --from raw/a_vv.tif"]),
    ("among the files given with --from", [A, SHORT], "verify s.zarr --repair",
     ["verify s.zarr --repair --from raw/a_vv.tif"]),
    ("--repair`. Or seal what was changed on purpose", [A, OTHER], "verify s.zarr",
     ["verify s.zarr --repair", "verify s.zarr --accept"]),
    ("sarzarr verify STORE --accept", [A, OTHER], "info s.zarr", ["verify s.zarr --accept; info s.zarr"]),
    ("--repair`.", [A, GONE.format("patches")], "verify s.zarr", ["verify s.zarr --repair"]),
    (" --from FOLDER`", ["import chips raw/chips -o s.zarr", GONE.format("samples/chips/image/c")], "verify s.zarr",
     ["verify s.zarr --repair --from raw/chips"]),
    ("the folder of its pictures was expected with --from",
     ["import chips raw/chips -o s.zarr", GONE.format("samples/chips/image/c")], "verify s.zarr --repair",
     ["verify s.zarr --repair --from raw/chips"]),
    (" --replace`", ["import chips raw/chips -o s.zarr", GONE.format("samples/chips/image/c")], "verify s.zarr",
     ["import chips raw/chips -o s.zarr --name chips --replace; verify s.zarr",
      "verify s.zarr --repair --from raw/chips"]),
    ("import boxes FILE -o ", [A, "import boxes raw/boxes.csv -o s.zarr", GONE.format("boxes/default")],
     "verify s.zarr", ["import boxes raw/boxes.csv -o s.zarr --name default; verify s.zarr"]),
    ("--method percentile`, or another method", [A, ANOTHER_ROOT], "verify s.zarr",
     ["bounds s.zarr --method percentile; verify s.zarr"]),
    ("--accept alone was expected", [A], "verify s.zarr --accept --deep",
     ["verify s.zarr --accept", "verify s.zarr --deep"]),
    ("Pass --repair, or leave --from out", [A], "verify s.zarr --from raw/a_vv.tif",
     ["verify s.zarr --repair --from raw/a_vv.tif", "verify s.zarr"]),
    ("that it was made of are given with --from", [A], "verify s.zarr raw/a_vv.tif",
     ["verify s.zarr --repair --from raw/a_vv.tif"]),
    ("Leave out --crs to keep its own grid", [],
     "ingest raw/across_vv.tif -o s.zarr --crs EPSG:32660 --pixel-size 30",
     ["ingest raw/across_vv.tif -o s.zarr"]),
    ("Ingest it with --crs and --pixel-size.", [A, "ingest raw/gcps_vv.tif -o s.zarr"],
     "table s.zarr a gcps -o x.parquet",
     ["ingest raw/gcps_vv.tif -o s.zarr --id p --crs EPSG:32633 --pixel-size 10; table s.zarr a p -o x.parquet"]),
    ("Ingest it onto them: --grid like:", [A, "ingest raw/m_20200113_vv.tif -o s.zarr"],
     "table s.zarr a m_20200113 -o x.parquet",
     ["ingest raw/m_20200113_vv.tif -o s.zarr --grid like:a --id m; table s.zarr a m -o x.parquet"]),
    ("Ingest one of them with --id", [A, "ingest raw/p_vv.tif -o s.zarr --layer a_vv=raw/mask.tif"],
     "table s.zarr a p -o x.parquet",
     ["ingest raw/a_vv.tif -o s.zarr --id other; table s.zarr other p -o x.parquet"]),
    ("Name the new one with --id", ["ingest -o s.zarr --layer n=raw/mask.tif --id a"], A,
     ["ingest raw/a_vv.tif -o s.zarr --id second", f"remove s.zarr a; {A}"]),
    ("Pass --id with", [], "ingest -o s.zarr --layer n=raw/mask.tif --layer n=raw/mask_b.tif --id x",
     ["ingest -o s.zarr --layer n=raw/mask.tif --layer n=raw/mask_b.tif --id x_{name}",
      "ingest -o s.zarr --layer n=raw/mask.tif --layer n=raw/mask_b.tif"]),
    ("expected scenes for --", [], "ingest -o s.zarr --layer n=raw/mask.tif --quantity sigma0",
     ["ingest -o s.zarr --layer n=raw/mask.tif",
      "ingest raw/a_vv.tif -o s.zarr --layer n=raw/mask.tif --quantity sigma0"]),
    ("--bounds-crs needs --bounds", [A], "patches s.zarr --bounds-crs EPSG:32633",
     ["patches s.zarr --bounds-crs EPSG:32633 --bounds 500000,5390000,510000,5400000", "patches s.zarr"]),
    ("Say the CRS beside them", [A], "patches s.zarr --bounds 500000,5390000,510000,5400000",
     ["patches s.zarr --bounds 500000,5390000,510000,5400000 --bounds-crs EPSG:32633"]),
    ("or where=\"geolocation != 'none'\"", [f"{A} raw/lake_vv.tif"], "patches s.zarr --bounds=14,48,16,49",
     ["patches s.zarr --bounds=14,48,16,49 --where \"geolocation != 'none'\""]),
    ("or where=\"time != ''\"", [f"{A} raw/m_20200113_vv.tif"], "patches s.zarr --time 2020",
     ["patches s.zarr --time 2020 --where \"time != ''\""]),
    ("or pass area='pixels'", [f"{A} raw/lake_vv.tif"],
     "patches s.zarr --crops random --patch-size 64 --area ground",
     ["patches s.zarr --crops random --patch-size 64 --area pixels",
      "patches s.zarr --crops random --patch-size 64 --area ground --where \"geolocation != 'none'\""]),
    ("Ingest backscatter with `sarzarr ingest FOLDER --collection", [], "import chips raw/tiles -o s.zarr", [TILES]),
    ("beside --collection, got others", [TILES], f"{SIDES} --by scene", [SIDES]),
    ("are of chips, got no --collection", [TILES], f"{SPLIT} --balance label", [f"{SIDES} --group-by ^([^_]+)_"]),
    ("were expected with --collection, got others", [TILES], "export s.zarr site0_0 o.tif --collection t --looks 4",
     ["export s.zarr site0_0 o.tif --collection t --arrays vv"]),
    ("which names show one ground: --group-by", [ADRIFT], SIDES, [f"{SIDES} --group-by ^([^_]+)_"]),
    ("Mend --group-by", [TILES], f"{SIDES} --group-by lake", [f"{SIDES} --group-by ^(site.)_"]),
    ("or pass fresh=True (--fresh) to begin a new one beside it", [TILES, SIDES],
     "split create s.zarr --collection t --val 0.25", ["split create s.zarr --collection t --val 0.25 --fresh"]),
    ("sarzarr split create STORE --collection", [TILES], CHIPS.format("split='train'"),
     [f"{SIDES}; {CHIPS.format(TRAIN)}"]),
    ("--folds", [TILES, SIDES], CHIPS.format("split='fold0:train'"),
     [f"split create s.zarr --collection t --folds 2 --fresh; {CHIPS.format(FOLD)}"]),
    ("sarzarr import labels FILE -o STORE --collection", [TILES], CHIPS.format("labels='kinds'"),
     [f"import labels raw/kinds.csv -o s.zarr --collection t --name kinds; {CHIPS.format(KINDS)}"]),
    ("sarzarr import boxes FILE -o STORE --collection", [TILES], CHIPS.format("boxes=True"),
     [f"{DRAWN} --leave-unmatched; {CHIPS.format('boxes=True')}"]),
    ("or pass --leave-unmatched (leave_unmatched=True)", [TILES], DRAWN, [f"{DRAWN} --leave-unmatched"]),
    ("or choose with --annotations", [TILES], f"{DRAWN} --annotations coco --leave-unmatched",
     [f"{DRAWN} --annotations csv --leave-unmatched"]),
    ("boxes on chips were expected, got --scene", [TILES], f"{DRAWN} --leave-unmatched --scene a",
     [f"{DRAWN} --leave-unmatched"]),
    ("(--multi) in a set of another name", [TILES, f"{LABELS}"], f"{LABELS} --column both",
     [f"{LABELS} --column both --multi --name both"]),
    ("which: --column", [TILES], "import labels raw/numbers.csv -o s.zarr --collection t",
     ["import labels raw/numbers.csv -o s.zarr --collection t --column kind"]),
    ("goes in with --layer NAME=FILE", [], "ingest -o s.zarr", ["ingest -o s.zarr --layer n=raw/mask.tif"]),
]  # fmt: skip


@pytest.fixture
def run(raw, tmp_path, monkeypatch, capsys):
    """Return a function that carries out a command line, or Python after ``PY``: (is it done, its words)."""

    def call(line):
        if line.startswith("table"):
            pytest.importorskip("pyarrow", reason="pyarrow is not installed (sarzarr[table])")
        if ".gpkg" in line:
            pytest.importorskip("pyogrio", reason="pyogrio is not installed (sarzarr[vector])")
        if line.startswith("PY "):
            try:
                exec(line[3:], {"sz": sz})
            except sz.errors.SarzarrError as error:
                return False, str(error)
            return True, ""
        monkeypatch.setattr(sys, "argv", ["sarzarr", *shlex.split(line)])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return not stop.value.code, said.out + said.err

    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").symlink_to(raw)
    return call


CASES = [
    pytest.param(*row[:3], remedy, id=f"{number}.{which}")
    for number, row in enumerate(ROWS)
    for which, remedy in enumerate(row[3])
]


@pytest.mark.slow
@pytest.mark.parametrize(("part", "before", "refused", "remedy"), CASES)
def test_a_remedy_works(run, part, before, refused, remedy):
    for line in before:
        done, said = run(line)
        assert done, said
    seeds = range(20) if "SEED" in refused else [0]
    answers = [run(refused.replace("SEED", str(seed))) for seed in seeds]
    said = next((said for _, said in answers if part in said), None)
    assert said, answers
    for line in remedy.split("; "):
        done, said = run(line)
        assert done, said
        assert part not in said


ELSEWHERE = {
    "keep its digital numbers with --calibrate none": "ingestion/test_safe.py",
    "Leave out --denoise": "ingestion/test_safe.py",
    "fewer --workers, or `dask worker --memory-limit`": "tasks/test_schedulers.py",
    "seal what was changed on purpose with": "store/test_seals.py",
    "Say how many pixels are border instead with --border N": "ingestion/test_safe.py",
    "Pass --replace to write it anew": "ingestion/test_companions.py",
    "give their value with --nodata and --replace": "ingestion/test_ingest_measured.py",
    "Name another: --layer NAME:nodataVALUE=FILE": "ingestion/test_ingest_measured.py",
    "or pass --replace, which loses them": "ingestion/test_waiting.py",
    "Make room, or pass --ignore-space": "ingestion/test_waiting.py",
    "Say what they are with --representation, or write them as power or dB": "scenes/test_measured.py",
    "Write --clip=-25,5": "cli/test_exit_codes.py",
    "Predict it again (--overwrite)": "prediction/test_predicting.py",
    "Pass overwrite=True (--overwrite) to replace it": "prediction/test_predicting.py",
    "and name it: --model module:function": "prediction/test_models.py",
    "Ingest it as a scene: --scenes": "ingestion/test_collections.py",
    "Leave it out, or ingest scenes with --scenes": "ingestion/test_collections.py",
    "has in its name. Check it with --dry-run": "ingestion/test_collections.py",
    "keep them with --layer NAME=": "ingestion/test_collections.py",
    ". Name another with --collection": "ingestion/test_collections.py",
    "collection of their own with --collection NAME": "ingestion/test_collections.py",
    "Put it into a collection of its own with --collection NAME": "ingestion/test_collections.py",
    "Look at the file; say what it is with --representation": "ingestion/test_collections.py",
    "as of its other files, got": "ingestion/test_collections.py",
    "Give each a collection of its own with --collection NAME": "ingestion/test_collections.py",
    "of the archive into another one, with --collection": "ingestion/test_chips_again.py",
    "do not have. Keep it with --layer NAME=PATTERN": "ingestion/test_chips_again.py",
    "Give one pattern or folder that all of its files are in": "ingestion/test_chips_again.py",
    "`sarzarr remove ... --collection": "ingestion/test_chips_again.py",
    "`sarzarr ingest FOLDER -o ... --collection": "ingestion/test_chips_again.py",
    "Import their annotations again: sarzarr import boxes FILE": "ingestion/test_chip_boxes.py",
}
"""Parts of messages whose remedies are followed in another test."""
UNREACHED = {
    "or begin a new split with fresh=True (--fresh)",
    "split extend STORE --collection",  # which splits/test_chip_splits.py follows in Python
}
"""Parts of messages whose remedies no test follows."""


def messages():
    """Yield every text of the package that names an option of the command line: no docstring, no help."""
    for path in sorted(PACKAGE.rglob("*.py")):
        nodes, seen = [*ast.walk(ast.parse(path.read_text()))], set()
        for node in nodes:
            is_help = isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Option", "Argument")
            is_constant = isinstance(node, ast.AnnAssign) and str(getattr(node.target, "id", "")).endswith(
                "_HELP"
            )
            is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if is_help or is_constant or is_docstring:
                seen |= {id(inner) for inner in ast.walk(node)}
        for node in (node for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant)):
            inner = [node] if id(node) not in seen else []
            inner = [one for one in ast.walk(node) if isinstance(one, ast.Constant)] if inner else []
            seen |= {id(one) for one in inner}
            text = "...".join(str(one.value) for one in inner)
            if re.search(r"(?<![\w-])--[a-z]", text) and not re.fullmatch(r"--[a-z]+", text):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", text


def test_every_message_that_names_an_option_has_a_row():
    parts = {re.split(r"\d| NAME$", row[0])[0] for row in ROWS} | UNREACHED | ELSEWHERE.keys()
    said = [*messages()]
    assert not [f"{place}: {text}" for place, text in said if not any(part in text for part in parts)]
    unsaid = [part for part in UNREACHED | ELSEWHERE.keys() if not any(part in text for _, text in said)]
    assert not unsaid
