"""Shares of layers in patches: what NumPy counts, found once, kept with the index, noticed when they are stale."""

import logging
import shutil

import numpy as np
import pytest
from conftest import speckle, tree_hash, write_band
from hypothesis import given, settings
from hypothesis import strategies as st
from polygons import feature, write_geojson
from rasterio import Affine
from typer.testing import CliRunner

import sarzarr as sz
from sarzarr.cli.app import app
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.patches import shares as shares_module
from sarzarr.patches.cut import EDGES

KNOWN = {"quantity": "sigma0", "representation": "power", "shard": 256}
SHAPES = {"a": (700, 900), "b": (520, 600)}


def masks(seed=0):
    """Return a mask of each scene: values 0 to 3 in regions, and 255 for no data."""
    random = np.random.default_rng(seed)
    out = {}
    for scene, (height, width) in SHAPES.items():
        coarse = random.choice([0, 0, 1, 2, 3, 255], (height // 20 + 1, width // 20 + 1))
        out[scene] = np.kron(coarse, np.ones((20, 20), int))[:height, :width].astype(np.uint8)
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two scenes with a mask, one of them with VH; a third one without."""
    folder = tmp_path_factory.mktemp("made")
    files = []
    for i, (name, scene) in enumerate((("a_vv", "a"), ("a_vh", "a"), ("b_vv", "b"), ("d_vv", "b"))):
        corner = Affine(10, 0, 500_000 + 90_000 * i * (i > 1), 0, -10, 5_400_000)
        files.append(write_band(folder / f"{name}.tif", speckle(SHAPES[scene], seed=i), transform=corner))
    for i, (scene, mask) in enumerate(masks().items()):
        corner = Affine(10, 0, 500_000 + 180_000 * i, 0, -10, 5_400_000)
        write_band(folder / f"{scene}_mask.tif", mask, transform=corner)
    layers = {"mask:nodata255": [folder / f"{s}_mask.tif" for s in SHAPES]}
    store = sz.ingest(sz.plan_ingest(files, folder / "s.zarr", layers=layers, **KNOWN))
    assert store.layers("d") == ()
    return store.root


@pytest.fixture
def store(made, tmp_path):
    shutil.copytree(made, tmp_path / "s.zarr")
    return sz.open_store(tmp_path / "s.zarr")


def expected(table, wanted, mask=None):
    """Return the share of each patch of a table whose mask's pixels are among ``wanted``; NaN without a mask."""
    size, out = table.attrs["size"], []
    held = masks() if mask is None else mask
    for scene, row, col in zip(*(table[k].values.tolist() for k in ("scene", "row", "col")), strict=True):
        part = held[scene][row : row + size, col : col + size] if scene in held else None
        out.append(np.nan if part is None else np.isin(part, wanted).sum() / size**2)
    return np.array(out, np.float32)


@settings(max_examples=6)
@given(st.integers(90, 400), st.integers(150, 400), st.sampled_from(EDGES))
def test_shares_are_what_numpy_counts(made, size, stride, edge):
    store = sz.open_store(made)
    sz.index_patches(store, size=size, stride=stride, edge=edge, name="cut")
    table = sz.index_layers(store, "mask", index="cut")
    columns = {"fraction": (1, 2, 3), "0": (0,), "1": (1,), "2": (2,), "3": (3,)}
    assert {k for k in table if str(k).startswith("mask_")} == {f"mask_{k}" for k in columns}
    for name, values in columns.items():
        np.testing.assert_array_equal(table[f"mask_{name}"].values, expected(table, values))


def test_a_condition_finds_them_once_and_they_are_kept(store, monkeypatch):
    reader = sz.PatchReader(store, where="mask_fraction > 0.4", min_unsaturated=0)
    table = sz.open_store(store.root).patches()
    np.testing.assert_array_equal(
        reader.selection.table_row, np.flatnonzero(expected(table, (1, 2, 3)) > 0.4)
    )
    assert 0 < len(reader.selection) < table.sizes["patch"]
    assert "mask_fraction" in table
    assert not sz.verify(store.root, deep=True).findings
    before = tree_hash(store.root)
    monkeypatch.setattr(shares_module, "gather", lambda tasks: pytest.fail("measured again"))
    again = sz.PatchReader(store.root, where="mask_2 >= 0.1 or mask_fraction > 0.4", min_unsaturated=0)
    assert set(reader.selection.table_row.tolist()) <= set(again.selection.table_row.tolist())
    assert tree_hash(store.root) == before


def test_patches_of_scenes_without_the_layer_pass_no_condition(store):
    reader = sz.PatchReader(store, where="mask_fraction >= 0", min_unsaturated=0)
    assert set(store.catalog["scene"].values[reader.selection.catalog_row]) == {"a", "b"}


def test_a_layer_that_is_replaced_is_noticed_and_its_scene_alone_measured(store, tmp_path, made, monkeypatch):
    sz.index_layers(store, ["mask"])
    other = masks(seed=5)
    corner = Affine(10, 0, 500_000, 0, -10, 5_400_000)
    file = write_band(tmp_path / "a_mask.tif", other["a"], transform=corner)
    raw = [made.parent / f"a_{p}.tif" for p in ("vv", "vh")]
    sz.ingest(sz.plan_ingest(raw, store.root, layers={"mask:nodata255": file}, replace=True, **KNOWN))
    fresh = sz.open_store(store.root)
    assert "mask_fraction" not in fresh.patches()
    measured = []
    real = shares_module.gather
    monkeypatch.setattr(
        shares_module, "gather", lambda tasks: measured.extend(t[1][0].path for t in tasks) or real(tasks)
    )
    reader = sz.PatchReader(fresh, where="mask_fraction > 0.4", min_unsaturated=0)
    assert set(measured) == {"scenes/a/mask"}
    table = sz.open_store(store.root).patches()
    wanted = expected(table, (1, 2, 3), {**masks(), "a": other["a"]})
    np.testing.assert_array_equal(table["mask_fraction"].values, wanted)
    np.testing.assert_array_equal(reader.selection.table_row, np.flatnonzero(wanted > 0.4))


def test_another_nodata_of_the_same_pixels_is_noticed(store, made):
    sz.index_layers(store, "mask")
    raw = [made.parent / f"a_{p}.tif" for p in ("vv", "vh")]
    again = {"mask:nodata3": made.parent / "a_mask.tif"}
    sz.ingest(sz.plan_ingest(raw, store.root, layers=again, replace=True, **KNOWN))
    table = sz.index_layers(store.root, "mask")
    is_a = table["scene"].values == "a"
    np.testing.assert_array_equal(table["mask_fraction"].values[is_a], expected(table, (1, 2, 255))[is_a])
    np.testing.assert_array_equal(table["mask_fraction"].values[~is_a], expected(table, (1, 2, 3))[~is_a])


def test_scenes_that_come_later_are_measured_and_those_that_go_are_forgotten(store, made):
    sz.remove_scene(store, "a")
    table = sz.index_layers(store.root, "mask")
    np.testing.assert_array_equal(table["mask_fraction"].values, expected(table, (1, 2, 3)))
    raw = [made.parent / f"a_{p}.tif" for p in ("vv", "vh")]
    layers = {"mask:nodata255": made.parent / "a_mask.tif"}
    sz.ingest(sz.plan_ingest(raw, store.root, layers=layers, **KNOWN))
    assert "mask_fraction" not in sz.open_store(store.root).patches()
    for gone in "bd":
        table = sz.index_layers(store.root, "mask")
        np.testing.assert_array_equal(table["mask_fraction"].values, expected(table, (1, 2, 3)))
        sz.remove_scene(store.root, gone)


def test_a_store_that_cannot_be_written_to_keeps_them_in_memory(store, caplog, monkeypatch):
    def read_only(store, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shares_module, "changing", read_only)
    before = tree_hash(store.root)
    with caplog.at_level(logging.WARNING):
        reader = sz.PatchReader(store, where="mask_fraction > 0.4", min_unsaturated=0)
    assert "kept in memory alone" in caplog.text
    assert tree_hash(store.root) == before
    table = store.patches()
    np.testing.assert_array_equal(
        reader.selection.table_row, np.flatnonzero(expected(table, (1, 2, 3)) > 0.4)
    )
    monkeypatch.setattr(shares_module, "gather", lambda tasks: pytest.fail("measured again"))
    sz.PatchReader(store, where="mask_fraction > 0.2", min_unsaturated=0)


def test_damage_of_the_table_is_found_and_it_is_made_again(store):
    sz.index_layers(store, "mask")
    (column,) = (p for p in (store.root / "shares/default/mask/mask_fraction/c").rglob("*") if p.is_file())
    column.write_bytes(column.read_bytes()[:-1] + b"\0")
    (finding, *_) = sz.verify(store.root).findings
    assert finding.file.startswith("shares/default/mask")
    assert "verify" in finding.remedy
    assert "mask_fraction" not in sz.open_store(store.root).patches()
    shutil.copytree(store.root, store.root.with_name("other.zarr"))
    assert not sz.repair(store.root.with_name("other.zarr")).findings
    for root in (store.root, store.root.with_name("other.zarr")):
        table = sz.index_layers(root, "mask")
        np.testing.assert_array_equal(table["mask_fraction"].values, expected(table, (1, 2, 3)))
        assert not sz.verify(root).findings


def test_classes_of_polygons_are_columns_by_name(store, tmp_path):
    west = [[500_000, 5_400_000], [502_560, 5_400_000], [502_560, 5_380_000], [500_000, 5_380_000]]
    crs = {"type": "name", "properties": {"name": "EPSG:32633"}}
    features = [
        feature(west, kind="open water"),
        feature([[500_000, 5_400_000], [501_280, 5_400_000], [501_280, 5_398_720]], kind="ice"),
    ]
    file = write_geojson(tmp_path / "x.json", features, crs=crs)
    sz.import_polygons(store, file, layer="sea", column="kind", scenes=["a"])
    table = sz.index_layers(store.root, "sea")
    names = [str(k) for k in table if str(k).startswith("sea_")]
    assert names == ["sea_fraction", "sea_background", "sea_ice", "sea_open_water"]
    first = table.isel(
        patch=(table["row"].values == 0) & (table["col"].values == 0) & (table["scene"].values == "a")
    )
    total = first["sea_background"] + first["sea_ice"] + first["sea_open_water"]
    assert (total == 1).all()
    assert (first["sea_fraction"] == 1).all()
    assert 0.1 < float(first["sea_ice"][0]) < 0.14
    reader = sz.PatchReader(store.root, where="sea_ice > 0 and array == 'vv'", min_unsaturated=0)
    assert len(reader.selection) == 1


def test_what_is_no_layer_is_refused_with_what_there_is(store):
    with pytest.raises(NotInStoreError, match="layers among mask were expected, got water"):
        sz.index_layers(store, "water")
    with pytest.raises(NotInStoreError, match=r"patch index must be one of .*, got .none"):
        sz.index_layers(store, "mask", index="none")
    with pytest.raises(
        InvalidInputError, match=r"a column among .* got 'water_fraction'.*sarzarr index STORE --layer"
    ):
        sz.PatchReader(store, where="water_fraction > 0")
    with pytest.raises(InvalidInputError, match=r"got 'mask_7'"):
        sz.PatchReader(store, where="mask_7 > 0")


def test_the_command_indexes_and_finds_them(store):
    line = ["index", str(store.root), "--size", "128", "--edge", "pad", "--layer", "mask"]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    assert "patches/128-128-pad: " in done.output
    assert "std_db, mask_fraction, mask_0, mask_1, mask_2, mask_3" in done.output
    reader = sz.PatchReader(store.root, patch_size=128, edge="pad", where="mask_1 > 0.2", min_unsaturated=0)
    assert reader.index == "128-128-pad"
