"""Tables: the outer join of scenes and layers on pixel centres, in Parquet; pandas is the oracle."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from conftest import speckle, write_band
from rasterio.transform import from_origin
from typer.testing import CliRunner

import sarzarr as sz
from sarzarr.cli.app import app
from sarzarr.errors import CorruptStoreError, InvalidInputError, NotInStoreError

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (sarzarr[table])")
from pyarrow import parquet  # noqa: E402

COUNTS = {"nodata": -1}


def counts(shape, *, seed=0):
    """Return int16 with zeros, which are data, and a hole of -1."""
    out = np.random.default_rng(seed).integers(0, 9, shape).astype(np.int16)
    out[10:20, 5:60] = -1
    return out


def add(root, path, **options):
    name = path.stem
    return sz.ingest(sz.plan_ingest([], root, layers={name: path}, **options))


@pytest.fixture
def store(tmp_path):
    """Three rasters of one lattice: two that overlap by half, and backscatter that lies on the first."""
    root = tmp_path / "s.zarr"
    write_band(tmp_path / "birds.tif", counts((300, 280)), **COUNTS)
    heights = np.random.default_rng(1).random((200, 350)).astype("f4") * 800
    heights[:30] = np.nan
    write_band(tmp_path / "height.tif", heights, transform=from_origin(501_000, 5_401_000, 10, 10))
    power = speckle((300, 280), seed=3)
    power[:40, :50] = 0
    power[100, 100] = 0
    write_band(tmp_path / "sigma0_vv.tif", power)
    add(root, tmp_path / "birds.tif")
    add(root, tmp_path / "height.tif")
    return sz.ingest(sz.plan_ingest(tmp_path / "sigma0_vv.tif", root, id="sar"))


def series_of(store, scene, name, values=None):
    """Return a column as a series over (y, x), without what is no data."""
    opened = store.open_scene(scene)[name] if values is None else values
    told = opened.attrs.get("nodata", opened.encoding.get("nodata"))
    series = opened.load().to_series()
    series = series[series.notna()]
    return series if told is None else series[series != told]


def test_it_is_the_outer_join_of_pandas_with_nulls_and_zeros(store, tmp_path):
    path = sz.export_table(store, tmp_path / "x.parquet")
    made = parquet.read_table(path)
    assert made.column_names == ["y", "x", "birds", "height", "vv"]
    assert [str(t) for t in made.schema.types] == ["double", "double", "int16", "float", "float"]
    columns = {
        "birds": series_of(store, "birds", "birds"),
        "height": series_of(store, "height", "height"),
        "vv": series_of(store, "sar", "vv", store.power("sar", "vv")),
    }
    expected = pd.concat(columns, axis=1, join="outer").sort_index()
    frame = made.to_pandas().set_index(["y", "x"])
    assert frame.index.equals(expected.index)
    for name in expected:
        np.testing.assert_array_equal(frame[name].to_numpy(float), expected[name].to_numpy(float))
    assert made["birds"].null_count == len(made) - len(columns["birds"])
    assert (made["birds"].to_pandas() == 0).sum() == (counts((300, 280)) == 0).sum()
    assert (frame.vv == 0).sum() == 1  # dark, not fill


def test_rows_are_sorted_and_a_row_group_is_a_block(store, tmp_path):
    path = sz.export_table(store, tmp_path / "x.parquet")
    file = parquet.ParquetFile(path)
    frame = file.read(["y", "x"]).to_pandas()
    assert frame.equals(frame.sort_values(["y", "x"]))
    assert file.num_row_groups == 3  # rows of chunks, from the south
    parts = [file.read_row_group(i, ["y"])["y"].to_numpy() for i in range(3)]
    assert all(a.max() < b.min() for a, b in pairwise(parts))
    metadata = file.schema_arrow
    assert "WGS 84 / UTM zone 33N" in metadata.metadata[b"crs_wkt"].decode()
    assert metadata.field("vv").metadata == {b"scene": b"sar", b"array": b"vv", b"units": b"1"}


def test_blocks_of_any_size_make_the_same_rows(store, tmp_path, monkeypatch):
    from sarzarr.export import table

    whole = parquet.read_table(sz.export_table(store, tmp_path / "x.parquet"))
    monkeypatch.setattr(table, "BLOCK_BYTES", 400_000)
    small = sz.export_table(store, tmp_path / "y.parquet")
    assert parquet.ParquetFile(small).num_row_groups > 20
    assert parquet.read_table(small).equals(whole)


def test_names_that_two_scenes_have_tell_their_scene(store, tmp_path):
    path = write_band(tmp_path / "sigma0_vv2.tif", speckle((300, 280), seed=4))
    sz.ingest(sz.plan_ingest(path, store.root, id="later", polarizations=["VV"]))
    made = parquet.read_schema(sz.export_table(store.root, tmp_path / "x.parquet", ["sar", "later"], db=True))
    assert made.names == ["y", "x", "sar_vv_db", "later_vv_db"]
    assert made.field("sar_vv_db").metadata[b"units"] == b"dB"


def test_decibels_are_those_of_the_store(store, tmp_path):
    made = parquet.read_table(sz.export_table(store, tmp_path / "x.parquet", "sar", db=True)).to_pandas()
    expected = store.db("sar", "vv").load().to_series().dropna().sort_index()
    np.testing.assert_array_equal(made.vv_db.to_numpy(), expected.to_numpy())


def test_scenes_of_another_lattice_are_refused_with_the_remedy_that_works(store, tmp_path):
    beside = from_origin(500_004, 5_400_000, 10, 10)
    path = write_band(tmp_path / "soil.tif", counts((300, 280)), transform=beside, **COUNTS)
    add(store.root, path)
    with pytest.raises(InvalidInputError, match="--grid like:birds --id NAME"):
        sz.export_table(store.root, tmp_path / "x.parquet", ["birds", "soil"])
    assert not (tmp_path / "x.parquet").exists()
    add(store.root, path, like="birds", id="soil_on_birds")
    table = sz.export_table(store.root, tmp_path / "x.parquet", ["birds", "soil_on_birds"])
    assert parquet.read_schema(table).names == ["y", "x", "birds", "soil"]
    other = write_band(
        tmp_path / "degrees.tif",
        counts((300, 280)),
        crs="EPSG:4326",
        transform=from_origin(15, 48, 1e-4, 1e-4),
    )
    add(store.root, other)
    with pytest.raises(InvalidInputError, match=r"in EPSG:4326\. Ingest it onto them"):
        sz.export_table(store.root, tmp_path / "y.parquet", ["birds", "degrees"])


def test_a_scene_without_a_crs_is_exported_alone(store, tmp_path):
    path = write_band(
        tmp_path / "nowhere.tif", counts((30, 70)), crs=None, transform=from_origin(0, 0, 2, 2), **COUNTS
    )
    add(store.root, path)
    made = parquet.read_table(sz.export_table(store.root, tmp_path / "x.parquet", "nowhere")).to_pandas()
    assert (made.y.iloc[0], made.x.iloc[0], made.y.max()) == (0.5, 0.5, 29.5)
    with pytest.raises(InvalidInputError, match="no affine ties to the ground"):
        sz.export_table(store.root, tmp_path / "y.parquet", ["birds", "nowhere"])


def test_it_is_whole_or_not_at_all(store, tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"as it was")
    shard = store.root / "scenes/height/height/c/0/0"
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(CorruptStoreError):
        sz.export_table(store, path)
    assert path.read_bytes() == b"as it was"
    assert [p.name for p in tmp_path.glob(".*")] == []
    with pytest.raises(NotInStoreError):
        sz.export_table(store, path, ["nope"])


def test_the_command_line_writes_it(store, tmp_path):
    done = CliRunner().invoke(
        app, ["table", str(store.root), "birds", "height", "-o", str(tmp_path / "x.parquet")]
    )
    assert done.exit_code == 0, done.output
    assert parquet.read_schema(tmp_path / "x.parquet").names == ["y", "x", "birds", "height"]


def test_pandas_and_duckdb_open_it(store, tmp_path):
    path = sz.export_table(store, tmp_path / "x.parquet")
    total, rows = int(series_of(store, "birds", "birds").sum()), parquet.ParquetFile(path).metadata.num_rows
    frame = pd.read_parquet(path)
    assert (frame.birds.sum(), len(frame)) == (total, rows)
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed (sarzarr[interop])")
    found = duckdb.connect().execute(f"select sum(birds), count(*) from '{path}'").fetchall()
    assert found == [(total, rows)]


@pytest.mark.filterwarnings(
    "ignore:The inplace keyword in DataFrame.reset_index"
)  # Dask's own, of pandas 3.1
def test_dask_opens_it(store, tmp_path):
    path = sz.export_table(store, tmp_path / "x.parquet")
    dask_frames = pytest.importorskip("dask.dataframe", reason="dask.dataframe is not installed")
    frame = dask_frames.read_parquet(path)
    assert int(frame.birds.sum().compute()) == int(series_of(store, "birds", "birds").sum())


WITHOUT = """
import sys
sys.modules["pyarrow"] = None
import sarzarr as sz
sz.export_table(sys.argv[1], sys.argv[2])
"""


def test_without_pyarrow_the_extra_is_named(store, tmp_path):
    words = [sys.executable, "-c", WITHOUT, str(store.root), str(tmp_path / "x.parquet")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "pip install 'sarzarr[table]'" in done.stderr


PEAK = """
import sys
import sarzarr as sz
sz.export_table(sys.argv[1], sys.argv[2])
(own,) = (int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(own * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system does not tell the peak")
def test_a_wide_table_of_many_columns_stays_under_a_gigabyte(tmp_path):
    rng, layers = np.random.default_rng(0), {}
    for i in range(8):
        path = tmp_path / f"n{i}.tif"
        write_band(path, rng.integers(0, 50, (1024, 20_000)).astype("i4"), tiles=512, compress="zstd")
        layers[f"n{i}:counts"] = path
    store = sz.ingest(sz.plan_ingest([], tmp_path / "s.zarr", layers=layers))
    words = [sys.executable, "-W", "error", "-c", PEAK, str(store.root), str(tmp_path / "x.parquet")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(f"peak {int(done.stdout) / 1e6:.0f} MB")
    assert int(done.stdout) < 1e9
    assert parquet.ParquetFile(tmp_path / "x.parquet").metadata.num_rows == 1024 * 20_000
