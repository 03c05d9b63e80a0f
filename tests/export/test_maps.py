"""Maps: scenes that lie together share a panel, wherever on the sphere; every cell keeps its colour."""

import numpy as np
import pytest
from places import placement_at

from sarzarr.export.pictures.regions import EARTH_KM, MapScene, find_regions, on_sphere
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.grid import Grid

CONTINENTS = [(15, 48.7), (15.1, 48.8), (-60, -3), (130, -25)]


def scenes_at(places, **options):
    placements = [placement_at(lon, lat, **options) for lon, lat in places]
    return [MapScene(placement=p, codes=np.full(p.cells, 1, np.uint8)) for p in placements]


def members(regions):
    return sorted(r.members for r in regions)


def test_continents_have_a_region_each_and_the_largest_comes_first():
    regions, lost = find_regions(scenes_at(CONTINENTS), most=9)
    assert members(regions) == [(0, 1), (2,), (3,)]
    assert regions[0].members == (0, 1)
    assert lost == ()
    assert abs(regions[0].lon - 15.05) < 0.01
    assert abs(regions[0].lat - 48.75) < 0.01
    assert 10 < regions[0].radius < 25


@pytest.mark.parametrize(
    "places",
    [[(179.95, -17), (-179.95, -17)], [(0, 89.9), (120, 89.9), (-120, 89.9)], [(10, -89.95), (-170, -89.95)]],
)
def test_no_meridian_and_no_pole_parts_what_touches(places):
    regions, _ = find_regions(scenes_at(places, shape=(2048, 2048)), most=9)
    assert members(regions) == [tuple(range(len(places)))]
    assert regions[0].radius < 60


def test_every_scene_is_in_one_region_that_holds_it():
    rng = np.random.default_rng(1)
    places = [
        (float(lon), float(lat))
        for lon, lat in zip(rng.uniform(-10, 30, 300), rng.uniform(36, 60, 300), strict=True)
    ]
    regions, _ = find_regions(scenes_at(places), most=9)
    assert sorted(i for r in regions for i in r.members) == list(range(300))
    sizes = [len(r.members) for r in regions]
    assert sizes == sorted(sizes, reverse=True)
    for region in regions:
        here = on_sphere(np.array(region.lon), np.array(region.lat))
        for i in region.members:
            there = on_sphere(*map(np.array, places[i]))
            assert EARTH_KM * np.arccos(min(float(here @ there), 1)) <= region.radius + 1e-6


def test_a_chain_of_scenes_that_touch_is_one_region_however_long():
    regions, _ = find_regions(scenes_at([(0.09 * i, 48) for i in range(80)]), most=9)
    assert members(regions) == [tuple(range(80))]


def test_scenes_without_a_place_are_told():
    nowhere = Georeference(grid=Grid(height=300, width=300, transform=(1, 0, 0, 0, 1, 0)))
    scene = MapScene(placement=nowhere, codes=np.ones((2, 2), np.uint8))
    regions, lost = find_regions([*scenes_at(CONTINENTS[:1]), scene], most=9)
    assert (members(regions), lost) == ([(0,)], (1,))
    assert find_regions([scene], most=9) == ((), (0,))
    assert find_regions([], most=9) == ((), ())


def drawn(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


@pytest.mark.parametrize(
    "places", [CONTINENTS[:1], CONTINENTS, [(179.9, -17), (-179.9, -17)], [(10, 89.8), (150, 89.6)]]
)
def test_cells_are_seen_in_the_colour_of_their_side(places):
    backend = pytest.importorskip("matplotlib.backends.backend_agg")
    from sarzarr.export.pictures.maps import COLOURS, draw_map

    scenes = scenes_at(places)
    for scene in scenes:
        scene.codes[0] = 2
    figure, _, left_out = draw_map(scenes)
    backend.FigureCanvasAgg(figure)
    picture = drawn(figure)
    assert left_out == ""
    for side, least in ((1, 3000), (2, 1000)):
        colour = [int(COLOURS[side][i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(picture - colour).max(axis=-1) <= 12).sum() > least * len(
            {round(lon) // 20 for lon, _ in places}
        )


def test_a_region_is_true_to_scale():
    pytest.importorskip("matplotlib")
    from sarzarr.export.pictures.maps import to_map
    from sarzarr.export.pictures.regions import MapRegion

    for lon, lat in ((15.0, 48.7), (180.0, -17.0), (0.0, 89.9)):
        region = MapRegion(members=(), lon=lon, lat=lat, radius=50)
        x, y = to_map(np.array([lon, lon]), np.array([lat, lat - 0.5]), region)
        assert np.allclose([x[0], y[0], x[1]], 0, atol=1e-6)
        assert abs(y[1] + np.radians(0.5) * EARTH_KM) < 0.01


def test_regions_that_have_no_panel_are_counted():
    pytest.importorskip("matplotlib")
    from sarzarr.export.pictures.maps import MAX_REGIONS, draw_map

    places = [(30 * i - 170, 20 * (i % 3)) for i in range(MAX_REGIONS + 2)]
    figure, extra, left_out = draw_map(scenes_at(places, shape=(300, 300)))
    assert left_out == "2 more regions with 2 scenes not shown"
    assert len(figure.axes) == 1 + MAX_REGIONS
    assert extra == []
