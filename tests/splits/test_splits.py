"""Splits: no ground on two sides, counted by points that know nothing of cells or lattices."""

import contextlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from dataclasses import asdict, replace
from functools import lru_cache

import numpy as np
import pytest
import rasterio
import xarray as xr
from chip_folders import chip_folder
from conftest import speckle, tree_hash, write_band
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyproj import Transformer

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.cli.splits import split_text
from sarzarr.errors import (
    CorruptStoreError,
    InvalidInputError,
    NotInStoreError,
    SplitExistsError,
    SplitLeakError,
)
from sarzarr.files import swap_in
from sarzarr.grids.world import METRES_PER_DEGREE
from sarzarr.patches.index import index_patches
from sarzarr.splits.exchange import check_split, export_split, from_json, import_split, to_json
from sarzarr.splits.make import extend_split, make_split, pending, plan_split
from sarzarr.splits.versions import (
    get_split,
    grounds_of,
    list_splits,
    next_version,
    patches_of,
    write_split,
)
from sarzarr.store.accept import accept
from sarzarr.store.place import Folder
from sarzarr.store.split_table import Split, read_split, to_table, versions
from sarzarr.store.store import create_store

HELD, TRAIN, VAL, TEST = cv.Membership
MIDDLE = (12.0, 50.0)
"""On the border of UTM zones 32 and 33."""


# ------------------------------------------------------------------ scenes of one place
def scene_at(epsg, *, pixel, side_m, east=0.0, north=0.0):
    """Return (epsg, transform, shape) of a scene about MIDDLE, shifted by metres."""
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(*MIDDLE)
    unit = 1.0
    if epsg == 4326:
        unit = 1 / 90_000
    left, top = x + (east - side_m / 2) * unit, y + (north + side_m / 2) * unit
    n = int(side_m / pixel)
    return epsg, rasterio.Affine(pixel * unit, 0, left, 0, -pixel * unit, top), (n, n)


SCENES = {
    "z33_20260101": scene_at(32633, pixel=10, side_m=16_000),
    "z33_20260113": scene_at(32633, pixel=10, side_m=16_000),
    "z33_20260125": scene_at(32633, pixel=10, side_m=14_003, east=1234.5, north=-777),
    "z32_20260107": scene_at(32632, pixel=10, side_m=15_000, east=-3000, north=2000),
    "wgs84_20260108": scene_at(4326, pixel=12, side_m=15_000, east=2000),
    "laea_20m": scene_at(3035, pixel=20, side_m=24_000, north=500),
    "far_away": scene_at(32633, pixel=10, side_m=10_000, east=40_000),
}
"""Overlapping scenes of other dates, CRSs and pixel sizes."""


def write_scenes(folder, names=tuple(SCENES)):
    folder.mkdir(exist_ok=True)
    paths = []
    for i, name in enumerate(names):
        epsg, transform, shape = SCENES[name]
        paths.append(
            write_band(
                folder / f"{name}_vv.tif",
                speckle(shape, seed=i),
                crs=f"EPSG:{epsg}",
                transform=transform,
                tiles=256,
            )
        )
    return paths


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("overlapping"))


@pytest.fixture(scope="module")
def overlapping(scenes, tmp_path_factory):
    """Return a store of all SCENES with two patch indices. Copied by who writes into it."""
    store = sz.ingest(sz.plan_ingest(scenes, tmp_path_factory.mktemp("store") / "overlapping.zarr"))
    index_patches(store, size=200, stride=120, edge="shift", name="fine")
    return sz.open_store(store.root)


@pytest.fixture
def store(overlapping, tmp_path):
    return sz.open_store(shutil.copytree(overlapping.root, tmp_path / "copy.zarr"))


# ------------------------------------------------------------------ the independent count
def painted(store, index, split):
    """Return, a scene, which of its pixels any patch of a split covers."""
    table = store.patches(index, split=split)
    out = {s: np.zeros(SCENES[s][2], bool) for s in store.scenes}
    size = table.attrs["size"]
    for scene, row, col in zip(table["scene"].values, table["row"].values, table["col"].values, strict=True):
        out[scene][row : row + size, col : col + size] = True
    return out


def looked_at(shape):
    """Return (rows, cols) of pixels to look at: every 24th, and all about the borders of cells."""
    lines = [
        np.unique(np.concatenate((np.arange(0, n, 24), np.arange(0, n, 256), np.arange(255, n, 256))))
        for n in shape
    ]
    rows, cols = (v.reshape(-1) for v in np.meshgrid(*lines, indexing="ij"))
    return rows, cols


@lru_cache
def transformer(one, other):
    return Transformer.from_crs(one, other, always_xy=True)


def moved(transform, x, y):
    a, b, c, d, e, f = transform[:6]
    return a * x + b * y + c, d * x + e * y + f


def shared_pixels(store, one, other):
    """Count pixel centres of scenes in ``one`` that lie in a painted pixel of any scene in ``other``."""
    count = 0
    for a, mine in one.items():
        epsg, transform, shape = SCENES[a]
        rows, cols = looked_at(shape)
        used = mine[rows, cols]
        x, y = moved(transform, cols[used] + 0.5, rows[used] + 0.5)
        for b, theirs in other.items():
            to_epsg, to_transform, to_shape = SCENES[b]
            there = transformer(epsg, to_epsg).transform(x, y)
            col, row = (np.floor(v).astype(int) for v in moved(~to_transform, *there))
            inside = (row >= 0) & (col >= 0) & (row < to_shape[0]) & (col < to_shape[1])
            count += int(theirs[row[inside], col[inside]].sum())
    return count


def assert_disjoint(store, version=""):
    for index in ("default", "fine"):
        sides = {name: painted(store, index, f"{version}{name}") for name in ("train", "val", "test")}
        assert index != "default" or any(v.any() for v in sides["train"].values())
        for one, other in (
            ("train", "val"),
            ("val", "train"),
            ("train", "test"),
            ("test", "train"),
            ("val", "test"),
        ):
            assert shared_pixels(store, sides[one], sides[other]) == 0


def test_the_count_sees_a_leak(overlapping):
    everything = {s: np.ones(SCENES[s][2], bool) for s in overlapping.scenes}
    assert shared_pixels(overlapping, everything, everything) > 10_000
    first = {s: v if s == "z33_20260101" else np.zeros_like(v) for s, v in everything.items()}
    other = {s: v if s == "wgs84_20260108" else np.zeros_like(v) for s, v in everything.items()}
    assert shared_pixels(overlapping, first, other) > 1000


def test_dates_crss_and_pixel_sizes_share_no_ground_across_sides(store):
    split = make_split(store, val_fraction=0.35, test_fraction=0.25, seed=2, block="6km")
    assert min(split.counts[k] for k in ("train", "val", "test")) > 10
    assert_disjoint(store)
    total = sum(int(np.prod(s.codes.shape)) for s in split.scenes)
    assert sum(split.counts.values()) == total
    assert 0.1 < split.held_back_share < 0.8


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), block=st.sampled_from(["3km", "7km", "15km"]))
@example(seed=13, block="3km")  # no patch of the finer index is training
def test_no_seed_and_no_block_leaks(overlapping, tmp_path_factory, seed, block):
    store = sz.open_store(shutil.copytree(overlapping.root, tmp_path_factory.mktemp("seed") / "s.zarr"))
    try:
        make_split(store, val_fraction=0.3, test_fraction=0.2, seed=seed, block=block)
    except InvalidInputError as error:
        assert "ground on every side" in str(error)  # noqa: PT017
        return
    assert_disjoint(store)


def test_two_scenes_of_one_place_agree_without_knowing_of_each_other(scenes, tmp_path):
    options = {"val_fraction": 0.3, "seed": 5, "block": 4000}
    together = sz.ingest(sz.plan_ingest(scenes, tmp_path / "all.zarr"))
    both = plan_split(together, **options)
    for path in scenes[:4]:
        alone = sz.ingest(sz.plan_ingest([path], tmp_path / f"{path.stem}.zarr"))
        split = plan_split(alone, **options)
        assert (split.scenes[0].codes == both.by_scene[alone.scenes[0]].codes).all()


@pytest.mark.compat
def test_dates_on_one_grid_are_split_alike(store):
    split = plan_split(store, val_fraction=0.3, block="4km")
    one, other = (split.by_scene[f"z33_202601{day}"].codes for day in ("01", "13"))
    assert (one == other).all()


def test_a_split_does_not_depend_on_the_order_of_ingest(scenes, tmp_path):
    stores = [
        sz.ingest(sz.plan_ingest(paths, tmp_path / f"{i}.zarr"))
        for i, paths in enumerate((scenes, scenes[::-1]))
    ]
    one, other = (plan_split(s, val_fraction=0.3, block="4km") for s in stores)
    assert one.fingerprint == other.fingerprint


def test_a_guard_holds_more_back(store):
    counts = [
        plan_split(store, val_fraction=0.3, block="6km", seed=1, guard=g).counts
        for g in (0, None, 300, "1km")
    ]
    held = [c["held_back"] for c in counts]
    assert held == sorted(held)
    assert held[0] < held[2] < held[3]


def test_only_cells_between_sides_are_held_back(store):
    """A cell that straddles two blocks of one side is of that side: it leaks nothing."""
    split = plan_split(store, val_fraction=0.1, seed=3, block="4km")
    assert split.held_back_share < 0.4
    assert split.counts["train"] > 0.55 * sum(split.counts.values())


# ------------------------------------------------------------------ what is refused
def test_a_side_without_ground_is_refused_with_a_remedy_that_works(store):
    with pytest.raises(InvalidInputError, match="none for 'val'") as caught:
        make_split(store, val_fraction=0.05, seed=1, block="100km")
    name, value = str(caught.value).split("with ")[1].split(":")[0].split("=")
    make_split(store, **{"val_fraction": 0.05, "seed": 1, "block": "100km", name: int(float(value))})
    assert versions(store.place) == (1,)


def test_a_block_that_is_left_out_is_found(store):
    split = make_split(store, val_fraction=0.1, seed=42)
    assert 3000 < split.recipe.block <= 20_000
    assert 0.05 < split.val_ratio < 0.2
    assert make_split(store, val_fraction=0.1, seed=42).fingerprint == split.fingerprint


@pytest.mark.parametrize("val_fraction", [0.1, 0.3])
def test_little_ground_is_divided_whatever_the_seed(scenes, tmp_path, val_fraction):
    store = grow(tmp_path, scenes, 1)
    for seed in range(6):
        split = plan_split(store, val_fraction=val_fraction, seed=seed)
        assert val_fraction / 3 < split.val_ratio < 3 * val_fraction
        assert split.counts["train"] >= 5
    made = make_split(store, val_fraction=val_fraction, seed=5)
    assert made.recipe == split.recipe
    store = grow(tmp_path, scenes, 2)
    extend_split(store)
    again = make_split(store, val_fraction=val_fraction, seed=5)  # more ground, and still the same blocks
    assert (again.version, again.recipe) == (2, made.recipe)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"val_fraction": 0}, "fractions"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "fractions"),
        ({"by": "patch"}, "by must be"),
        ({"block": "ten"}, "a length such as"),
        ({"block": "0m"}, "a block of"),
        ({"guard": "-1m"}, "a length such as"),
        ({"pixel_block": 300}, "multiples of 256"),
        ({"blocks": "1km"}, "Did you mean 'block'"),
        ({"sites": {"nowhere*": "x"}}, "sites of scenes in the store"),
        ({"by": "site"}, "a site for each scene"),
    ],
)
def test_what_cannot_be_split_is_refused(overlapping, options, match):
    with pytest.raises(InvalidInputError, match=match):
        plan_split(overlapping, **options)


def test_a_block_below_a_cell_is_named_as_the_cause(store):
    with pytest.raises(InvalidInputError, match="more than a block of 10 m") as caught:
        make_split(store, block=10)
    name, value = str(caught.value).split("with ")[1].split(":")[0].split("=")
    assert name == "block"
    assert "val_fraction" not in str(caught.value)
    assert make_split(store, block=float(value)).counts["val"]


def test_by_scene_with_one_scene_is_told_to_split_by_ground(scenes, tmp_path):
    store = grow(tmp_path, scenes, 1)
    with pytest.raises(InvalidInputError, match=r"whole scenes.*(by=ground|split by ground)"):
        make_split(store, by="scene")


def test_chips_alone_are_split_by_their_ids(tmp_path):
    chip_folder(tmp_path / "chips", count=5)
    sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    with pytest.raises(InvalidInputError, match="none beside chips") as caught:
        make_split(tmp_path / "s.zarr")
    assert versions(Folder(tmp_path / "s.zarr")) == ()
    call = re.search(r"sarzarr\.(SplitManager.*\))\.$", str(caught.value))[1]
    assert eval(call, {"SplitManager": sz.SplitManager}) == 1
    with pytest.raises(InvalidInputError, match="Ingest some first"):
        make_split(create_store(tmp_path / "empty.zarr"))


def test_scenes_below_a_patch_are_split_and_said_to_have_none(tmp_path):
    paths = [
        write_band(
            tmp_path / f"small_{i}_vv.tif",
            speckle((200, 230), seed=i),
            transform=rasterio.Affine(10, 0, 500_000 + 20_000 * i, 0, -10, 5_400_000),
        )
        for i in range(12)
    ]
    store = sz.ingest(sz.plan_ingest(paths, tmp_path / "s.zarr"))
    split = make_split(store)
    assert split.counts["val"]
    assert "0 patches, since every scene is smaller than 256 pixels" in split_text(store, split)
    assert "patch_size=128" in split_text(store, split)
    reader = sz.PatchReader(store, patch_size=128, split="train")
    said = split_text(sz.open_store(store.root), split)
    assert f" train ({len(reader.selection)}), " in said


def test_what_readers_take_by_default_is_counted_as_they_count(tmp_path):
    power = speckle((1536, 1536), seed=1)
    power[:700, :900] = np.nan
    power[800:1100] = 1e4
    store = sz.ingest(
        sz.plan_ingest([write_band(tmp_path / "a_vv.tif", power, nodata=np.nan)], tmp_path / "s.zarr")
    )
    split = make_split(store, val_fraction=0.3)
    said = split_text(store, split)
    for side in ("train", "val"):
        whole = store.patches(split=side).sizes["patch"]
        taken = len(sz.PatchReader(store, split=side).selection)
        assert taken < whole or side == "val"
        assert f"{whole} {side} ({taken})" in said
    assert "min_valid=1 and min_unsaturated=0.9" in said


def test_a_split_by_scene_that_leaks_cannot_be_written(store):
    with pytest.raises(SplitLeakError, match="by='ground'"):
        make_split(store, val_fraction=0.3, by="scene", seed=2)
    assert versions(store.place) == ()


def test_sites_that_share_ground_cannot_be_written(store):
    sites = {"z33*": "a", "z32*": "b", "wgs*": "c", "laea*": "d", "far*": "e"}
    with pytest.raises(SplitLeakError, match="share no ground"):
        next(_drawn(store, by="site", sites=sites, val_fraction=0.4))
    one_place = {"far*": "far", "*": "middle"}
    split = next(_drawn(store, by="site", sites=one_place, val_fraction=0.4))
    assert split.counts["held_back"] == 0
    assert len({int(c) for s in split.scenes if s.site == "middle" for c in np.unique(s.codes)}) == 1


def _drawn(store, **options):
    """Yield the splits of seeds that give every side ground."""
    for seed in range(40):
        try:
            yield plan_split(store, seed=seed, **options)
        except InvalidInputError:
            continue


def test_a_version_that_leaks_is_not_imported(store):
    split = make_split(store, val_fraction=0.25, block="4km")
    document = json.loads(to_json(split))
    scene = next(s for s in document["scenes"] if s["scene"] == "z32_20260107")
    scene["codes"] = ["2" * len(row) for row in scene["codes"]]
    edited = json.dumps(document)
    with pytest.raises(CorruptStoreError, match="edited or damaged"):
        from_json(edited)
    document["fingerprint"] = _fingerprint(edited)
    document["version"] = 2
    path = store.root.parent / "leak.json"
    path.write_text(json.dumps(document))
    with pytest.raises(SplitLeakError):
        import_split(store, path)
    assert versions(store.place) == (1,)


def _fingerprint(text):
    try:
        return from_json(text).fingerprint
    except CorruptStoreError as error:
        short = str(error).split("got ")[1][:16]
    return next(s for s in [_from_unchecked(json.loads(text)).fingerprint] if s.startswith(short))


def _from_unchecked(document):
    from sarzarr.splits.exchange import _scene_of
    from sarzarr.store.split_table import recipe_of

    return Split(
        version=document["version"],
        recipe=recipe_of(document),
        scenes=tuple(_scene_of(s) for s in document["scenes"]),
        fixed_units=np.array([int(u, 16) for u in document["fixed_units"]], np.uint64),
        created_at=document["created_at"],
    )


# ------------------------------------------------------------------ versions
def grow(tmp_path, scenes, count):
    return sz.ingest(sz.plan_ingest(scenes[:count], tmp_path / "growing.zarr"))


def val_of(split):
    return {s.scene: (s.codes == VAL).tobytes() for s in split.scenes}


@pytest.mark.parametrize("fixed_val", [pytest.param(False, marks=pytest.mark.slow), True])
def test_extending_leaves_validation_as_it_was_and_shares_no_ground(scenes, tmp_path, fixed_val):
    store = grow(tmp_path, scenes, 1)
    first = make_split(store, val_fraction=0.25, seed=3, block="4km", fixed_val=fixed_val)
    for version, count in enumerate((2, 4, 7), start=2):
        store = grow(tmp_path, scenes, count)
        split = extend_split(store, notes=f"{count} scenes")
        assert split.parent == version - 1
        assert split.version == version
        for s in list_splits(store)[0].scenes:
            assert (split.by_scene[s.scene].codes == s.codes).all()
    index_patches(store, size=200, stride=120, edge="shift", name="fine")
    store = sz.open_store(store.root)
    assert_disjoint(store)
    newest = get_split(store)
    if fixed_val:
        assert val_of(newest)["z33_20260101"] == val_of(first)["z33_20260101"]
        assert not any(v.strip(b"\0") for s, v in val_of(newest).items() if s != "z33_20260101")
        assert newest.counts["test"] == 0
        overlap = newest.by_scene["z33_20260113"].codes  # the same grid: its validation is held back
        old = newest.by_scene["z33_20260101"].codes
        assert (overlap[old == VAL] == HELD).all()
        assert (overlap[old == TRAIN] == TRAIN).all()
    else:
        whole = plan_split(store, val_fraction=0.25, seed=3, block="4km")
        assert all((s.codes == newest.by_scene[s.scene].codes).all() for s in whole.scenes)
    assert [s.notes for s in list_splits(store)][1:] == ["2 scenes", "4 scenes", "7 scenes"]


def test_extending_ten_times_without_new_ground_writes_nothing(store):
    split = make_split(store, val_fraction=0.25, block="4km")
    before = tree_hash(store.root)
    for _ in range(10):
        again = extend_split(store)
        assert again.version == 1
        assert again.fingerprint == split.fingerprint
    assert tree_hash(store.root) == before


def test_pending_lists_what_no_version_knows(scenes, tmp_path):
    store = grow(tmp_path, scenes, 2)
    assert pending(store).new == store.scenes
    make_split(store, val_fraction=0.25, seed=3, block="4km")
    assert asdict(pending(store)) == {"new": (), "changed": (), "gone": ()}
    store = grow(tmp_path, scenes, 4)
    assert set(pending(store).new) == {"z33_20260125", "z32_20260107"}
    table = store.patch_columns()
    known = np.isin(table["owner_scene"].values[table["owner"].values], ["z33_20260101", "z33_20260113"])
    for name in ("train", "val", "held_back"):
        assert not store.split_mask(table, name)[~known].any()
    with pytest.raises(SplitExistsError, match="extend"):
        make_split(store, val_fraction=0.25, seed=3, block="4km")


def test_a_scene_on_another_grid_is_new_ground(scenes, tmp_path):
    store = grow(tmp_path, scenes, 2)
    make_split(store, val_fraction=0.25, seed=3, block="4km")
    epsg, transform, shape = SCENES["z33_20260101"]
    there = rasterio.Affine(*transform[:2], transform.c + 3000, *transform[3:6])
    write_band(
        tmp_path / "z33_20260101_vv.tif",
        speckle(shape, seed=9),
        crs=f"EPSG:{epsg}",
        transform=there,
        tiles=256,
    )
    options = sz.IngestOptions(replace=True)
    store = sz.ingest(sz.plan_ingest([tmp_path / "z33_20260101_vv.tif"], store.root, options=options))
    assert pending(store).changed == ("z33_20260101",)
    table = store.patch_columns()
    mine = table["owner_scene"].values[table["owner"].values] == "z33_20260101"
    assert not store.split_mask(table, "train")[mine].any()
    split = extend_split(store)
    assert split.by_scene["z33_20260101"].since == 2
    assert store.split_mask(table, "train")[mine].any()
    assert asdict(pending(store)) == {"new": (), "changed": (), "gone": ()}


def test_ground_of_scenes_that_left_is_said_to_be_unknown_where_whole_scenes_are_drawn(tmp_path, caplog):
    def add(name, east):
        epsg, transform, shape = scene_at(32633, pixel=10, side_m=5120, east=east)
        path = write_band(
            tmp_path / f"{name}_vv.tif", speckle(shape), crs=f"EPSG:{epsg}", transform=transform
        )
        return sz.ingest(sz.plan_ingest([path], tmp_path / "s.zarr"))

    places = {f"s{i}": 20_000 * i for i in range(6)}
    store = [add(*place) for place in places.items()][-1]
    split = make_split(store, by="scene", val_fraction=0.3, fixed_val=True)
    held = next(s.scene for s in split.scenes if (s.codes == VAL).any())
    sz.remove_scene(store, held)
    store = add("same_ground", places[held])
    extend_split(store)
    assert f"1 that left the store ({held}): if they come back, run check_split" in caplog.text
    check_split(store, get_split(store))
    store = add(held, places[held])
    with pytest.raises(SplitLeakError, match=held):
        check_split(store, get_split(store))


def test_a_second_recipe_needs_a_fresh_start(store):
    first = make_split(store, val_fraction=0.25, block="4km")
    assert make_split(store, val_fraction=0.25, block="4km").version == 1
    with pytest.raises(SplitExistsError, match="--fresh"):
        make_split(store, val_fraction=0.25, block="4km", seed=1)
    second = make_split(store, val_fraction=0.25, block="4km", seed=1, fresh=True)
    assert (second.version, second.parent) == (2, None)
    assert read_split(store.place, 1).fingerprint == first.fingerprint
    newest = store.split_mask(store.patch_columns(), "val")
    assert (newest == store.split_mask(store.patch_columns(), "v2:val")).all()
    assert (newest != store.split_mask(store.patch_columns(), "v1:val")).any()


def test_a_number_is_never_used_again(store):
    make_split(store, val_fraction=0.25, block="4km")
    make_split(store, val_fraction=0.25, block="4km", seed=1, fresh=True)
    shutil.rmtree(store.root / "splits" / "v2")
    assert make_split(store, val_fraction=0.25, block="4km", seed=2, fresh=True).version == 3


def test_a_version_never_changes(store):
    split = make_split(store, val_fraction=0.25, block="4km")
    before = tree_hash(store.root / "splits" / "v1")
    with pytest.raises(SplitExistsError, match="another process"):
        write_split(store, split)
    assert tree_hash(store.root / "splits" / "v1") == before
    assert [p.name for p in (store.root / "splits").iterdir() if p.name.startswith(".")] == []


def _race(root, barrier, results):
    split = plan_split(root, val_fraction=0.25, block="4km", notes=str(os.getpid()))
    barrier.wait()
    try:
        write_split(sz.open_store(root), split)
        results.put((os.getpid(), True))
    except SplitExistsError:
        results.put((os.getpid(), False))


def test_of_two_writers_one_wins(store):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    writers = [context.Process(target=_race, args=(store.root, barrier, results)) for _ in range(2)]
    for w in writers:
        w.start()
    outcomes = dict(results.get(timeout=60) for _ in writers)
    for w in writers:
        w.join()
    assert sum(outcomes.values()) == 1
    winner = next(pid for pid, won in outcomes.items() if won)
    assert get_split(store).notes == str(winner)
    assert versions(store.place) == (1,)


def _write_for_ever(root):
    for seed in range(10_000):
        with contextlib.suppress(InvalidInputError):  # a seed that leaves a side empty
            make_split(root, val_fraction=0.25, block="4km", seed=seed, fresh=True)


@pytest.mark.parametrize(
    "waits", [(0.01,), pytest.param((0.0, 0.03, 0.05, 0.07, 0.11, 0.19), marks=pytest.mark.slow)]
)
def test_killed_at_any_moment_the_last_version_is_whole(store, waits):
    make_split(store, val_fraction=0.25, block="4km")
    context = multiprocessing.get_context("spawn")
    for wait in waits:
        writer = context.Process(target=_write_for_ever, args=(store.root,))
        have = versions(store.place)[-1]
        writer.start()
        deadline = time.monotonic() + 60
        while versions(store.place)[-1] == have:
            assert writer.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(wait)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        for split in list_splits(store):  # each is read with its checksums and its fingerprint
            assert split.counts["val"]
        assert store.split_mask(store.patch_columns(), "val").any()


def test_a_rename_onto_a_version_fails(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with pytest.raises(FileExistsError):
        swap_in(tmp_path / "a", tmp_path / "b", once=True)
    assert (tmp_path / "b" / "file").read_text() == "b"
    with pytest.raises(FileNotFoundError):
        swap_in(tmp_path / "c", tmp_path / "d", once=True)


def test_a_flipped_bit_in_a_version_is_seen(store):
    make_split(store, val_fraction=0.25, block="4km")
    for column in ("code", "owner_grid", "fixed_unit"):
        place = store.root / "splits" / "v1" / column / "c" / "0"
        before = place.read_bytes()
        place.write_bytes(bytes([*before[:-9], before[-9] ^ 4, *before[-8:]]))
        with pytest.raises(CorruptStoreError):
            get_split(store)
        place.write_bytes(before)
    document = store.root / "splits" / "v1" / "zarr.json"
    document.write_text(document.read_text().replace('"seed": 42', '"seed": 43'))
    with pytest.raises(CorruptStoreError, match=r"splits/v1/zarr.json.*verify STORE --accept"):
        get_split(store)
    accept(store.place)
    with pytest.raises(CorruptStoreError, match="fingerprint"):  # what a split is cannot be changed by hand
        get_split(store)


def test_asking_for_what_is_not_there_says_what_is(store):
    with pytest.raises(NotInStoreError, match="split create STORE"):
        store.patches(split="train")
    with pytest.raises(NotInStoreError):
        extend_split(store)
    make_split(store, val_fraction=0.25, block="4km")
    with pytest.raises(NotInStoreError, match="among v1 was expected, got v7"):
        store.patches(split="v7:train")
    with pytest.raises(InvalidInputError, match="a split such as"):
        store.patches(split="training")


def test_sides_cover_every_patch_that_is_not_between_them(store):
    split = make_split(store, val_fraction=0.25, test_fraction=0.1, block="4km")
    table = store.patch_columns()
    masks = [store.split_mask(table, name) for name in ("train", "val", "test", "held_back")]
    assert (np.sum(masks, axis=0) == 1).all()  # patches are cells here
    fine = store.patch_columns("fine")
    assert (np.sum([store.split_mask(fine, n) for n in ("train", "val", "test")], axis=0) <= 1).all()
    counted = int(patches_of(store, split, table, "val").sum())
    assert counted == int(masks[1].sum()) == store.patches(split="val").sizes["patch"]


@pytest.mark.compat
def test_the_table_opens_with_xarray_and_says_what_it_is(store):
    split = make_split(store, val_fraction=0.25, block="4km", notes="for the paper")
    tree = xr.open_datatree(store.root, engine="zarr")
    group = tree["splits/v1"]
    assert int((group["code"] == VAL).sum()) == split.counts["val"]
    for name in ("seed", "val_fraction", "by", "block", "guard", "fixed_val", "parent", "notes", "version"):
        wanted = getattr(split.recipe, name) if hasattr(split.recipe, name) else getattr(split, name)
        assert group.attrs[name] == wanted
    assert group.attrs["counts"] == split.counts
    assert group.attrs["val_ratio"] == split.val_ratio
    assert group.attrs["created_at"].endswith("Z")
    assert group.attrs["code_meanings"].split() == ["held_back", "train", "val", "test"]
    frame = to_table(split)[["owner", "cell_row", "cell_col", "code"]].to_dataframe()
    assert len(frame) == sum(split.counts.values())


# ------------------------------------------------------------------ JSON
def test_json_round_trips_exactly(store, tmp_path):
    make_split(store, val_fraction=0.25, test_fraction=0.1, block="4km", notes="ä\n'quoted'")
    split = get_split(store)
    text = to_json(split)
    assert to_json(from_json(text)) == text
    path = export_split(store, tmp_path / "v1.json")
    other = sz.open_store(shutil.copytree(store.root, tmp_path / "other.zarr"))
    shutil.rmtree(other.root / "splits")
    got = import_split(other, path)
    assert got.fingerprint == split.fingerprint
    assert tree_hash(other.root / "splits" / "v1") == tree_hash(store.root / "splits" / "v1")
    assert export_split(other, tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert import_split(other, path).version == 1  # it is there
    make_split(other, val_fraction=0.25, block="4km", fresh=True)
    export_split(other, tmp_path / "v2.json")
    make_split(store, val_fraction=0.3, block="4km", fresh=True)
    with pytest.raises(SplitExistsError, match="another v2"):
        import_split(store, tmp_path / "v2.json")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"sarzarr_split": 2}', '{"sarzarr_split": 1, "version": "x"}', '{"version": 1}']
)
def test_other_documents_are_refused(text):
    with pytest.raises(InvalidInputError):
        from_json(text)


def test_a_version_of_another_grid_is_not_imported(scenes, tmp_path):
    store = grow(tmp_path, scenes, 2)
    make_split(store, val_fraction=0.25, seed=3, block="4km")
    path = export_split(store, tmp_path / "v1.json")
    document = json.loads(path.read_text())
    document["scenes"][0]["grid"] = "0" * 16
    document["fingerprint"] = _fingerprint(json.dumps(document))
    path.write_text(json.dumps(document))
    shutil.rmtree(store.root / "splits")
    with pytest.raises(InvalidInputError, match="another"):
        import_split(store, path)


# ------------------------------------------------------------------ scenes without a place in the world
def adrift(tmp_path, shapes):
    paths = []
    for i, shape in enumerate(shapes):
        path = tmp_path / f"date_{i}.tif"
        with rasterio.Env(), rasterio.open(
            path, "w", driver="GTiff", height=shape[0], width=shape[1], count=1, dtype="float32",
            transform=rasterio.Affine.scale(2.0),
        ) as out:  # fmt: skip
            out.write(speckle(shape, seed=i), 1)
        paths.append(path)
    return sz.ingest(sz.plan_ingest(paths, tmp_path / "adrift.zarr"))


def test_scenes_of_one_shape_without_a_crs_share_one_lattice_of_pixels(tmp_path):
    store = adrift(tmp_path, [(1100, 1300)] * 3)
    split = make_split(store, val_fraction=0.25, seed=1, pixel_block=512)
    codes = [s.codes for s in split.scenes]
    assert (codes[0] == codes[1]).all()
    assert (codes[0] == codes[2]).all()
    assert {s.place for s in split.scenes} == {"pixels/1100x1300"}
    assert not split.counts["held_back"]  # blocks of whole cells have nothing between them
    assert split.blocks == ("512 px",)
    found = plan_split(store, val_fraction=0.1)
    assert found.blocks == (f"{found.recipe.pixel_block} px",)
    assert found.recipe.pixel_block < 1024
    assert found.recipe.block == 10_000  # no scene needs one in metres, so it was not made smaller
    blocks = codes[0][:2, :2]
    assert len(np.unique(blocks)) == 1
    with pytest.raises(SplitLeakError, match="by='ground'"):
        next(_drawn(store, val_fraction=0.4, by="scene"))


def test_a_split_that_cannot_know_is_refused(tmp_path):
    store = adrift(tmp_path, [(600, 800), (600, 800), (700, 800)])
    with pytest.raises(InvalidInputError, match="--site 'date_0=NAME'"):
        plan_split(store)
    with pytest.raises(InvalidInputError, match="got 1 without a CRS"):
        plan_split(store, sites={"date_[01]": "lake"})
    split = plan_split(store, sites={"date_[01]": "lake", "date_2": "harbour"}, val_fraction=0.3, seed=4)
    assert [s.place for s in split.scenes] == ["pixels/lake", "pixels/lake", "pixels/harbour"]
    with pytest.raises(StopIteration):  # of one site and two shapes, all is one piece: nothing to divide
        next(_drawn(store, sites={"*": "lake"}, val_fraction=0.4))


def test_scenes_adrift_beside_others_need_a_site(scenes, tmp_path):
    store = adrift(tmp_path, [(600, 800)])
    store = sz.ingest(sz.plan_ingest(scenes[:1], store.root))
    with pytest.raises(InvalidInputError, match="among 2 scenes"):
        plan_split(store)
    split = make_split(store, sites={"date*": "lake"}, val_fraction=0.25, seed=3, block="4km")
    assert {s.place for s in split.scenes} == {"world", "pixels/lake"}
    assert split.blocks == ("4 km", "1024 px")
    assert replace(split, recipe=replace(split.recipe, by="scene")).blocks == ()
    assert check_split(store, split) is None


def test_a_new_scene_may_not_blur_a_known_place(tmp_path):
    store = adrift(tmp_path, [(1100, 1300)] * 2)
    make_split(store, val_fraction=0.25, seed=1, pixel_block=512, sites={"*": "lake"})
    extra = tmp_path / "date_9.tif"
    shutil.copy(tmp_path / "date_0.tif", extra)
    with rasterio.open(
        extra,
        "w",
        driver="GTiff",
        height=600,
        width=600,
        count=1,
        dtype="float32",
        transform=rasterio.Affine.scale(2.0),
    ) as out:
        out.write(speckle((600, 600), seed=5), 1)
    store = sz.ingest(sz.plan_ingest([extra], store.root))
    with pytest.raises(InvalidInputError, match="without a CRS"):
        extend_split(store)
    with pytest.raises(SplitLeakError, match="another site"):
        extend_split(store, sites={"date_9": "lake"})
    assert extend_split(store, sites={"date_9": "harbour"}).version == 2
    assert versions(store.place) == (1, 2)


# ------------------------------------------------------------------ real scenes
def test_the_real_scenes_split_without_a_shared_pixel(real_store, tmp_path):
    store = sz.open_store(shutil.copytree(real_store.root, tmp_path / "real.zarr"))
    with pytest.raises(InvalidInputError, match="201"):
        make_split(store, val_fraction=0.2)
    split = next(_drawn(store, val_fraction=0.2, sites={"*_2019*": "series"}, block="1500m", pixel_block=256))
    write_split(store, split)
    dates = [s.codes for s in split.scenes if "_2019" in s.scene]
    assert len(dates) == 5
    assert all((d == dates[0]).all() for d in dates)
    for scene in store.scenes:
        masks = {}
        for name in ("train", "val"):
            masks[name] = np.zeros(tuple(store.rows(scene)[k].values[0] for k in ("height", "width")), bool)
            table = store.patches(split=name)
            for s, row, col in zip(*(table[k].values for k in ("scene", "row", "col")), strict=True):
                if s == scene:
                    masks[name][row : row + 256, col : col + 256] = True
        assert not (masks["train"] & masks["val"]).any()
    assert min(split.counts["val"], split.counts["train"]) > 0


def test_control_points_widen_the_guard(real_data, tmp_path):
    files = sorted((real_data / "s1_grd_dn_gcp_safe").rglob("*.tif*"))
    store = sz.ingest(sz.plan_ingest(files, tmp_path / "gcp.zarr"))
    assert set(store.catalog["geolocation"].values) == {"gcps"}
    split = next(_drawn(store, val_fraction=0.4))
    assert {s.place for s in split.scenes} == {"world"}
    assert split.recipe.block > 50_000  # these pixels are of 200 m
    check_split(store, split)
    grounds = grounds_of(store)
    for g in grounds.scenes:
        footprint = grounds.footprint(g)
        assert 1000 < footprint.doubt < 1500  # beyond what their control points miss by
        mine, guarded = footprint.extents, footprint.guarded(0.0)
        margin = (mine.south - guarded.south) * METRES_PER_DEGREE
        assert np.allclose(margin, footprint.doubt)


def test_numbers_of_versions_that_were_taken_out_are_not_used_again(tmp_path, overlapping):
    store = sz.open_store(shutil.copytree(overlapping.root, tmp_path / "s.zarr"))
    first = sz.make_split(store)
    kept = sz.export_split(store, tmp_path / "v.json", first.version)
    for i in range(2):
        sz.make_split(store, seed=first.recipe.seed + 1 + i, fresh=True)
    for version in (store.root / "splits").glob("v*"):
        shutil.rmtree(version)
    sz.import_split(store, kept)
    assert next_version(store.place) > first.version + 1


def test_a_document_whose_cells_are_not_the_scenes_is_refused(tmp_path, overlapping):
    store = sz.open_store(shutil.copytree(overlapping.root, tmp_path / "s.zarr"))
    split = sz.make_split(store)
    shutil.rmtree(store.root / "splits" / split.name)
    one = replace(split.scenes[0], codes=np.ones((1, 1), np.uint8))
    (tmp_path / "v.json").write_text(to_json(replace(split, scenes=(one, *split.scenes[1:]))))
    with pytest.raises(InvalidInputError, match=r"cells were expected for .*, got \(1, 1\)"):
        sz.import_split(store, tmp_path / "v.json")


@pytest.mark.parametrize("by", ["ground", "scene"])
def test_ground_without_a_place_is_on_no_side(tmp_path, by):
    """A cell over a pole has no extent in longitude: nobody can see what lies on it, so it takes no part."""
    for i, pixel in enumerate((100.0, 101.0, 100.5, 99.0)):
        write_band(
            tmp_path / f"p{i}_vv.tif", speckle((256, 256), seed=i), crs="EPSG:3413",
            transform=rasterio.Affine(pixel, 0, -128 * pixel, 0, -pixel, 128 * pixel),
        )  # fmt: skip
    plan = sz.plan_ingest(
        sorted(tmp_path.glob("*.tif")), tmp_path / "s.zarr", quantity="sigma0", representation="power"
    )
    with pytest.raises(InvalidInputError, match="ground on every side was expected"):
        sz.make_split(sz.ingest(plan), by=by, val_fraction=0.5)
