"""The law of damage: whatever befalls a file of a store, a reader says so and names it, or delivers the same bytes.

One store has all kinds of files. Its bits are flipped, its files and folders exchanged, cut and taken away, and every
way to read it is tried after each.
"""

import os
import shutil
from collections import Counter
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from chip_folders import chip_folder
from conftest import speckle, trials, write_band
from rasterio.transform import from_origin

import sarzarr as sz
from sarzarr.errors import (
    CorruptStoreError,
    MissingFileError,
    NotInStoreError,
    SplitNotFoundError,
    StoreNotFoundError,
    StoreSchemaError,
)
from sarzarr.pixels.compiled.when import SWITCH, loops
from sarzarr.store.boxes import Boxes, read_boxes, write_boxes
from sarzarr.store.copies import consolidate
from sarzarr.store.split_table import read_split

KNOWN = {"quantity": "sigma0", "representation": "power", "shard": 512}
SCENES = {
    "codes": {},
    "twin": {},  # same shape, dtype and codec as the first: its files fit in that one's place
    "floats": {"dtype": "float32"},
    "halves": {"dtype": "float16", "codec": "none"},
    "zstd": {"codec": "zstd"},
    "files": {"shard": 0},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    root = folder / "s.zarr"
    for i, (name, options) in enumerate(SCENES.items()):
        pixels = speckle((700, 530), seed=i)
        pixels[:60, :300] = 0
        place = {"tiles": 128, "transform": from_origin(500_000 + 20_000 * i, 5_400_000, 10, 10)}
        write_band(folder / f"{name}_vv.tif", pixels, **place)
        write_band(folder / "labels.tif", (pixels > 0.05).astype("uint8"), nodata=255, **place)
        layers = {"mask": folder / "labels.tif"} if name in ("codes", "twin", "files") else {}
        sz.ingest(sz.plan_ingest(folder / f"{name}_vv.tif", root, layers=layers, **KNOWN | options))
    sz.index_patches(root, name="small", size=128, stride=128)
    sz.make_split(root, val_fraction=0.3, by="scene")
    sz.make_split(root, val_fraction=0.4, seed=7, by="scene", fresh=True)
    made = sz.open_store(root)
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 400, (30, 2))
    boxes = np.concatenate([corners, corners + 60], axis=1)
    write_boxes(
        made, Boxes.gathered({s: (boxes, ["ship"] * 30) for s in SCENES}, dict.fromkeys(SCENES, (700, 530)))
    )
    for name in ("one", "two"):
        chip_folder(folder / name, seed=len(name))
        sz.import_chips(folder / name, root)
    manager = sz.SplitManager(made.anew())
    manager.create_initial_split("one", 0.4)
    consolidate(made.anew())
    return made.anew()


def patches(root, **options):
    reader = sz.PatchReader(root, min_valid=0, min_unsaturated=0, threads=1, **options)
    return list(reader)


def scene(root, name):
    opened = sz.open_store(root).open_scene(name).load(scheduler="synchronous")
    return opened.attrs, {str(k): [v.values, v.dims, v.attrs] for k, v in opened.variables.items()}


def split(root):
    return read_split(sz.open_store(root).place).fingerprint


def bounds(root):
    opened = sz.open_store(root)
    counts = [(s, opened.histogram(s, "vv").counts) for s in opened.scenes]
    return dict(opened.bounds), counts, {s: opened.grid(s) for s in opened.scenes}


def every_box(root):
    boxes = read_boxes(sz.open_store(root))
    return boxes.owners, boxes.boxes, boxes.label, boxes.classes


def samples(root, **options):
    reader = sz.SampleReader(root, "one", flags=True, boxes=True, threads=1, **options)
    return list(reader), sz.open_samples(root, "one").image(1)


READERS = {
    "patches": partial(patches, with_meta=True),
    "small patches": partial(
        patches, index="small", scenes=["codes", "twin", "files"], layers=["mask"], boxes=True
    ),
    "training": partial(patches, split="train"),
    "validation": partial(patches, split="val", patch_size=128),
    **{f"scene {name}": partial(scene, name=name) for name in SCENES},
    "split": split,
    "bounds": bounds,
    "boxes": every_box,
    "samples": samples,
    "samples of a split": partial(samples, split="train"),
}
ABSENT = (MissingFileError, NotInStoreError, StoreNotFoundError, StoreSchemaError, SplitNotFoundError)
"""What is said of something that is not there; a root without a seal is a trial store."""


def bytes_of(value):
    """Return a digest of all that was read."""
    if isinstance(value, dict):
        return bytes_of([[str(k), v] for k, v in value.items()])
    if isinstance(value, np.ndarray) and value.dtype != object:
        return sha256(f"{value.dtype}{value.shape}".encode() + value.tobytes()).hexdigest()
    if isinstance(value, list | tuple | np.ndarray):
        return sha256("".join(map(bytes_of, value)).encode()).hexdigest()
    return sha256(repr(value).encode()).hexdigest()


@pytest.fixture(scope="module")
def truth(store):
    return {name: bytes_of(read(store.root)) for name, read in READERS.items()}


@pytest.fixture
def root(store, tmp_path):
    return Path(shutil.copytree(store.root, tmp_path / "s.zarr"))


def files_of(root):
    return sorted(p for p in root.rglob("*") if p.is_file())


def judge(root, truth, what, named=()):
    """Return how many ways to read said that something is wrong; fail where one delivers other bytes."""
    seen = 0
    for name, read in READERS.items():
        if name.startswith("scene ") and f"scenes/{name.split()[1]}" not in what:
            speaks_for_all = name in ("scene codes", "scene twin")
            if "scenes/" in what or not speaks_for_all:
                continue  # that scene is whole
        if name.startswith("samples") and "scenes/" in what:
            continue
        try:
            same = bytes_of(read(root)) == truth[name]
        except (CorruptStoreError, *ABSENT) as error:
            seen += 1
            said, is_damage = str(error), isinstance(error, CorruptStoreError)
            if (is_damage and str(root) not in said) or (named and not any(part in said for part in named)):
                pytest.fail(f"{what}: {name} names no file: {said}")
        else:
            assert same, f"{what}: {name} delivers other bytes and says nothing"
    return seen


def kind_of(path):
    """Return the kind of a file: its name, within the part of the store that it is in."""
    first, last = path.parts[0], path.parts[-1]
    return first, last if last.endswith(".json") else "chunk"


def drawn(root, count, seed):
    """Return so many files of every kind."""
    rng, kinds = np.random.default_rng(seed), {}
    for path in files_of(root):
        kinds.setdefault(kind_of(path.relative_to(root)), []).append(path)
    chosen = [paths[int(i)] for paths in kinds.values() for i in rng.integers(0, len(paths), count)]
    return chosen, rng


def flips(root, truth, count, seed):
    chosen, rng = drawn(root, count, seed)
    seen = Counter()
    for path in chosen:
        whole = bytearray(path.read_bytes())
        at, bit = int(rng.integers(len(whole))), int(rng.integers(8))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        name = str(path.relative_to(root))
        seen[kind_of(path.relative_to(root))] += judge(root, truth, f"bit {bit} of byte {at} of {name}") > 0
        path.write_bytes(whole)
    return seen


def exchanges(root, truth, count, seed):
    """Exchange files of one kind, and any."""
    chosen, rng = drawn(root, count, seed)
    for one in chosen:
        alike = [p for p in files_of(root) if kind_of(p.relative_to(root)) == kind_of(one.relative_to(root))]
        others = alike if rng.random() < 0.8 else files_of(root)
        other = others[int(rng.integers(len(others)))]
        names = [str(p.relative_to(root)) for p in (one, other)]
        content = one.read_bytes(), other.read_bytes()
        for path, data in zip((one, other), content[::-1], strict=True):
            path.write_bytes(data)
        judge(root, truth, " for ".join(names))
        for path, data in zip((one, other), content, strict=True):
            path.write_bytes(data)


def test_every_reader_reads_the_store_again(root, truth):
    assert judge(root, truth, "nothing") == 0


@pytest.mark.slow
def test_a_flipped_bit_is_named_or_moves_nothing(root, truth):
    flips(root, truth, trials(2), seed=0)


@pytest.mark.slow
def test_files_that_changed_places_are_named_or_move_nothing(root, truth):
    exchanges(root, truth, trials(1), seed=1)


@pytest.mark.slow
def test_what_is_absent_is_named_or_moves_nothing(root, truth):
    """Every folder, and files of every kind; cut short and cut to nothing, too."""
    chosen, rng = drawn(root, trials(1), seed=2)
    away = root.with_name("away")
    folders = [p for p in root.rglob("*") if p.is_dir() and "c" not in p.relative_to(root).parts]
    for path in [*chosen, *(folders[int(i)] for i in rng.permutation(len(folders))[: trials(20)])]:
        path.rename(away)
        judge(root, truth, f"without {path.relative_to(root)}")
        if away.is_file():
            path.write_bytes(away.read_bytes()[: int(rng.integers(2)) * away.stat().st_size // 2])
            judge(root, truth, f"{path.relative_to(root)} cut")
            path.unlink()
        away.rename(path)


def test_a_scene_without_its_folder_is_named(root, truth):
    shutil.rmtree(root / "scenes" / "codes")
    with pytest.raises(CorruptStoreError, match="scenes/codes"):
        patches(root)
    assert judge(root, truth, "no scene", named=("scenes/codes",)) > 3


@pytest.mark.skipif(os.name == "nt", reason="Windows renames nothing that is open")
@pytest.mark.parametrize("array", ["vv", "vv_flags", "mask"])
def test_an_array_without_its_folder_is_named(root, truth, array):
    shutil.rmtree(root / "scenes" / "codes" / array)
    assert judge(root, truth, "no array", named=(f"scenes/codes/{array}",)) > 0


# ------------------------------------------------------------------ checked once
@pytest.fixture
def one_scene(tmp_path, monkeypatch):
    """A store of one scene of 1024 x 1024 codes in one file, and compiled loops from the first pixel on."""
    monkeypatch.setenv(SWITCH, "1")
    loops.cache_clear()
    if loops() is None or not loops().READS:
        pytest.skip("no compiled loops that read files on this machine")
    write_band(tmp_path / "a_vv.tif", speckle((1024, 1024), seed=1), tiles=256)
    yield sz.ingest(sz.plan_ingest(tmp_path / "a_vv.tif", tmp_path / "s.zarr", **KNOWN | {"shard": 1024}))
    loops.cache_clear()


WINDOWS = {"patch_size": 256, "stride": 128, "min_valid": 0, "min_unsaturated": 0, "batch_size": 7}


def flip(root):
    """Flip a bit in the middle of a store's only file of codes, in place."""
    (file,) = (root / "scenes").glob("*/vv/c/0/0")
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        byte = opened.read(1)
        opened.seek(-1, 1)
        opened.write(bytes([byte[0] ^ 16]))
    return file


@pytest.mark.parametrize("options", [WINDOWS, WINDOWS | {"stride": 256}], ids=["windows", "whole chunks"])
def test_damage_is_found_before_its_first_pixel_and_each_time_where_that_is_asked(one_scene, options):
    patient, strict = (sz.PatchReader(one_scene, check=check, **options) for check in ("once", "always"))
    before = np.concatenate(list(patient))
    np.testing.assert_array_equal(before, np.concatenate(list(strict)))
    flip(one_scene.root)
    with pytest.raises(CorruptStoreError, match="row 512, col 0"):
        list(strict)
    with pytest.raises(CorruptStoreError, match="row 512, col 0"):
        list(sz.PatchReader(one_scene, **options))
    # The file is another by its time: what was checked before is checked again.
    with pytest.raises(CorruptStoreError, match="row 512, col 0"):
        list(patient)


def test_a_file_that_shrinks_is_an_error_that_names_it(one_scene):
    reader = sz.PatchReader(one_scene, threads=1, **WINDOWS)
    list(reader)
    batches = iter(reader)
    next(batches)
    (file,) = (one_scene.root / "scenes").glob("*/vv/c/0/0")
    os.truncate(file, 300_000)
    with pytest.raises(CorruptStoreError, match=f"end of the file.*{file.parent.name}/{file.name}"):
        list(batches)


@pytest.mark.skipif(
    not Path("/proc/self/io").exists(), reason="this system does not count what a process reads"
)
def test_rows_alone_are_read_of_what_was_checked(one_scene):
    """A window of 256 x 256 needs the rows of two chunks; the first time, four chunks of 128 KiB."""

    def bytes_read(reader):
        before = int(Path("/proc/self/io").read_text().split()[1])
        count = sum(map(len, reader))
        return (int(Path("/proc/self/io").read_text().split()[1]) - before) / count

    reader, always = (sz.PatchReader(one_scene, check=c, threads=1, **WINDOWS) for c in ("once", "always"))
    bytes_read(reader), bytes_read(always)
    rows, whole = bytes_read(reader), bytes_read(always)
    columns = np.array([1, 2, 1, 2, 1, 2, 1])  # chunks that windows from 0, 128, ... 768 reach over
    assert rows == pytest.approx(256 * 512 * columns.mean(), rel=0.05)
    assert whole == pytest.approx((256 * 512 + 4) * columns.mean() ** 2, rel=0.05)
