"""A plan over scenes that are there reads none of their files again, and says what one says that reads them all."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import speckle, write_band
from rasterio.transform import from_origin

import sarzarr as sz
from sarzarr.errors import SarzarrError
from sarzarr.ingestion import known_scenes
from sarzarr.scenes import memory

KNOWN = {"quantity": "sigma0", "representation": "power", "scenes": True}
opened = []


def _told(event, args):
    if event == "open":
        opened.append(str(args[0]))


sys.addaudithook(_told)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of files of three scenes, one with a layer, and their store."""
    folder = tmp_path_factory.mktemp("known")
    (folder / "raw").mkdir()
    for i, name in enumerate("abd"):
        place = from_origin(500_000 + 10_000 * i, 5_400_000, 10, 10)
        write_band(folder / f"raw/{name}_vv.tif", speckle((260, 260), seed=i), transform=place)
    mask = np.ones((260, 260), np.uint8)
    write_band(folder / "mask.tif", mask, transform=from_origin(500_000, 5_400_000, 10, 10))
    sz.ingest(
        sz.plan_ingest(folder / "raw", folder / "s.zarr", layers={"mask": folder / "mask.tif"}, **KNOWN)
    )
    return folder


@pytest.fixture
def again(made, tmp_path, monkeypatch):
    """A function that plans the files once more, with what is remembered or without, and says what comes of it."""
    store = Path(shutil.copytree(made / "s.zarr", tmp_path / "s.zarr"))
    monkeypatch.setattr(memory, "SETTLED", -1.0)
    monkeypatch.setattr(known_scenes, "SETTLED", -1.0)

    def plan(*, remembers=True, **options):
        monkeypatch.setenv(memory.CACHE, str(tmp_path / "cache") if remembers else "")
        try:
            plan = sz.plan_ingest(made / "raw", store, **KNOWN | options)
        except SarzarrError as error:
            return type(error).__name__, str(error)
        return plan.present, [(scene.id, scene.only_layers) for scene in plan.scenes], str(plan)

    plan.store = store
    return plan


def in_scenes():
    return [path for path in opened if "s.zarr/scenes" in path]


def test_a_second_plan_reads_no_file_of_the_scenes(again):
    first = again()
    assert first[0] == ("a", "b", "d")
    opened.clear()
    assert again() == first == again(remembers=False)
    assert len(in_scenes()) > 9  # by the last of them
    opened.clear()
    assert again() == first
    assert in_scenes() == []
    assert again(shard=256) == again(shard=256, remembers=False)


def rewritten(path):
    """Write a byte of a file otherwise, and give it its times again, as if nothing had been written."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "file", ["zarr.json", "vv/zarr.json", "vv/manifest.json", "mask/manifest.json", "vv/c/0/0"]
)
@pytest.mark.parametrize("how", ["flip", "cut", "gone", "linked"])
def test_whatever_happens_to_a_file_is_seen(again, file, how, tmp_path):
    again()
    path = again.store / "scenes/a" / file
    if how == "flip":
        rewritten(path)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "linked":
        shutil.move(path.parent, tmp_path / "elsewhere")
        path.parent.symlink_to(tmp_path / "elsewhere")
    else:
        path.unlink()
    assert again() == again(remembers=False)


def test_a_scene_that_is_replaced_or_leaves_is_seen(again, tmp_path, made):
    again()
    other = write_band(
        tmp_path / "b_vv.tif", speckle((260, 260), seed=9), transform=from_origin(900_000, 5_400_000, 10, 10)
    )
    sz.ingest(sz.plan_ingest(other, again.store, replace=True, **KNOWN))
    sz.remove_scene(again.store, "d")
    found = again()
    assert found == again(remembers=False)
    assert (found[0], found[1]) == (("a",), [("d", False)])


@pytest.mark.parametrize("content", ["", "[]", '{"a": 3}', '{"a": "[[], {}]"}', '{"a": "[[[3]], 4]"}'])
def test_what_is_remembered_and_is_none_does_no_harm(again, tmp_path, content):
    first = again()
    (document,) = (tmp_path / "cache/scenes").glob("*.json")
    document.write_text(content)
    assert again() == first
