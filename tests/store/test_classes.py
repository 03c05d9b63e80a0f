"""The classes of a store: a number, once given, is never another class's, whatever comes later and in any order."""

import json
import shutil

import numpy as np
import pytest
from chip_folders import voc, write_picture
from conftest import speckle, write_band
from hypothesis import given, settings
from hypothesis import strategies as st

import sarzarr as sz
from sarzarr.cli.output import summary
from sarzarr.errors import CorruptStoreError, NotInStoreError
from sarzarr.store.boxes import Boxes, read_boxes, write_boxes
from sarzarr.store.classes import Classes, enter_classes, read_classes, stored_classes, write_classes
from sarzarr.store.commit import changing
from sarzarr.store.store import create_store

KINDS = ["ship", "aircraft", "tank", "buoy", "crane"]


def put(store, name, labels, **options):
    """Write a table of boxes with these labels on a scene."""
    boxes = np.tile([1.0, 1, 9, 9], (len(labels), 1))
    with changing(store) as draft:
        return write_boxes(draft, Boxes.gathered({"p": (boxes, labels)}, {"p": (64, 64)}, **options), name)


def named(boxes):
    return [boxes.classes[number - 1] for number in boxes.label.tolist()]


def of_before(store):
    """Take the table of classes away, as stores of before have none."""
    with changing(store) as draft:
        draft.place.delete("classes")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("template")
    path = write_band(folder / "p_vv.tif", speckle((64, 64)))
    sz.ingest(sz.plan_ingest(path, folder / "s.zarr", quantity="sigma0", representation="power"))
    return folder / "s.zarr"


@pytest.fixture
def store(template, tmp_path):
    return sz.open_store(shutil.copytree(template, tmp_path / "s.zarr"))


@settings(max_examples=5)
@given(
    lists=st.lists(
        st.tuples(st.sampled_from("xyz"), st.lists(st.sampled_from(KINDS), max_size=4)), max_size=6
    ),
    is_old=st.integers(0, 6),
)
def test_numbers_stay_under_any_order_of_imports(tmp_path_factory, template, lists, is_old):
    """With the table, and from the change on that gives it to a store of before."""
    store = sz.open_store(shutil.copytree(template, tmp_path_factory.mktemp("order") / "s.zarr"))
    numbers, tables = {}, {}
    for step, (name, labels) in enumerate(lists):
        if step == is_old:
            of_before(store)
        made = put(store, name, labels)
        tables[name] = labels
        known = sz.store_classes(store)
        assert made.classes == known.names
        assert list(known.names) == list(dict.fromkeys(k for _, some in lists[: step + 1] for k in some))
        for number, kind in enumerate(known.names, 1):
            assert numbers.setdefault(kind, number) == number == known.number(kind)
        for table, wanted in tables.items():
            got = read_boxes(store, table)
            assert named(got) == wanted
            assert got.label.tolist() == [numbers[kind] for kind in wanted]
    assert sz.verify(store).findings == ()


def test_the_table_says_where_each_came_from(store):
    put(store, "ships", ["ship"])
    put(store, "others", ["buoy", "ship"])
    assert sz.store_classes(store) == Classes(("ship", "buoy"), ("boxes/ships", "boxes/others"))
    assert str(sz.store_classes(store)) == "1 ship, 2 buoy"
    assert "  classes: 1 ship, 2 buoy" in summary(store)
    copy = sz.copy_store(store, store.root.with_name("copy.zarr"), dtype="float32")
    assert sz.store_classes(copy) == sz.store_classes(store)
    with pytest.raises(NotInStoreError, match="a class among ship, buoy was expected, got 'tank'"):
        sz.store_classes(store).number("tank")


def test_a_store_of_before_reads_as_before_and_gets_the_table_at_the_first_change(store, caplog):
    put(store, "train", ["ship", "aircraft"])
    of_before(store)
    with changing(store) as draft:  # as releases of long ago wrote it: by the labels of that table
        table = Boxes.gathered(
            {"p": (np.tile([1.0, 1, 9, 9], (2, 1)), ["aircraft", "ship"])}, {"p": (64, 64)}
        )
        write_boxes(draft, table, "val")
        draft.place.delete("classes")
        column = draft.place.get("boxes/val/class_name/c/0")
    assert column
    assert stored_classes(store.place) is None
    assert read_boxes(store, "train").label.tolist() == [1, 2]
    assert sz.store_classes(store.root).names == ("ship", "aircraft")
    put(store, "new", ["buoy"])
    assert stored_classes(store.place).names == ("ship", "aircraft", "buoy")
    assert named(read_boxes(store, "val")) == ["aircraft", "ship"]


def test_tables_that_number_otherwise_are_mapped_by_name_and_told(store, caplog):
    """Two tables of long ago, each by its own labels; and a third that comes."""
    tables = {"train": ["aircraft", "ship"], "val": ["ship"]}
    for name, labels in tables.items():
        of_before(store)
        with changing(store) as draft:
            for other in tables:
                if other != name:
                    draft.place.delete(f"boxes/{other}")
        put(store, name, labels)
        shutil.copytree(store.root / "boxes" / name, store.root.with_name(name))
    of_before(store)
    with changing(store) as draft:
        for name in tables:
            draft.place.delete(f"boxes/{name}")
            draft.place.swap(store.root.with_name(name), f"boxes/{name}")
    assert [read_boxes(store, name).label.tolist() for name in tables] == [[1, 2], [1]]  # as before
    put(store, "new", ["buoy"])
    assert "class 1 of boxes/val is 'ship', 2 here" in caplog.text
    assert [read_boxes(store, name).label.tolist() for name in tables] == [[1, 2], [2]]
    assert read_boxes(store, "val").classes == ("aircraft", "ship", "buoy")


def test_a_list_that_numbers_otherwise_is_mapped_by_name_and_told(tmp_path):
    for name, kinds in (("one", ["ship", "tank"]), ("two", ["tank", "ship", "buoy"])):
        write_picture(tmp_path / name / "a.png", np.ones((32, 32), np.uint8))
        drawn = [{"image_id": 0, "category_id": i, "bbox": [1, 1, 5, 5]} for i in range(len(kinds))]
        document = {
            "images": [{"id": 0, "file_name": "a.png"}],
            "annotations": drawn,
            "categories": [{"id": i, "name": kind} for i, kind in enumerate(kinds)],
        }
        (tmp_path / name / "all.json").write_text(json.dumps(document))
        made, report = sz.import_chips(tmp_path / name, tmp_path / "s.zarr")
    assert list(map(str, report.moved)) == [
        "class 1 of all.json is 'tank', 2 here",
        "class 2 of all.json is 'ship', 1 here",
    ]
    assert made.target(0)[1].tolist() == [2, 1, 3]
    assert sz.store_classes(made.store) == Classes(("ship", "tank", "buoy"), ("all.json",) * 3)


def test_without_a_list_classes_come_as_they_are_met(tmp_path):
    for name, kind in (("a", "tank"), ("b", "ship"), ("c", "tank")):
        write_picture(tmp_path / "chips" / f"{name}.png", np.ones((32, 32), np.uint8))
        (tmp_path / "chips" / f"{name}.xml").write_text(voc([(1, 1, 5, 5)], label=kind))
    made, report = sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    assert sz.store_classes(made.store) == Classes(("tank", "ship"), ("chips", "chips"))
    assert report.moved == ()


def test_a_release_of_before_that_writes_here_is_understood(store):
    """It knows no table: a class that it adds has the number it gave it, and enters at the next change."""
    put(store, "ships", ["ship"])
    with changing(store) as draft:
        table = stored_classes(draft.place)
        put_boxes = Boxes.gathered(
            {"p": (np.array([[1.0, 1, 9, 9]]), ["buoy"])}, {"p": (64, 64)}, classes=("ship",)
        )
        write_boxes(draft, put_boxes, "buoys")
        write_classes(draft.place, table)  # as it was
    assert read_boxes(store, "buoys").label.tolist() == [2]
    put(store, "ships", ["crane"])
    assert sz.store_classes(store.root).names == ("ship", "buoy", "crane")
    assert read_boxes(store, "buoys").label.tolist() == [2]


@pytest.mark.parametrize("names", [("ship", "ship"), ("ship", "buoy")])
def test_a_table_that_cannot_be_is_damage(store, names):
    with changing(store) as draft:
        write_classes(draft.place, Classes(names, names))
        if len({*names}) == 2:
            known = draft.place.get("classes/number/c/0")
            draft.place.put("classes/number/c/0", known[:-1] + bytes([known[-1] ^ 1]))
    with pytest.raises(CorruptStoreError, match="classes"):
        stored_classes(store.place)
    assert any(finding.file.startswith("classes") for finding in sz.verify(store).findings)


@pytest.mark.parametrize("part", ["zarr.json", "name/c/0", "number/c/0", "number/zarr.json"])
def test_a_damaged_table_is_repaired_from_tables_of_boxes(store, part):
    put(store, "ships", ["ship", "buoy"])
    put(store, "more", ["crane"])
    file = store.root / "classes" / part
    before = file.read_bytes()
    file.write_bytes(before[:-3] + b"###")
    assert [f.file for f in sz.verify(store).findings] == [f"classes/{part}"]
    after = sz.repair(store)
    assert (after.findings, after.left) == ((), ())
    assert file.read_bytes() == before


def test_chips_are_packed_again_with_the_numbers_that_they_had(tmp_path):
    """Though classes of other sets came before and after."""
    for name, kind in (("one", "tank"), ("two", "ship"), ("three", "buoy")):
        write_picture(tmp_path / name / "a.png", np.full((40, 32), 9, np.uint8))
        (tmp_path / name / "a.xml").write_text(voc([(1, 1, 5, 5)], label=kind))
        made, _ = sz.import_chips(tmp_path / name, tmp_path / "s.zarr")
    store = made.store
    before = {p: p.read_bytes() for p in (tmp_path / "s.zarr" / "boxes" / "two").rglob("*") if p.is_file()}
    for path in before:
        if path.parts[-3:-1] == ("label", "c") or path.parent.name == "c":
            path.write_bytes(b"damaged")
    assert sz.verify(store).findings
    assert sz.repair(store, tmp_path / "two").findings == ()
    assert {p: p.read_bytes() for p in before} == before


def test_chips_of_a_store_of_before_are_packed_again(tmp_path):
    """Its classes stand in the order of the alphabet."""
    for name, kind in (("a", "tank"), ("b", "ship")):
        write_picture(tmp_path / "chips" / f"{name}.png", np.full((40, 32), 9, np.uint8))
        (tmp_path / "chips" / f"{name}.xml").write_text(voc([(1, 1, 5, 5)], label=kind))
    with changing(create_store(tmp_path / "s.zarr")) as draft:
        write_classes(draft.place, Classes(("ship", "tank"), ("", "")))
    made, _ = sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    of_before(made.store)
    file = tmp_path / "s.zarr" / "boxes" / "chips" / "label" / "c" / "0"
    before = file.read_bytes()
    file.write_bytes(b"damaged")
    assert sz.repair(made.store, tmp_path / "chips").findings == ()
    assert file.read_bytes() == before


def test_entering_nothing_makes_no_table(tmp_path):
    store = create_store(tmp_path / "s.zarr")
    with changing(store) as draft:
        assert enter_classes(draft.place, (), "nothing") == Classes()
    assert stored_classes(store.place) is None
    assert read_classes(store.place) == Classes()
