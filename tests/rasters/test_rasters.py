"""Reading windows is what rasterio reads, of nothing but the TIFF's own bytes."""

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from tiffs import write

from sarzarr.errors import InvalidInputError, RasterNotFoundError, UnsupportedRasterError
from sarzarr.rasters import HANDLES_A_THREAD, close_rasters, local_file, open_raster, read_window, source_hash

SHAPE = (300, 333)
LAYOUTS = {
    "tiled": {"tiled": True, "blockxsize": 64, "blockysize": 128},
    "tiled deflate": {
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
        "compress": "deflate",
        "predictor": 2,
    },
    "strips": {"blockysize": 7},
    "one strip": {"blockysize": 300, "compress": "lzw"},
    "pixel interleaved": {"interleave": "pixel", "blockysize": 16, "compress": "deflate"},
    "big endian": {"ENDIANNESS": "BIG", "BIGTIFF": "YES", "tiled": True, "blockxsize": 64, "blockysize": 64},
}


def noise(bands: int = 2, dtype: str = "uint16", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (bands, *SHAPE)).astype(dtype)


@pytest.fixture(scope="module", params=LAYOUTS)
def stored(request, tmp_path_factory):
    pixels = noise()
    return write(tmp_path_factory.mktemp("rasters") / "a.tif", pixels, **LAYOUTS[request.param]), pixels


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_window_is_the_slice_of_the_whole(stored, data):
    path, pixels = stored
    row, col = data.draw(st.integers(0, SHAPE[0] - 1)), data.draw(st.integers(0, SHAPE[1] - 1))
    height = data.draw(st.integers(1, SHAPE[0] - row))
    width = data.draw(st.integers(1, SHAPE[1] - col))
    band = data.draw(st.integers(1, 2))
    got = read_window(path, band=band, row=row, col=col, height=height, width=width)
    np.testing.assert_array_equal(got, pixels[band - 1, row : row + height, col : col + width], strict=True)


@pytest.mark.compat
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", "complex64"])
def test_values_and_dtype_are_the_files(tmp_path, dtype):
    pixels = noise(1, dtype)
    got = read_window(write(tmp_path / "a.tif", pixels), band=1, row=0, col=0, height=300, width=333)
    np.testing.assert_array_equal(got, pixels[0], strict=True)


def test_nodata_and_nan_are_not_masked(tmp_path):
    pixels = np.array([[[np.nan, -99, 0, 1]]], "float32")
    path = write(tmp_path / "a.tif", pixels, nodata=-99)
    np.testing.assert_array_equal(read_window(path, band=1, row=0, col=0, height=1, width=4), pixels[0])


def test_out_is_filled_and_returned_even_where_it_is_a_view(stored):
    path, pixels = stored
    whole = np.zeros((40, 60), "uint16")
    out = whole[::2, ::2]
    assert read_window(path, band=2, row=5, col=9, height=20, width=30, out=out) is out
    np.testing.assert_array_equal(out, pixels[1, 5:25, 9:39])
    assert not whole[1::2].any()


@pytest.mark.parametrize(
    ("out", "said"),
    [
        (np.zeros((2, 3), "uint16"), r"shape \(2, 2\)"),
        (np.zeros((2, 2), "float32"), "dtype uint16"),
    ],
)
def test_an_out_that_does_not_fit_is_refused(stored, out, said):
    with pytest.raises(InvalidInputError, match=said):
        read_window(stored[0], band=1, row=0, col=0, height=2, width=2, out=out)


@pytest.mark.parametrize(
    "window",
    [
        (-1, 0, 2, 2),
        (0, -1, 2, 2),
        (0, 0, 0, 2),
        (0, 0, 2, 0),
        (299, 0, 2, 2),
        (0, 332, 2, 2),
        (0, 0, 301, 1),
    ],
)
def test_a_window_that_reaches_beyond_is_refused(stored, window):
    row, col, height, width = window
    with pytest.raises(InvalidInputError, match="inside 300 x 333 pixels"):
        read_window(stored[0], band=1, row=row, col=col, height=height, width=width)


@pytest.mark.parametrize("band", [0, -1, 3])
def test_a_band_that_is_not_there_is_refused(stored, band):
    with pytest.raises(InvalidInputError, match="band from 1 to 2"):
        read_window(stored[0], band=band, row=0, col=0, height=1, width=1)


# ---------------------------------------------------------------- handles


def open_tiffs() -> int:
    return sum(file.path.endswith(".tif") for file in psutil.Process().open_files())


def test_handles_are_kept_but_bounded(tmp_path):
    close_rasters()
    paths = [write(tmp_path / f"{i}.tif", noise(1, seed=i)) for i in range(HANDLES_A_THREAD + 4)]
    before = open_tiffs()
    for _ in range(2):
        for path in paths:
            read_window(path, band=1, row=0, col=0, height=8, width=8)
    assert open_tiffs() - before == HANDLES_A_THREAD
    close_rasters()
    assert open_tiffs() == before


def test_a_rewritten_file_is_read_anew(tmp_path):
    path = write(tmp_path / "a.tif", noise(1, seed=1))
    first = read_window(path, band=1, row=0, col=0, height=300, width=333)
    write(tmp_path / "b.tif", noise(1, seed=2))
    os.utime(
        tmp_path / "b.tif", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns)
    )  # same time, same size
    (tmp_path / "b.tif").replace(path)
    second = read_window(path, band=1, row=0, col=0, height=300, width=333)
    np.testing.assert_array_equal(first, noise(1, seed=1)[0])
    np.testing.assert_array_equal(second, noise(1, seed=2)[0])


def test_threads_read_what_one_thread_reads(stored):
    path, pixels = stored
    windows = [(r, c) for r in range(0, 290, 10) for c in range(0, 320, 40)] * 3

    def is_right(window: tuple[int, int]) -> bool:
        row, col = window
        got = read_window(path, band=1, row=row, col=col, height=10, width=13)
        return bool((got == pixels[0, row : row + 10, col : col + 13]).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(is_right, windows))


def test_a_spawned_process_reads(stored):
    path, pixels = stored
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        got = pool.submit(read_window, path, band=2, row=3, col=4, height=5, width=6).result()
    np.testing.assert_array_equal(got, pixels[1, 3:8, 4:10])


FORK = """
import os, sys
import numpy as np
from sarzarr.rasters import read_window
path = sys.argv[1]
def value(row, col):
    return (row * 977 + col) % 65536
def check(seed):
    rng = np.random.default_rng(seed)
    for row, col in rng.integers(0, 2032, (300, 2)):
        got = read_window(path, band=1, row=int(row), col=int(col), height=16, width=16)
        if not (got == value(row + np.arange(16)[:, None], col + np.arange(16))).all():
            return 1
    return 0
read_window(path, band=1, row=0, col=0, height=16, width=16)  # a handle that children inherit
children = []
for seed in range(3):
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(check(seed))
        finally:
            os._exit(1)
    children.append(pid)
bad = check(99)
bad += sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)
sys.exit(bad)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_children_and_their_parent_read_at_once(tmp_path):
    pixels = (np.add.outer(np.arange(2048) * 977, np.arange(2048)) % 65536).astype("uint16")
    path = write(tmp_path / "a.tif", pixels, tiled=True, blockxsize=16, blockysize=16, compress="lzw")
    environment = {**os.environ, "GDAL_CACHEMAX": "1"}  # so that every read goes to the file
    run = subprocess.run(
        [sys.executable, "-c", FORK, str(path)], capture_output=True, text=True, check=False, env=environment
    )
    assert run.returncode == 0, run.stderr


CACHE = """
import os, sys, threading
from rasterio.env import get_gdal_config
from sarzarr.rasters import CACHE_BYTES, read_window
window = dict(band=1, row=0, col=0, height=1, width=1)
read = threading.Thread(target=read_window, args=(sys.argv[1],), kwargs=window)
read.start(); read.join()
print(get_gdal_config("GDAL_CACHEMAX"), CACHE_BYTES)
"""


@pytest.mark.parametrize(("said", "megabytes"), [(None, 128), ("77", 77), ("512", 512)])
def test_the_block_cache_is_bounded_from_the_first_read_unless_the_user_says(tmp_path, said, megabytes):
    path = write(tmp_path / "a.tif", noise(1))
    environment = {k: v for k, v in os.environ.items() if k != "GDAL_CACHEMAX"}
    environment |= {"GDAL_CACHEMAX": said} if said else {}
    run = subprocess.run(
        [sys.executable, "-c", CACHE, str(path)], capture_output=True, text=True, check=True, env=environment
    )
    assert int(run.stdout.split()[0]) == megabytes * 2**20


# ---------------------------------------------------------------- hostile files

VRT = """<VRTDataset rasterXSize="8" rasterYSize="1">
<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">
<SourceFilename relativetoVRT="0">{secret}</SourceFilename>
<ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>8</LineOffset>
</VRTRasterBand></VRTDataset>"""

SIDECAR = """<PAMDataset><SRS>EPSG:4326</SRS><GeoTransform>1,2,0,3,0,4</GeoTransform>
<Metadata><MDI key="SENSOR">false</MDI></Metadata>
<PAMRasterBand band="1"><NoDataValue>7</NoDataValue><Description>false</Description></PAMRasterBand>
</PAMDataset>"""


def test_a_vrt_called_tif_is_refused(tmp_path):
    (tmp_path / "secret.txt").write_text("password")
    evil = tmp_path / "evil.tif"
    evil.write_text(VRT.format(secret=tmp_path / "secret.txt"))
    for read in (
        lambda: open_raster(evil).__enter__(),
        lambda: read_window(evil, band=1, row=0, col=0, height=1, width=8),
    ):
        with pytest.raises(UnsupportedRasterError, match=r"expected a TIFF file, got 'evil\.tif'"):
            read()


def facts(path: Path) -> tuple:
    with open_raster(path) as d:
        return d.crs.to_epsg(), tuple(d.transform), d.nodata, d.descriptions, d.tags(), d.overviews(1)


def test_sidecars_change_nothing_in_any_thread(tmp_path):
    path = write(tmp_path / "a.tif", noise(1))
    true = facts(path)
    (tmp_path / "a.tif.aux.xml").write_text(SIDECAR)
    with rasterio.open(write(tmp_path / "o.tif", noise(1)), "r+") as other:
        other.build_overviews([2])
    (tmp_path / "o.tif").rename(tmp_path / "a.tif.ovr")
    with rasterio.open(path) as trusting:  # the sidecar is one that works where it is believed
        assert trusting.crs.to_epsg() == 4326
        assert trusting.nodata == 7
    close_rasters()
    assert facts(path) == true
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(facts, path).result() == true
        pixels = pool.submit(read_window, path, band=1, row=0, col=0, height=300, width=333).result()
    np.testing.assert_array_equal(pixels, noise(1)[0])


def test_a_world_file_places_nothing(tmp_path):
    path = write(tmp_path / "a.tif", noise(1), crs=None, transform=None)
    (tmp_path / "a.tfw").write_text("10\n0\n0\n-10\n5\n6\n")
    with open_raster(path) as dataset:
        assert dataset.transform.is_identity


@pytest.mark.parametrize(
    "path",
    [
        "https://example.com/a.tif",
        "s3://bucket/a.tif",
        "/vsicurl/https://example.com/a.tif",
        "/vsizip/a.zip/a.tif",
        "GTIFF_DIR:1:a.tif",
        "ZARR:a.zarr",
        "<VRTDataset></VRTDataset>",
    ],
)
def test_what_is_no_local_path_is_refused(path):
    for read in (
        lambda: local_file(path),
        lambda: read_window(path, band=1, row=0, col=0, height=1, width=1),
    ):
        with pytest.raises(InvalidInputError, match="local TIFF file"):
            read()


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(RasterNotFoundError, match="not there"), open_raster(tmp_path / "none.tif"):
        pass
    with pytest.raises(FileNotFoundError):
        read_window(tmp_path / "none.tif", band=1, row=0, col=0, height=1, width=1)
    with pytest.raises(InvalidInputError, match="no regular file"):
        local_file(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_truncated_file_raises_whatever_the_environment_says(tmp_path, layout, monkeypatch):
    path = write(tmp_path / "a.tif", noise(1, "float32"), **{**LAYOUTS[layout], "predictor": 1})
    monkeypatch.setenv("GTIFF_DIRECT_IO", "YES")  # would return what the buffer held
    monkeypatch.setenv("GTIFF_VIRTUAL_MEM_IO", "YES")
    monkeypatch.setenv("GTIFF_IGNORE_READ_ERRORS", "YES")
    os.truncate(path, path.stat().st_size - 2000)

    def read_rows() -> None:
        for row in range(SHAPE[0]):
            read_window(path, band=1, row=row, col=0, height=1, width=333)

    with pytest.raises(UnsupportedRasterError, match=r"expected intact pixels in 'a\.tif'"):
        read_rows()


def test_a_path_is_taken_as_a_name_not_as_a_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("vsi_results.tif", "a!b.tif", "GTIFF_DIR:1:a.tif", "a?b=c.tif"):
        write(tmp_path / "plain.tif", noise(1)).rename(tmp_path / name)
        assert read_window(name, band=1, row=0, col=0, height=2, width=2).shape == (2, 2)


# ---------------------------------------------------------------- hashes


def test_a_hash_is_of_the_bytes_not_of_the_place(tmp_path):
    path = tmp_path / "a.bin"
    content = np.random.default_rng(0).bytes(3_000_000)
    path.write_bytes(content)
    (tmp_path / "b.bin").write_bytes(content)
    for full in (False, True):
        assert source_hash(path, full=full) == source_hash(tmp_path / "b.bin", full=full)
    assert source_hash(path) != source_hash(path, full=True)
    (tmp_path / "b.bin").write_bytes(content + b"x")
    assert source_hash(path) != source_hash(tmp_path / "b.bin")


def test_the_full_hash_sees_a_byte_that_the_sampled_one_may_not(tmp_path):
    content = bytearray(np.random.default_rng(0).bytes(3_000_000))
    (tmp_path / "a.bin").write_bytes(content)
    content[100_000] ^= 1  # between the first samples
    (tmp_path / "b.bin").write_bytes(content)
    assert source_hash(tmp_path / "a.bin") == source_hash(tmp_path / "b.bin")
    assert source_hash(tmp_path / "a.bin", full=True) != source_hash(tmp_path / "b.bin", full=True)
    content[0] ^= 1
    (tmp_path / "b.bin").write_bytes(content)
    assert source_hash(tmp_path / "a.bin") != source_hash(tmp_path / "b.bin")
