"""Labels on whole chips: classes from CSV and JSON, whose numbers never change, delivered as targets."""

import json

import numpy as np
import pytest
from chip_collections import ids_of, make_chips

import sarzarr as sz
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.store.chip_labels import label_sets, read_labels


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_chips(tmp_path_factory.mktemp("chips") / "s.zarr", sizes=((8, 8),) * 9, masks=False)


def test_one_class_a_chip_is_an_int64_target(store, tmp_path):
    kinds = ["water", "land", "urban"]
    rows = [f"{name}.tif,{kinds[i % 3]}\n" for i, name in enumerate(ids_of(9)[:7])]
    (tmp_path / "l.csv").write_text("file,class\n" + "".join(rows) + "nobody,land\n")
    done = sz.import_labels(store, "floods", tmp_path / "l.csv")
    assert done.unknown == ("nobody",)
    assert done.labels.classes == ("water", "land", "urban")
    reader = sz.CollectionReader(store, "floods", labels=True, flags=True, batch_size=7)
    images, flags, labels = next(iter(reader))
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert images.shape == flags.shape == (7, 2, 8, 8)
    assert reader.labels.classes == ("water", "land", "urban")
    # Numbers stay; a new class follows; chips that the file does not name keep theirs.
    (tmp_path / "m.csv").write_text("name,label\n" + "".join(f"{n},forest\n" for n in ids_of(9)[6:]))
    again = sz.import_labels(store, "floods", tmp_path / "m.csv").labels
    assert again.classes == ("water", "land", "urban", "forest")
    assert again.targets.tolist() == [0, 1, 2, 0, 1, 2, 3, 3, 3]
    (tmp_path / "two.csv").write_text(f"name,label\n{ids_of(9)[0]},water;land\n")
    with pytest.raises(InvalidInputError, match="one class for each chip"):
        sz.import_labels(store, "floods", tmp_path / "two.csv")
    assert read_labels(sz.open_collection(store, "floods"), "default").counts["forest"] == 3


@pytest.mark.parametrize("form", ["json", "records", "flags", "columns", "cells"])
def test_several_classes_a_chip_are_a_float32_target(store, tmp_path, form):
    names = ids_of(9)
    many = {name: [c for k, c in enumerate("abc") if i >> k & 1] for i, name in enumerate(names)}
    path = tmp_path / ("l.csv" if form in ("columns", "cells") else "l.json")
    if form == "json":
        path.write_text(json.dumps(many))
    elif form == "records":
        path.write_text(json.dumps([{"patch": name, "labels": some} for name, some in many.items()]))
    elif form == "flags":
        path.write_text(json.dumps({name: {c: int(c in some) for c in "abc"} for name, some in many.items()}))
    elif form == "columns":
        rows = [",".join([name, *(str(int(c in some)) for c in "abc")]) for name, some in many.items()]
        path.write_text("\n".join(["name,a,b,c", *rows]))
    else:
        path.write_text(
            "\n".join(["name,labels", *(f"{name},{'|'.join(some)}" for name, some in many.items())])
        )
    sz.import_labels(store, "floods", path, name=form, classes=["a", "b", "c"])
    _, labels = next(iter(sz.CollectionReader(store, "floods", labels=form, batch_size=9)))
    assert labels.dtype == np.float32
    assert labels.tolist() == [[float(i >> k & 1) for k in range(3)] for i in range(9)]


def test_a_list_in_another_order_is_mapped_by_name_and_told(store, tmp_path):
    """Numbers never change once given: of classes that are named, of columns, and of those that are new."""
    (tmp_path / "a.csv").write_text(f"name,label\n{ids_of(9)[0]},land\n")
    first = sz.import_labels(store, "floods", tmp_path / "a.csv", name="told", classes=["water", "land"])
    assert not first.moved
    (tmp_path / "b.csv").write_text(f"name,label\n{ids_of(9)[1]},water\n{ids_of(9)[2]},ice\n")
    again = sz.import_labels(
        store, "floods", tmp_path / "b.csv", name="told", classes=["ice", "land", "water"]
    )
    assert again.labels.classes == ("water", "land", "ice")
    assert again.labels.targets[:3].tolist() == [1, 0, 2]
    assert list(map(str, again.moved)) == [
        "class 0 of classes is 'ice', 2 here", "class 2 of classes is 'water', 0 here",
    ]  # fmt: skip
    (tmp_path / "c.csv").write_text(f"name,b,a\n{ids_of(9)[0]},1,0\n")
    sz.import_labels(store, "floods", tmp_path / "c.csv", name="flagged")
    (tmp_path / "d.csv").write_text(f"name,a,b\n{ids_of(9)[1]},1,0\n")
    flagged = sz.import_labels(store, "floods", tmp_path / "d.csv", name="flagged")
    assert flagged.labels.targets[:2].tolist() == [[1, 0], [0, 1]]
    assert str(flagged.moved[0]) == "class 0 of d.csv is 'a', 1 here"


def test_labels_that_say_nothing_are_refused(store, tmp_path):
    made = sz.open_collection(store, "floods")
    before = label_sets(made)
    for text, match in (
        ("name,label\nx,water\n", "names of chips"),
        ("name,a,b\nx,5,6\n", "--column"),
        (f"name,label\n{ids_of(9)[0]},ship\n", "classes among"),
    ):
        (tmp_path / "l.csv").write_text(text)
        with pytest.raises(InvalidInputError, match=match):
            sz.import_labels(store, "floods", tmp_path / "l.csv", name="none", classes=["water"])
    (tmp_path / "l.json").write_text("[1]")
    with pytest.raises(InvalidInputError, match="classes by name"):
        sz.import_labels(store, "floods", tmp_path / "l.json", name="none")
    with pytest.raises(NotInStoreError, match="import labels"):
        sz.CollectionReader(store, "floods", labels="none")
    assert label_sets(made) == before


def test_an_empty_file_of_labels_is_named(store, tmp_path):
    (tmp_path / "nothing.csv").write_text("")
    with pytest.raises(InvalidInputError, match=r"'nothing\.csv', got an empty file"):
        sz.import_labels(store, "floods", tmp_path / "nothing.csv")
