"""Chips of a collection as NumPy batches: each as it is stored, at its own size, once an epoch."""

import pickle

import numpy as np
import pytest
from chip_collections import CRSS, VH, VV, codes_of, crowd, ids_of, make_chips, mask_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer

import sarzarr as sz
from sarzarr.errors import InvalidInputError, NothingChosenError, NotInStoreError
from sarzarr.patches.chip_histograms import chip_histogram
from sarzarr.pixels.turns import apply

shapely = pytest.importorskip("shapely", reason="shapely is not installed (sarzarr[vector])")

SHAPE = 16, 16


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_chips(tmp_path_factory.mktemp("chips") / "s.zarr", sizes=(SHAPE,) * 23)


def expected(store, chip, array, clip=None, shape=SHAPE, k=0):
    """Return a chip's array as it must be delivered, float64."""
    codes = codes_of(chip, k, shape).astype(np.float64)
    low, high = clip or tuple(store.bounds[array.bounds_key].clip)
    out = np.clip(((codes - 1) / 65534 * 160 - 60 - low) / (high - low), 0, 1)
    return np.where(codes == 0, 0, out)


def test_chips_come_as_they_are_stored_with_flags_and_masks(store):
    reader = sz.CollectionReader(store, "floods", flags=True, layers=["mask"], batch_size=4)
    seen = reader.selection.table_row.tolist()
    assert seen == [i for i in range(23) if i % 7]  # the others have no mask
    got = [np.concatenate(parts) for parts in zip(*reader, strict=True)]
    assert [part.shape[1:] for part in got] == [(2, *SHAPE), (2, *SHAPE), (1, *SHAPE)]
    assert [str(part.dtype) for part in got] == ["float32", "uint8", "int16"]
    for at, chip in enumerate(seen):
        for k, array in enumerate((VV, VH)):
            np.testing.assert_allclose(got[0][at, k], expected(store, chip, array, k=k), atol=1e-6)
            np.testing.assert_array_equal(got[1][at, k] == 2, codes_of(chip, k, SHAPE) == 0)
        np.testing.assert_array_equal(got[2][at, 0], mask_of(chip, SHAPE))
    assert reader.layer_nodata == {"mask": -1}


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 9), batch=st.integers(1, 9), ranks=st.integers(1, 3), epoch=st.integers(0, 3),
    shuffle=st.sampled_from([True, False, "window"]),
)  # fmt: skip
def test_each_chip_is_delivered_once_an_epoch_by_all_ranks(store, seed, batch, ranks, epoch, shuffle):
    reader = sz.CollectionReader(
        store,
        "floods",
        seed=seed,
        batch_size=batch,
        shuffle=shuffle,
        augment="d4",
        with_meta=True,
        dtype="float32",
    )
    reader.set_epoch(epoch)
    chips = []
    for rank in range(ranks):
        for one in reader.for_rank(rank, ranks):
            chips += one["chip"]
            for image, turn, chip in zip(one["image"], one["turn"], one["chip"], strict=True):
                whole = expected(store, ids_of(23).index(chip), VV)
                np.testing.assert_allclose(image[0], apply(int(turn), whole), atol=1e-6)
    left_out = reader.deal(ranks=ranks).left_out
    assert len(chips) == len(set(chips)) == 23 - left_out


def test_an_epoch_goes_on_where_a_state_was_taken(store):
    whole = [b.copy() for b in sz.CollectionReader(store, "floods", seed=3, shuffle=True, batch_size=3)]
    first = sz.CollectionReader(store, "floods", seed=3, shuffle=True, batch_size=3)
    taken = iter(first)
    next(taken), next(taken)
    other = pickle.loads(
        pickle.dumps(sz.CollectionReader(store, "floods", seed=3, shuffle=True, batch_size=3))
    )
    other.load_state_dict(first.state_dict())
    rest = list(other)
    assert len(rest) == len(whole) - 2
    assert all((a == b).all() for a, b in zip(rest, whole[2:], strict=True))


def test_a_chip_is_one_whole_chunk_of_each_array(store, mixed):
    """No window is put together: images, flags and layers of a chip are each read as the chunk that they are."""
    for reader in (
        sz.CollectionReader(store, "floods", flags=True, layers=["mask"]),
        sz.CollectionReader(mixed, "floods", size="24x16", flags=True),
    ):
        assert all((chunks >= 0).all() for chunks in reader.recipe.chunks)
        assert [len(np.unique(chunks)) for chunks in reader.recipe.chunks] == [
            chunks.size for chunks in reader.recipe.chunks
        ]


def test_codes_halves_polarizations_and_clips_are_as_of_scenes(store):
    codes = next(
        iter(sz.CollectionReader(store, "floods", dtype="uint16", polarizations=["vh"], batch_size=23))
    )
    assert codes.dtype == np.uint16
    for chip in range(23):
        np.testing.assert_array_equal(codes[chip, 0], codes_of(chip, 1, SHAPE))
    half = next(iter(sz.CollectionReader(store, "floods", dtype="float16", batch_size=23)))
    full = next(iter(sz.CollectionReader(store, "floods", batch_size=23)))
    np.testing.assert_array_equal(half, full.astype(np.float16))
    clipped = sz.CollectionReader(store, "floods", clip=(-20, -5), polarizations="VV", batch_size=23)
    np.testing.assert_allclose(next(iter(clipped))[5, 0], expected(store, 5, VV, (-20, -5)), atol=1e-6)
    assert clipped.preprocessing_params == {"vmin": -20, "vmax": -5}
    many = sz.CollectionReader(store, "floods").preprocessing_params
    assert many["vmin"] == [store.bounds[k].clip_vmin for k in ("vv/sigma0", "vh/sigma0")]


def test_moments_are_those_of_what_is_delivered(store):
    reader = sz.CollectionReader(store, "floods", flags=True, batch_size=23)
    images, flags = next(iter(reader))
    moments = reader.statistics()
    for k in range(2):
        valid = images[:, k][flags[:, k] == 0].astype(np.float64)
        assert abs(valid.mean() - moments.mean[k]) <= moments.bound[k] + 1e-6
        assert abs(valid.std() - moments.std[k]) <= moments.bound[k] + 1e-6


def test_a_batch_says_where_and_when_its_chips_were_taken(store):
    one = next(iter(sz.CollectionReader(store, "floods", with_meta=True, batch_size=3)))
    assert one["chip"] == ids_of(23)[:3]
    assert one["time"] == ["2026-01-01T00:00:00Z", "", "2026-01-03T00:00:00Z"]
    assert CRS.from_wkt(one["crs"][0]) == CRS.from_user_input(CRSS[0])
    np.testing.assert_array_equal(one["transform"][2], (10, 0, 402_000, 0, -10, 5_200_000))
    assert one["pass"] == ["ascending", "descending", "ascending"]
    assert one["flags"].shape == one["image"].shape


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"where": "valid_vv < 1"}, [i for i in range(23) if i % 3 == 0]),
        ({"where": "platform == 'S1B' and valid_vh == 1"}, [i for i in range(23) if i % 2 and i % 3]),
        ({"time": ("2026-01-03", "2026-01-05")}, [2, 3, 4]),
        ({"min_valid": 1.0}, [i for i in range(23) if i % 3]),
        ({"rows": [4, 2, 40]}, [2, 4]),
        ({"bounds": ((401_050, 0, 402_050, 6e6), CRSS[0])}, [1, 2]),
        ({"bounds": ((401_050, 0, 403_155, 6e6), CRSS[0]), "predicate": "within"}, [2]),
    ],
)  # fmt: skip
def test_conditions_choose_chips(store, options, rows):
    if options.get("predicate"):
        rows = [2]  # chip 1 begins before, and chip 3 ends after
        options["bounds"] = ((401_050, 0, 403_155, 6e6), CRSS[0])
    assert sz.CollectionReader(store, "floods", **options).selection.table_row.tolist() == rows


def test_what_is_not_there_is_refused_with_what_is(store):
    with pytest.raises(NotInStoreError, match="floods"):
        sz.CollectionReader(store, "fields")
    with pytest.raises(NotInStoreError, match="mask"):
        sz.CollectionReader(store, "floods", layers=["water"])
    with pytest.raises(NotInStoreError, match="vv, vh"):
        sz.CollectionReader(store, "floods", polarizations=["hh"])
    with pytest.raises(NothingChosenError, match="23 chips, then 0 with where"):
        sz.CollectionReader(store, "floods", where="valid_vv > 2")
    with pytest.raises(NotInStoreError, match="split create"):
        sz.CollectionReader(store, "floods", split="train")
    with pytest.raises(NotInStoreError, match=r"boxes among none .* sarzarr import boxes FILE"):
        sz.CollectionReader(store, "floods", boxes=True)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    sizes = [((16, 16), (24, 16), (8, 8))[i % 3] for i in range(12)]
    return make_chips(tmp_path_factory.mktemp("mixed") / "s.zarr", sizes=tuple(sizes))


def test_chips_of_several_sizes_are_chosen_or_padded_and_never_by_themselves(mixed):
    with pytest.raises(InvalidInputError, match=r"16x16 \(4\), 24x16 \(4\), 8x8 \(4\)"):
        sz.CollectionReader(mixed, "floods")
    for size, shape in ((16, (16, 16)), ("24x16", (24, 16)), ((8, 8), (8, 8))):
        reader = sz.CollectionReader(mixed, "floods", size=size, batch_size=4)
        assert next(iter(reader)).shape == (4, 2, *shape)
    with pytest.raises(InvalidInputError, match="flips"):
        sz.CollectionReader(mixed, "floods", size="24x16", augment="d4")
    padded = sz.CollectionReader(mixed, "floods", size="pad", flags=True, layers=["mask"], batch_size=12)
    images, flags, masks = next(iter(padded))
    assert images.shape[2:] == (24, 16)
    for at, chip in enumerate(padded.selection.table_row.tolist()):
        rows, cols = ((16, 16), (24, 16), (8, 8))[chip % 3]
        inside = np.zeros((24, 16), bool)
        inside[:rows, :cols] = True
        np.testing.assert_allclose(
            images[at, 1, :rows, :cols], expected(mixed, chip, VH, shape=(rows, cols), k=1), atol=1e-6
        )
        np.testing.assert_array_equal(masks[at, 0, :rows, :cols], mask_of(chip, (rows, cols)))
        assert not images[at][:, ~inside].any()
        assert (flags[at][:, ~inside] == 2).all()
        assert (masks[at][:, ~inside] == -1).all()


def test_ground_is_chosen_across_crss(tmp_path):
    store = make_chips(tmp_path / "s.zarr", sizes=((8, 8),) * 60, places=crowd(60, size=8))
    bounds = (11.5, 46.7, 12.4, 47.2)
    chosen = set(sz.CollectionReader(store, "floods", bounds=bounds).selection.table_row.tolist())
    made = sz.open_collection(store, "floods")
    for chip in range(60):
        grid = made.grid(chip)
        rows, cols = np.array([0, 0, 8, 8]), np.array([0, 8, 8, 0])
        lon, lat = Transformer.from_crs(grid.crs_wkt, "EPSG:4326", always_xy=True).transform(
            *grid.to_xy(rows, cols)
        )
        meets = shapely.Polygon(np.stack([lon, lat], 1)).intersects(shapely.box(*bounds))
        assert meets == (chip in chosen)


def test_codes_are_counted_as_their_db_is(store):
    """The histogram of some chips is that of the dB of their pixels, bin by bin."""
    made = sz.open_collection(store, "floods")
    rows = np.array([0, 3, 4, 22])
    codes = np.stack([codes_of(row, 1, SHAPE) for row in rows])
    db = sz.denormalize(sz.from_codes(codes), sz.ClipBounds(-60, 100))
    assert chip_histogram(made, made.array("vh"), rows) == sz.Histogram.from_db(db)


# ------------------------------------------------------------------ weights and pictures
def labelled(store, folder, kinds, name="kinds"):
    """Label the first chips of a store with one class each, or several."""
    lines = [f"{chip},{kind}" for chip, kind in zip(ids_of(23), kinds, strict=False)]
    (folder / f"{name}.csv").write_text("\n".join(["name,label", *lines]))
    return sz.import_labels(store, "floods", folder / f"{name}.csv", name=name).labels


def test_weights_are_columns_words_classes_functions_or_numbers(store, tmp_path):
    """A column of words, ``label`` too, weighs each word alike: so classes are balanced."""
    labelled(store, tmp_path, ["rare", *["common"] * 9])
    options = {"labels": "kinds", "seed": 5, "shuffle": True, "batch_size": 10}
    reader = sz.CollectionReader(store, "floods", weights="label", **options)
    np.testing.assert_allclose(reader.weights, [1, *[1 / 9] * 9])
    seen = np.concatenate([next(iter(reader))[1] for _ in range(60)])
    assert 0.4 < (seen == 0).mean() < 0.6
    by_class = sz.CollectionReader(store, "floods", weights={"rare": 3}, **options)
    assert by_class.weights.tolist() == [3, *[1] * 9]
    other = pickle.loads(pickle.dumps(by_class))
    assert [one[1].tolist() for one in other] == [one[1].tolist() for one in by_class]
    valid = sz.CollectionReader(store, "floods", weights="valid_vv").weights
    assert valid[1] == 1
    assert valid[0] < 1
    assert sz.CollectionReader(store, "floods", weights=lambda table: table.index + 1.0).weights.tolist() == [
        *range(1, 24)
    ]
    table = reader.table()
    assert table["label"].tolist() == ["rare", *["common"] * 9]
    assert table["id"].tolist() == ids_of(23)[:10]
    labelled(store, tmp_path, ["rare;common", "common"], name="many")
    many = sz.CollectionReader(store, "floods", labels="many").table()
    assert many[["label_rare", "label_common"]].to_numpy().tolist() == [[True, True], [False, True]]
    for wrong, error, said in (
        ({"weights": "label"}, InvalidInputError, "labels=True"),
        ({"weights": {"rare": 2}}, InvalidInputError, "labels=True"),
        (
            {"weights": {"none": 2}, "labels": "kinds"},
            NotInStoreError,
            "rare, common were expected, got none",
        ),
        ({"weights": "colour"}, NotInStoreError, "a column among"),
        ({"weights": [1.0]}, InvalidInputError, "CollectionReader.table"),
    ):
        with pytest.raises(error, match=said):
            sz.CollectionReader(store, "floods", **wrong)


@pytest.mark.slow
def test_a_batch_is_drawn_with_its_chips_classes_layers_and_boxes(store, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (sarzarr[plot])")
    labelled(store, tmp_path, ["water", "land", "land"], name="drawn")
    (tmp_path / "b.csv").write_text(f"chip,x_min,y_min,x_max,y_max\n{ids_of(23)[1]},2,2,9,9\n")
    sz.import_chip_boxes(store, "floods", tmp_path / "b.csv")
    for extra in ({}, {"with_meta": True}):
        reader = sz.CollectionReader(
            store, "floods", labels="drawn", boxes=True, layers=["mask"], flags=True, **extra
        )
        figure = reader.plot(next(iter(reader)))
        titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
        name = f"{ids_of(23)[1]}\n" if extra else ""
        assert titles == [f"{name}land", *([f"{ids_of(23)[2]}\nland"] if extra else ["land"])]
        labels = [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]
        assert labels[:4] == ["vv", "vh", "flags", "mask"]
        assert len(figure.axes[0].patches) == 1
    with pytest.raises(InvalidInputError, match="Pass what it gave"):
        reader.plot([1])


def test_shares_of_layers_choose_and_weigh_chips(tmp_path, caplog):
    """Of a chip's pixels, and of every class; they are found once, and kept."""
    store = make_chips(tmp_path / "s.zarr", sizes=((16, 16),) * 5 + ((8, 24),) * 3)
    masks = {i: mask_of(i, (16, 16) if i < 5 else (8, 24)) for i in range(1, 7)}  # 0 and 7 have none
    wanted = [i for i, mask in masks.items() if (mask == 1).mean() > 0.49]
    assert 0 < len(wanted) < 6
    caplog.set_level("INFO", logger="sarzarr.patches.chip_shares")
    for where in ("mask_fraction > 0.49", "mask_1 > 0.49 and height > 0"):
        reader = sz.CollectionReader(store.anew(), "floods", where=where, size="pad")
        assert reader.selection.table_row.tolist() == wanted
    weighed = sz.CollectionReader(store.anew(), "floods", weights="mask_0", layers=["mask"], size="pad")
    np.testing.assert_allclose(weighed.weights, [(m == 0).mean() for m in masks.values()], rtol=1e-6)
    assert len(caplog.records) == 1
    assert not sz.verify(store.anew()).findings
    with pytest.raises(InvalidInputError, match="mask_9"):
        sz.CollectionReader(store.anew(), "floods", where="mask_9 > 0", size="pad")
