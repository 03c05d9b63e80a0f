"""Crops of several scales are means of the store's power; by ground they are as many as its square metres."""

import pickle

import numpy as np
import pytest
import zarr
from conftest import speckle, write_band
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_stores import codes, places
from rasterio.transform import from_origin

import sarzarr as sz
from sarzarr.errors import InvalidInputError, NothingChosenError
from sarzarr.pixels.scaling import Taps, powers_of_codes
from sarzarr.reader.crops import scaled_sizes
from sarzarr.reader.order import Share
from sarzarr.store.split_table import read_side

OPTIONS = {
    "crops": "random",
    "min_unsaturated": 0,
    "seed": 1,
    "batch_size": 5,
    "patch_size": 48,
    "per_epoch": 20,
}
COARSE = from_origin(500_000, 5_400_000, 20, 20)
SCALED = OPTIONS | {"scale": (0.5, 2)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Scenes ``a`` (VV with nodata, VH, a mask, heights) of 10 m, and ``b`` (VV) of 20 m pixels, with a split."""
    folder = tmp_path_factory.mktemp("scaled")
    vv = speckle((800, 900), seed=5)
    vv[:300, :270] = np.nan
    vv[500:520, 600:630] = np.nan
    write_band(folder / "a_vv.tif", vv, tiles=128)
    write_band(folder / "a_vh.tif", speckle((800, 900), seed=6, mean=0.01), tiles=128)
    write_band(folder / "labels.tif", (np.nan_to_num(vv) > 0.05).astype("uint8"), tiles=128)
    heights = np.add.outer(np.arange(800.0), np.arange(900.0)).astype("float32")
    write_band(folder / "heights.tif", heights, tiles=128)
    write_band(
        folder / "b_vv.tif",
        speckle((500, 600), seed=7, mean=0.1),
        tiles=128,
        crs="EPSG:32634",
        transform=COARSE,
    )
    known = {"quantity": "sigma0", "representation": "power", "shard": 512, "strict": True}
    layers = {"mask": folder / "labels.tif", "height": folder / "heights.tif"}
    files = [folder / "a_vv.tif", folder / "a_vh.tif"]
    sz.ingest(sz.plan_ingest(files, folder / "s.zarr", layers=layers, **known))
    made = sz.ingest(sz.plan_ingest([folder / "b_vv.tif"], folder / "s.zarr", **known))
    sz.make_split(made, val_fraction=0.3, block=6000, guard=0, seed=3)
    sz.PatchReader(made, **OPTIONS)  # what crops are measured by is indexed
    return made.anew()


def images_of(reader):
    return np.concatenate([b if isinstance(b, np.ndarray) else b["image"] for b in reader])


@pytest.mark.parametrize("scale", [(1, 1), (0.5, 2)])
def test_scale_1_is_the_slice_bit_for_bit(store, scale):
    plain = sz.PatchReader(store, **OPTIONS)
    scaled = sz.PatchReader(store, **OPTIONS | {"per_epoch": 100, "scale": scale})
    span = scaled.selection.span
    same = np.flatnonzero(span == 48)
    assert same.size >= 3
    images = scaled.read(np.arange(100))
    if scale == (1, 1):
        np.testing.assert_array_equal(images[:20], images_of(plain)) if len(same) == 20 else None
    store_codes = {(s, a): codes(store, s, a) for s in store.scenes for a in store.arrays(s)}
    chosen = places(scaled)
    exact = sz.PatchReader(store, **OPTIONS | {"per_epoch": 100, "scale": scale, "dtype": "uint16"})
    exactly = exact.read(same)
    for image, at in zip(exactly, same.tolist(), strict=True):
        scene, arrays, row, col = chosen[at]
        np.testing.assert_array_equal(image[0], store_codes[scene, arrays[0]][row : row + 48, col : col + 48])


@settings(max_examples=6)
@given(
    st.sampled_from([(2, 2), (0.5, 0.5), (0.5, 2), (0.9, 1.3)]),
    st.sampled_from(["float32", "bfloat16", "float16", "uint16"]),
    st.integers(0, 3),
)
def test_crops_are_means_of_power(store, scale, dtype, epoch):
    options = OPTIONS | {"scale": scale, "dtype": dtype, "augment": "d4", "with_meta": True, "min_valid": 0.3}
    reader = sz.PatchReader(store, **options, scenes=["a"], polarizations=["vv", "vh"])
    reader.set_epoch(epoch)
    stored, low_high = (-60.0, 100.0), [tuple(store.bounds[f"{p}/sigma0"].clip) for p in ("vv", "vh")]
    whole = {name: codes(store, "a", name) for name in ("vv", "vh")}
    seen = set()
    for batch in reader:
        for i, span in enumerate(batch["span"].tolist()):
            seen.add(span)
            row, col, turn = (int(batch[k][i]) for k in ("row", "col", "turn"))
            assert batch["transform"][i, 0] == pytest.approx(10 * span / 48)
            for plane, name in enumerate(("vv", "vh")):
                window = whole[name][row : row + span, col : col + span]
                assert window.shape == (span, span)
                power = Taps.between(span, 48).mean(powers_of_codes(stored)[window])
                db = 10 * np.log10(power.astype(np.float64))
                low, high = stored if dtype == "uint16" else low_high[plane]
                expected = np.nan_to_num(np.clip((db - low) / (high - low), 0, 1))
                image = sz.pixels.turns.apply(sz.pixels.turns.inverse(turn), batch["image"][i, plane])
                if dtype == "uint16":
                    expected = np.where(np.isnan(power), 0, 1 + 65534 * expected)
                elif dtype == "bfloat16":
                    image = (image.astype(np.uint32) << 16).view(np.float32)
                off = {"uint16": 1.0, "float32": 3e-6, "float16": 6e-4, "bfloat16": 4e-3}[dtype]
                np.testing.assert_allclose(image, expected, atol=off)
                flags = sz.pixels.turns.apply(sz.pixels.turns.inverse(turn), batch["flags"][i, plane])
                np.testing.assert_array_equal(flags < 2, ~np.isnan(power))
    assert seen <= set(scaled_sizes(48, scale))
    assert len(seen) > (scale[0] != scale[1])


def test_a_float32_store_is_scaled_alike(store, tmp_path):
    floats = sz.copy_store(store.root, tmp_path / "f.zarr", dtype="float32")
    options = SCALED | {"scenes": ["a"], "polarizations": ["vv"], "min_valid": 0.3, "flags": True}
    options |= {"clip": (-25, 5)}
    for one, other in zip(sz.PatchReader(store, **options), sz.PatchReader(floats, **options), strict=True):
        np.testing.assert_allclose(one[0], other[0], atol=1e-4)
        np.testing.assert_array_equal(one[1], other[1])


def test_layers_are_scaled_by_what_they_are(store):
    reader = sz.PatchReader(
        store, **SCALED, scenes=["a"], polarizations=["vv"], layers=["mask", "height"], with_meta=True
    )
    mask = codes(store, "a", "mask")
    for batch in reader:
        for i, (row, col, span) in enumerate(zip(batch["row"], batch["col"], batch["span"], strict=True)):
            at = ((np.arange(48) + 0.5) * span / 48).astype(int)
            nearest = mask[row + at[:, None], col + at]
            np.testing.assert_array_equal(batch["layers"]["mask"][i, 0], nearest)
            middles = (np.arange(48) + 0.5) * span / 48 - 0.5
            plane = (
                row + col + np.add.outer(middles, middles)
            )  # a slope keeps its heights, within a border pixel
            np.testing.assert_allclose(batch["layers"]["height"][i, 0], plane, atol=0.6)


@pytest.mark.parametrize("side", ["train", "val"])
def test_no_window_touches_a_cell_of_another_side(store, side):
    record, wanted = read_side(store.place, side)
    sides = {scene.scene: scene.codes for scene in record.scenes}
    reader = sz.PatchReader(store, **SCALED | {"per_epoch": 200}, split=side)
    for epoch in range(2):
        drawn = reader.in_epoch(epoch)
        for (scene, _, row, col), span in zip(places(drawn), drawn.selection.span.tolist(), strict=True):
            touched = sides[scene][
                row // 256 : (row + span - 1) // 256 + 1, col // 256 : (col + span - 1) // 256 + 1
            ]
            assert (touched == wanted).all()


def test_places_of_each_size_have_an_equal_chance(store):
    reader = sz.PatchReader(store, **SCALED | {"per_epoch": 30_000}, scenes=["b"])
    chosen = reader.selection
    counts = np.array([(chosen.span == size).sum() for size in scaled_sizes(48, (0.5, 2))])
    assert ((counts - 30_000 / 17) ** 2 / (30_000 / 17)).sum() < 45  # 16 degrees of freedom: 1 in 5,000
    for size in (24, 48, 96):
        row = chosen.row[chosen.span == size]
        edges = np.linspace(0, 501 - size, 5)
        found, _ = np.histogram(row, edges)
        expected = np.diff(np.ceil(edges)) / (501 - size) * len(row)
        assert ((found - expected) ** 2 / expected).sum() < 25


def test_by_ground_a_pixel_of_20_m_counts_four_times(store):
    options = OPTIONS | {"per_epoch": 20_000, "patch_size": 8}
    shares = {}
    for area in ("pixels", "ground"):
        drawn = sz.PatchReader(store, **options, area=area, polarizations=["vv"])
        scenes = np.array([scene for scene, *_ in places(drawn)])
        shares[area] = (scenes == "b").mean() / (scenes == "a").mean()
    assert shares["ground"] / shares["pixels"] == pytest.approx(4, rel=0.08)
    assert len(sz.PatchReader(store, **options | {"per_epoch": None}, area="ground").selection) == len(
        sz.PatchReader(store, **options | {"per_epoch": None}).selection
    )


def test_crops_are_functions_of_seed_and_epoch_for_any_ranks_and_after_a_stop(store):
    reader = sz.PatchReader(store, **SCALED | {"area": "ground", "batch_size": 3}, shuffle=True)
    reader.set_epoch(2)
    begin = reader.position_of(reader.state_at(reader._cursor.upcoming, taken=2, ranks=2))
    drawn = reader.in_epoch(2)
    known = {image.tobytes(): i for i, image in enumerate(drawn.read(np.arange(20)))}
    taken = [
        known[image.tobytes()]
        for rank in range(2)
        for batch in list(reader.batches(reader._cursor.upcoming, Share(rank=rank, ranks=2)))[:2]
        for image in batch
    ]
    again = pickle.loads(pickle.dumps(reader))
    rest = [known[image.tobytes()] for batch in again.batches(begin) for image in batch]
    assert sorted(taken + rest) == list(range(20))
    assert not np.array_equal(reader.in_epoch(3).selection.span, drawn.selection.span)


def test_dates_of_a_stack_are_of_one_window_and_scale(tmp_path):
    for day in (1, 13):
        write_band(tmp_path / f"s_202001{day:02d}_vv.tif", speckle((400, 400), seed=day), tiles=128)
    files = sorted(tmp_path.glob("*.tif"))
    made = sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr", quantity="sigma0", representation="power"))
    reader = sz.PatchReader(made, **SCALED, stack="s_20200101", with_meta=True)
    batch = next(iter(reader))
    assert batch["image"].shape == (5, 2, 1, 48, 48)
    row, col, span = (int(batch[k][0]) for k in ("row", "col", "span"))
    low, high = tuple(made.bounds["vv/sigma0"].clip)
    for date, scene in enumerate(batch["scene"][0]):
        window = zarr.open_array(made.root / "scenes" / scene / "vv", mode="r")[
            row : row + span, col : col + span
        ]
        power = Taps.between(span, 48).mean(powers_of_codes((-60.0, 100.0))[window])
        expected = np.clip((10 * np.log10(power) - low) / (high - low), 0, 1)
        np.testing.assert_allclose(batch["image"][0, date, 0], expected, atol=3e-6)


def test_changes_of_power_get_the_scaled_power(store):
    seen = []

    class Look(sz.reader.augment.PowerChange):
        def __call__(self, power, rngs):
            seen.append(power.copy())
            return power

    options = SCALED | {"polarizations": ["vv"], "clip": (-25, 5), "threads": 1}
    changed = images_of(sz.PatchReader(store, **options, augment=Look()))
    np.testing.assert_allclose(changed, images_of(sz.PatchReader(store, **options)), atol=1e-5)
    assert np.concatenate(seen).max() < 100


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"scale": (2, 0.5)}, InvalidInputError, "scale must be two numbers from 1/16 to 16"),
        ({"scale": 2}, InvalidInputError, "scale must be two numbers"),
        (
            {"scale": (0.5, 2), "crops": "jitter", "per_epoch": None},
            InvalidInputError,
            "scale= needs crops='random'",
        ),
        (
            {"area": "ground", "crops": None, "per_epoch": None},
            InvalidInputError,
            "area='ground' needs crops",
        ),
        ({"area": "metres"}, InvalidInputError, "area must be pixels or ground"),
        ({"scale": (0.5, 16), "scenes": ["b"]}, NothingChosenError, "a window of 768 x 768"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_remedy(store, options, error, says):
    with pytest.raises(error, match=says):
        sz.PatchReader(store, **OPTIONS | options)


def test_scenes_without_a_place_have_no_square_metres(tmp_path):
    write_band(tmp_path / "lake_vv.tif", speckle((300, 300), seed=1), crs=None)
    made = sz.ingest(
        sz.plan_ingest(
            [tmp_path / "lake_vv.tif"], tmp_path / "s.zarr", quantity="sigma0", representation="power"
        )
    )
    with pytest.raises(InvalidInputError, match="got 1 without"):
        sz.PatchReader(made, **OPTIONS, area="ground")


def test_states_of_other_scales_are_refused(store):
    state = sz.PatchReader(store, **SCALED).state_dict()
    with pytest.raises(InvalidInputError, match="crops"):
        sz.PatchReader(store, **OPTIONS).load_state_dict(state)


def test_the_table_says_the_windows_and_scaled_results_are_not_put_in_their_place(store):
    plain = sz.PatchReader(store, **OPTIONS, scenes=["b"])
    table = plain.table()
    np.testing.assert_array_equal(
        table[["row", "col"]], np.stack([plain.selection.row, plain.selection.col], 1)
    )
    results = plain.read(np.arange(20))[:, 0]
    made = sz.stitch(results, table, store=store)["b"].values
    row, col = int(table["row"].iloc[-1]), int(table["col"].iloc[-1])
    assert not np.isnan(made[row : row + 48, col : col + 48]).any()
    scaled = sz.PatchReader(store, **SCALED, scenes=["b"])
    assert scaled.table()["span"].between(24, 96).all()
    with pytest.raises(InvalidInputError, match="got crops scaled from windows of"):
        sz.stitch(scaled.read(np.arange(20))[:, 0], scaled.table(), store=store)
