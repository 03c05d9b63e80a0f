"""The commands about splits and imports, run as a person runs them."""

import json
import re

import numpy as np
import pytest
import typer
from chip_folders import chip_folder
from conftest import speckle, write_band
from rasterio import Affine
from typer.testing import CliRunner

import sarzarr as sz
from sarzarr.cli.imports import import_app
from sarzarr.cli.splits import parse_sites, split_app
from sarzarr.errors import InvalidInputError, SarzarrError
from sarzarr.splits.versions import get_split, list_splits
from sarzarr.store.boxes import read_boxes

app = typer.Typer()
app.add_typer(split_app, name="split")
app.add_typer(import_app, name="import")


def run(*words, fails=None):
    result = CliRunner().invoke(app, [str(w) for w in words])
    if fails is not None:
        assert isinstance(result.exception, SarzarrError)
        assert re.search(fails, str(result.exception))
        return str(result.exception)
    assert result.exception is None, result.output
    return result.output


@pytest.fixture(scope="module")
def tiffs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiffs")
    out = []
    for i in range(3):
        at = Affine(10, 0, 500_000 + 7_000 * i, 0, -10, 5_400_000)
        out.append(
            write_band(folder / f"pass_{i}_vv.tif", speckle((1300, 1300), seed=i), transform=at, tiles=256)
        )
    return out


@pytest.fixture
def store(tiffs, tmp_path):
    return sz.ingest(sz.plan_ingest(tiffs[:2], tmp_path / "s.zarr"))


def test_a_split_from_the_first_word_to_the_last(store, tiffs, tmp_path):
    root = store.root
    assert "no split yet" in run("split", root, "list")
    assert run("split", root, "pending").split() == ["new", "pass_0", "new", "pass_1"]
    run("split", root, "show", fails="split create STORE")
    seed = next(s for s in range(60) if _works(root, s))
    options = ("--val", "0.3", "--block", "4km", "--seed", seed)
    assert "nothing was written" in run("split", root, "create", *options, "--dry-run")
    assert "no split yet" in run("split", root, "list")
    said = run("split", root, "create", *options, "--notes", "first")
    split = get_split(store)
    assert f"{split.counts['val']} val" in said
    assert "patches/default" in said
    assert "nothing is pending" in run("split", root, "extend")
    run("split", root, "create", "--val", "0.2", fails="--fresh")
    sz.ingest(sz.plan_ingest(tiffs, root))
    assert run("split", root, "pending").split() == ["new", "pass_2"]
    assert "extends v1" in run("split", root, "extend", "--notes", "second")
    listed = run("split", root, "list").splitlines()
    assert [line.split()[0] for line in listed[1:]] == ["v1", "v2"]
    assert listed[1].endswith("first")
    assert "pass_2" not in run("split", root, "show", "v1")
    assert "pass_2" in run("split", root, "show", "v2", "--png", tmp_path / "split.png")
    assert (tmp_path / "split.png").read_bytes().startswith(b"\x89PNG")
    assert "no ground is on two sides" in run("split", root, "check", "v1")
    run("split", root, "export", tmp_path / "v2.json")
    assert json.loads((tmp_path / "v2.json").read_text())["version"] == 2
    assert "split v2" in run("split", root, "import", tmp_path / "v2.json")
    run("split", root, "show", "v9", fails="among v1, v2")
    run("split", root, "show", "newest", fails="such as v2")
    assert len(list_splits(store)) == 2


def _works(root, seed):
    from sarzarr.splits.make import plan_split

    try:
        plan_split(root, val_fraction=0.3, block="4km", seed=seed)
    except InvalidInputError:
        return False
    return True


def test_sites_on_the_command_line(tmp_path):
    assert parse_sites(None) == {}
    for wrong in ("lake", "=lake", "2019*="):
        with pytest.raises(InvalidInputError, match="SCENE=NAME"):
            parse_sites([wrong])


ARGUMENTS = {"export": ["v.json"], "import": ["v.json"], "show": ["v1"], "check": ["v1"]}


@pytest.mark.parametrize("verb", sorted(typer.main.get_command(split_app).commands))
def test_the_verb_comes_first_or_after_the_store(verb, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seed = next(s for s in range(60) if _works(store.root, s))
    given = ["--val", "0.3", "--block", "4km", "--seed", seed]
    run("split", "create", store.root, *given)
    run("split", "export", store.root, "v.json")
    rest = ARGUMENTS.get(verb, [])
    options = given if verb == "create" else []
    first, after = (
        run("split", *words, *rest, *options) for words in ((verb, store.root), (store.root, verb))
    )
    assert first == after
    helps = [run("split", *words, "--help") for words in ((verb,), (verb, "s.zarr"), ("s.zarr", verb))]
    assert len(set(helps)) == 1
    assert re.search(rf"split {verb} \[OPTIONS\] \W?store\b", helps[0], re.IGNORECASE)


def test_help_of_splits_names_no_store_before_the_verb():
    text = run("split", "--help")
    assert "split [OPTIONS] COMMAND" in text
    assert "STORE" not in text.split("Commands")[0]


def test_a_store_that_is_named_like_a_verb_is_found(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.root.rename(tmp_path / "list")
    assert "no split yet" in run("split", "list", "list")
    assert run("split", "./list", "pending") == run("split", "pending", "list")


def test_a_store_that_is_not_there(tmp_path):
    run("split", tmp_path / "none.zarr", "list", fails="ingest")


def test_chips_on_the_command_line(tmp_path):
    chip_folder(tmp_path / "chips", count=3)
    said = run("import", "chips", tmp_path / "chips", "-o", tmp_path / "s.zarr", "--name", "ships")
    assert "samples/ships: 3 chips" in said
    assert "2 boxes of 2, 0 repaired, 0 without area" in said
    assert "classes: 1 ship" in said
    run(
        "import", "chips", tmp_path / "chips", "-o", tmp_path / "s.zarr", "--name", "ships", fails="--replace"
    )
    run("import", "chips", tmp_path / "chips", "-o", tmp_path / "s.zarr", "--name", "ships", "--replace")


def test_boxes_on_the_command_line(store, tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(
        "scene,x_min,y_min,x_max,y_max,label\npass_0,1,2,30,40,ship\npass_1,-5,2,3,4,\npass_1,9,9,9,9,\n"
    )
    said = run("import", "boxes", path, "-o", store.root)
    assert "2 boxes of 3 put on, 1 repaired, 1 left out (1 without area, such as points and lines);" in said
    assert np.array_equal(read_boxes(store).boxes, [[1, 2, 30, 40], [0, 2, 3, 4]])
    run("import", "boxes", path, "-o", store.root, "--policy", "refuse", fails="pass_1")


def test_a_mistake_in_a_file_of_boxes_changes_nothing(store, tmp_path):
    path = tmp_path / "boxes.csv"
    header = "scene,x_min,y_min,x_max,y_max,label\n"
    path.write_text(f"{header}pass_0,1,2,30,40,ship\npass_1,1,2,30,40,ship\n")
    run("import", "boxes", path, "-o", store.root)
    for rows, said in (
        (
            "pass_0,5,5,9,9,buoy\npass_1,1,2,x,4,ship\n",
            "line 3 of 'boxes.csv', got 'x' for a box on 'pass_1'",
        ),
        ("pass_1,7,7,7,9,ship\npass_1,5000,2,5001,4,ship\n", "none among 2 .1 without area.*; 1 outside"),
        ("", "none among 0"),
    ):
        path.write_text(header + rows)
        run("import", "boxes", path, "-o", store.root, fails=said)
        assert read_boxes(store).boxes.tolist() == [[1, 2, 30, 40]] * 2
    path.write_text(f"{header}pass_0,5,5,9,9,buoy\n")
    run("import", "boxes", path, "-o", store.root, "--label", "nokind", fails="among label was expected")
    run("import", "boxes", tmp_path / "nope.csv", "-o", store.root, fails=r"nope\.csv', got none")
    run("import", "boxes", tmp_path, "-o", store.root, fails="got none that can be read")
    (tmp_path / "photo.geojson").write_bytes(b"\x89PNG\xff\xfe")
    run("import", "boxes", tmp_path / "photo.geojson", "-o", store.root, fails="UTF-8")


def test_points_are_counted_as_what_they_are(store, tmp_path):
    place = {"type": "Point", "coordinates": [500_500, 5_399_500]}
    area = {"type": "LineString", "coordinates": [[500_500, 5_399_500], [500_600, 5_399_400]]}
    document = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "EPSG:32633"}},
        "features": [{"type": "Feature", "properties": {}, "geometry": g} for g in (place, place, area)],
    }
    path = tmp_path / "boxes.geojson"
    path.write_text("\ufeff" + json.dumps(document))
    said = run("import", "boxes", path, "-o", store.root, "--scene", "pass_0")
    assert "1 box of 3 put on, 0 repaired, 2 left out (2 without area, such as points and lines);" in said
    assert read_boxes(store).counts["without_area"] == 2


def test_paths_that_lead_nowhere_are_named(store, tmp_path):
    run("split", store.root, "import", tmp_path / "nope.json", fails=r"nope\.json', got nothing")
    run("split", store.root, "import", tmp_path, fails="got nothing that can be read")
    (tmp_path / "photo.json").write_bytes(b"\x89PNG\xff\xfe")
    run("split", store.root, "import", tmp_path / "photo.json", fails="not UTF-8")
    seed = next(s for s in range(60) if _works(store.root, s))
    run("split", store.root, "create", "--val", "0.3", "--block", "4km", "--seed", seed)
    before = sorted(tmp_path.iterdir())
    for path in (tmp_path / "no" / "x.json", tmp_path):
        run("split", store.root, "export", path, fails="can be written to was expected")
    for path in (tmp_path / "no" / "x.png", tmp_path / "x.nothing"):
        run("split", store.root, "show", "--png", path, fails="a picture can be written to was expected")
    assert sorted(tmp_path.iterdir()) == before


def test_long_ids_keep_their_column(tiffs, tmp_path):
    long = tmp_path / f"{'a_name_of_many_characters_' * 3}_vv.tif"
    long.write_bytes(tiffs[0].read_bytes())
    root = sz.ingest(sz.plan_ingest([long, tiffs[1]], tmp_path / "s.zarr")).root
    run("split", root, "create")
    rows = [line for line in run("split", root, "show").splitlines() if " world " in line]
    assert len(rows) == 2
    assert len({line.index(" world ") for line in rows}) == 1
