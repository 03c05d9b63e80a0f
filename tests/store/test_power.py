"""What a document says is there is on the disk before the document is: the order of flushes and renames.

Every file that a change brings into a store was flushed, as it is, before the journal that lists it took its name,
and the folders that it entered before the journal went. What is made whole beside its place was, before it took that.
"""

import os
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
from conftest import speckle, write_band
from rasterio.transform import from_origin

import sarzarr as sz

KNOWN = {"quantity": "sigma0", "representation": "power", "shard": 256}
RECORD = []
"""What happens while a command runs, in order; nothing where none does."""
IS_ON = [False]


def _record(event, args):
    if IS_ON[0] and event in ("os.rename", "os.remove", "open"):
        RECORD.append((event, *map(str, args[:2])))


sys.addaudithook(_record)


@pytest.fixture
def recorded(monkeypatch):
    """Return a function that runs another and returns what it did: renames, removals, opened and flushed files."""
    fsync = os.fsync

    def flushed(handle):
        fsync(handle)
        if IS_ON[0]:
            found = os.fstat(handle)
            RECORD.append(("flush", found.st_ino, (found.st_mtime_ns, found.st_size)))

    def run(command):
        RECORD.clear()
        IS_ON[0] = True
        try:
            with dask.config.set(scheduler="synchronous"):
                command()
        finally:
            IS_ON[0] = False
        return list(RECORD)

    monkeypatch.setattr(os, "fsync", flushed)
    return run


@pytest.fixture
def raw(tmp_path):
    for i, name in enumerate("abd"):
        place = from_origin(500_000 + 50_000 * i, 5_400_000, 10, 10)
        write_band(tmp_path / f"{name}_vv.tif", speckle((300, 310), seed=i), transform=place)
    write_band(tmp_path / "m.tif", speckle((300, 310)), transform=from_origin(500_000, 5_400_000, 10, 10))
    (tmp_path / "boxes.csv").write_text("scene,x_min,y_min,x_max,y_max\na,10,10,20,20\n")
    (tmp_path / "chips").mkdir()
    for i in range(3):
        picture = (speckle((40, 50), seed=i) * 255).astype(np.uint8)
        write_band(tmp_path / "chips" / f"{i}.tif", picture)
    return tmp_path


def ingest(raw, names, **options):
    files = [raw / f"{name}_vv.tif" for name in names]
    sz.ingest(sz.plan_ingest(files, raw / "s.zarr", **KNOWN | options))


COMMANDS = {
    "ingest": lambda raw: ingest(raw, "ab"),
    "append": lambda raw: ingest(raw, "d"),
    "replace": lambda raw: ingest(raw, "a", border=2, replace=True),
    "layers": lambda raw: ingest(raw, "a", layers={"m": raw / "m.tif"}),
    "bounds": lambda raw: sz.set_clip(sz.open_store(raw / "s.zarr"), method="sigma"),
    "index": lambda raw: sz.index_patches(raw / "s.zarr", size=64, stride=64, name="small"),
    "split": lambda raw: sz.make_split(raw / "s.zarr", val_fraction=0.5, by="scene", seed=43),
    "boxes": lambda raw: sz.import_boxes(sz.open_store(raw / "s.zarr"), raw / "boxes.csv"),
    "chips": lambda raw: sz.import_chips(raw / "chips", raw / "s.zarr"),
    "remove": lambda raw: sz.remove_scene(raw / "s.zarr", "d"),
    "copy": lambda raw: sz.copy_store(raw / "s.zarr", raw / "n.zarr"),
}


def files_of(folder):
    return {p.stat().st_ino: p for p in folder.rglob("*") if p.is_file()}


def test_what_a_store_refers_to_is_on_the_disk_before(raw, recorded):
    for name, command in COMMANDS.items():
        root = raw / ("n.zarr" if name == "copy" else "s.zarr")
        before = files_of(root)
        events = recorded(lambda command=command: command(raw))
        new = {ino: path for ino, path in files_of(root).items() if ino not in before}
        assert new or name == "remove", name
        journal = str(root.with_name("s.zarr.ingest") / ".journal.json")
        listed = [i for i, e in enumerate(events) if e[0] == "os.rename" and e[2] in (journal, str(root))]
        assert listed, name
        flushes = {}
        for i, (event, ino, stamp) in enumerate(events):
            if event == "flush" and i < listed[-1]:
                flushes[ino] = stamp
        for ino, path in new.items():
            found = path.stat()
            assert flushes.get(ino) == (found.st_mtime_ns, found.st_size), f"{name}: {path.relative_to(raw)}"
        if name == "copy":
            continue
        for folder in {path.parent for path in new.values()}:
            assert folder.stat().st_ino in flushes or folder.stat().st_ino in _flushed_after(
                events, listed
            ), folder
        gone = [i for i, e in enumerate(events) if e[0] == "os.remove" and e[1] == journal]
        assert gone[-1] > listed[-1]
        assert root.stat().st_ino in {e[1] for e in events[listed[-1] : gone[-1]] if e[0] == "flush"}, name


def _flushed_after(events, listed):
    return {e[1] for e in events[listed[-1] :] if e[0] == "flush"}


def test_a_staged_scene_is_on_the_disk_before_it_says_so(raw, recorded):
    events = recorded(lambda: ingest(raw, "ab"))
    said = {
        e[1]: i for i, e in reversed([*enumerate(events)]) if e[0] == "open" and Path(e[1]).name == "flushed"
    }
    assert len(said) == 2
    shards = {p.stat().st_ino for p in (raw / "s.zarr" / "scenes").rglob("c/*/*")}
    assert len(shards) == 2 * 2 * 4
    assert shards <= {e[1] for e in events[: max(said.values())] if e[0] == "flush"}
