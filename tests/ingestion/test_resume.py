"""Interruptions, clusters and worker counts do not change a byte."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import pytest
from conftest import NO_PORT, speckle, tree_hash, write_band

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.errors import IngestError, InvalidInputError, NotInStoreError
from sarzarr.ingestion.blocks.write import write_block
from sarzarr.ingestion.scene_plan import ScenePlan
from sarzarr.ingestion.staging import intact_receipt, leave_receipt

KNOWN = {"quantity": "sigma0", "representation": "power"}


def bordered(shape, seed):
    """Speckle with a slanted border of zeros, a lake of zeros and some NaN."""
    raw = speckle(shape, seed=seed)
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    raw[cols < 100 + rows // 10] = 0
    raw[(rows - shape[0] // 2) ** 2 + (cols - shape[1] // 2) ** 2 < 90**2] = 0
    raw[np.random.default_rng(seed).random(shape) < 1e-3] = np.nan
    return raw


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two scenes of several blocks each: shards of 512 make small pictures long work."""
    folder = tmp_path_factory.mktemp("raw")
    for i, name in enumerate(("a_vv", "a_vh", "b_vv")):
        write_band(folder / f"{name}.tif", bordered((4500, 2300), i), tiles=128 if i else 0)
    return sorted(folder.glob("*.tif"))


@pytest.fixture(scope="module")
def reference(files, tmp_path_factory):
    """The store that an uninterrupted run writes, without threads."""
    root = tmp_path_factory.mktemp("reference") / "s.zarr"
    with dask.config.set(scheduler="synchronous"):
        store = sz.ingest(sz.plan_ingest(files, root, shard=512, **KNOWN))
    return tree_hash(store.root)


@pytest.mark.slow
def test_block_order_and_threads_do_not_matter(files, reference, tmp_path, monkeypatch):
    order = np.random.default_rng(1)
    plain = ScenePlan.jobs

    def shuffled(self, *args, **kwargs):
        jobs = list(plain(self, *args, **kwargs))
        return iter([jobs[i] for i in order.permutation(len(jobs))])

    monkeypatch.setattr(ScenePlan, "jobs", shuffled)
    for workers in (1, 2, 4):
        with dask.config.set(scheduler="threads", num_workers=workers):
            root = tmp_path / str(workers) / "s.zarr"
            store = sz.ingest(sz.plan_ingest(files, root, shard=512, **KNOWN))
        assert tree_hash(store.root) == reference


RUN = """
import sys, dask, sarzarr as sz
files, root = sys.argv[2:], sys.argv[1]
plan = sz.plan_ingest(files, root, shard=512, quantity="sigma0", representation="power")
def said(progress):
    print(progress.done, flush=True)
with dask.config.set(scheduler="synchronous"):
    sz.ingest(plan, progress=said)
"""


@pytest.mark.parametrize("blocks", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 6))])
def test_killed_and_run_again_gives_the_same_bytes_and_redoes_nothing(files, reference, tmp_path, blocks):
    root = tmp_path / "s.zarr"
    child = subprocess.Popen(
        [sys.executable, "-c", RUN, str(root), *map(str, files)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(blocks):
        assert child.stdout.readline()
    child.kill()
    child.wait()
    child.stdout.close()
    staged = root.with_name("s.zarr.ingest")
    receipts = {f"{p.parent.parent.name}/{p.stem}" for p in staged.rglob("receipts/*.json")}
    assert len(receipts) >= blocks
    written = set()
    from sarzarr.ingestion import run as ingestion

    plain = ingestion.write_block

    def counted(job):
        written.add(f"{job.scene}/{job.step}-{job.arrays[0].name}-{job.row}-{job.col}")
        return plain(job)

    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr(ingestion, "write_block", counted)
        store = sz.ingest(sz.plan_ingest(files, root, shard=512, **KNOWN))
    assert not written & receipts
    assert len(written) + len(receipts) == 9
    assert tree_hash(store.root) == reference
    assert not staged.exists()


@pytest.mark.slow
def test_a_block_whose_files_are_not_as_its_receipt_says_is_redone(files, reference, tmp_path):
    root = tmp_path / "s.zarr"
    child = subprocess.Popen(
        [sys.executable, "-c", RUN, str(root), *map(str, files)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(3):
        child.stdout.readline()
    child.kill()
    child.wait()
    child.stdout.close()
    staged = root.with_name("s.zarr.ingest")
    shards = sorted(staged.rglob("vv/c/*/*"))
    shards[0].write_bytes(b"")
    shards[-1].write_bytes(shards[-1].read_bytes()[:-100])
    (shards[0].parent / "junk.partial").write_bytes(b"left behind")
    store = sz.ingest(sz.plan_ingest(files, root, shard=512, **KNOWN))
    assert tree_hash(store.root) == reference


def test_blocks_without_a_valid_pixel_are_not_redone(tmp_path):
    raw = speckle((2048, 4096))
    raw[:, :2100] = np.nan
    path = write_band(tmp_path / "s_vv.tif", raw, tiles=256)
    plan = sz.plan_ingest(path, tmp_path / "s.zarr", **KNOWN)
    jobs = list(plan.scenes[0].jobs(str(tmp_path / "staged" / "scene")))
    for job in (replace(jobs[0], width=2048), replace(jobs[0], col=2048, width=2048)):
        receipt = write_block(job)
        leave_receipt(job, receipt)
        again = intact_receipt(job)
        assert again is not None
        np.testing.assert_array_equal(again["vv"].histogram.counts, receipt["vv"].histogram.counts)
        assert again["vv"].shards == receipt["vv"].shards


@pytest.mark.slow
def test_another_process_that_writes_the_store_is_an_error(files, tmp_path):
    root = tmp_path / "s.zarr"
    child = subprocess.Popen(
        [sys.executable, "-c", RUN, str(root), *map(str, files)], stdout=subprocess.PIPE, text=True
    )
    try:
        child.stdout.readline()
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(IngestError, match=f"one writer at a time .* process {child.pid} on .* since 20"):
            sz.ingest(sz.plan_ingest(files, root, shard=512, **KNOWN))
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.slow
def test_a_cluster_with_a_worker_killed_in_mid_run_gives_the_same_bytes(files, reference, tmp_path):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs=NO_PORT,
        ) as cluster,
        Client(cluster) as client,
    ):
        victims = list(client.run(os.getpid).values())
        seen = []

        def kill_one(progress):
            seen.append(progress.done)
            if len(seen) == 2:
                os.kill(victims[0], signal.SIGKILL)

        store = sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr", shard=512, **KNOWN), progress=kill_one)
        deadline = time.monotonic() + 30
        while victims[0] in (now := list(client.run(os.getpid).values())) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert victims[0] not in now
    assert tree_hash(store.root) == reference


@pytest.mark.slow
def test_the_command_line_starts_workers_on_loopback_or_uses_a_scheduler(files, reference, tmp_path):
    from distributed import LocalCluster

    command = [sys.executable, "-m", "sarzarr", "ingest", *map(str, files), "--shard", "512", "-q"]
    command += ["--quantity", "sigma0", "--representation", "power"]
    subprocess.run([*command, "-o", str(tmp_path / "a" / "s.zarr"), "--workers", "2"], check=True)
    assert tree_hash(tmp_path / "a" / "s.zarr") == reference
    with LocalCluster(
        n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address=None, scheduler_kwargs=NO_PORT
    ) as cluster:
        address = cluster.scheduler_address
        subprocess.run([*command, "-o", str(tmp_path / "b" / "s.zarr"), "--scheduler", address], check=True)
    assert tree_hash(tmp_path / "b" / "s.zarr") == reference


def test_a_scheduler_that_is_not_there_is_said_so():
    from sarzarr.tasks import cluster

    with pytest.raises(InvalidInputError, match="Leave one out"), cluster(scheduler="tcp://x:1", workers=1):
        pass


# ------------------------------------------------------------------ classic stores, borders, removal
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_classic_store_is_clipped_to_the_percentiles_of_all_its_pixels(files, tmp_path, dtype):
    plan = sz.plan_ingest(
        files, tmp_path / "c.zarr", bounds="percentile", low=2, high=98, dtype=dtype, **KNOWN
    )
    assert "one more pass first" in str(plan)
    store = sz.ingest(plan)
    whole = sz.ingest(sz.plan_ingest(files, tmp_path / "w.zarr", **KNOWN))
    valid = []
    for scene in ("a", "b"):
        flags = whole.open_scene(scene)["vv_flags"].values
        valid.append(whole.db(scene, "vv").values[flags == 0])
    low, high = np.percentile(np.concatenate(valid), [2, 98])
    entry = store.bounds["vv/sigma0"]
    assert (entry.vmin, entry.vmax) == pytest.approx((low, high), abs=0.004)
    assert (entry.clip_vmin, entry.clip_vmax) == (entry.vmin, entry.vmax)
    db = store.db("a", "vv").values
    expected = np.clip(whole.db("a", "vv").values, entry.vmin, entry.vmax)
    flags = whole.open_scene("a")["vv_flags"].values
    expected[flags == cv.Flag.NONPOSITIVE] = entry.vmin
    np.testing.assert_allclose(db, expected, atol=0.002)
    assert store.histogram("a", "vv") == whole.histogram("a", "vv")
    later = write_band(tmp_path / "later_vv.tif", speckle((600, 600), seed=8, mean=5))
    store = sz.ingest(sz.plan_ingest(later, store.root, bounds="percentile", dtype=dtype, **KNOWN))
    assert store.bounds["vv/sigma0"] == entry


def test_fixed_bounds_are_what_was_asked_for_and_stay(files, tmp_path):
    store = sz.ingest(
        sz.plan_ingest(files[0], tmp_path / "c.zarr", bounds="fixed", vmin=-20, vmax=0, **KNOWN)
    )
    assert store.preprocessing_params == {"vmin": -20.0, "vmax": 0.0}
    attrs = json.loads((store.root / "zarr.json").read_text())["attributes"]
    assert (attrs["vmin"], attrs["vmax"]) == (-20, 0)
    with pytest.raises(InvalidInputError, match="stored from -20 to 0 dB"):
        sz.plan_ingest(files[2], store.root, bounds="fixed", vmin=-30, vmax=0, polarizations=("VH",), **KNOWN)


@pytest.mark.parametrize("tiles", [0, 128])
def test_borders_are_eroded_around_nodata_whatever_the_layout(tmp_path, tiles):
    from scipy import ndimage

    raw = bordered((1500, 1300), 4)
    path = write_band(tmp_path / "a_vv.tif", raw, tiles=tiles)
    plain = sz.ingest(sz.plan_ingest(path, tmp_path / "p.zarr", shard=512, **KNOWN))
    store = sz.ingest(sz.plan_ingest(path, tmp_path / "b.zarr", shard=512, border=7, **KNOWN))
    before = plain.open_scene("a")["vv_flags"].values
    near = ndimage.binary_dilation(before == cv.Flag.NODATA, np.ones((15, 15)))
    expected = np.where(near & (before < cv.Flag.NODATA), cv.Flag.BORDER, before)
    flags = store.open_scene("a")["vv_flags"].values
    np.testing.assert_array_equal(flags, expected)
    assert (flags == cv.Flag.BORDER).sum() > 10_000
    codes, old = (s.open_scene("a")["vv"].values for s in (store, plain))
    np.testing.assert_array_equal(codes, np.where(flags < cv.Flag.NODATA, old, np.nan))
    histogram = store.histogram("a", "vv")
    assert histogram.counts.sum() == (flags == cv.Flag.VALID).sum()
    assert histogram.nodata == (flags >= cv.Flag.NODATA).sum()


@pytest.mark.slow
def test_removing_a_scene_touches_no_other(files, tmp_path):
    store = sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr", **KNOWN))
    kept = tree_hash(store.root / "scenes" / "b")
    store = sz.remove_scene(store, "a")
    assert store.scenes == ("b",)
    assert set(store.patches()["scene"].values) == {"b"}
    assert not (store.root / "scenes" / "a").exists()
    assert tree_hash(store.root / "scenes" / "b") == kept
    with pytest.raises(NotInStoreError, match="got a, which it does not hold"):
        sz.remove_scene(store, "a")
    assert sz.ingest(sz.plan_ingest(files, store.root, **KNOWN)).scenes == ("a", "b")


def test_a_file_is_known_by_samples_or_by_every_byte(tmp_path):
    path = write_band(tmp_path / "a_vv.tif", speckle((1500, 1500)), tiles=0)
    store = sz.ingest(sz.plan_ingest(path, tmp_path / "s.zarr", **KNOWN))
    assert sz.plan_ingest(path, store.root, full_hash=True, **KNOWN).present == ("a",)
    full = sz.ingest(sz.plan_ingest(path, tmp_path / "f.zarr", full_hash=True, **KNOWN))
    assert full.catalog["source_hash"].values[0].startswith("sha256:")
    assert sz.plan_ingest(path, full.root, **KNOWN).present == ("a",)


FORKED = """
import multiprocessing, os, signal, sys, sarzarr as sz
from sarzarr import tasks as scheduling
scheduling.PROCESS_WORTH = 0
plan = sz.plan_ingest(sys.argv[3:], sys.argv[1], shard=512, quantity="sigma0", representation="power")
what, left = sys.argv[2], {"nobody": 0, "one": 1, "all": 2, "parent": 0}[sys.argv[2]]
def said(progress):
    global left
    workers = multiprocessing.active_children()
    assert workers or left < 2
    if what == "parent":
        print(*(w.pid for w in workers), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    for worker in workers[:left]:
        os.kill(worker.pid, signal.SIGKILL)
    left = 0
sz.ingest(plan, progress=said)
"""


def ingest_forked(root, who_is_killed, files):
    command = [sys.executable, "-W", "error", "-c", FORKED, str(root), who_is_killed, *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
def test_a_forked_process_that_is_killed_is_done_without(files, reference, tmp_path):
    done = ingest_forked(tmp_path / "s.zarr", "one", files)
    assert done.returncode == 0, done.stderr
    assert "a worker process was killed (exit code -9), for memory perhaps; 1 go on" in done.stderr
    assert tree_hash(tmp_path / "s.zarr") == reference


@pytest.mark.slow
def test_forked_processes_that_are_all_killed_are_said_so_and_nothing_is_lost(files, reference, tmp_path):
    root = tmp_path / "s.zarr"
    killed = ingest_forked(root, "all", files)
    assert killed.returncode == 1
    assert "a worker process was expected to live, got all of them killed" in killed.stderr
    assert list(tmp_path.glob("s.zarr.ingest/**/*.json"))
    assert ingest_forked(root, "nobody", files).returncode == 0
    assert tree_hash(root) == reference


@pytest.mark.slow
def test_forked_processes_end_with_their_parent(files, reference, tmp_path):
    root = tmp_path / "s.zarr"
    killed = ingest_forked(root, "parent", files)
    assert killed.returncode == -signal.SIGKILL
    workers = [Path("/proc", pid) for pid in killed.stdout.split()]
    assert workers
    while any(worker.exists() for worker in workers):  # at most for the block that they are at
        time.sleep(0.01)
    assert ingest_forked(root, "nobody", files).returncode == 0
    assert tree_hash(root) == reference


@pytest.mark.slow
def test_a_classic_ingest_leaves_nothing_beside_the_store(files, tmp_path):
    root = tmp_path / "s.zarr"
    sz.ingest(sz.plan_ingest(files, root, bounds="percentile", **KNOWN))
    assert sorted(tmp_path.iterdir()) == [root]
