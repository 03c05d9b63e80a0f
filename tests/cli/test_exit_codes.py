"""Every command ends with the code that its documentation says: 0 done, 1 nothing, 2 usage, 3 partly, 4 damage."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from archives import products, write_archive
from chip_folders import chip_folder
from conftest import speckle, write_band
from polygons import feature, write_geojson
from rasterio import Affine
from scans import lattice
from spectrogram_folders import PICTURE, add_sample
from typer.main import get_command

import sarzarr as sz
from sarzarr.cli import app, main
from sarzarr.errors import Exit
from sarzarr.ingestion.archives.patches import PatchOptions

COMMANDS = {
    "identify": "identify a_vv.tif",
    "ingest": "ingest a_vv.tif -o STORE --representation power",
    "demo": "demo --folder . --size 512",
    "remove": "remove STORE a",
    "clean": "clean STORE",
    "copy": "copy STORE copy.zarr",
    "info": "info STORE",
    "verify": "verify STORE",
    "overview": "overview STORE",
    "stacks": "stacks STORE",
    "tree": "tree STORE a",
    "bounds": "bounds STORE",
    "quicklook": "quicklook STORE -o q.png",
    "report": "report STORE -o r.html",
    "table": "table STORE a -o x.parquet",
    "bench": "bench STORE --seconds 0.1 --crops --scale 0.5,1 --area ground",
    "predict": "predict STORE a --model own_code:same",
    "patches": "patches STORE --where mean_db>-90 --crops random --patch-size 64 --scale 0.5,2",
    "split create": "split create STORE --by scene --val 0.4",
    "split extend": "split extend STORE",
    "split list": "split list STORE",
    "split show": "split show STORE",
    "split pending": "split pending STORE",
    "split check": "split check STORE",
    "split export": "split export STORE split.json",
    "split import": "split import STORE v.json",
    "index": "index STORE --size 512 --edge pad",
    "import chips": "import chips chips -o STORE",
    "import npz": "import npz signals/beep -o STORE",
    "import npy": "import npy patches/metadata.npy -o STORE",
    "import ptychography": "import ptychography scan.npz -o STORE",
    "import boxes": "import boxes boxes.csv -o STORE",
    "import polygons": "import polygons areas.json -o STORE --layer water",
    "import split": "import split train.txt val.txt -o STORE --collection few",
    "import labels": "import labels kinds.csv -o STORE --collection few",
    "export geotiff": "export STORE a out.tif",
    "export detections": "export detections STORE boxes.json -o boxes.geojson",
    "export npz": "export npz STORE kept -o out",
    "export npy": "export npy STORE old -o out",
}
"""A line of each command that is carried out, in a folder as `place` makes it."""
AROUND = [[14.9, 48.6], [15.2, 48.6], [15.2, 48.8], [14.9, 48.8]]
STORES = [name for name, line in COMMANDS.items() if "STORE" in line]
PIXELS = ("copy", "overview", "quicklook", "table", "bench", "verify", "export geotiff", "predict", "report")
"""Commands that read pixels of a store."""


def every_command(group, before=""):
    for name, command in group.commands.items():
        path = f"{before} {name}".strip()
        yield from every_command(command, path) if hasattr(command, "commands") else [(path, command)]


def test_every_command_is_here_and_its_help_says_the_codes():
    commands = dict(every_command(get_command(app)))
    assert set(commands) == set(COMMANDS)
    texts = [get_command(app).epilog, *(command.epilog for command in commands.values())]
    assert all(str(text).startswith("Exit codes: 0 done; 1 nothing done; 2 usage") for text in texts)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a store of four scenes and a split, and all that the lines of `COMMANDS` name."""
    folder = tmp_path_factory.mktemp("made")
    files = [
        write_band(
            folder / f"{x}_vv.tif",
            speckle((600, 600), seed=i),
            transform=Affine(10, 0, 500_000 + 90_000 * i, 0, -10, 5_400_000),
        )
        for i, x in enumerate("abde")
    ]
    store = sz.ingest(sz.plan_ingest(files, folder / "s.zarr", representation="power"))
    chips = folder / "georeferenced"
    chips.mkdir()
    for i in range(2):
        where = Affine(10, 0, 500_000 + 900 * i, 0, -10, 5_300_000)
        write_band(chips / f"chip{i}_VV.tif", speckle((64, 64), seed=9 + i), transform=where)
    store = sz.ingest(sz.plan_ingest([chips], store.root, collection="few", representation="power"))
    names = [str(chip) for chip in sz.open_collection(store, "few").ids]
    (folder / "train.txt").write_text(names[0])
    (folder / "val.txt").write_text(names[1])
    (folder / "kinds.csv").write_text(f"name,label\n{names[0]},water\n{names[1]},land\n")
    images = [{"id": i, "file_name": f"{name}.tif"} for i, name in enumerate((names[0], "nobody"))]
    drawn = [{"image_id": 0, "category_id": 1, "bbox": [1, 1, 9, 9]}]
    document = {"images": images, "annotations": drawn, "categories": [{"id": 1, "name": "ship"}]}
    (folder / "few.json").write_text(json.dumps(document))
    sz.make_split(store, by="scene", val_fraction=0.4)
    sz.export_split(store, folder / "v.json")
    chip_folder(folder / "chips", count=3)
    add_sample(folder / "signals" / "beep", "a", PICTURE, {})
    sz.import_npz(folder / "signals" / "beep", store, name="kept")
    archive = write_archive(
        folder / "patches", products("x_vv", "y_vv", count=2, size=64), size=64, stride=32
    )
    sz.import_npy(archive, store, options=PatchOptions(name="old"))
    np.savez(folder / "scan.npz", **lattice(20, size=32))
    write_geojson(folder / "areas.json", [feature(AROUND)])
    found = {"scene": "a", "row": 5, "col": 9, "boxes": [[1, 2, 30, 40]], "scores": [0.9], "labels": [1]}
    (folder / "boxes.json").write_text(json.dumps([found]))
    (folder / "own_code.py").write_text("def same(batch):\n    return batch\n")
    (folder / "boxes.csv").write_text("scene,x_min,y_min,x_max,y_max\na,1,2,30,40\n")
    return folder


@pytest.fixture
def run(made, tmp_path, monkeypatch, capsys, request):
    """Return a function that runs a command in a copy of `made` and gives (its exit code, all that it printed).

    What the copy lacks is a parameter.
    """
    place = tmp_path / "place"
    shutil.copytree(made, place, ignore=shutil.ignore_patterns(*getattr(request, "param", ())))
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_code", raising=False)

    def call(line, *more, store="s.zarr"):
        if line.startswith("table"):
            pytest.importorskip("pyarrow", reason="pyarrow is not installed (sarzarr[table])")
        words = [store if word == "STORE" else word for word in line.split()]
        monkeypatch.setattr(sys, "argv", ["sarzarr", *words, *more])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return stop.value.code or 0, said.out + said.err

    return call


@pytest.mark.parametrize("command", COMMANDS)
def test_done(run, command):
    if command in ("quicklook", "report", "demo"):
        pytest.importorskip("matplotlib")
    if command in ("split create", "split import"):
        shutil.rmtree("s.zarr/splits")
    assert run(COMMANDS[command])[0] == Exit.DONE


@pytest.mark.parametrize("run", [["*"]], indirect=True, ids=["without a file"])
@pytest.mark.parametrize("command", COMMANDS)
def test_usage(run, command):
    assert run(COMMANDS[command], "--nonesuch")[0] == Exit.USAGE


@pytest.mark.parametrize("run", [["s.zarr"]], indirect=True, ids=["without a store"])
@pytest.mark.parametrize("command", STORES)
def test_nothing(run, command):
    """There is no store where one is to be read; where one may be made, there is nothing to make it of."""
    makers = "ingest", "import chips", "import npz", "import npy", "import ptychography"
    line = {maker: f"{maker} nowhere -o STORE" for maker in makers}
    code, said = run(line.get(command, COMMANDS[command]), store="new.zarr")
    assert code == Exit.NOTHING, said


@pytest.mark.parametrize("command", [name for name in STORES if name != "clean"])
def test_damage_of_documents(run, command):
    Path("s.zarr/zarr.json").write_text("{")
    code, said = run(COMMANDS[command])
    assert (code, "zarr.json" in said) == (Exit.DAMAGE, True), said


@pytest.mark.parametrize("command", PIXELS)
def test_damage_of_pixels(run, command, made, tmp_path):
    if command in ("quicklook", "report"):
        pytest.importorskip("matplotlib")
    for shard in (tmp_path / "place" / "s.zarr" / "scenes").rglob("c/*/*"):
        damaged = bytearray(shard.read_bytes())
        damaged[len(damaged) // 3] ^= 0xFF
        shard.write_bytes(damaged)
    code, said = run(COMMANDS[command])
    word = "chunks damaged" if command == "verify" else "expected"
    assert (code, word in said) == (Exit.DAMAGE, True), said


@pytest.mark.slow
def test_damage_is_repaired_where_it_can_be(run):
    for scene in "ab":
        next(Path(f"s.zarr/scenes/{scene}/vv").rglob("c/*/*")).write_bytes(b"")
    code, said = run("verify STORE --json")
    assert (code, [f["file"] for f in json.loads(said)["findings"]]) == (
        Exit.DAMAGE, ["scenes/a/vv/c/0/0", "scenes/b/vv/c/0/0"],
    )  # fmt: skip
    code, said = run("verify STORE --repair a --from a_vv.tif --quiet")
    assert code == Exit.DONE  # of a alone, whose pixels alone are read
    code, said = run("verify STORE --repair --quiet")
    assert (code, "left: b" in said) == (Exit.DAMAGE, True), said
    code, said = run("verify STORE --repair --from .")
    assert (code, "mended scenes/b/vv/c/0/0" in said) == (Exit.DONE, True), said
    assert run("verify STORE")[0] == Exit.DONE


@pytest.mark.parametrize("command", ["identify", "ingest"])
def test_partly(run, command):
    Path("text.tif").touch()
    line = COMMANDS[command].replace("a_vv.tif", "a_vv.tif text.tif")
    assert run(line)[0] == Exit.PARTLY
    assert run(line.replace("a_vv.tif ", ""))[0] == Exit.NOTHING


def test_partly_of_predictions(run):
    assert run("predict STORE a --model own_code:same")[0] == Exit.DONE
    code, said = run("predict STORE a b --model own_code:same --overlap 8")
    assert (code, "1 scene left out:" in said, "--overwrite" in said) == (Exit.PARTLY, True, True), said
    assert "b: prediction, 9 patches in" in said
    assert run("predict STORE a --model own_code:same --overlap 16")[0] == Exit.NOTHING
    assert run("predict STORE a --model own_code:same --clip -25")[0] == Exit.USAGE
    assert run("predict STORE a --model own_code:same --overlap 16 --overwrite --clip -25,5")[0] == Exit.DONE


def test_commands_on_a_collection(run):
    """Options that go with ``--collection``, and those that do not."""
    assert run("split create STORE --collection few --val 0.5 --dry-run")[0] == Exit.DONE
    assert run("split create STORE --collection few --val 0.5")[0] == Exit.DONE
    assert run("split create STORE --collection few --val 0.4")[0] == Exit.NOTHING
    assert run("split create STORE --collection few --by scene")[0] == Exit.USAGE
    assert run("split create STORE --balance x")[0] == Exit.USAGE
    for verb in ("extend", "list", "show", "check"):
        code, said = run(f"split {verb} STORE --collection few")
        assert code == Exit.DONE
        assert "split v1: 1 train, 1 val" in said or "no ground is on two sides" in said
    assert run("import labels kinds.csv -o STORE --collection few")[0] == Exit.DONE
    assert run("import boxes few.json -o STORE --collection few")[0] == Exit.USAGE
    code, said = run("import boxes few.json -o STORE --collection few --leave-unmatched")
    assert code == Exit.DONE
    assert "1 box of 1 put on 1 chip" in said
    assert "1 annotation of chips that are not there left out: nobody.tif" in said
    assert run("import boxes few.json -o STORE --collection few --scene a")[0] == Exit.USAGE
    assert run("import boxes boxes.csv -o STORE --leave-unmatched")[0] == Exit.USAGE
    assert run("quicklook STORE --collection few --boxes default -o few.png")[0] == Exit.DONE
    code, said = run("info STORE")
    assert "collections/few: 2 chips; 2 of 64 x 64" in said
    assert "boxes/default: 1 box in 1 class on 1 annotated chip" in said
    assert "labels/default: 2 classes of one each on 2 chips: water 1, land 1" in said
    chip = sz.open_collection("s.zarr", "few").ids[0]
    assert run(f"export STORE {chip} out.tif --collection few")[0] == Exit.DONE
    assert run(f"export STORE {chip} out.tif --collection few --looks 4")[0] == Exit.USAGE
    assert run("export STORE nobody out.tif --collection few")[0] == Exit.NOTHING
    assert run("import split nowhere.txt -o STORE --collection few")[0] in (Exit.NOTHING, Exit.USAGE)


def test_partly_of_pictures(run):
    Path("chips/text.png").touch()
    assert run("import chips chips -o new.zarr --strict")[0] == Exit.NOTHING
    assert not Path("new.zarr").exists()
    code, said = run("import chips chips -o new.zarr")
    assert code == Exit.PARTLY
    assert "1 picture refused, the others are in new.zarr:\n  chips/text.png: a PNG, JPEG or TIFF was" in said
    assert said.count("chips/text.png") == 1
    assert sz.open_samples("new.zarr", "chips").ids == ("chip_0", "chip_1", "chip_2")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("ingest a_vv.tif text.tif -o t.zarr --strict", Exit.NOTHING),
        ("ingest a_vv.tif -o t.zarr --codec nonesuch", Exit.USAGE),
        ("bounds s.zarr --vmin -30", Exit.USAGE),
        ("split create s.zarr --val 5", Exit.USAGE),
        ("split show s.zarr two", Exit.USAGE),
        ("split show s.zarr v9", Exit.NOTHING),
        ("remove s.zarr a nowhere", Exit.NOTHING),
        ("quicklook s.zarr nowhere", Exit.NOTHING),
        ("copy s.zarr s.zarr", Exit.NOTHING),
        ("verify s.zarr a --deep", Exit.DONE),
        ("verify s.zarr --repair --from .", Exit.DONE),
        ("verify s.zarr --accept --json", Exit.DONE),
        ("verify s.zarr --accept --repair", Exit.USAGE),
        ("verify s.zarr --from a_vv.tif", Exit.USAGE),
        ("verify s.zarr nowhere", Exit.NOTHING),
        ("info a_vv.tif", Exit.NOTHING),
        ("report s.zarr -o r.pdf", Exit.USAGE),
        ("report s.zarr -o r.html --verify --quiet", Exit.DONE),
    ],
)
def test_others(run, line, code):
    Path("text.tif").touch()
    got, said = run(line)
    assert got == code, said
