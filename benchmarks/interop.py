"""Who reads what: opens a store of every kind with other tools, without sarzarr, and prints a table (Markdown).

Each tool runs in a temporary virtual environment with exactly these versions, which this script makes; a store's
values, masks and places as sarzarr reads them are the truth. `make interop` writes docs/interop.md.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin

import sarzarr as sz
from sarzarr import conventions as cv

HERE = Path(__file__).parent
SHAPE = (600, 700)
PINNED = ("xarray", "zarr", "dask[array]", "rioxarray", "rasterio", "tensorstore", "odc-geo")
"""Installed in the versions of constraints.txt, with the Python that runs this."""
NEWEST = (
    *("numpy==2.5.5", "xarray==2026.9.0", "zarr==3.4.2", "numcodecs==0.17.1", "dask[array]==2026.8.0"),
    *("rioxarray==0.23.0", "rasterio==1.5.2", "pyproj==3.8.0", "tensorstore==0.1.86", "odc-geo==0.5.3"),
    *("rio-tiler==9.4.12", "titiler.xarray==2.4.0", "obstore==0.12.1", "obspec-utils==0.9.0"),
    *(
        "icechunk==2.3.0",
        "virtualizarr==2.8.0",
        "zarrs==0.2.3",
        "rasterix==0.2.4",
        "xproj==0.2.1",
        "arro3-core==0.9.1",
    ),
)
"""Installed with the newest Python that is found."""
GDAL = ("gdal-wheel==3.13.3", "numpy==2.5.5")
ZARRITA = ("zarrita@0.7.5", "@zarrita/storage@0.2.0")
OF_XARRAY = ("xarray", "xarray, Dask", "xarray, datatree", "rioxarray", "rioxarray, a part", "odc-geo")
ROWS = {
    "pinned": (*OF_XARRAY, "zarr-python", "tensorstore", "GDAL of rasterio"),
    "newest": (
        *(
            *OF_XARRAY,
            "rasterix",
            "zarr-python",
            "zarr-python, fused pipeline",
            "zarrs pipeline of zarr-python",
        ),
        *("obstore, ObjectStore", "tensorstore", "VirtualiZarr", "icechunk, copied", "icechunk, virtual"),
        *("rio-tiler", "titiler-xarray", "GDAL of rasterio", "zarrita (node)"),
    ),
    "gdal": ("GDAL of osgeo",),
}


# ------------------------------------------------------------------ stores, and the truth of them
def write(path, values, *, nodata=None, **place):
    options = {"driver": "GTiff", "height": SHAPE[0], "width": SHAPE[1], "count": 1, "dtype": values.dtype}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", nodata=nodata, tiled=True, blockxsize=256, blockysize=256, **options, **place
    ) as out:
        out.write(values, 1)
    return path


def write_rasters(folder):
    """Write a raster of every kind; return the settings of layers.

    A part was not measured, but of ``floor``, where a whole chunk inside is exactly 0.
    """
    rng = np.random.default_rng(0)
    corner = from_origin(500_000, 5_400_000, 10, 10)
    gcps = [
        GroundControlPoint(r, c, 500_000 + 10 * c, 5_400_000 - 10 * r) for r in (0, 599) for c in (0, 699)
    ]
    here = {"crs": "EPSG:32633", "transform": corner}
    dates = [
        f"S1A_IW_GRDH_1SDV_{day}T053000_{day}T053025_{orbit}_0693B1_1A2B" for day, orbit in DATES.items()
    ]
    turned = {"crs": "EPSG:32633", "transform": corner * rasterio.Affine.rotation(20)}
    kinds = {"plain": here, "floor": here, "rotated": turned, "gcps": {"gcps": gcps, "crs": "EPSG:32633"}}
    for kind, place in {**kinds, "nowhere": {}, **dict.fromkeys(dates, here)}.items():
        power = rng.gamma(4.4, 0.05 / 4.4, SHAPE).astype(np.float32)
        power[256:512, 256:512] = 0
        if kind != "floor":
            power[:300, :280] = np.nan
        write(folder / "raw" / f"{kind}_vv.tif", power, nodata=math.nan, **place)
    classes = rng.integers(0, 4, SHAPE).astype(np.uint8)
    heights = rng.normal(0, 40, SHAPE).astype(np.float32)
    classes[200:250, 100:160], heights[90:140, :200] = 255, -9999
    write(folder / "classes.tif", classes, nodata=255, **here)
    write(folder / "dem.tif", heights, nodata=-9999, **here)
    for name, shape in (("a", (300, 200)), ("b", (120, 310))):
        chip = rng.integers(0, 256, shape).astype(np.uint8)
        options = {"driver": "PNG", "count": 1, "dtype": "uint8", "height": shape[0], "width": shape[1]}
        (folder / "chips").mkdir(exist_ok=True)
        with rasterio.open(folder / "chips" / f"{name}.png", "w", **options) as out:
            out.write(chip, 1)
    return {"classes": folder / "classes.tif", "dem": folder / "dem.tif"}


DATES = {"20260101": "057200", "20260113": "057375"}


def make_cases(folder, **options):
    """Make the stores of one layout and return its cases, whose truth is written beside: of each kind one."""
    label = "-".join(map(str, options.values())) or "sharded"
    layers = write_rasters(folder)
    settings = {"quantity": "sigma0", "representation": "power", "shard": 512} | options
    raw = sorted((folder / "raw").glob("*.tif"))
    store = sz.ingest(sz.plan_ingest(raw, folder / f"{label}.zarr", layers=layers, **settings))
    floats = sz.ingest(
        sz.plan_ingest(
            folder / "raw/plain_vv.tif", folder / f"{label}-float32.zarr", dtype="float32", **settings
        )
    )
    samples, _ = sz.import_chips(folder / "chips", store)
    dates = [scene for scene in store.scenes if scene.startswith("S1A")]
    cases = []

    def case(kind, nodes, truth, grid=None, extent=None, of=store):
        file = f"{label}-{kind.replace(' ', '-')}.npy"
        np.save(folder / file, np.asarray(truth, np.float64))
        crs = grid.crs_wkt if grid else None
        cases.append(
            {
                "kind": kind,
                "store": of.root.name,
                "nodes": nodes,
                "truth": file,
                "range": extent,
                "epsg": rasterio.crs.CRS.from_wkt(crs).to_epsg() if crs else None,
                "affine": list(grid.transform)[:6] if crs else None,
            }
        )

    db = cv.STORED_RANGE
    for kind in ("plain", "floor", "gcps", "rotated", "nowhere"):
        case(kind, [f"scenes/{kind}/vv"], store.db(kind, "vv"), store.grid(kind), db)
    case("float32", ["scenes/plain/vv"], floats.db("plain", "vv"), floats.grid("plain"), db, floats)
    opened, grid = store.open_scene("plain"), store.grid("plain")
    classes = np.where(opened.classes == 255, np.nan, opened.classes)
    case("classes", ["scenes/plain/classes"], classes, grid)
    case("dem", ["scenes/plain/dem"], opened.dem, grid)
    case("flags", ["scenes/plain/vv_flags"], opened.vv_flags, grid)
    cube = sz.open_stack(store, scenes=dates).vv_db
    case("stack", [f"scenes/{scene}/vv" for scene in cube.scene.values], cube, store.grid(dates[0]), db)
    layout = samples.layout
    pictures = np.full((len(samples), layout.height, layout.width), np.nan)
    for i in range(len(samples)):
        image = samples.image(i)
        pictures[i, : image.shape[0], : image.shape[1]] = image
    case("samples", [f"{samples.key}/image"], pictures)
    return cases


# ------------------------------------------------------------------ environments
def make_environment(folder, python, requirements, *options):
    """Make a virtual environment; return its Python, or raise with what pip said."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run = subprocess.run(
        [*pip, "--only-binary=:all:", *options, *requirements], capture_output=True, text=True, check=False
    )
    if run.returncode:
        errors = [line for line in run.stderr.splitlines() if line.startswith("ERROR")]
        raise RuntimeError(errors[-1] if errors else run.stderr[-200:])
    return folder / "bin" / "python"


def with_zarrita(folder):
    """Install zarrita beside the script that reads with it; return why not, or None."""
    if not shutil.which("node") or not shutil.which("npm"):
        return "no node"
    (folder / "zarrita").mkdir()
    shutil.copy(HERE / "zarrita.mjs", folder / "zarrita" / "read.mjs")
    install = [
        "npm",
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--prefix",
        folder / "zarrita",
        *ZARRITA,
    ]
    run = subprocess.run(install, capture_output=True, text=True, check=False)
    return None if run.returncode == 0 else f"npm: {(run.stderr or run.stdout).strip()[-80:]}"


def row_of(python, folder, name, layout):
    """Return what a tool made of every case, in a process of its own."""
    alone = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [python, "-P", HERE / "interop_tools.py", folder, name, layout]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=alone, timeout=600)
    if run.returncode:
        raise RuntimeError(
            run.stderr.strip().splitlines()[-1] if run.stderr.strip() else f"exit {run.returncode}"
        )
    return json.loads(run.stdout.splitlines()[-1])


# ------------------------------------------------------------------ the page
def cell(text, reasons):
    if text in ("same", ""):
        return text or "-"
    return f"no ({reasons.setdefault(text, len(reasons) + 1)})"


def rows_of(environment, python, folder, reasons, kinds, without_node):
    """Yield the table's lines of one environment."""
    for name in ROWS[environment]:
        for layout in ("sharded", "no shards") if name == "GDAL of rasterio" else ("sharded",):
            shown = f"{name}, `--no-shards`" if layout != "sharded" else name
            try:
                if name.startswith("zarrita") and without_node:
                    raise RuntimeError(without_node)
                row = row_of(python, folder, name, layout)
            except (RuntimeError, subprocess.SubprocessError) as error:
                yield not_tried(shown, error, kinds)
                continue
            cells = " | ".join(cell(row["cells"].get(kind, ""), reasons) for kind in kinds)
            yield f"| {shown} | {row['version']} | {row['tells']} | {cells} |"


def not_tried(name, why, kinds):
    return f"| {name} | not tried: {str(why).replace('|', '/')} |" + " |" * (1 + len(kinds))


def table_of(environment, python, requirements, folder, cases, reasons, without_node):
    """Return the heading and the table of one environment."""
    kinds = [case["kind"] for case in cases["sharded"]]
    try:
        asked = subprocess.run([python, "--version"], capture_output=True, text=True, check=False)
        if asked.returncode:
            raise RuntimeError(f"no {python}")
        made = make_environment(folder / environment, python, *requirements)
        lines = list(rows_of(environment, made, folder, reasons, kinds, without_node))
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        lines = [not_tried(name, error, kinds) for name in ROWS[environment]]
    return lines


def main():
    warnings.simplefilter("ignore")
    newest = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = {"sharded": make_cases(folder), "no shards": make_cases(folder, shard=0)}
        cases["sharded"].append(cases["no shards"][0] | {"kind": "no shards"})
        (folder / "cases.json").write_text(json.dumps(cases))
        kinds = [case["kind"] for case in cases["sharded"]]
        without_node, reasons = with_zarrita(folder), {}
        pins = ("--constraint", HERE.parent / "constraints.txt")
        plans = {
            "pinned": (sys.executable, (PINNED, *pins)),
            "newest": (newest, (NEWEST,)),
            "gdal": (newest, (GDAL,)),
        }
        lines = {
            environment: table_of(environment, python, requirements, folder, cases, reasons, without_node)
            for environment, (python, requirements) in plans.items()
        }
    header = f"| tool | version | tells | {' | '.join(kinds)} |\n" + "|---" * (3 + len(kinds)) + "|"
    pinned, latest = "\n".join(lines["pinned"]), "\n".join([*lines["newest"], *lines["gdal"]])
    why = "\n".join(f"{n}. {text}" for text, n in reasons.items())
    print(PAGE.format(header=header, pinned=pinned, newest=latest, reasons=why), end="")
    return 0


PAGE = """# Who reads what

Made by `make interop`, from runs: each tool opens a store of every kind in an environment of its own, without
sarzarr, and what it makes of it is held against `Store.db`, `Store.open_scene`, `open_stack` and `open_samples`: the
shape, which pixels are valid, every value (and so the mean; of backscatter in dB, to 0.001) and, of what has a place
and of tools that tell one, CRS and transform. "same" is all of that; "no (n)" is reason n below; "-" is not asked.

| kind | what it is |
|---|---|
| plain | a scene in dB with nodata at its edge and pixels at the floor |
| floor | one that is all valid, with a chunk at the floor |
| gcps, rotated, nowhere | ground control points alone; an affine that is turned; no CRS |
| float32 | a store of floats |
| classes, dem, flags | layers of integers and of floats with nodata, and `vv_flags` |
| stack | the scenes of two dates, against the cube of `open_stack` |
| samples | pictures of two sizes, padded |
| no shards | plain, written with `--no-shards` |

## Pinned versions

{header}
{pinned}

## Newest versions

{header}
{newest}

{reasons}

## To know

- **Overviews** ([overviews.md](overviews.md)): titiler-xarray serves tiles of a level
  (`group=overviews/SCENE/LEVEL`, `variable=vv`).
- **Integers have no `_FillValue`** (classes, flags, samples), so that xarray gives them as they are. The value to
  leave out, where there is one, is `nodata` in the attributes; rioxarray knows it as `.rio.nodata`. xarray's
  `use_zarr_fill_value_as_mask=True` would be another way, but it is dropped on the way to the Zarr backend
  ([a finding](../findings/xarray-drops-the-zarr-fill-mask.sh)).
- **GDAL before 3.13 knows no shards**: for it a store is written, or copied, with `--no-shards`. Samples are always
  in shards. Of a rotated scene it has the CRS and takes pixel positions for its place, without a word.
- **Rotated scenes**: `isel` leaves the affine in `spatial_ref` as it was, so that rioxarray places a part where the
  whole begins; `rio.isel_window` moves it along. rio-tiler, and so titiler, refuse them: ingest with `--crs`.
- **Without a CRS** titiler takes pixel positions for longitude and latitude, and refuses those beyond the earth.
- "rioxarray, a part" is every second pixel of a part: `isel(y=slice(100, None, 2), x=slice(50, None, 2))`.
- napari and QGIS are not in the table: the one shows pixels and states no mask, the other has no wheel (it reads
  through GDAL).
"""

if __name__ == "__main__":
    sys.exit(main())
