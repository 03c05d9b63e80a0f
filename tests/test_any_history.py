"""Any history of a store, with crashes and damage in it, ends where a model of plain arrays does.

Commands run in forked children of a process that has imported everything; one that is to crash kills itself with
SIGKILL just before its k-th rename, link or removal, where what it does becomes visible or is lost.
"""

import itertools
import multiprocessing
import os
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from chip_folders import chip_folder
from conftest import speckle, trials, write_band
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from rasterio.transform import from_origin

import sarzarr as sz
from sarzarr.errors import SarzarrError
from sarzarr.ingestion.chips.find import ChipOptions
from sarzarr.store.split_table import read_split
from sarzarr.store.split_table import versions as split_versions

SCENES = ("alpha", "bravo", "delta")
SIZES = {"alpha": (300, 520), "bravo": (512, 260), "delta": (257, 300)}
VERSIONS = (0, 1)
KNOWN = {"quantity": "sigma0", "representation": "power", "shard": 512}
CALLS = ("rename", "replace", "link", "unlink", "rmdir")
fork = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
fork.set_forkserver_preload(["test_any_history"])


def crash_at(moment: int) -> None:
    """Make this process kill itself at one of its next changes of names."""
    calls = itertools.count()

    def dying(real):
        def call(*args, **kwargs):
            if next(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        setattr(os, name, dying(getattr(os, name)))


def child(command, arguments, moment) -> None:
    """Run one command of `COMMANDS`; a mistake that it names is its exit code 3."""
    if moment is not None:
        crash_at(moment)
    try:
        COMMANDS[command](*arguments)
    except SarzarrError as error:
        print(f"{command}: {error}", flush=True)
        os._exit(3)
    os._exit(0)


def ingest(store, files, border):
    sz.ingest(sz.plan_ingest(files, store, replace=True, border=border, **KNOWN))


COMMANDS = {
    "ingest": ingest,
    "remove": lambda store, scene: sz.remove_scene(store, scene),
    "bounds": lambda store, high: sz.set_clip(store, method="percentile", high_pct=high),
    "index": lambda store, size: sz.index_patches(store, size=size),
    "split": lambda store, seed: sz.make_split(store, val_fraction=0.4, by="scene", seed=seed, fresh=True),
    "extend": lambda store: sz.extend_split(store),
    "chips": lambda store, folder: sz.import_chips(
        folder, store, options=ChipOptions(name="chips", replace=True)
    ),
    "repair": lambda store, folders: sz.repair(store, folders),
}


def run(command, *arguments, moment=None) -> int:
    """Run a command in a child; return its exit code, -9 where it was killed."""
    process = fork.Process(target=child, args=(command, arguments, moment))
    process.start()
    process.join(120)
    if process.is_alive():
        process.kill()
        raise AssertionError(f"{command}{arguments} did not end")
    return process.exitcode


def content(store, scene):
    """Return (codes, flags) of a scene as any Zarr reader has them."""
    import zarr

    group = zarr.open_group(store / "scenes" / scene, mode="r")
    return group["vv"][...], group["vv_flags"][...]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return the file of each (scene, version), and what a clean store holds of it by (scene, version, border)."""
    folder = tmp_path_factory.mktemp("history")
    files, right = {}, {}
    for scene, version in itertools.product(SCENES, VERSIONS):
        values = speckle(SIZES[scene], seed=10 * SCENES.index(scene) + version, mean=0.02 * (1 + version))
        values[:40, :30] = 0
        at = folder / str(version)
        at.mkdir(exist_ok=True)
        place = from_origin(500_000 + 20_000 * SCENES.index(scene), 5_400_000, 10, 10)
        files[scene, version] = write_band(at / f"{scene}_vv.tif", values, tiles=128, transform=place)
        for border in (0, 3):
            store = sz.ingest(
                sz.plan_ingest(
                    files[scene, version], folder / f"{scene}{version}{border}.zarr", border=border, **KNOWN
                )
            )
            right[scene, version, border] = content(store.root, scene)
    chips = {(at := folder / "chips" / str(seed)): chip_folder(at, 3, seed=seed) for seed in VERSIONS}
    return files, right, chips


class History(RuleBasedStateMachine):
    """A store that is written, killed, read and mended in any order."""

    files: dict
    right: dict
    chips: dict

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        self.store = self.folder / "s.zarr"
        self.model = {}
        self.folders = []  # of chips: what the set is of, and what an unfinished import is given
        self.unfinished = None

    def teardown(self):
        if hasattr(self, "folder"):
            self.finish()
            shutil.rmtree(self.folder)

    def do(self, command, *arguments, moment, then=None):
        """Run a command; where it is killed, it is run again at once, or after others that are not of its kind."""
        self.finish()
        code = run(command, self.store, *arguments, moment=moment)
        if command in ("split", "extend") and code == 3:  # no ground on one side, with that seed; no version
            code = 0
        assert code in (0, -signal.SIGKILL), (command, code)
        if code == 0:
            self.model = self.model if then is None else then
        else:
            self.unfinished = command, arguments, then

    def finish(self):
        if self.unfinished is None:
            return
        (command, arguments, then), self.unfinished = self.unfinished, None
        code = run(command, self.store, *arguments)
        if command == "remove" and code == 3:  # it was done
            assert arguments[0] not in sz.open_store(self.store).scenes
            code = 0
        assert code == 0 or (command in ("split", "extend") and code == 3), (command, arguments, code)
        self.model = self.model if then is None else then

    @rule(
        scenes=st.sets(st.sampled_from(SCENES), min_size=1),
        version=st.sampled_from(VERSIONS),
        border=st.sampled_from((0, 3)),
        moment=st.none() | st.integers(0, 80),
    )
    def ingests(self, scenes, version, border, moment):
        self.finish()
        files = [self.files[scene, version] for scene in sorted(scenes)]
        then = self.model | {scene: (scene, version, border) for scene in scenes}
        self.do("ingest", files, border, moment=moment, then=then)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), moment=st.none() | st.integers(0, 20))
    def removes(self, data, moment):
        self.finish()
        scene = data.draw(st.sampled_from(sorted(self.model)))
        self.do("remove", scene, moment=moment, then={k: v for k, v in self.model.items() if k != scene})

    @precondition(lambda self: self.model)
    @rule(high=st.sampled_from((95, 99)), moment=st.none() | st.integers(0, 12))
    def sets_the_clip(self, high, moment):
        self.do("bounds", high, moment=moment)

    @precondition(lambda self: self.model)
    @rule(size=st.sampled_from((128, 200)), moment=st.none() | st.integers(0, 12))
    def indexes(self, size, moment):
        self.do("index", size, moment=moment)

    @precondition(lambda self: len(self.model) > 1)
    @rule(seed=st.integers(0, 3), moment=st.none() | st.integers(0, 12))
    def splits(self, seed, moment):
        self.do("split", seed, moment=moment)

    @precondition(lambda self: len(self.model) > 1)
    @rule(moment=st.none() | st.integers(0, 12))
    def extends(self, moment):
        self.do("extend", moment=moment)

    @precondition(lambda self: self.model)
    @rule(number=st.sampled_from(VERSIONS), moment=st.none() | st.integers(0, 30))
    def imports_chips(self, number, moment):
        self.finish()
        self.folders = [*self.folders[-1:], sorted(self.chips)[number]]
        self.do("chips", self.folders[-1], moment=moment)

    @precondition(lambda self: self.model)
    @rule(
        data=st.data(), kind=st.sampled_from(("flip", "cut", "gone")), moment=st.none() | st.integers(0, 12)
    )
    def is_damaged_and_repaired(self, data, kind, moment):
        self.finish()
        scene = data.draw(st.sampled_from(sorted(self.model)))
        part = data.draw(st.sampled_from([f"scenes/{scene}/vv", "samples/chips"][: 1 + bool(self.folders)]))
        path = data.draw(st.sampled_from(sorted(p for p in (self.store / part).rglob("*") if p.is_file())))
        stored = bytearray(path.read_bytes())
        if kind == "flip":
            stored[data.draw(st.integers(0, len(stored) - 1))] ^= 4
        path.write_bytes(stored[: len(stored) // 2] if kind == "cut" else stored)
        if kind == "gone":
            path.unlink()
        assert sz.verify(self.store).findings
        folders = sorted({*(file.parent for file in self.files.values()), *self.folders})
        run("repair", self.store, folders, moment=moment)
        assert run("repair", self.store, folders) == 0

    @invariant()
    def reads_as_the_model(self):
        """Every scene is that of the model, or, while a command is unfinished, that of its end."""
        if not getattr(self, "store", None) or not (self.store / "zarr.json").exists():
            return
        then = self.unfinished[2] if self.unfinished else None
        allowed = [self.model] if then is None else [self.model, then]
        store = sz.open_store(self.store)
        for scene in store.scenes:
            found = content(self.store, scene)
            told = [self.right[model[scene]] for model in allowed if scene in model]
            assert any(all(map(np.array_equal, found, right)) for right in told), scene
        if self.unfinished is None:
            assert set(store.scenes) == set(self.model)
            assert not sz.verify(store).findings
        if store.scenes and store.patch_indices:
            self.check_patches(store)
        self.check_chips(store)
        self.check_splits(store)

    def check_chips(self, store):
        """The set of samples is whole, of one folder, the last one that a finished command was given."""
        is_importing = self.unfinished is not None and self.unfinished[0] == "chips"
        if not (self.store / "samples" / "chips" / "zarr.json").exists():
            assert is_importing or not self.folders
            return
        samples = sz.open_samples(store, "chips")
        images = [samples.image(i) for i in range(len(samples))]
        told = [self.chips[folder] for folder in (self.folders if is_importing else self.folders[-1:])]
        assert any(
            all(map(np.array_equal, images, (pixels for pixels, _ in right.values()))) for right in told
        )

    def check_splits(self, store):
        """A version that extends another keeps what that one says of each scene."""
        for version in split_versions(store.place):
            split = read_split(store.place, version)
            parent = {s.scene: s for s in read_split(store.place, split.parent or version).scenes}
            assert {*parent} <= {s.scene for s in split.scenes}
            assert all(np.array_equal(s.codes, parent.get(s.scene, s).codes) for s in split.scenes)

    def check_patches(self, store):
        """Each patch is the very window that it names, of a scene that is there, and comes once."""
        try:
            reader = sz.PatchReader(
                store, batch_size=4, min_valid=0, min_unsaturated=0, dtype="uint16", with_meta=True
            )
            batches = list(reader)
        except SarzarrError:
            assert self.unfinished  # which a reader may be told of, rather than get the patches of a half
            return
        seen = set()
        for batch in batches:
            for image, scene, row, col in zip(
                batch["image"], batch["scene"], batch["row"].tolist(), batch["col"].tolist(), strict=True
            ):
                codes, _ = content(self.store, str(scene))
                window = codes[row : row + image.shape[-2], col : col + image.shape[-1]]
                np.testing.assert_array_equal(np.asarray(image)[0], window)
                assert (scene, row, col) not in seen
                seen.add((scene, row, col))


def histories(sources, examples, steps):
    class Here(History):
        files, right, chips = sources

    Here.TestCase.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],  # to shrink a history takes minutes
        suppress_health_check=list(HealthCheck),
    )
    return Here.TestCase


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills children by signal")
def test_any_history_ends_as_the_model(sources):
    histories(sources, 2, 6)("runTest").runTest()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills children by signal")
def test_many_histories_end_as_the_model(sources):
    histories(sources, trials(3), 8)("runTest").runTest()
