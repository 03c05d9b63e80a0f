"""What the tests share: the real rasters, small GeoTIFFs, and a store's bytes as one value."""

import gc
import ipaddress
import json
import os
import signal
import socket
import sys
import warnings
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

# Seconds are measured in benchmarks, not in tests. CI tries the same examples each time; elsewhere they are others.
settings.register_profile("shared-machine", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("shared-machine")
# Ignored as of what runs in the background, which processes inherit; tests interrupt some.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REAL = [
    "s1_db_utm_nodata0/VV.tif",
    "s1_db_utm_nodata0/VH.tif",
    "s1_grd_amplitude/S1_IW_GRD_panama_700_amp_VV_VH.tif",
    "s1_sigma0_linear_snap/VH.tif",
    "s1_floods_db_mask/Spain_7370579_S1Hand.tif",
    *(f"s1_timeseries_nogeo/{date}.tif" for date in (20190428, 20190510, 20190522, 20190603, 20190615)),
]
"""The files that one command must put into one store."""


TRIALS = float(os.environ.get("SARZARR_TRIALS", 1))
"""Times as many trials of what is tried at random as CI makes: ``make test-slow TRIALS=10``."""

# Each test reads its files: what an earlier run saw of a path is nothing to it.
os.environ["SARZARR_CACHE"] = ""


def fsync(handle):
    """Do not wait for the disk: nobody cuts the power in a test. What is flushed, and when, `test_power` holds."""
    os.fstat(handle if isinstance(handle, int) else handle.fileno())


os.fsync = fsync  # of this process and those forked from it; those that tests start anew flush as ever
NO_PORT = {"dashboard_address": "127.0.0.1:0"}
"""Options of the scheduler of a LocalCluster: else it takes port 8787, and warns where another has it."""
_LOOPBACK = {None, "", b"", "localhost", socket.gethostname()}
"""Names that no name server is asked for."""
_used = []


def _guard(event, args):
    """Refuse, and count, connections and names that are not this machine's; told of all that Python opens."""
    if event in ("socket.connect", "socket.bind", "socket.sendto") and args[0].family != getattr(
        socket, "AF_UNIX", None
    ):
        # A datagram socket that is connected sends nothing: that is how Dask finds its own address.
        is_silent = event == "socket.connect" and args[0].type & socket.SOCK_DGRAM
        host = args[1][0]
        is_here = bool(is_silent) or host == "localhost"
        if not is_here:
            try:
                is_here = ipaddress.ip_address(host).is_loopback
            except ValueError:
                is_here = False
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
        is_here = host in _LOOPBACK or _is_number(host)
    else:
        return
    if not is_here:
        _used.append((event, host))
        raise ConnectionRefusedError(f"no network connection was expected in tests, got {event} of {host!r}")


def _is_number(host):
    try:
        return bool(ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host))
    except ValueError:
        return False


sys.addaudithook(_guard)


def trials(count):
    """Return how often something is tried where CI tries it so often."""
    return max(1, round(count * TRIALS))


def pytest_collection_finish():
    """Have the garbage collector leave alone what is there for good: modules, and thousands of tests.

    Hypothesis makes its source of random numbers for the first example, and warns where the collector sees no holder.
    """
    settings(max_examples=1, database=None)(given(st.none())(lambda _: None))()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def network_used():
    """Fail the test that opens a network connection, or asks for a name, that is not this machine's."""
    _used.clear()
    yield _used
    assert not _used, _used


def find_real_data():
    """Return the folder of real rasters, or None."""
    root = Path(__file__).parents[1]
    for place in (os.environ.get("SARZARR_TEST_DATA"), root / ".." / "shared" / "data"):
        if place and Path(place).is_dir():
            return Path(place).resolve()
    return None


@pytest.fixture(scope="session")
def real_data():
    """Return the folder of real rasters; skip where there is none."""
    folder = find_real_data()
    if folder is None:
        pytest.skip("real rasters are neither in ../shared/data nor where SARZARR_TEST_DATA says")
    return folder


@pytest.fixture(scope="session")
def real_store(real_data, tmp_path_factory):
    """Return the store of all `REAL` files, ingested once. Read only."""
    import sarzarr as sz

    root = tmp_path_factory.mktemp("real") / "real.zarr"
    return sz.ingest(sz.plan_ingest([real_data / name for name in REAL], root))


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Return a function that gives ``make()``, which JSON holds, called by one of the processes that run tests."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if os.environ.get("PYTEST_XDIST_WORKER") else folder

    def get(name, make):
        import fcntl  # Windows has none

        path = folder / f"once-{name}.json"
        with (folder / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                path.write_text(json.dumps(make()))
        return json.loads(path.read_text())

    return get


@pytest.fixture
def write_tiff(tmp_path):
    """Return a function that writes an array (y, x) as a GeoTIFF of that name; see `write_band`."""

    def write(name, values, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_band(path, values, **{"tiles": 256, **options})

    return write


def read_band(path, band):
    """Read a band with plain rasterio: the oracle."""
    with warnings.catch_warnings():  # that a raster has no place on the ground is what some tests are about
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            return file.read(band)


def write_band(path, values, *, nodata=None, tiles=0, **options):
    """Write an array (y, x) as a GeoTIFF; strips where ``tiles`` is 0."""
    profile = {"tiled": True, "blockxsize": tiles, "blockysize": tiles} if tiles else {}
    profile |= {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_400_000, 10, 10)} | options
    height, width = values.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=1,
        dtype=values.dtype,
        nodata=nodata,
        **profile,
    ) as out:
        out.write(values, 1)
    return path


def speckle(shape, *, seed=0, looks=4.4, mean=0.05):
    """Return gamma speckle: linear power, float32."""
    return (np.random.default_rng(seed).gamma(looks, 1 / looks, shape) * mean).astype(np.float32)


def tree_hash(root):
    """Return one value for every file below a folder: its name and its bytes."""
    digest = sha256()
    for path in sorted(p for p in Path(root).rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()
