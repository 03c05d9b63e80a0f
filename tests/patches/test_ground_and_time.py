"""Patches chosen by their ground and their time, of scenes in several CRSs, by control points, and of no place."""

from datetime import UTC, date, datetime

import numpy as np
import pytest
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin
from tiffs import speckle, write

import sarzarr as sz
from sarzarr.errors import InvalidInputError
from sarzarr.patches.period import parse_period

SHAPE = (640, 700)
X, Y = 500_000, 5_000_000
BOUNDS = (15.01, 45.10, 15.06, 45.14)
"""In longitude and latitude: it holds some of the patches of each scene, and not all."""
LONLAT = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One ground three times (UTM 33, UTM 34, by control points), and a scene of no place or time."""
    folder = tmp_path_factory.mktemp("ground")
    x34, y34 = Transformer.from_crs("EPSG:32633", "EPSG:32634", always_xy=True).transform(X, Y)
    rows, cols = (v.ravel().tolist() for v in np.meshgrid((0, 320, 640), (0, 350, 700), indexing="ij"))
    gcps = [
        GroundControlPoint(r, c, *LONLAT.transform(X + 10 * c, Y - 10 * r), 0.0)
        for r, c in zip(rows, cols, strict=True)
    ]
    kinds = {
        "jan": ("2026-01-31T23:59:59.5Z", {"transform": from_origin(X, Y, 10, 10)}),
        "feb": ("2026-02-01T00:00:00Z", {"crs": "EPSG:32634", "transform": from_origin(x34, y34, 10, 10)}),
        "mar": ("2026-03-05T05:00:00Z", {"crs": "EPSG:4326", "transform": None, "gcps": gcps}),
        "not": ("", {"crs": None, "transform": None}),
    }
    files = [
        write(
            folder / f"{name}_{pol}.tif",
            speckle((1, *SHAPE), seed=i),
            tags={"datetime": when} if when else None,
            **place,
        )
        for i, (name, (when, place)) in enumerate(kinds.items())
        for pol in (("vv", "vh") if name == "jan" else ("vv",))
    ]
    settings = {"quantity": "sigma0", "representation": "power", "shard": 256}
    return sz.ingest(sz.plan_ingest(files, folder / "s.zarr", **settings))


def chosen(store, **options):
    """Return {scene: {(row, col)}} of the patches that options choose, of 128 pixels, whatever their pixels are."""
    made = {"patch_size": 128, "min_valid": 0, "min_unsaturated": 0, "polarizations": ["vv"], **options}
    reader = sz.PatchReader(store, with_meta=True, batch_size=1000, **made)
    (batch,) = reader
    out = {}
    for scene, row, col in zip(batch["scene"], batch["row"].tolist(), batch["col"].tolist(), strict=True):
        out.setdefault(scene, set()).add((row, col))
    return out


def has_ground(crs, x, y, row, col, size=128):
    """Return whether points of a patch lie in `BOUNDS`, and whether all do."""
    step = np.linspace(0.5, size - 0.5, 41)
    at = x + 10 * (col + step[None, :]), y - 10 * (row + step[:, None])
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*np.broadcast_arrays(*at))
    inside = (lon > BOUNDS[0]) & (lon < BOUNDS[2]) & (lat > BOUNDS[1]) & (lat < BOUNDS[3])
    return inside.any(), inside.all()


def test_bounds_choose_the_same_ground_in_every_scene(store):
    scenes = ["jan", "feb", "mar"]
    meets = chosen(store, scenes=scenes, bounds=BOUNDS)
    within = chosen(store, scenes=scenes, bounds=BOUNDS, predicate="within")
    x34, y34 = Transformer.from_crs("EPSG:32633", "EPSG:32634", always_xy=True).transform(X, Y)
    for scene, place in {
        "jan": ("EPSG:32633", X, Y),
        "feb": ("EPSG:32634", x34, y34),
        "mar": ("EPSG:32633", X, Y),
    }.items():
        every = {(r, c): has_ground(*place, r, c) for r in range(0, 513, 128) for c in range(0, 513, 128)}
        assert meets[scene] == {place for place, (some, _) in every.items() if some}
        assert within[scene] == {place for place, (_, whole) in every.items() if whole}
        assert 0 < len(within[scene]) < len(meets[scene]) < len(every)


def test_the_scenes_that_others_conditions_leave_need_a_place_alone(store):
    with pytest.raises(
        InvalidInputError, match=r"scenes with a place on the ground.*1 without \(not\).*geolocation"
    ):
        chosen(store, bounds=BOUNDS)
    with pytest.raises(InvalidInputError, match=r"scenes whose time is known.*1 without \(not\).*time != ''"):
        chosen(store, time="2026")
    by_remedy = chosen(store, bounds=BOUNDS, where="geolocation != 'none'")
    assert set(by_remedy) == set(chosen(store, time="2026", where="time != ''")) == {"jan", "feb", "mar"}


def test_conditions_are_all_held(store):
    square = {"type": "Polygon", "coordinates": [[(15.03, 45.0), (15.2, 45.0), (15.2, 45.3), (15.03, 45.3)]]}
    scenes = {"scenes": ["jan", "feb"]}
    one, other = chosen(store, bounds=BOUNDS, **scenes), chosen(store, polygon=square, **scenes)
    both = chosen(store, bounds=BOUNDS, polygon=square, **scenes)
    assert both == {scene: one[scene] & other[scene] for scene in ("jan", "feb")}
    alone = chosen(store, bounds=BOUNDS, polygon=square, time="2026-02", where="time != ''")
    assert alone == {"feb": both["feb"]}
    channels = sz.PatchReader(
        store, scenes=["jan"], bounds=BOUNDS, patch_size=128, min_unsaturated=0, polarizations=["vv", "vh"]
    )
    assert len(channels.selection) == len(one["jan"])


def test_padding_is_no_ground(store):
    """Of a padded patch only its own pixels count: the last 60 columns of `SHAPE` are all that the sixth has."""

    def of_columns(first, last):
        return ((X + 10 * first, Y - 6400, X + 10 * last, Y), "EPSG:32633")

    options = {"edge": "pad", "scenes": ["jan"]}
    assert chosen(store, bounds=of_columns(641, 699), **options) == {
        "jan": {(r, 640) for r in range(0, 640, 128)}
    }
    with pytest.raises(InvalidInputError, match="then 0 on ground of bounds or polygon"):
        chosen(store, bounds=of_columns(701, 760), **options)
    assert (0, 640) in chosen(store, bounds=of_columns(630, 700), predicate="within", **options)["jan"]


@pytest.mark.parametrize(
    ("time", "scenes"),
    [
        ("2026-01", "jan"),
        ("2026-02", "feb"),
        ("2026-01-31", "jan"),
        ("2026", "jan feb mar"),
        (("2026-01", "2026-02"), "jan feb"),
        (("2026-02-01T00:00:00", None), "feb mar"),
        (slice(None, "2026-02-01T00:00:00Z"), "jan feb"),
        (("2026-02-01T01:00:00+01:00", "2026-02-01"), "feb"),
        ((date(2026, 2, 1), date(2026, 2, 1)), "feb"),
        ((datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 4, 1)), "feb mar"),
        ((np.datetime64("2026-01-31T23:59:59.5"), np.datetime64("2026-02")), "jan feb"),
    ],
)
@pytest.mark.compat
def test_both_ends_belong_to_a_period_and_a_month_is_whole(store, time, scenes):
    assert set(chosen(store, time=time, where="time != ''")) == set(scenes.split())


@pytest.mark.parametrize(
    "time",
    [
        "spring",
        ("2026-02", "2026-01"),
        ("2026",),
        5,
        (1, 2),
        slice("2026", None, 2),
        np.datetime64("NaT", "s"),
    ],
)
def test_what_is_no_period_is_refused(time):
    with pytest.raises(InvalidInputError, match=r"expected a period \(first, last\) in ISO 8601"):
        parse_period(time)


def test_the_dates_of_a_stack_are_not_chosen_by_time(store):
    with pytest.raises(
        InvalidInputError, match=r"time= needs patches of one date, got stack=.*window\(first, length\)"
    ):
        sz.PatchReader(store, stack=True, time="2026")
    with pytest.raises(InvalidInputError, match="predicate must be intersects or within, got 'touches'"):
        sz.PatchReader(store, predicate="touches")


def test_the_place_of_a_real_product_by_control_points(real_data, tmp_path):
    """A Sentinel-1 SLC: a box about the middle of its control points holds its middle patches alone."""
    plan = sz.plan_ingest([real_data / "s1_slc_gcp" / "slc.tif"], tmp_path / "s.zarr")
    store = sz.ingest(plan)
    place = store.placements[store.scenes[0]]
    lon, lat = np.array(place.gcps)[:, 2:4].T
    (height, width), (x, y) = place.grid.shape, (lon.mean(), lat.mean())
    span = np.ptp(lon) / 20, np.ptp(lat) / 20
    reader = sz.PatchReader(
        store,
        bounds=(x - span[0], y - span[1], x + span[0], y + span[1]),
        patch_size=64,
        min_valid=0,
        min_unsaturated=0,
    )
    middle = np.stack([reader.selection.row, reader.selection.col]).mean(axis=1) + 32
    assert np.abs(middle / (height, width) - 0.5).max() < 0.2
    assert 0 < len(reader.selection) < (height // 64) * (width // 64) / 2
