"""Splits of chips: no ground on two sides, across CRSs and dates, counted by a means of its own."""

import json

import numpy as np
import pytest
from chip_collections import CRSS, crowd, ids_of, make_chips
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer

import sarzarr as sz
from sarzarr.errors import InvalidInputError, NotInStoreError, SplitExistsError, SplitLeakError
from sarzarr.splits.chips.ground import ChipGrounds, ground_groups, overlapping, shared_ground_of
from sarzarr.splits.chips.make import check_chip_split, chip_grounds, extend_chip_split
from sarzarr.splits.chips.sides import ChipRecipe, divide_chips
from sarzarr.store.chip_splits import (
    chip_side,
    chip_split_versions,
    leak_text,
    read_chip_split,
    write_chip_split,
)

shapely = pytest.importorskip("shapely", reason="shapely is not installed (sarzarr[vector])")

WKTS = tuple(CRS.from_user_input(c).to_wkt() for c in CRSS)


def grounds_of(places, size=16):
    return ChipGrounds(
        crs=WKTS,
        number=np.array([crs for crs, _ in places]),
        transform=np.array([transform for _, transform in places]),
        shape=np.full((len(places), 2), size),
    )


def shapes_of(places, size=16):
    """Return the polygon of each chip in an equal-area projection about 12 E 47 N, its edges followed in 8 steps."""
    onto = [
        Transformer.from_crs(c, "+proj=laea +lat_0=47 +lon_0=12 +datum=WGS84", always_xy=True) for c in CRSS
    ]
    step = np.linspace(0, size, 9)[:-1]
    row = np.concatenate([0 * step, step, 0 * step + size, size - step])
    col = np.concatenate([step, 0 * step + size, size - step, 0 * step])
    out = []
    for crs, (a, b, c, d, e, f) in places:
        x, y = onto[crs].transform(a * col + b * row + c, d * col + e * row + f)
        out.append(shapely.Polygon(np.stack([x, y], axis=1)))
    return np.array(out)


def common(shapes, size=16):
    """Return the pairs of shapes that have more in common than 2 thousandths of a pixel along a side, as a set."""
    one, other = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    area = shapely.area(shapely.intersection(shapes[one], shapes[other]))
    real = (one != other) & (area > 2e-3 * shapely.area(shapes[one]) / size)
    return set(zip(one[real].tolist(), other[real].tolist(), strict=True))


def leaks(pairs, codes):
    return [(a, b) for a, b in pairs if codes[a] and codes[b] and codes[a] != codes[b]]


def test_two_thousand_chips_of_three_crss_are_divided_with_no_shared_ground():
    places, recipe = crowd(2000), ChipRecipe(val_fraction=0.2, test_fraction=0.1)
    codes = divide_chips(grounds_of(places), ids_of(2000), recipe).codes(recipe)
    pairs = common(shapes_of(places))
    assert len(pairs) > 2000
    assert not leaks(pairs, codes)
    np.testing.assert_allclose(np.bincount(codes, minlength=4), [0, 1400, 400, 200], atol=20)


@pytest.mark.slow
def test_two_thousand_stored_chips_are_split_and_read_side_by_side(tmp_path):
    places = crowd(2000, size=4)
    store = make_chips(tmp_path / "s.zarr", sizes=((4, 4),) * 2000, places=places, masks=False, per=500)
    (split,) = sz.split_collection(store, "floods", val_fraction=0.2, test_fraction=0.1)
    pairs = common(shapes_of(places, size=4), size=4)
    assert len(pairs) > 2000
    assert not leaks(pairs, split.codes)
    assert abs(split.counts["val"] - 400) < 20
    assert abs(split.counts["test"] - 200) < 20
    assert not split.counts["held_back"]
    readers = [sz.CollectionReader(store, "floods", split=side) for side in ("train", "val", "test")]
    assert [len(r.selection) for r in readers] == [split.counts[k] for k in ("train", "val", "test")]
    check_chip_split(store, "floods")


@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 1000), count=st.integers(12, 80), spread=st.sampled_from([0.05, 0.3, 1.0]),
    folds=st.sampled_from([None, 3]), test=st.sampled_from([0.0, 0.2]),
)  # fmt: skip
def test_no_ground_is_on_two_sides_however_chips_lie(seed, count, spread, folds, test):
    places = crowd(count, seed=seed, spread=(spread, spread))
    pairs = common(shapes_of(places))
    grounds, names = grounds_of(places), ids_of(count)
    found = overlapping(grounds, np.arange(count), np.arange(count))
    assert pairs <= set(map(tuple, found.tolist()))
    recipe = ChipRecipe(val_fraction=0.3, test_fraction=test, seed=seed, folds=folds)
    try:
        made = divide_chips(grounds, names, recipe)
    except InvalidInputError:
        assert spread < 1  # all hang together, and no cut leaves a chip on each side
        return
    for fold in range(folds or 1):
        codes = made.codes(ChipRecipe(**{**recipe.settings, **({"fold": fold} if folds else {})}))
        assert not leaks(pairs, codes)
        assert {1, 2} <= set(codes.tolist())
        if made.block is None:
            assert codes.all()


def test_dates_of_one_place_and_neighbours_at_an_edge():
    here = (0, (10.0, 0, 500_000.0, 0, -10.0, 5_200_000.0))
    beside = (0, (10.0, 0, 500_160.0, 0, -10.0, 5_200_000.0))
    grounds = grounds_of([here, here, beside, here, (2, (1e-4, 0, 100.0, 0, -1e-4, -30.0))])
    group = ground_groups(grounds).tolist()
    assert group[0] == group[1] == group[3]
    assert len(set(group)) == 3
    shared = shared_ground_of(grounds, np.array([0, 2]), np.array([1, 3]))
    assert shared.chips.tolist() == [0]
    assert shared.area == pytest.approx(160**2, rel=0.002)


def test_shared_ground_is_counted_once():
    places = crowd(300, seed=4, spread=(0.2, 0.2))
    shapes, one, other = shapes_of(places), np.arange(60), np.arange(60, 300)
    both = shapely.intersection(shapely.union_all(shapes[one]), shapely.union_all(shapes[other]))
    shared = shared_ground_of(grounds_of(places), one, other)
    assert shared.area == pytest.approx(both.area, rel=0.01)
    assert shared.chips.tolist() == sorted({a for a, b in common(shapes) if a < 60 <= b})


def test_classes_are_balanced():
    places = crowd(900, seed=1, spread=(3, 2))
    kind = np.random.default_rng(0).choice(4, 900, p=[0.7, 0.2, 0.08, 0.02])
    recipe = ChipRecipe(val_fraction=0.2, test_fraction=0.2, balance="kind")
    codes = divide_chips(grounds_of(places), ids_of(900), recipe, kind).codes(recipe)
    for one in range(4):
        shares = np.bincount(codes[kind == one], minlength=4)[1:] / np.count_nonzero(kind == one)
        np.testing.assert_allclose(shares, [0.6, 0.2, 0.2], atol=0.07)


def test_chips_without_georeference_are_refused_or_go_by_their_names(tmp_path):
    grounds = grounds_of(crowd(40, spread=(9, 9)))
    adrift = ChipGrounds(
        crs=WKTS, number=np.where(np.arange(40) < 20, -1, 0), transform=grounds.transform, shape=grounds.shape
    )
    names = ids_of(40)
    with pytest.raises(InvalidInputError, match=r"20 of 40 without georeference.*--group-by"):
        divide_chips(adrift, names, ChipRecipe())
    recipe = ChipRecipe(val_fraction=0.3, group_by="^(site[0-9])_")
    codes = divide_chips(adrift, names, recipe).codes(recipe)
    for site in range(7):
        assert len(set(codes[[i for i, name in enumerate(names) if name.startswith(f"site{site}")]])) == 1
    with pytest.raises(InvalidInputError, match="finds something in"):
        divide_chips(adrift, names, ChipRecipe(group_by="lake"))
    with pytest.raises(InvalidInputError, match="regular expression"):
        ChipRecipe(group_by="(")


def test_versions_are_kept_and_never_change(tmp_path):
    store = make_chips(tmp_path / "s.zarr", sizes=((8, 8),) * 40, masks=False)
    (first,) = sz.split_collection(store, "floods", val_fraction=0.25)
    (again,) = sz.split_collection(store, "floods", val_fraction=0.25)
    assert first.version == again.version == 1
    np.testing.assert_array_equal(first.codes, again.codes)
    with pytest.raises(SplitExistsError, match="--fresh"):
        sz.split_collection(store, "floods", val_fraction=0.3)
    (second,) = sz.split_collection(store, "floods", val_fraction=0.3, fresh=True, seed=7)
    folds = sz.split_collection(store, "floods", folds=3, fresh=True)
    made = sz.open_collection(store, "floods")
    assert chip_split_versions(made) == (1, 2, 3, 4, 5)
    validation = np.stack([one.codes == 2 for one in folds])
    assert (validation.sum(axis=0) == 1).all()
    reader = sz.CollectionReader(store, "floods", split="fold2:val")
    assert reader.selection.table_row.tolist() == np.flatnonzero(validation[2]).tolist()
    assert len(sz.CollectionReader(store, "floods", split="v2:val").selection) == second.counts["val"] == 12
    with pytest.raises(NotInStoreError, match="v1, v2"):
        read_chip_split(made, 9)
    assert extend_chip_split(store, "floods").version == 5  # no chip came
    dry = sz.split_collection(store, "floods", fresh=True, dry_run=True)
    assert dry[0].version == 6
    assert chip_split_versions(made) == (1, 2, 3, 4, 5)


def test_chips_that_come_later_train_or_are_held_back(tmp_path):
    places = crowd(60, spread=(0.1, 0.1))
    few = make_chips(tmp_path / "few.zarr", sizes=((8, 8),) * 40, places=places[:40], masks=False)
    (split,) = sz.split_collection(few, "floods", val_fraction=0.3)
    many = make_chips(tmp_path / "many.zarr", sizes=((8, 8),) * 60, places=places, masks=False)
    write_chip_split(sz.open_collection(many, "floods"), split)
    made = sz.open_collection(many, "floods")
    assert chip_side(made, "train").tolist() == [*(split.codes == 1).tolist(), *[False] * 20]
    with pytest.raises(SplitExistsError, match="split extend"):
        sz.split_collection(many, "floods", val_fraction=0.3)
    later = extend_chip_split(many, "floods")
    assert later.codes[:40].tolist() == split.codes.tolist()
    assert (later.version, later.parent) == (2, 1)
    pairs = common(shapes_of(places, size=8), size=8)
    assert not leaks(pairs, later.codes)
    for chip in range(40, 60):
        near = {split.codes[b] for a, b in pairs if a == chip and b < 40}
        assert later.codes[chip] == (0 if 2 in near else 1)


def test_chips_that_come_later_stay_with_their_group(tmp_path):
    """No chip lies on another: only the names, ``site0_...`` to ``site6_...``, say what belongs together."""
    few = make_chips(tmp_path / "few.zarr", sizes=((8, 8),) * 28, masks=False)
    (split,) = sz.split_collection(few, "floods", val_fraction=0.3, group_by="^(site[0-9])_")
    many = make_chips(tmp_path / "many.zarr", sizes=((8, 8),) * 49, masks=False)
    write_chip_split(sz.open_collection(many, "floods"), split)
    later = extend_chip_split(many, "floods")
    side = {chip % 7: split.codes[chip] for chip in range(28)}
    assert set(side.values()) == {1, 2}
    assert later.codes[28:].tolist() == [1 if side[chip % 7] == 1 else 0 for chip in range(28, 49)]


def test_a_list_that_leaks_is_kept_and_told_how_much(tmp_path):
    # A row of chips that each lie on half of the next one: 16 pixels of 10 m every 80 m.
    places = [(0, (10.0, 0, 500_000.0 + 80 * i, 0, -10.0, 5_200_000.0)) for i in range(20)]
    store = make_chips(tmp_path / "s.zarr", sizes=((16, 16),) * 20, places=places, masks=False)
    names = ids_of(20)
    (tmp_path / "flood_train_data.csv").write_text(
        "".join(f"{n}.tif,{n[:-3]}_Label.tif\n" for n in names[:10])
    )
    (tmp_path / "flood_valid_data.csv").write_text("".join(f"x\\y\\{n}.tif,\n" for n in names[10:14]))
    (tmp_path / "holdout.txt").write_text(
        "# test\n" + "\n".join(n[:-3] for n in names[15:18]) + "\nBolivia_1\n"
    )
    done = sz.import_split_lists(
        store,
        "floods",
        [tmp_path / f for f in ("flood_train_data.csv", "flood_valid_data.csv", "holdout.txt")],
    )
    assert done.split.codes.tolist() == [1] * 10 + [2] * 4 + [0] + [3] * 3 + [0] * 2
    assert done.unknown == ("Bolivia_1",)
    assert done.unlisted == 3
    # Chips 10 and 9 have 80 x 160 m in common; the two that follow 13 begin where it ends.
    assert (
        done.split.told == ["1 of 4 validation chips shares ground with training chips (1.28e+04 m²)"]
        or done.lines
    )
    facts = done.split.shared["val/train"]
    assert (facts["chips"], facts["of"]) == (1, 4)
    assert facts["area"] == pytest.approx(80 * 160, rel=0.01)
    assert len(sz.CollectionReader(store, "floods", split="val").selection) == 4
    with pytest.raises(SplitLeakError, match="1 of 4 validation chips"):
        check_chip_split(store, "floods")


def test_the_sentence_says_chips_and_ground():
    assert (
        leak_text("val/train", chips=37, of=504, area=12.4e6)
        == "37 of 504 validation chips share ground with training chips (12.4 km²)"
    )


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return make_chips(tmp_path_factory.mktemp("four") / "s.zarr", sizes=((8, 8),) * 4, masks=False)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("s.json", json.dumps({"train": ["site0_00000_S1", "site1_00001_S1"], "validation": ["site2_00002_S1.tif"]})),
        ("s.json", json.dumps({"site0_00000": "train", "site1_00001_S1": "Train", "a/site2_00002_S1": "val"})),
        ("s.json", json.dumps([{"file": f"site{i}_0000{i}", "split": ("train", "val")[i // 2]} for i in range(3)])),
        ("s.csv", "site0_00000,train\nsite0_00000_S1,train\n"),
        ("s.csv", "split,patch\ntrain,site0_00000_S1\ntrain,site1_00001_S1\nval,site2_00002_S1\n"),
        ("s.tsv", "name\tsubset\nsite0_00000_S1\ttrain\nsite1_00001_S1\ttrain\nsite2_00002_S1\tdev\n"),
    ],
)  # fmt: skip
def test_lists_come_in_many_forms(four, tmp_path, file, text):
    store = four
    (tmp_path / file).write_text(text)
    if text.startswith("site0_00000,"):
        with pytest.raises(InvalidInputError, match=r"train=s\.csv"):
            sz.import_split_lists(store, "floods", tmp_path / file)
        done = sz.import_split_lists(store, "floods", {"val": tmp_path / file})
        assert done.split.codes.tolist() == [2, 0, 0, 0]
        return
    done = sz.import_split_lists(store, "floods", tmp_path / file)
    assert done.split.codes.tolist() == [1, 1, 2, 0]
    assert done.lines[-1] == "no ground is on two sides"


def test_lists_that_say_nothing_are_refused(four, tmp_path):
    store, before = four, chip_split_versions(sz.open_collection(four, "floods"))
    (tmp_path / "train.txt").write_text("a\nb\n")
    with pytest.raises(InvalidInputError, match="site0_00000_S1"):
        sz.import_split_lists(store, "floods", tmp_path / "train.txt")
    (tmp_path / "both.json").write_text(json.dumps({"train": ["site0_00000"], "val": ["site0_00000_S1"]}))
    with pytest.raises(InvalidInputError, match="on train and val"):
        sz.import_split_lists(store, "floods", tmp_path / "both.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InvalidInputError, match="lists of names"):
        sz.import_split_lists(store, "floods", tmp_path / "bad.json")
    assert chip_split_versions(sz.open_collection(store, "floods")) == before
    assert chip_grounds(sz.open_collection(store, "floods")).is_placed.all()


def test_a_collection_leaves_with_its_splits_and_labels(tmp_path):
    store = make_chips(tmp_path / "s.zarr", sizes=((8, 8),) * 4, masks=False)
    sz.split_collection(store, "floods", val_fraction=0.5)
    (tmp_path / "l.csv").write_text("".join(f"{name},a\n" for name in ids_of(4)))
    sz.import_labels(store, "floods", tmp_path / "l.csv")
    left = sz.remove_collection(store, "floods")
    for group in ("collections", "splits/collections", "labels"):
        assert not [name for name in left.place.children(group) if name.endswith("/")]
