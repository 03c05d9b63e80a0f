"""A GeoTIFF from a stranger becomes a scene or a clear error, in bounded time and memory; no more happens."""

import ctypes
import json
import os
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import tree_hash, trials
from mutations import made_by_hand, make_seeds
from tiffs import speckle, write

import sarzarr as sz
from sarzarr.errors import InvalidInputError, SarzarrError, UnsupportedRasterError
from sarzarr.rasters import read_window
from sarzarr.scenes.probe import probe_file

TESTS = Path(__file__).parents[1]
linux = pytest.mark.skipif(
    sys.platform != "linux", reason="limits of forked processes, and their memory, are Linux's"
)
SAID = {"representation": "power", "quantity": "sigma0"}


def fuzz(folder, *options):
    """Run the command behind ``make fuzz``; return what it printed, once nothing was found."""
    command = [sys.executable, TESTS / "fuzz.py", *options, "--keep", folder / "found"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS)
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout)


# ------------------------------------------------------------------ whole files that lie
@pytest.mark.slow
@linux
@pytest.mark.timeout(1200)
def test_mutated_files_become_scenes_or_clear_errors(tmp_path):
    said = fuzz(tmp_path, "--count", str(trials(160)), "--ingest-every", "10")
    assert said["tried"] == trials(160)
    assert said["scene"] > trials(16), "mutations are to reach the pixels"
    assert said["refused"] > trials(80)


@linux
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_files_that_are_cut_become_scenes_or_clear_errors(tmp_path):
    """One in ten of the structures; `tests/fuzz.py --cuts` cuts at every one."""
    said = fuzz(tmp_path, "--cuts", "--count", "210", "--ingest-every", "20")
    assert said["tried"] > 200
    assert said["refused"] > 200


@pytest.mark.slow
@linux
@pytest.mark.timeout(1200)
def test_sizes_counts_places_and_metadata_that_lie_are_refused_or_left_out(tmp_path):
    by_name = fuzz(tmp_path, "--by-hand", "--ingest-every", "5")["by_name"]
    wanted = {
        name: is_scene for name, _, is_scene in made_by_hand(make_seeds(tmp_path)) if is_scene is not None
    }
    assert {name: by_name[name] == "scene" for name in wanted} == wanted


def test_a_scene_too_large_for_any_memory_is_refused_before_it_is_taken(tmp_path):
    path = tmp_path / "a_sigma0_vv.tif"
    options = {"driver": "GTiff", "count": 1, "dtype": "uint8", "sparse_ok": True, "blockysize": 1}
    with rasterio.open(
        path, "w", height=1, width=2**24 + 1, **options, crs="EPSG:32633", transform=(10, 0, 0, 0, -10, 0)
    ):
        pass
    with pytest.raises(UnsupportedRasterError, match="at most 16,777,216 rows and columns"):
        sz.open_scene(path, **SAID)


@pytest.mark.parametrize("smaller", ["rows", "columns"])
def test_a_jpeg_that_is_smaller_than_its_block_is_refused(tmp_path, smaller):
    """What GDAL delivers of the rest nobody wrote. Here it is of no rows or columns, which GDAL refuses as well."""
    pixels = (speckle((1, 64, 64)) * 800).clip(0, 255).astype("uint8")
    path = write(
        tmp_path / "a_sigma0_vv.tif", pixels, compress="jpeg", tiled=True, blockxsize=64, blockysize=64
    )
    assert read_window(path, band=1, row=0, col=0, height=64, width=64).any()
    data = bytearray(path.read_bytes())
    at = data.rindex(b"\xff\xc0") + (5 if smaller == "rows" else 7)
    assert struct.unpack_from(">H", data, at) == (64,)
    struct.pack_into(">H", data, at, 0)
    path.write_bytes(data)
    for read in (
        lambda: probe_file(path),
        lambda: read_window(path, band=1, row=0, col=0, height=64, width=64),
    ):
        with pytest.raises(
            UnsupportedRasterError, match=r"got a JPEG of \d+ x \d+ pixels in a block of 64 x 64"
        ):
            read()


def test_a_jpeg_of_strips_whose_last_is_short_is_read(tmp_path):
    pixels = (speckle((3, 70, 60)) * 800).clip(0, 255).astype("uint8")
    for interleave in ("band", "pixel"):
        path = write(
            tmp_path / f"{interleave}.tif", pixels, compress="jpeg", blockysize=32, interleave=interleave
        )
        assert read_window(path, band=3, row=0, col=0, height=70, width=60).shape == (70, 60)


def test_what_cannot_be_ingested_changes_no_store(tmp_path):
    good = write(tmp_path / "good_sigma0_vv.tif", speckle((64, 64)))
    store = sz.ingest(sz.plan_ingest([good], tmp_path / "s.zarr", **SAID))
    before = tree_hash(store.root)
    bad = write(tmp_path / "bad_sigma0_vv.tif", speckle((1, 300, 300)), compress="deflate", blockysize=16)
    os.truncate(bad, bad.stat().st_size - 500)
    with pytest.raises(SarzarrError, match=r"expected intact pixels in 'bad_sigma0_vv\.tif'"):
        sz.ingest(sz.plan_ingest([bad], store.root, **SAID))
    assert tree_hash(store.root) == before


# ------------------------------------------------------------------ names
NAMES = [
    "a b_sigma0_vv.tif", "it's \"q\".tif", "a\nb\r\t.tif", "-o.tif", "--help.tif", "%s{0}{name}.tif",
    "$(touch x).tif",
    "`touch x`.tif", "a;touch x.tif", "a&b<c>.tif", "a!b.tif", "a?b=c#d.tif", "..tif", "...tif", "a..b.tif", " .tif",
    "GTIFF_DIR:1:a.tif", "HTTP:x.tif", "\u202egnp.tif", "\u00e9\u4e16.tif", os.fsdecode(b"caf\xe9.tif"),
    "x" * 250 + ".tif",
    "c.tif", "zarr.json.tif", "vsimem.tif", "vrt:x.tif",
]  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_is_nothing_but_a_name(tmp_path, name, monkeypatch):
    """Every one is ingested into a scene of its own within the store, or refused; no other file comes to be."""
    folder = tmp_path / "lake"
    folder.mkdir()
    written = write(tmp_path / "plain.tif", speckle((1, 64, 64)))
    try:
        written.rename(folder / name)
    except OSError:
        pytest.skip("this file system has no such names")
    monkeypatch.chdir(tmp_path)
    with suppress(SarzarrError):
        store = sz.ingest(sz.plan_ingest([Path("lake") / name], "s.zarr", **SAID))
        (scene,) = store.scenes
        assert scene.replace("_", "").replace("-", "").replace(".", "").isalnum()
        assert not scene.startswith((".", "_"))
        assert {p.name for p in (tmp_path / "s.zarr/scenes").iterdir() if p.is_dir()} == {scene}
    assert {p.name for p in tmp_path.iterdir()} <= {"lake", "s.zarr"}
    assert [p.name for p in folder.iterdir()] == [name]


@pytest.mark.parametrize(
    "given", ["../x", "a/../../x", "/x", "..", ".", "", "a\0b", "a\nb", "c", "zarr.json", "{folder}/x"]
)
def test_an_id_that_leads_out_is_refused(tmp_path, given):
    path = write(tmp_path / "in" / "a_sigma0_vv.tif", speckle((64, 64)))
    with pytest.raises((SarzarrError), match=r"scene id|expected"):
        sz.ingest(sz.plan_ingest([path], tmp_path / "out" / "s.zarr", id=given, **SAID))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*x*"))


def test_a_path_with_dots_is_the_file_that_it_leads_to(tmp_path, monkeypatch):
    path = write(tmp_path / "in" / "a_sigma0_vv.tif", speckle((64, 64)))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert probe_file("../in/../in/a_sigma0_vv.tif").path == path


# ------------------------------------------------------------------ what lies beside
class Watch:
    """Files that nobody may open: Linux tells of each opening."""

    def __init__(self, paths):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._handle = self._libc.inotify_init1(os.O_NONBLOCK)
        opened, names = 0x20, [os.fsencode(path) for path in paths]
        assert self._handle >= 0
        self._paths = {self._libc.inotify_add_watch(self._handle, name, opened): name for name in names}

    def opened(self):
        """Return the names of those that were opened since the last call."""
        found = set()
        try:
            events = os.read(self._handle, 2**16)
        except BlockingIOError:
            return found
        while events:
            number, _, _, length = struct.unpack_from("iIII", events)
            found.add(self._paths[number].decode())
            events = events[16 + length :]
        return found


@linux
def test_no_file_is_opened_but_the_one_that_was_given(tmp_path):
    """Sidecars that point elsewhere, and what they point to; a mask alone is looked at, which can do no harm."""
    path = write(
        tmp_path / "a_sigma0_vv.tif", speckle((1, 300, 300)), tiled=True, blockxsize=64, blockysize=64
    )
    secret = write(tmp_path / "secret.bin", speckle((1, 300, 300), seed=1))
    source = (
        f"<SimpleSource><SourceFilename>{secret}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
    )
    vrt = (
        f'<VRTDataset rasterXSize="300" rasterYSize="300"><VRTRasterBand dataType="Float32" band="1">{source}'
    )
    vrt += "</VRTRasterBand></VRTDataset>"
    pam = f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{secret}</MDI></Metadata></PAMDataset>'
    beside = {"a_sigma0_vv.tif.aux.xml": pam, "a_sigma0_vv.aux": pam, "a_sigma0_vv.tif.ovr": vrt,
              "a_sigma0_vv.tfw": "1\n" * 6,
              "a_sigma0_vv.tab": "!table", "a_sigma0_vv.prj": "x", "a_sigma0_vv.rpb": "x", "a_sigma0_vv_rpc.txt": "x",
              "a_sigma0_vv.imd": "x", "a_sigma0_vv.pvl": "x", "a_sigma0_vv.tif.gcp": "x",
              "a_sigma0_vv.vrt": vrt}  # fmt: skip
    for name, text in beside.items():
        (tmp_path / name).write_text(text)
    watch = Watch([secret, *(tmp_path / name for name in beside)])
    with rasterio.open(path) as trusting:
        trusting.overviews(1)
    assert watch.opened(), "the watch is to see what GDAL opens where it is let"
    scene = sz.open_scene(path, **SAID)
    np.testing.assert_array_equal(scene.vv.values, speckle((1, 300, 300))[0])
    sz.ingest(sz.plan_ingest([path], tmp_path / "s.zarr", **SAID))
    sz.ingest(
        sz.plan_ingest(
            [path], tmp_path / "g.zarr", crs="EPSG:32633", pixel_size=20, resampling="average", **SAID
        )
    )
    assert not watch.opened()


def test_a_mask_that_is_a_vrt_is_refused(tmp_path):
    path = write(tmp_path / "a_sigma0_vv.tif", speckle((1, 64, 64)))
    secret = write(tmp_path / "secret.bin", (speckle((1, 64, 64)) > 0).astype("uint8"))
    source = f"<SimpleSource><SourceFilename>{secret}</SourceFilename></SimpleSource>"
    band = f'<VRTRasterBand dataType="Byte" band="1">{source}</VRTRasterBand>'
    (tmp_path / "a_sigma0_vv.tif.msk").write_text(
        f'<VRTDataset rasterXSize="64" rasterYSize="64">{band}</VRTDataset>'
    )
    with pytest.raises(UnsupportedRasterError, match=r"expected a TIFF file, got 'a_sigma0_vv\.tif\.msk'"):
        probe_file(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@linux
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path, kind):
    path = tmp_path / "a_sigma0_vv.tif"
    {"pipe": os.mkfifo, "device": lambda p: p.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](path)
    with pytest.raises((InvalidInputError), match="no regular file"):
        probe_file(path)
