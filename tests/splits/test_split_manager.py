"""Splits of samples: the older calls and layout, without the older faults."""

import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest
import rasterio
import xarray as xr
from disks import files_below, no_file_beyond
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning

import sarzarr as sz
from sarzarr.errors import InvalidInputError, SplitExistsError, SplitNotFoundError
from sarzarr.ingestion.chips.find import ChipOptions
from sarzarr.ingestion.chips.pictures import import_chips
from sarzarr.splits.samples.manager import SplitManager, sample_id


# ------------------------------------------------------------------ two places with the same samples
def add_to_folder(root, signal, ids):
    folder = root / "signals" / signal / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    for i in ids:
        (folder / f"{i}.npz").write_bytes(b"")
        (folder / f"{i}.json").write_text('{"boxes": []}')


def add_to_store(root, signal, ids):
    chips = root / "chips" / signal
    chips.mkdir(parents=True, exist_ok=True)
    for i in ids:
        with pytest.warns(NotGeoreferencedWarning), rasterio.open(
            chips / f"{i}.png", "w", driver="PNG", height=4, width=5, count=1, dtype="uint8"
        ) as out:  # fmt: skip
            out.write(np.ones((1, 4, 5), np.uint8))
    for path in chips.glob("*.aux.xml"):
        path.unlink()
    import_chips(chips, root / "s.zarr", options=ChipOptions(name=signal, replace=True, annotations="none"))


class Place:
    """Samples in a folder of the older layout, or in a store."""

    def __init__(self, kind, root):
        self.kind, self.root = kind, root

    def add(self, ids, signal="beep"):
        (add_to_folder if self.kind == "folder" else add_to_store)(self.root, signal, ids)

    @property
    def manager(self):
        """A manager that has seen nothing yet, as another process would have."""
        return SplitManager(self.root if self.kind == "folder" else self.root / "s.zarr")


@pytest.fixture(params=["folder", "store"])
def place(request, tmp_path):
    return Place(request.param, tmp_path)


IDS = [f"id{i:02}" for i in range(10)]


# ------------------------------------------------------------------ what the calls say
def test_the_reference_order(place):
    place.add(IDS)
    assert place.manager.create_initial_split("beep") == 1
    shuffled = sorted(IDS)
    random.Random(42).shuffle(shuffled)
    assert place.manager.get_split("beep") == (shuffled[2:], shuffled[:2])
    assert place.manager.get_split("beep", 1) == (shuffled[2:], shuffled[:2])
    assert place.manager.get_active_split_version("beep") == 1


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 60), ratio=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_sides_are_disjoint_and_whole(tmp_path_factory, n, ratio, seed):
    root = tmp_path_factory.mktemp("n")
    ids = [f"{i}" for i in range(n)]
    add_to_folder(root, "s", ids)
    manager = SplitManager(root)
    manager.create_initial_split("s", ratio, seed)
    train, val = manager.get_split("s")
    assert sorted(train + val) == sorted(ids)
    assert len(val) == min(max(1, int(n * ratio)), n - 1)
    add_to_folder(root, "s", [f"new{i}" for i in range(3)])
    manager.extend_split("s")
    assert manager.get_split("s") == ([*train, "new0", "new1", "new2"], val)


def test_the_document_has_the_older_fields(tmp_path):
    add_to_folder(tmp_path, "beep", IDS)
    manager = SplitManager(tmp_path)
    manager.create_initial_split("beep", val_ratio=0.3, random_seed=7, notes="first")
    folder = tmp_path / "signals" / "beep" / "splits"
    document = json.loads((folder / "v1.json").read_text())
    train, val = manager.get_split("beep")
    assert document | {"created_at": ""} == {
        "version": 1,
        "created_at": "",
        "total_samples": 10,
        "train_samples": train,
        "val_samples": val,
        "train_count": 7,
        "val_count": 3,
        "val_ratio": 0.3,
        "random_seed": 7,
        "notes": "first",
        "effective_val_ratio": 0.3,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", document["created_at"])
    datetime.fromisoformat(document["created_at"])
    active = folder / "active.json"
    assert not active.is_symlink()
    assert json.loads(active.read_text()) == document
    add_to_folder(tmp_path, "beep", ["later"])
    assert manager.extend_split("beep", notes="second") == 2
    document = json.loads((folder / "v2.json").read_text())
    assert (document["parent_version"], document["samples_added"], document["notes"]) == (1, 1, "second")
    assert (document["random_seed"], document["val_ratio"]) == (7, 0.3)
    assert document["effective_val_ratio"] == pytest.approx(3 / 11)
    assert json.loads(active.read_text())["version"] == 2


def test_new_samples_go_to_training_alone_ten_times(place):
    place.add(IDS)
    place.manager.create_initial_split("beep")
    train, val = place.manager.get_split("beep")
    before = {}
    for step in range(10 if place.kind == "folder" else 3):
        new = [f"n{step}a", f"n{step}b"]
        place.add([*IDS, *(f"n{s}{c}" for s in range(step + 1) for c in "ba")])
        assert place.manager.get_pending_samples("beep") == new
        assert place.manager.extend_split("beep") == step + 2
        train = train + new
        assert place.manager.get_split("beep") == (train, val)
        for version, said in before.items():
            assert place.manager.get_split("beep", version) == said
        before[step + 2] = (train, val)
    version = place.manager.get_active_split_version("beep")
    assert place.manager.extend_split("beep") == version
    assert place.manager.get_versions("beep") == list(range(1, version + 1))


def test_the_summary(place):
    assert place.manager.get_samples("beep") == [] if place.kind == "folder" else True
    place.add(IDS)
    manager = place.manager
    summary = manager.get_split_summary("beep")
    assert {k: summary[k] for k in ("total_samples", "pending_samples", "train_count", "val_count")} == {
        "total_samples": 10, "pending_samples": 10, "train_count": 0, "val_count": 0,
    }  # fmt: skip
    assert summary["active_version"] is None
    assert manager.get_active_split_version("beep") == 0
    assert manager.get_pending_samples("beep") == IDS
    manager.create_initial_split("beep")
    summary = manager.get_split_summary("beep")
    assert (summary["pending_samples"], summary["train_count"], summary["val_count"]) == (0, 8, 2)
    assert (summary["active_version"], summary["effective_val_ratio"], summary["versions"]) == (1, 0.2, [1])


def test_without_a_split_reading_says_so(place):
    place.add(IDS)
    with pytest.raises(FileNotFoundError, match="No splits found for 'beep'"):
        place.manager.get_split("beep")
    place.manager.create_initial_split("beep")
    with pytest.raises(SplitNotFoundError, match="version 7"):
        place.manager.get_split("beep", 7)
    assert place.manager.get_pending_samples("nowhere") == []
    with pytest.raises(ValueError, match="got none"):
        place.manager.create_initial_split("nowhere")


def test_extending_without_a_split_makes_the_first(place):
    place.add(IDS)
    assert place.manager.extend_split("beep") == 1


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 1.5, float("nan")])
def test_a_ratio_out_of_range_is_refused(tmp_path, ratio):
    add_to_folder(tmp_path, "beep", IDS)
    with pytest.raises(ValueError, match="val_ratio"):
        SplitManager(tmp_path).create_initial_split("beep", ratio)


def test_one_sample_cannot_be_split(tmp_path):
    add_to_folder(tmp_path, "beep", ["only"])
    with pytest.raises(ValueError, match="two samples"):
        SplitManager(tmp_path).create_initial_split("beep")


def test_a_sample_without_one_of_its_files_is_none(tmp_path):
    add_to_folder(tmp_path, "beep", IDS)
    folder = tmp_path / "signals" / "beep" / "samples"
    (folder / "id03.json").unlink()
    (folder / "id04.npz").unlink()
    (folder / "stray.npz").write_bytes(b"")
    assert SplitManager(tmp_path).get_samples("beep") == [i for i in IDS if i not in ("id03", "id04")]
    assert SplitManager(tmp_path / "signals").get_samples("beep") == SplitManager(tmp_path).get_samples(
        "beep"
    )


# ------------------------------------------------------------------ the older faults
def test_a_second_first_split_is_refused_and_forced_takes_a_new_number(place):
    place.add(IDS)
    place.manager.create_initial_split("beep")
    first = place.manager.get_split("beep")
    with pytest.raises(SplitExistsError, match="extend_split"):
        place.manager.create_initial_split("beep", random_seed=1)
    assert place.manager.get_split("beep") == first
    assert place.manager.create_initial_split("beep", random_seed=1, force=True) == 2
    assert place.manager.get_split("beep", 1) == first
    assert place.manager.get_split("beep") != first


def test_extending_after_a_step_back_overwrites_nothing(place):
    place.add(IDS)
    manager = place.manager
    manager.create_initial_split("beep")
    place.add([*IDS, "x1"])
    manager = place.manager
    manager.extend_split("beep")
    second = manager.get_split("beep", 2)
    manager.set_active("beep", 1)
    assert manager.get_split("beep") == manager.get_split("beep", 1)
    assert place.manager.get_pending_samples("beep") == ["x1"]
    assert place.manager.extend_split("beep") == 3
    assert place.manager.get_split("beep", 2) == second
    assert place.manager.read("beep").parent_version == 1
    with pytest.raises(SplitNotFoundError):
        manager.set_active("beep", 9)


@pytest.mark.parametrize("pointer", ["dangling", "nonsense", "gone", "unknown version"])
def test_a_broken_pointer_does_not_change_validation(tmp_path, pointer):
    add_to_folder(tmp_path, "beep", IDS)
    manager = SplitManager(tmp_path)
    manager.create_initial_split("beep")
    said = manager.get_split("beep")
    active = tmp_path / "signals" / "beep" / "splits" / "active.json"
    active.unlink()
    if pointer == "dangling":
        active.symlink_to("v9.json")
    elif pointer == "nonsense":
        active.write_text("{")
    elif pointer == "unknown version":
        active.write_text('{"version": 12}')
    add_to_folder(tmp_path, "beep", ["later"])
    assert manager.extend_split("beep") == 2
    assert manager.get_split("beep", 1) == said
    assert manager.get_split("beep")[1] == said[1]
    assert not (active.parent / "v9.json").exists()


def test_a_pointer_that_is_a_link_is_read_and_never_written_through(tmp_path):
    add_to_folder(tmp_path, "beep", IDS)
    manager = SplitManager(tmp_path)
    manager.create_initial_split("beep")
    folder = tmp_path / "signals" / "beep" / "splits"
    (folder / "active.json").unlink()
    (folder / "active.json").symlink_to("v1.json")
    before = (folder / "v1.json").read_bytes()
    assert manager.get_active_split_version("beep") == 1
    add_to_folder(tmp_path, "beep", ["later"])
    assert manager.extend_split("beep") == 2
    assert (folder / "v1.json").read_bytes() == before
    assert not (folder / "active.json").is_symlink()
    assert manager.get_active_split_version("beep") == 2


@pytest.mark.parametrize("text", ["v1.json", "v1.json\n", "splits/v1.json", "..\\splits\\v1.json", "v1"])
def test_a_pointer_that_is_the_text_of_a_link_is_read(tmp_path, text):
    add_to_folder(tmp_path, "beep", IDS)
    manager = SplitManager(tmp_path)
    manager.create_initial_split("beep")
    add_to_folder(tmp_path, "beep", ["later"])
    manager.extend_split("beep")
    (tmp_path / "signals" / "beep" / "splits" / "active.json").write_text(text)
    assert manager.get_active_split_version("beep") == 1


def test_a_version_that_says_another_number_is_its_files(tmp_path, caplog):
    add_to_folder(tmp_path, "beep", IDS)
    manager = SplitManager(tmp_path)
    manager.create_initial_split("beep")
    folder = tmp_path / "signals" / "beep" / "splits"
    (folder / "v2.json").write_bytes((folder / "v1.json").read_bytes())
    assert manager.read("beep", 2).version == 2
    assert "v2.json says that it is v1; it is read as v2" in caplog.text


@pytest.mark.parametrize("text", ["", "latest", "[]", "v9.json", '{"version": 7}'])
def test_a_pointer_to_nothing_is_told(tmp_path, caplog, text):
    add_to_folder(tmp_path, "beep", IDS)
    manager = SplitManager(tmp_path)
    manager.create_initial_split("beep")
    (tmp_path / "signals" / "beep" / "splits" / "active.json").write_text(text)
    assert manager.get_active_split_version("beep") == 1
    assert "highest version is used" in caplog.text.replace("\n", " ")


def test_files_that_are_no_versions_are_passed_over(tmp_path):
    add_to_folder(tmp_path, "beep", IDS)
    manager = SplitManager(tmp_path)
    manager.create_initial_split("beep")
    folder = tmp_path / "signals" / "beep" / "splits"
    for name in ("vfinal.json", "v2.backup.json", "v03.json", "v-1.json", "v².json"):
        (folder / name).write_text("{}")
    assert manager.get_versions("beep") == [1]
    (folder / "v10.json").write_text(
        (folder / "v1.json").read_text().replace('"version": 1', '"version": 10')
    )
    (folder / "active.json").unlink()
    assert manager.get_active_split_version("beep") == 10  # by number, not by letter
    (folder / "v11.json").write_text('{"version": 11}')
    with pytest.raises(InvalidInputError, match="another document"):
        manager.get_split("beep", 11)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/b", "", ".", "..", "a\0b", "x" * 129, ".hidden"]
)
def test_names_cannot_lead_out_of_the_folder(tmp_path, name):
    add_to_folder(tmp_path, "beep", IDS)
    manager = SplitManager(tmp_path)
    manager.create_initial_split("beep")
    with pytest.raises(InvalidInputError):
        manager.create_initial_split(name)
    with pytest.raises(InvalidInputError):
        manager.get_split(name)
    with pytest.raises(InvalidInputError, match="ids of samples"):
        manager.extend_split("beep", [name])
    assert manager.get_versions("beep") == [1]


def test_ids_are_added_once_and_in_order(place):
    place.add(IDS)
    place.manager.create_initial_split("beep")
    place.add([*IDS, "b", "a", "c"])
    with pytest.raises(InvalidInputError, match="each id once"):
        place.manager.extend_split("beep", ["a", "a"])
    with pytest.raises(InvalidInputError, match="'zzz'"):
        place.manager.extend_split("beep", ["a", "zzz"])
    assert place.manager.extend_split("beep", ["c", "a", "id00"]) == 2
    assert place.manager.get_split("beep")[0][-2:] == ["a", "c"]
    assert place.manager.get_pending_samples("beep") == ["b"]


def test_vanished_samples_are_told_and_kept(tmp_path):
    add_to_folder(tmp_path, "beep", IDS)
    manager = SplitManager(tmp_path)
    manager.create_initial_split("beep")
    said = manager.get_split("beep")
    gone = said[1][0]
    (tmp_path / "signals" / "beep" / "samples" / f"{gone}.npz").unlink()
    assert manager.get_missing_samples("beep") == [gone]
    assert manager.get_split("beep") == said
    assert manager.get_split_summary("beep")["missing_samples"] == 1


def test_groups_are_kept_whole(place):
    ids = [f"{capture}-{i}" for capture in "abcdefgh" for i in range(4)]
    place.add(ids)
    place.manager.create_initial_split("beep", groups=lambda i: i[0])
    train, val = place.manager.get_split("beep")
    assert {i[0] for i in train} & {i[0] for i in val} == set()
    assert len(val) == 8
    assert sorted(train + val) == sorted(ids)
    other = next(c for c in "abcdefgh" if c != val[0][0] and c in {i[0] for i in train})
    place.add([*ids, f"{val[0][0]}-9", f"{other}-9"])
    place.manager.extend_split("beep", groups=lambda i: i[0])
    assert place.manager.get_split("beep") == ([*train, f"{other}-9"], val)
    assert place.manager.read("beep").held_back_samples == (f"{val[0][0]}-9",)
    assert place.manager.get_pending_samples("beep") == []
    with pytest.raises(InvalidInputError, match="two groups"):
        place.manager.create_initial_split("beep", groups=lambda _: "one", force=True)
    with pytest.raises(InvalidInputError, match="a group for each"):
        place.manager.create_initial_split("beep", groups={}, force=True)


def test_little_validation_is_said(tmp_path, caplog):
    add_to_folder(tmp_path, "beep", IDS)
    manager = SplitManager(tmp_path)
    manager.create_initial_split("beep", 0.1)
    add_to_folder(tmp_path, "beep", [f"n{i}" for i in range(30)])
    manager.extend_split("beep")
    assert "2.5 %" in caplog.text


def test_hash_seeds_and_the_global_generator_play_no_part(tmp_path):
    add_to_folder(tmp_path, "beep", IDS)
    code = (
        "import random; from sarzarr import SplitManager; random.seed(1); a = random.random();"
        "random.seed(1); m = SplitManager(r'%s'); m.create_initial_split('beep', force=True);"
        "assert random.random() == a; print(m.get_split('beep'))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code % tmp_path], env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1")
    ]  # fmt: skip
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("limit", [0, 40])
def test_a_full_disk_leaves_the_versions_there_were(tmp_path, limit):
    place = Place("folder", tmp_path)
    place.add(IDS)
    place.manager.create_initial_split("beep")
    before = files_below(tmp_path)
    place.add([*IDS, "x"])
    with pytest.raises(OSError, match="File too large"), no_file_beyond(limit):
        place.manager.extend_split("beep")
    assert place.manager.get_versions("beep") == [1]
    assert {p for p in files_below(tmp_path) - before if "samples" not in p} == set()


def _extend(root, barrier, results):
    manager = SplitManager(root)
    barrier.wait()
    results.put(manager.extend_split("beep", notes=str(os.getpid())))


@pytest.mark.parametrize("kind", ["folder", "store"])
def test_two_that_extend_at_once_make_one_version(tmp_path, kind):
    place = Place(kind, tmp_path)
    place.add(IDS)
    place.manager.create_initial_split("beep")
    val = place.manager.get_split("beep")[1]
    place.add([*IDS, "x", "y"])
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    where = tmp_path if kind == "folder" else tmp_path / "s.zarr"
    both = [context.Process(target=_extend, args=(where, barrier, results)) for _ in range(2)]
    for p in both:
        p.start()
    outcomes = [results.get(timeout=120) for _ in both]
    for p in both:
        p.join()
    assert outcomes == [2, 2]  # the second found nothing left to add
    assert place.manager.get_versions("beep") == [1, 2]
    assert place.manager.get_split("beep")[1] == val
    assert not [p for p in where.rglob("*") if p.name.endswith(".partial")]


def test_a_sample_id_is_what_it_was():
    assert sample_id("Creamy_Beef", "recording.cfile", 12.5) == "35bed5c4f223aa22"
    assert sample_id("Creamy_Beef", "recording.cfile", 12.5009) == "35bed5c4f223aa22"
    assert sample_id("Creamy_Beef", "recording.cfile", 12.501) != "35bed5c4f223aa22"


# ------------------------------------------------------------------ a store alone
def test_versions_in_a_store_survive_a_set_that_is_replaced(tmp_path):
    place = Place("store", tmp_path)
    place.add(IDS)
    place.manager.create_initial_split("beep")
    said = place.manager.get_split("beep")
    for name in IDS[5:]:
        (tmp_path / "chips" / "beep" / f"{name}.png").unlink()
    place.add([])
    assert place.manager.get_split("beep") == said
    assert len(place.manager.get_missing_samples("beep")) == 5
    tree = xr.open_datatree(tmp_path / "s.zarr", engine="zarr")
    group = tree["splits/samples/beep/v1"]
    assert group.attrs["random_seed"] == 42
    assert group["id"].values.tolist() == [*said[0], *said[1]]
    assert sz.open_store(tmp_path / "s.zarr").scenes == ()
