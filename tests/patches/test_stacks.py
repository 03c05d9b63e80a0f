"""Stacks: what is stacked and what is not, the cube, and batches of dates, each patch once an epoch."""

import pickle
import subprocess
import sys
from datetime import UTC, datetime

import dask
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_stores import codes, expected
from rasterio.transform import from_origin
from tiffs import speckle, write

import sarzarr as sz
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.patches.stacks.find import _of_one_clock, describe_stacks
from sarzarr.pixels.turns import apply
from sarzarr.reader.order import Position, Share

SHAPE = (520, 800)
UP = {"orbit": "117", "state": "ascending"}


def scene(
    folder, name, when, *, orbit="", state="", platform="", shift=0.0, seed=0, hole=False, pols=("vv",)
):
    """Write a scene on the one grid, or ``shift`` metres east of it; its tags say what is given."""
    tags = {"sat_relative_orbit": orbit, "sat_orbit_state": state, "platform": platform, "datetime": when}
    files = []
    for i, pol in enumerate(pols):
        pixels = speckle((1, *SHAPE), seed=100 * seed + i)
        if hole:
            pixels[0, 10:20, 300:310] = np.nan
        files.append(
            write(
                folder / f"{name}_{pol}.tif",
                pixels,
                tags={k: v for k, v in tags.items() if v},
                transform=from_origin(500_000 + shift, 5_000_000, 10, 10),
                nodata=np.nan,
            )
        )
    return files


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Return a store of two passes, two tracks, two grids, what says nothing of its orbit, and what has no time."""
    folder = tmp_path_factory.mktemp("stacks")
    both = ("vv", "vh")
    files = [
        *scene(folder, "up3", "2020-01-25T05:00:01Z", **UP, platform="S1A", seed=3, pols=both),
        *scene(folder, "up1", "2020-01-01T05:00:00Z", **UP, platform="S1A", seed=1, pols=both),
        *scene(folder, "up2", "2020-01-07T05:00:00.5Z", **UP, platform="S1B", seed=2, pols=both, hole=True),
        *scene(
            folder, "down1", "2020-01-02T17:00:00Z", orbit="22", state="descending", platform="S1A", seed=4
        ),
        *scene(
            folder, "down2", "2020-01-14T17:00:00Z", orbit="22", state="descending", platform="S1A", seed=5
        ),
        *scene(
            folder, "near1", "2020-01-03T05:00:00Z", orbit="44", state="ascending", platform="S1A", seed=6
        ),
        *scene(
            folder, "near2", "2020-01-15T05:00:00Z", orbit="44", state="ascending", platform="S1A", seed=7
        ),
        *scene(folder, "east1", "2020-01-01T05:00:00Z", **UP, platform="S1A", seed=8, shift=4),
        *scene(folder, "east2", "2020-01-13T05:00:00Z", **UP, platform="S1A", seed=9, shift=4.001),
        *scene(folder, "who1", "2020-01-05T00:00:00Z", seed=10),
        *scene(folder, "who2", "2020-01-06T00:00:00Z", seed=11),
        *scene(folder, "when", "", **UP, platform="S1A", seed=12),
    ]
    settings = {"quantity": "sigma0", "representation": "power", "shard": 512}
    return sz.ingest(sz.plan_ingest(files, folder / "s.zarr", **settings))


@pytest.fixture(scope="module")
def series(real_data, tmp_path_factory):
    """Return a store of the five dates alone."""
    files = sorted((real_data / "s1_timeseries_nogeo").glob("*.tif"))
    return sz.ingest(sz.plan_ingest(files, tmp_path_factory.mktemp("series") / "s.zarr"))


def scenes_of(stacks):
    return [s.scenes for s in stacks]


# ------------------------------------------------------------------ what is stacked
def test_scenes_are_grouped_by_grid_orbit_pass_and_arrays_and_sorted_by_time(store):
    stacks = sz.find_stacks(store)
    assert scenes_of(stacks) == [
        ("down1", "down2"),
        ("east1", "east2"),
        ("near1", "near2"),
        ("up1", "up2", "up3"),
        ("who1", "who2"),
    ]
    up = stacks[3]
    assert (up.view.relative_orbit, up.view.orbit_state, up.view.mission) == (117, "ascending", "sentinel-1")
    assert (
        up.times.tolist()
        == np.array(
            ["2020-01-01T05:00:00", "2020-01-07T05:00:00.5", "2020-01-25T05:00:01"], "datetime64[ns]"
        ).tolist()
    )
    assert up.revisit_days == pytest.approx(12, abs=1e-4)
    assert str(stacks[4].view) == "orbit unknown"
    assert [s.is_certain for s in stacks] == [True, True, True, True, False]
    assert pickle.loads(pickle.dumps(up)) == up


def test_an_offset_within_the_rule_of_passing_through_is_one_grid(store):
    east = {s.id: s for s in sz.find_stacks(store)}["east1"]
    lefts = [store.grid(s).transform[2] for s in east.scenes]
    assert lefts[0] != lefts[1]


def test_polarizations_count_only_where_they_are_asked_for(store):
    assert sz.find_stacks(store, polarizations="vh") == (
        sz.make_stack(store, ["up3", "up1", "up2"], polarizations=["VH"]),
    )
    swapped = sz.make_stack(store, ["up1", "up2"], polarizations=["vv", "vh"])
    assert swapped.arrays == ("vv", "vh")
    assert sz.make_stack(store, ["up1", "who1"]).arrays == ("vv",)


@pytest.mark.parametrize(
    ("scenes", "says"),
    [
        (["up1", "down1"], r"one side.*ascending.*descending.*mixed=True"),
        (["up1", "near1"], r"orbit 117.*orbit 44"),
        (["up1", "east1"], r"on one grid.*--grid like:up1"),
        (["up1", "when"], r"a time was expected, got none for 'when'.*times="),
        (["up1", "up1"], "different scenes"),
    ],
)
def test_what_must_not_be_stacked_is_refused_with_a_remedy(store, scenes, says):
    with pytest.raises(InvalidInputError, match=says):
        sz.make_stack(store, scenes)


def test_who_says_so_may_mix_views_and_say_times(store):
    mixed = sz.make_stack(store, ["up1", "down1", "who1"], mixed=True)
    assert mixed.scenes == ("up1", "down1", "who1")
    assert str(mixed.view) == "orbit unknown"
    told = sz.make_stack(store, ["up1", "when"], times=["2021-01-01", datetime(2020, 5, 1, 2, tzinfo=UTC)])
    assert (told.scenes, told.stamps) == (("when", "up1"), ("2020-05-01T02:00:00", "2021-01-01T00:00:00"))
    delivered = next(iter(sz.PatchReader(store, stack=told, with_meta=True)))
    assert delivered["time"][0] == ["2020-05-01T02:00:00Z", "2021-01-01T00:00:00Z"]
    again = sz.make_stack(
        store, ["up1", "when"], times=np.array(["2021-01-01", "2020-05-01T02:00"], "M8[ns]")
    )
    assert again.times.tolist() == told.times.tolist()
    with pytest.raises(InvalidInputError, match="ISO 8601"):
        sz.make_stack(store, ["up1", "when"], times=["2021-01-01", "soon"])
    with pytest.raises(InvalidInputError, match="both at 2021-01-01"):
        sz.make_stack(store, ["up1", "when"], times=["2021-01-01", "2021-01-01"])


def test_scenes_that_are_not_there_are_named(store):
    with pytest.raises(NotInStoreError, match="nope"):
        sz.make_stack(store, ["up1", "nope"])
    with pytest.raises(NotInStoreError, match="'down1'"):
        sz.make_stack(store, ["up1", "down1"], polarizations=["vh"])
    with pytest.raises(NotInStoreError, match="hh"):
        sz.find_stacks(store, polarizations=["hh"])


# ------------------------------------------------------------------ the cube
@pytest.mark.compat
@pytest.mark.parametrize(("representation", "suffix"), [("db", "_db"), ("power", "")])
def test_the_cube_is_each_date_and_a_task_is_a_date_and_block(store, representation, suffix):
    cube = sz.open_stack(store.root, "up2", representation=representation)
    assert dict(cube.sizes) == {"time": 3, "y": SHAPE[0], "x": SHAPE[1]}
    assert sorted(map(str, cube.data_vars)) == [f"vh{suffix}", f"vv{suffix}"]
    assert cube[f"vv{suffix}"].chunks == ((1, 1, 1), (520,), (800,))
    assert len(cube[f"vv{suffix}"].__dask_graph__()) == 3
    assert cube.scene.values.tolist() == ["up1", "up2", "up3"]
    assert cube.time.dtype == "datetime64[ns]"
    assert cube.indexes["time"].is_monotonic_increasing
    assert (cube.attrs["sat:orbit_state"], cube.attrs["sat:relative_orbit"]) == ("ascending", 117)
    assert cube.platform.values.tolist() == ["sentinel-1a", "sentinel-1b", "sentinel-1a"]
    assert cube.rio.crs.to_epsg() == 32633
    assert cube.rio.transform() == from_origin(500_000, 5_000_000, 10, 10)
    loaded = cube.load()
    for i, name in enumerate(cube.scene.values):
        date = store.db(name) if representation == "db" else store.power(name)
        for variable in cube.data_vars:
            np.testing.assert_array_equal(loaded[variable].values[i], date[variable].values)
            assert loaded[variable].attrs["units"] == date[variable].attrs["units"]
            np.testing.assert_array_equal(date.x.values, cube.x.values)
    assert np.isnan(loaded[f"vv{suffix}"].values[1, 15, 305])
    assert np.isfinite(loaded[f"vv{suffix}"].values[[0, 2], 15, 305]).all()


def test_a_cube_pickles_and_reads_only_what_is_asked(store):
    cube = sz.open_stack(store, "up1")
    (one,) = dask.optimize(cube.vv_db.sel(time="2020-01-07"))
    assert len(one.__dask_graph__()) <= 2
    row = pickle.loads(pickle.dumps(cube)).vv_db.isel(time=0, y=0).values
    np.testing.assert_array_equal(row, store.db("up1", "vv").values[0])


def test_one_cube_is_of_one_stack(store):
    with pytest.raises(InvalidInputError, match=r"one stack was expected, got 4.*'down1', 'east1'"):
        sz.open_stack(store)
    with pytest.raises(InvalidInputError, match="representation"):
        sz.open_stack(store, "up1", representation="dB")
    with pytest.raises(NotInStoreError, match=r"'when'; stacks of s.zarr begin with 'down1'"):
        sz.open_stack(store, "when")
    assert sz.open_stack(store, scenes=["who2", "who1"]).scene.values.tolist() == ["who1", "who2"]
    assert sz.open_stack(store, sz.find_stacks(store)[0], polarizations=["vv"]).sizes["time"] == 2


# ------------------------------------------------------------------ batches
def test_a_batch_holds_the_dates_with_their_times(store):
    reader = sz.PatchReader(store, stack="up1", polarizations=["vh", "vv"], with_meta=True, batch_size=9)
    (batch,) = reader
    assert batch["image"].shape == batch["flags"].shape == (6, 3, 2, 256, 256)
    assert batch["image"].dtype == np.float32
    assert batch["array"] == [["vh", "vv"]] * 6
    assert batch["scene"] == [["up1", "up2", "up3"]] * 6
    assert (
        batch["time"] == [["2020-01-01T05:00:00Z", "2020-01-07T05:00:00.500000Z", "2020-01-25T05:00:01Z"]] * 6
    )
    assert batch["seconds"].tolist() == [[1577854800.0, 1578373200.5, 1579928401.0]] * 6
    assert batch["platform"][0] == ["sentinel-1a", "sentinel-1b", "sentinel-1a"]
    assert batch["relative_orbit"].tolist() == [[117.0] * 3] * 6
    for image, flags, row, col in zip(*(batch[k] for k in ("image", "flags", "row", "col")), strict=True):
        for t, name in enumerate(("up1", "up2", "up3")):
            for c, array in enumerate(("vh", "vv")):
                truth = expected(store, name, array)[row : row + 256, col : col + 256]
                np.testing.assert_allclose(image[t, c], truth, atol=2e-6)
                known = codes(store, name, f"{array}_flags")[row : row + 256, col : col + 256]
                np.testing.assert_array_equal(flags[t, c], known)


def test_a_patch_passes_on_every_date_or_not_at_all(store):
    reader = sz.PatchReader(store, stack="up1")
    places = set(zip(reader.selection.row.tolist(), reader.selection.col.tolist(), strict=True))
    assert places == {(r, c) for r in (0, 256) for c in (0, 256, 512)} - {(0, 256)}  # up2 has a hole there
    alone = sz.PatchReader(store, scenes=["up1"], polarizations="vv")
    assert len(alone.selection) == 6


def test_every_date_of_a_patch_is_turned_alike(store):
    options = {"stack": "up1", "batch_size": 5, "seed": 3}
    (plain,) = sz.PatchReader(store, **options)
    reader = sz.PatchReader(store, **options, augment="d4")
    (turned,) = reader
    turns = reader.draws(0, reader.order(0)).turns
    assert len(set(turns.tolist())) > 1
    for image, original, turn in zip(turned, plain, turns, strict=True):
        np.testing.assert_array_equal(image, apply(turn, original))


def test_runs_of_so_many_dates_come_from_stacks_of_any_length(store):
    with pytest.raises(InvalidInputError, match=r"one length.*'down1' of 2.*'up1' of 3.*stack_length="):
        sz.PatchReader(store, stack=True, polarizations=["vv"])
    with pytest.raises(InvalidInputError, match=r"same arrays.*vh\+vv, vv.*polarizations="):
        sz.PatchReader(store, stack=True, stack_length=2)
    with pytest.raises(InvalidInputError, match="at least 4 dates"):
        sz.PatchReader(store, stack=True, stack_length=4)
    reader = sz.PatchReader(
        store, stack=True, stack_length=2, polarizations="vv", batch_size=64, with_meta=True
    )
    (batch,) = reader
    assert batch["image"].shape == (30, 2, 1, 256, 256)  # not of who1 and who2, which are a guess
    ends = [("down1", "down2"), ("east1", "east2"), ("near1", "near2")]
    assert {tuple(scenes) for scenes in batch["scene"]} == {*ends, ("up1", "up2"), ("up2", "up3")}
    assert len(set(batch["id"].tolist())) == 30
    for scenes, times in zip(batch["scene"], batch["time"], strict=True):
        assert [t.removesuffix("Z") for t in times] == [
            str(store.rows(s)["time"].values[0])[:-1] for s in scenes
        ]


def test_a_split_holds_on_every_date(store):
    made = sz.make_split(store, val_fraction=0.4, block=8000.0, guard=0, seed=0)
    assert min(made.counts["train"], made.counts["val"]) > 0
    sides = [sz.PatchReader(store, stack="down1", split=side).selection for side in ("train", "val")]
    places = [set(zip(s.row.tolist(), s.col.tolist(), strict=True)) for s in sides]
    assert not places[0] & places[1]
    for side, found in zip(("train", "val"), places, strict=True):
        single = sz.PatchReader(store, scenes=["down2"], split=side).selection
        assert found == set(zip(single.row.tolist(), single.col.tolist(), strict=True))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"stack": "up1", "boxes": True}, InvalidInputError, "one date"),
        ({"stack_length": 2}, InvalidInputError, "needs stack="),
        ({"stack": "up1", "stack_length": 0}, InvalidInputError, "at least 1"),
        ({"stack": "nope"}, NotInStoreError, "'nope'"),
        ({"stack": True, "scenes": ["up1", "down1"]}, InvalidInputError, "one side"),
    ],
)
def test_what_cannot_be_delivered_is_refused(store, options, error, says):
    with pytest.raises(error, match=says):
        sz.PatchReader(store, **options)


@settings(max_examples=15)
@given(data=st.data())
def test_each_patch_comes_once_an_epoch_for_any_ranks_and_workers(store, data):
    options = {
        "stack": True,
        "stack_length": 2,
        "polarizations": "vv",
        "shuffle": True,
        "with_meta": True,
        "augment": "d4",
        "batch_size": data.draw(st.integers(1, 9)),
        "threads": data.draw(st.integers(1, 3)),
    }
    reader = sz.PatchReader(store, **options)
    ranks, workers = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    shares = [
        Share(rank=r, ranks=ranks, worker=w, workers=workers) for r in range(ranks) for w in range(workers)
    ]
    begin = Position(epoch=data.draw(st.integers(0, 2)))
    seen = sorted(i for s in shares for b in reader.batches(begin, s) for i in b["id"].tolist())
    assert len(seen) == len(set(seen)) == len(reader.selection) - reader.deal(ranks=ranks).left_out
    done = [
        i
        for r in range(ranks)
        for i in next(reader.batches(begin, Share(rank=r, ranks=ranks)))["id"].tolist()
    ]
    resumed = reader.position_of(reader.state_at(begin, taken=1, ranks=ranks))
    if resumed.epoch == begin.epoch:
        rest = [i for b in reader.batches(resumed) for i in b["id"].tolist()]
        assert sorted(done + rest) == sorted(reader.selection.id.tolist())


def test_torch_gets_the_same_batches(store):
    torch = pytest.importorskip("torch")
    from sarzarr.torch import LazyPatchDataset, ZarrPatchDataset

    dataset = ZarrPatchDataset(store, stack="up1", batch_size=2, with_meta=True, shuffle=True)
    numpy = sz.PatchReader(store, stack="up1", batch_size=2, with_meta=True, shuffle=True)
    for workers in (0, 2):
        dataset.set_epoch(0)
        loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=workers)
        numpy.set_epoch(0)
        for batch, truth in zip(loader, numpy, strict=True):
            assert batch["image"].shape[1:] == (3, 2, 256, 256)
            np.testing.assert_array_equal(batch["image"].numpy(), truth["image"])
            np.testing.assert_array_equal(batch["seconds"].numpy(), truth["seconds"])
            assert batch["time"] == truth["time"]
    item = LazyPatchDataset(store, stack="up1", min_valid=0, augment=False, shuffle_seed=None)[1]
    np.testing.assert_array_equal(item.numpy(), numpy.read([1])["image"][0])


# ------------------------------------------------------------------ scenes without a place in the world
def test_the_real_series_opens_as_a_cube_and_as_batches(series):
    dates = ["20190428", "20190510", "20190522", "20190603", "20190615"]
    ids = tuple(f"s1_timeseries_nogeo_{date}" for date in dates)
    (stack,) = sz.find_stacks(series)
    assert (stack.scenes, stack.is_placed, stack.is_one_view, stack.revisit_days) == (ids, False, False, 12.0)
    cube = sz.open_stack(series, ids[3])
    assert (
        cube.time.values.tolist() == np.array([f"{d[:4]}-{d[4:6]}-{d[6:]}" for d in dates], "M8[ns]").tolist()
    )
    assert dict(cube.sizes) == {"time": 5, "y": 512, "x": 1030}
    whole = cube.band_1_db.values
    for scene, values in zip(ids, whole, strict=True):
        np.testing.assert_array_equal(values, series.db(scene, "band_1").values)
    reader = sz.PatchReader(series, stack=ids[0], clip=(-60, 100), with_meta=True, batch_size=8)
    (batch,) = reader
    assert batch["image"].shape == (8, 5, 1, 256, 256)
    assert batch["time"] == [[f"{d[:4]}-{d[4:6]}-{d[6:]}T00:00:00Z" for d in dates]] * 8
    for image, row, col in zip(batch["image"], batch["row"], batch["col"], strict=True):
        window = whole[:, row : row + 256, col : col + 256]
        np.testing.assert_allclose(image[:, 0] * 160 - 60, window, atol=3e-5)


def test_shape_alone_is_a_guess_that_is_never_taken_unasked(series):
    with pytest.raises(InvalidInputError, match=r"known to be on one grid.*by shape alone.*nogeo_20190428'"):
        sz.PatchReader(series, stack=True)
    two = tuple(f"s1_timeseries_nogeo_{date}" for date in (20190428, 20190615))
    some = sz.PatchReader(series, stack=True, scenes=two[::-1])
    assert [s.scenes for s in some.stacks] == [two]


def test_the_command_lists_stacks_and_who_is_left_out(store):
    done = subprocess.run(
        [sys.executable, "-m", "sarzarr", "stacks", str(store.root)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "s.zarr: 12 scenes, 5 stacks"
    assert lines[4] == (
        "  up1: 3 scenes, 2020-01-01T05:00:00 to 2020-01-25T05:00:01, every 12 days, sentinel-1 orbit 117 "
        "ascending, 520 x 800, vh+vv"
    )
    assert lines[6] == "  in no stack: when"
    assert lines[7] == "  without a time: when"


# ------------------------------------------------------------------ what is not known is not equal
def times_store(folder, scenes, **options):
    """Return a store of small scenes by name: the tags of each, and where it lies."""
    files = [
        write(folder / f"{name}_vv.tif", speckle(seed=i), tags=tags, **options)
        for i, (name, tags) in enumerate(scenes.items())
    ]
    return sz.ingest(sz.plan_ingest(files, folder / "s.zarr", quantity="sigma0", representation="power"))


def test_without_a_track_the_time_of_day_tells_views_apart(tmp_path):
    times = {
        "m1": "2020-01-03T05:11:22Z", "m2": "2020-01-15T05:11:24Z", "m3": "2020-01-27T05:14:20Z",
        "next1": "2020-01-08T05:19:22Z", "next2": "2020-01-20T05:19:20Z",
        "e1": "2020-01-08T16:58:02Z",
        "late": "2020-01-02T23:59:30Z", "early": "2020-01-15T00:01:10Z",
        "day1": "2020-01-05T00:00:00Z", "day2": "2020-01-17T00:00:00Z",
    }  # fmt: skip
    store = times_store(
        tmp_path, {name: {"datetime": time, "platform": "S1A"} for name, time in times.items()}
    )
    assert scenes_of(sz.find_stacks(store)) == [
        ("day1", "day2"), ("late", "early"), ("m1", "m2", "m3"), ("next1", "next2"),
    ]  # fmt: skip
    said = describe_stacks(store)
    assert "  day1: 2 scenes," in said
    assert said.count("no track and no time of day: one view by guess") == 1
    assert [s.id for s in sz.PatchReader(store, stack=True, stack_length=2, patch_size=64).stacks] == [
        "late", "m1", "m2", "next1",
    ]  # fmt: skip
    assert sz.PatchReader(store, stack="day1", patch_size=64).stacks[0].scenes == ("day1", "day2")
    with pytest.raises(
        InvalidInputError, match=r"'m1' \(sentinel-1 at 05:11 UTC\) and 'e1' \(sentinel-1 at 16:58 UTC\)"
    ):
        sz.make_stack(store, ["m1", "e1"])
    assert sz.make_stack(store, ["m1", "e1"], mixed=True).scenes == ("m1", "e1")
    assert sz.make_stack(store, ["m1", "day1"]).is_one_view is False


@given(
    st.lists(st.integers(0, 86_399), min_size=2, max_size=12, unique=True),
    st.integers(0, 86_399),
    st.randoms(),
)
def test_any_times_of_day_are_parted_by_the_widest_gap_on(seconds, turn, order):
    """Whatever the order, and wherever midnight is."""

    def parts(clocks):
        members = [Clock(f"{i:02}", 86_400.0 * i + clock) for i, clock in enumerate(clocks)]
        order.shuffle(members)
        return sorted(sorted(m.scene for m in part) for part in _of_one_clock(members))

    found = parts(seconds)
    assert sum(map(len, found)) == len(seconds)
    for part in found:
        clocks = [seconds[int(name)] for name in part]
        assert min(max((b - a) % 86_400 for b in clocks) for a in clocks) <= 180
    gaps = np.diff(np.sort([*seconds, min(seconds) + 86_400]))
    if (gaps == gaps.max()).sum() == 1:
        assert parts([(s + turn) % 86_400 for s in seconds]) == found


class Clock:
    """A scene with a time and nothing else."""

    def __init__(self, scene, seconds):
        self.scene, self.seconds = scene, seconds


def test_one_pass_is_no_series(tmp_path):
    track = {"platform": "S1A", "sat_relative_orbit": "117"}
    store = times_store(
        tmp_path,
        {
            "b": {**track, "datetime": "2020-01-03T05:11:22Z"},
            "a_COG": {**track, "datetime": "2020-01-03T05:11:22Z"},  # another processing
            "slice": {**track, "datetime": "2020-01-03T05:11:47Z"},
            "twelve": {**track, "datetime": "2020-01-15T05:11:22Z"},
            "twelve_day": {**track, "datetime": "2020-01-15"},
        },
    )
    (stack,) = sz.find_stacks(store)
    assert stack.scenes == ("a_COG", "twelve")
    assert "of one pass, no series: a_COG, b, slice, of which a_COG is in its stack" in describe_stacks(store)
    assert sz.make_stack(store, ["b", "twelve"]).scenes == ("b", "twelve")
    only = times_store(tmp_path / "two", {n: {**track, "datetime": "2020-01-03T05:11:22Z"} for n in "xy"})
    assert sz.find_stacks(only) == ()
    assert "of one pass, no series: x, y" in describe_stacks(only)


@pytest.mark.parametrize("options", [{"crs": None}, {}], ids=["no place", "days alone"])
def test_scenes_of_one_day_that_may_be_two_places_or_passes_are_in_no_stack(tmp_path, options):
    scenes = {f"{p}_{d}": {"datetime": d} for p in "ab" for d in ("2020-01-01", "2020-01-13")}
    store = times_store(tmp_path, scenes, **options)
    assert sz.find_stacks(store) == ()
    assert sz.make_stack(store, ["a_2020-01-01", "a_2020-01-13"]).is_certain is False


def test_the_side_that_an_antenna_looks_to_is_of_the_view(tmp_path):
    sides = {"r1": "right", "r2": "right", "l1": "left", "l2": "left"}
    store = times_store(
        tmp_path,
        {
            name: {"datetime": f"2020-01-0{i}T05:00:00Z", "LOOK_SIDE": side, "SATELLITE_NAME": "ICEYE-X7"}
            for i, (name, side) in enumerate(sides.items(), 1)
        },
    )
    left, right = sz.find_stacks(store)
    assert (left.scenes, right.scenes) == (("l1", "l2"), ("r1", "r2"))
    assert str(left.view) == "iceye-x7 looking left"
