"""No code opens a network connection during local work, libraries in C included; a cluster of ours is on loopback."""

import gc
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from chip_folders import chip_folder
from limited import forbid_internet, forked
from tiffs import speckle, write
from typer.testing import CliRunner

import sarzarr as sz
from sarzarr.cli import app
from sarzarr.errors import InvalidInputError, RasterNotFoundError, StoreNotFoundError
from sarzarr.rasters import open_raster
from sarzarr.tasks import cluster

TESTS = Path(__file__).parents[1]
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's filter of calls is Linux's")
GUARDED = """
import sys
from limited import forbid_internet
assert forbid_internet()
from sarzarr.cli import main
main()
"""


def run_without_internet(*command, code=GUARDED):
    """Run a command of sarzarr, and all that it starts, so that an internet socket kills it."""
    command = [sys.executable, "-c", code, *map(str, command)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS, timeout=200)


def filter_works():
    """Whether this kernel takes the filter: some containers forbid it."""
    return sys.platform == "linux" and forked(forbid_internet).said


@linux
def test_the_filter_kills_whoever_opens_an_internet_socket():
    if not filter_works():
        pytest.skip("this kernel takes no filter of calls")
    opened = "import socket; from limited import forbid_internet; assert forbid_internet(); socket.socket(socket.{})"
    assert run_without_internet(code=opened.format("AF_INET")).returncode == -signal.SIGSYS
    assert run_without_internet(code=opened.format("AF_INET6")).returncode == -signal.SIGSYS
    assert run_without_internet(code=opened.format("AF_UNIX")).returncode == 0
    by_gdal = (
        "from limited import forbid_internet; assert forbid_internet(); import rasterio\n"
        "with rasterio.Env(GDAL_HTTP_TIMEOUT=1): rasterio.open('/vsicurl/http://127.0.0.1:9/a.tif')"
    )
    assert run_without_internet(code=by_gdal).returncode == -signal.SIGSYS, "it is to hold for GDAL, too"


@pytest.mark.slow
@linux
def test_no_command_opens_a_network_connection(tmp_path):
    if not filter_works():
        pytest.skip("this kernel takes no filter of calls")
    files = [
        write(tmp_path / f"lake_sigma0_{p}.tif", speckle((1, 700, 600), seed=i))
        for i, p in enumerate(("vv", "vh"))
    ]
    other = write(
        tmp_path / "sea_sigma0_vv.tif",
        speckle((1, 300, 300)),
        crs="EPSG:32634",
        transform=(20, 0, 5e5, 0, -20, 5e6),
    )
    for file in (*files, other):  # what GDAL would follow, were it let
        file.with_name(f"{file.name}.aux.xml").write_text(
            '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/vsicurl/http://127.0.0.1:9/o.tif</MDI>'
            "</Metadata></PAMDataset>"
        )
    (tmp_path / "boxes.csv").write_text("scene,x_min,y_min,x_max,y_max\nlake_sigma0,5,5,50,60\n")
    chip_folder(tmp_path / "chips", count=3)
    store, said = tmp_path / "s.zarr", ("--quantity", "sigma0", "--representation", "power")
    for command in (
        ("identify", *files, other),
        ("ingest", *files, "-o", store, *said, "--workers", "0"),
        (
            "ingest",
            other,
            "-o",
            store,
            *said,
            "--crs",
            "EPSG:32633",
            "--pixel-size",
            "20",
            "--resampling",
            "bilinear",
        ),
        ("import", "boxes", tmp_path / "boxes.csv", "-o", store),
        ("import", "chips", tmp_path / "chips", "-o", store),
        ("info", store),
        ("stacks", store),
        ("bounds", store, "--method", "percentile"),
        ("split", "create", store, "--by", "scene", "--val", "0.5", "--seed", "43"),
        ("bench", store, "--quiet"),
        ("copy", store, tmp_path / "c.zarr", "--dtype", "float32"),
        ("quicklook", store, "-o", tmp_path / "q.png"),
        ("remove", store, "sea_sigma0"),
    ):
        done = run_without_internet(*command)
        assert done.returncode in (0, 1, 2), (command, done.returncode, done.stderr[-2000:])
        assert done.returncode == 0 or command[0] in ("bench", "split", "stacks"), (
            command,
            done.stdout,
            done.stderr,
        )


@pytest.mark.slow
@linux
def test_no_worker_of_a_reader_or_of_an_ingest_opens_a_network_connection(tmp_path):
    if not filter_works():
        pytest.skip("this kernel takes no filter of calls")
    file = write(tmp_path / "lake_sigma0_vv.tif", speckle((1, 700, 600)))
    code = """
import sys
from limited import forbid_internet
assert forbid_internet()
import sarzarr as sz
from sarzarr import tasks
tasks.PROCESS_WORTH = 0
store = sz.ingest(sz.plan_ingest([sys.argv[1]], sys.argv[2], representation="power", quantity="sigma0"))
assert len(list(sz.PatchReader(store, batch_size=2, min_unsaturated=0))) == 2
sz.open_store(store).db("lake_sigma0").compute()
from sarzarr.torch import ZarrPatchDataset
from torch.utils.data import DataLoader
data = ZarrPatchDataset(store, batch_size=2, min_unsaturated=0)
assert len(list(DataLoader(data, batch_size=None, num_workers=2))) == 2
"""
    pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
    done = run_without_internet(file, tmp_path / "s.zarr", code=code)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])


# ------------------------------------------------------------------ names that lead elsewhere
ELSEWHERE = [
    "http://127.0.0.1:9/a.tif", "https://example.com/a.tif", "s3://bucket/a.tif", "gs://bucket/a.tif", "az://b/a.tif",
    "ftp://127.0.0.1:9/a.tif", "/vsicurl/http://127.0.0.1:9/a.tif", "/vsis3/bucket/a.tif", "/vsigs/b/a.tif",
    "/vsicurl_streaming/http://127.0.0.1:9/a.tif", "/vsitar//vsicurl/http://127.0.0.1:9/a.tar/a.tif", "zip+http://x!a.tif",
    "/vsizip//vsicurl/http://127.0.0.1:9/a.zip/a.tif", "WMS:http://127.0.0.1:9", "VRT://a.tif", "vrt://http://127.0.0.1/a",
    "<VRTDataset/>", "/vsimem/a.tif", "/vsistdin/", "/vsisubfile/0_9,a.tif", "HTTP:http://127.0.0.1:9/a.tif",
]  # fmt: skip


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_opened(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for read in (
        lambda: sz.probe_file(name),
        lambda: sz.open_scene(name),
        lambda: open_raster(name).__enter__(),
        lambda: sz.ingest(sz.plan_ingest([name], tmp_path / "s.zarr")),
    ):
        with pytest.raises((InvalidInputError, RasterNotFoundError), match="expected"):
            read()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["http://127.0.0.1:9/s.zarr", "s3://bucket/s.zarr", "memory://s.zarr"])
def test_a_store_elsewhere_is_refused_before_anything_is_opened(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "lake_sigma0_vv.tif", speckle((1, 60, 60)))
    with pytest.raises(StoreNotFoundError, match="local directory"):
        sz.PatchReader(name)
    runner = CliRunner()
    for command in (
        ["info", name],
        ["ingest", file, "-o", name],
        ["copy", name, "c.zarr"],
        ["quicklook", name, "-o", "q.png"],
    ):
        done = runner.invoke(app, [str(word) for word in command])
        assert done.exit_code in (1, 2), (command, done.output)
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_the_guard_of_all_tests_sees_connections_and_names(network_used):
    """The fixture that every test runs under: what is not this machine is refused, and counted."""
    with socket.socket() as here:
        for attempt in (
            lambda: here.connect(("192.0.2.1", 80)),
            lambda: socket.getaddrinfo("example.invalid", 80),
            lambda: here.bind(("", 0)),
        ):
            with pytest.raises(ConnectionRefusedError, match="network"):
                attempt()
        here.bind(("127.0.0.1", 0))
    assert len(network_used) == 3
    network_used.clear()


@linux
@pytest.mark.filterwarnings(
    "ignore:Port 8787", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_cluster_that_is_started_listens_on_loopback_alone():
    with cluster(workers=1):
        listening = {address for pid in descendants(os.getpid()) for address in listening_of(pid)}
    gc.collect()  # where another cluster has Dask's usual port, Dask leaves a socket behind
    assert listening, "the scheduler listens, and its worker"
    assert listening <= {"0100007F", "00000000000000000000000001000000"}, (
        "127.0.0.1 and ::1, as the kernel writes them"
    )


def descendants(pid):
    """Yield a process and those that it started."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from descendants(int(child))


def listening_of(pid):
    """Yield the local addresses at which a process takes TCP connections."""
    handles = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            handles.add(handle.readlink().name)
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in handles:
                yield words[1].split(":")[0]
