"""What is read and written when a scene enters a store does not depend on how many scenes are there."""

import os
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import speckle, write_band
from rasterio.transform import from_origin

import sarzarr as sz

KNOWN = {"quantity": "sigma0", "representation": "power", "shard": 256}
opened = Counter()


def _count(event, arguments):
    if event == "open" and opened is not None and isinstance(arguments[0], str | bytes | os.PathLike):
        opened[os.fsdecode(arguments[0])] += 1


sys.addaudithook(_count)


def scenes(folder, names, side=260):
    """Write a scene of one polarization for each name, apart on the ground."""
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        place = from_origin(500_000 + 10_000 * i, 5_400_000, 10, 10)
        write_band(folder / f"{name}_vv.tif", speckle((side, side), seed=i), transform=place)
    return folder


def enter(root, files):
    sz.ingest(sz.plan_ingest(files, root, scenes=True, **KNOWN))


@contextmanager
def counted():
    """Give a counter of bytes that this process reads and writes, and of the files of a store that it opens."""

    def bytes_so_far():
        told = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(told["rchar"]), int(told["wchar"])

    out = Counter()
    opened.clear()
    before = bytes_so_far()
    yield out
    out["read"], out["written"] = (now - then for now, then in zip(bytes_so_far(), before, strict=True))
    out["opened"] = sum(n for path, n in opened.items() if ".zarr" in path)


def entering(tmp_path, sizes):
    """Return what it takes for a scene to enter stores of so many scenes."""
    told, new = [], scenes(tmp_path / "new", ["warm", "last"])
    for size in sizes:
        root = tmp_path / f"{size}.zarr"
        enter(root, scenes(tmp_path / str(size), [f"s{i:04}" for i in range(size)]))
        enter(root, new / "warm_vv.tif")
        with counted() as told_now:
            enter(root, new / "last_vv.tif")
        told.append(told_now)
        assert len((root / "zarr.json").read_bytes()) < 1000
        assert len(sz.open_store(root).scenes) == size + 2
    return told


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this system does not count a process's bytes")
@pytest.mark.parametrize(
    "sizes", [(2, 8), pytest.param((10, 500), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_a_scene_enters_a_large_store_as_it_enters_a_small_one(tmp_path, sizes):
    few, many = entering(tmp_path, sizes)
    print(few, many)
    for what in ("read", "written", "opened"):
        assert many[what] == pytest.approx(few[what], rel=0.2), what
