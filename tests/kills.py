"""SIGKILL at any moment of any command: what a reader sees then, and what the same command makes of it.

``python tests/kills.py`` kills each command at operations spread over its run (a write, a rename, a flush, a removal,
counted in all its processes) and at random times, and runs it again. It holds that a reader meanwhile and after the
kill sees the store before the command or after it (of an ingest, whole scenes of one or the other), and that in the
end each byte is that of a run that nobody killed, with nothing left beside the store.
"""

import argparse
import importlib
import json
import os
import pkgutil
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import dask
import numpy as np
from archives import products, write_archive
from conftest import speckle, write_band
from rasterio.transform import from_origin
from scans import lattice
from spectrogram_folders import signal_folder

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr import tasks
from sarzarr.errors import NotInStoreError, SarzarrError, StoreNotFoundError
from sarzarr.patches.stored_array import StoredArray
from sarzarr.store.catalog import catalog_rows
from sarzarr.store.chip_boxes import chip_box_tables, read_chip_boxes
from sarzarr.store.collections import collection_names

KNOWN = {"quantity": "sigma0", "representation": "power", "shard": 256}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "ctypes.dlsym", "open"}
TIMES = re.compile(rb'"(created_at|%s)": "[^"]*"' % re.escape(cv.SEAL).encode())
"""What differs between two runs: when a split was made, and the seal on a document that says so."""
ALREADY = {
    "remove": NotInStoreError, "copy": FileExistsError, "extend": SarzarrError,
    **dict.fromkeys(("chips", "npy", "npz", "scan"), ValueError),
}  # fmt: skip
"""The error of a command that is run again though it was done: whoever was killed after the last step."""


# ------------------------------------------------------------------ commands
def raw(folder: Path) -> None:
    """Write scenes a, b, c of two polarizations (2100 x 280 pixels, zeros outside), a layer, boxes and chips.

    And an archive, a signal and a scan of older formats.
    """
    for i, (date, pol) in enumerate((d, p) for d in "abc" for p in ("vv", "vh")):
        pixels = speckle((2100, 280), seed=i, mean=0.1 / (i + 1))
        pixels[:, :30], pixels[900:940, 90:120] = 0, 0
        place = from_origin(500_000 + 50_000 * (i // 2), 5_400_000, 10, 10)
        write_band(folder / f"{date}_{pol}.tif", pixels, tiles=128, transform=place)
    write_band(
        folder / "mask.tif", np.ones((2100, 280), np.uint8), transform=from_origin(500_000, 5_400_000, 10, 10)
    )
    (folder / "boxes.csv").write_text("scene,x_min,y_min,x_max,y_max\na,40,10,60,20\n")
    (folder / "drawn.csv").write_text(
        "chip,x_min,y_min,x_max,y_max,label\nt1,4,1,60,20,buoy\nt3,0,0,9,9,ship\n"
    )
    (folder / "chips").mkdir()
    for i in range(5):
        write_band(folder / "chips" / f"{i}.tif", np.full((40, 50), 2**i, np.uint8))
    (folder / "tiles").mkdir()
    (folder / "marks").mkdir()
    for i in range(6):
        place = from_origin(500_000 + 640 * i, 5_300_000, 10, 10)
        if i != 2:
            write_band(folder / "marks" / f"t{i}_mask.tif", np.full((64, 64), i, np.uint8), transform=place)
        write_band(folder / "tiles" / f"t{i}_VV.tif", speckle((64, 64), seed=i), transform=place)
    write_archive(folder / "patches", products("x_vv", "y_vv", count=3, size=64), size=64, stride=32)
    signal_folder(folder)
    np.savez_compressed(folder / "scan.npz", **lattice(20, size=32))


def ingest(raw: Path, root: Path, dates: str, **options) -> None:
    """Ingest all files of some dates."""
    sz.ingest(
        sz.plan_ingest([p for d in dates for p in sorted(raw.glob(f"{d}_v?.tif"))], root, **KNOWN | options)
    )


def collect(raw: Path, root: Path, count: int = 6) -> None:
    """Pack the first chips of a folder into a collection."""
    files = sorted((raw / "tiles").iterdir())[:count]
    sz.ingest(sz.plan_ingest(files, root, collection="t", **KNOWN))


def draw(raw: Path, root: Path) -> None:
    """Put boxes onto chips of a collection."""
    sz.import_chip_boxes(root, "t", raw / "drawn.csv")


def mark(raw: Path, root: Path) -> None:
    """Give chips of a collection a layer that comes later."""
    sz.ingest(sz.plan_ingest([], root, collection="t", layers={"mask": raw / "marks"}))


def split(raw: Path, root: Path) -> None:
    """Split whole scenes."""
    sz.make_split(root, val_fraction=0.5, by="scene", seed=43)


def halved(batch: np.ndarray) -> np.ndarray:
    """Return half of what is given."""
    return batch / 2


def predict(raw: Path, root: Path) -> None:
    """Put a model over every scene; of two rows of shards each."""
    options = {"patch_size": 128, "overlap": 16, "model_name": "half", "polarizations": ["vv"]}
    sz.predict_scenes(halved, root, **options)


@dataclass(frozen=True)
class Command:
    """A command, and what the store is before it."""

    run: Callable[[Path, Path], None]
    """What is killed; takes the folder of rasters, and the store."""
    before: tuple[Callable[[Path, Path], None], ...] = ()
    """What makes the store before it."""
    by_scene: bool = False
    """Whether scenes may enter one after another."""
    makes: str = "s.zarr"
    """The store that it writes."""


def overviews(raw: Path, root: Path) -> None:
    """Make overviews of all scenes."""
    sz.make_overviews(root)


def copy(raw: Path, root: Path) -> None:
    """Copy the store."""
    sz.copy_store(root, root.with_name("n.zarr"))


def two(raw: Path, root: Path) -> None:
    """Make a store of scenes a and b."""
    ingest(raw, root, "ab")


def third(raw: Path, root: Path) -> None:
    """Add scene c."""
    ingest(raw, root, "c")


COMMANDS = {
    "ingest": Command(two),
    "border": Command(lambda raw, root: ingest(raw, root, "ab", border=3)),
    "classic": Command(lambda raw, root: ingest(raw, root, "ab", bounds="percentile")),
    "append": Command(lambda raw, root: ingest(raw, root, "abc"), (lambda raw, root: ingest(raw, root, "a"),), True),
    "replace": Command(lambda raw, root: ingest(raw, root, "ab", border=2, replace=True), (two,), True),
    "layers": Command(lambda raw, root: ingest(raw, root, "a", layers={"m": raw / "mask.tif"}), (two,)),
    "remove": Command(lambda raw, root: sz.remove_scene(root, "a"), (two, overviews, split)),
    "copy": Command(copy, (two, overviews), makes="n.zarr"),
    "overview": Command(overviews, (two,), True),
    "split": Command(split, (two,)),
    "extend": Command(lambda raw, root: sz.extend_split(root), (two, split, third)),
    "bounds": Command(lambda raw, root: sz.set_clip(sz.open_store(root), method="sigma", k=2), (two,)),
    "index": Command(lambda raw, root: sz.index_patches(root, size=64, stride=32, name="small"), (two,)),
    "boxes": Command(lambda raw, root: sz.import_boxes(sz.open_store(root), raw / "boxes.csv"), (two,)),
    "chips": Command(lambda raw, root: sz.import_chips(raw / "chips", root), (two,)),
    "collect": Command(collect, (two,)),
    "draw": Command(draw, (collect,)),
    "mark": Command(mark, (collect,)),
    "grow": Command(collect, (two, lambda raw, root: collect(raw, root, 2))),
    "npy": Command(lambda raw, root: sz.import_npy(raw / "patches" / "metadata.npy", root), (two,)),
    "npz": Command(lambda raw, root: sz.import_npz(raw / "signals" / "beep", root), (two,)),
    "scan": Command(lambda raw, root: sz.import_ptychography(raw / "scan.npz", root), (two,)),
    "predict": Command(predict, (two,), True),
    "alone": Command(lambda raw, root: sz.ingest(sz.plan_ingest([], root, layers={"m": raw / "mask.tif"})), (two,)),
}  # fmt: skip


@contextmanager
def synchronous() -> Iterator[None]:
    """Do the work in this thread."""
    with dask.config.set(scheduler="synchronous"):
        yield


@contextmanager
def forked() -> Iterator[None]:
    """Have forked processes do the work, however little it is."""
    tasks.PROCESS_WORTH = 0
    yield


@contextmanager
def cluster() -> Iterator[None]:
    """Have a cluster of two processes do the work."""
    with tasks.cluster(workers=2):
        yield


BACKENDS = {"synchronous": synchronous, "threads": nullcontext, "forked": forked, "cluster": cluster}


# ------------------------------------------------------------------ what a reader sees
def digest(*parts: object) -> str:
    """Return one value for arrays and what else there is."""
    out = sha256()
    for part in parts:
        out.update(
            np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
        )
    return out.hexdigest()[:12]


def seen(root: Path) -> dict[str, object]:
    """Return what a reader sees of a store: by scene its pixels, clip and patches; and all else."""
    try:
        store = sz.open_store(root)
    except StoreNotFoundError:
        return {}
    patches, out = store.patches() if store.patch_indices else None, {}
    for scene in store.scenes:
        layers = [store.open_scene(scene)[name].values for name in store.layers(scene)]
        if not store.arrays(scene):
            out[scene] = digest(store.layers(scene), *layers)
            continue
        rows = store.rows(scene)
        clips = [store.bounds[key] for key in rows["bounds_key"].values.tolist()]
        arrays = [StoredArray.of(store.place, row) for row in catalog_rows(rows)]
        pixels = [array.codes((slice(0, array.shape[0]), slice(0, array.shape[1]))) for array in arrays]
        own = () if patches is None else patches.isel(patch=np.flatnonzero(patches["scene"].values == scene))
        columns = [own[k].values for k in own.data_vars if own[k].dtype != object] if len(own) else []
        levels = [store.power(scene, level=n) for n in store.levels(scene)[1:]]
        levels = [level[name].values for level in levels for name in sorted(level)]
        out[scene] = digest(
            rows["dtype"].values.tolist(), clips, *pixels, *columns, store.layers(scene), *layers, *levels
        )
    if patches is not None:
        assert set(patches["scene"].values.tolist()) <= set(store.scenes), (
            "patches of a scene that is not there"
        )
    if store.scenes:
        batch = sz.PatchReader(store, polarizations=["vv"], batch_size=4, min_valid=0, min_unsaturated=0)
        out["*batches"] = digest(*batch)
    for name in collection_names(store):
        made = sz.open_collection(store, name)
        pixels = [made.stored(chip, array) for chip in made.ids for array in (*made.arrays, *made.layers)]
        drawn = [read_chip_boxes(made, table).boxes for table in chip_box_tables(made)]
        out[f"*{name}"] = digest(
            made.ids, *pixels, made.histogram("vv").counts, made.table["sha"].values, *drawn
        )
    names = [
        f"{g}/{n}" for g in (cv.BOXES, cv.SPLITS, cv.SAMPLES, cv.PATCHES) for n in store.place.children(g)
    ]
    out["*rest"] = digest(sorted(n for n in names if n.endswith("/") and "/." not in n))
    return out


def agrees(
    now: dict[str, object], before: dict[str, object], after: dict[str, object], by_scene: bool
) -> bool:
    """Whether what a reader sees is one of two states; of scenes that enter one by one, a mixture of whole scenes."""
    scenes = [k for k in now if not k.startswith("*")]
    if not scenes and not before:
        return True  # no store yet, or an empty one
    if not by_scene:
        return now in (before, after)
    return all(now[k] in (before.get(k), after.get(k)) for k in scenes) and {
        k for k in before if not k.startswith("*")
    } <= set(scenes)


def bytes_of(folder: Path) -> dict[str, str]:
    """Return every file below a folder and a value of its bytes, times of creation apart."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    told = {str(p.relative_to(folder)): p.read_bytes() for p in files}
    return {k: digest(TIMES.sub(b"", data) if b'"created_at"' in data else data) for k, data in told.items()}


# ------------------------------------------------------------------ processes
def fork(function: Callable[[], object], *, log: Path) -> int:
    """Run a function in a forked process that leads a session of its own; its result is in ``log``."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    tell(function, log)
    os._exit(0)


def tell(function: Callable[[], object], log: Path) -> None:
    """Call a function, and write its result, or its error, into a file."""
    try:
        result = {"result": function()}
    except BaseException as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        result = {"kinds": kinds, "error": traceback.format_exc()}
    log.write_text(json.dumps(result))
    sys.stdout.flush()


def result_of(pid: int, log: Path) -> dict:
    """Wait for a forked process and return its result; empty where it was killed."""
    os.waitpid(pid, 0)
    return json.loads(log.read_text()) if log.exists() else {}


def count_operations(root: Path, counter: Path, kill_at: int) -> None:
    """Count the operations of this process and those forked from it, and kill all of them before one of them."""
    handle, fsync, group = os.open(counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT), os.fsync, os.getpid()

    def count() -> None:
        os.write(handle, b".")
        if kill_at and os.fstat(handle).st_size >= kill_at:
            os.killpg(group, signal.SIGKILL)

    def hook(event: str, args: tuple) -> None:
        if event not in EVENTS:
            return
        if event == "ctypes.dlsym":
            is_ours = args[1] == "renameat2"
        elif event == "open":
            is_ours = isinstance(args[0], str) and args[0].startswith(str(root)) and bool(args[2] & WRITES)
        else:
            is_ours = str(args[0]).startswith(str(root))
        if is_ours:
            count()

    def flushed(handle: int) -> None:
        count()
        fsync(handle)

    os.fsync = flushed
    sys.addaudithook(hook)


@dataclass
class Trials:
    """The trials of one command, in folders below one."""

    folder: Path
    """The folder."""
    name: str
    """The command."""
    backend: str = "synchronous"
    """Who does the work."""

    def __post_init__(self) -> None:
        self.command, self.number = COMMANDS[self.name], 0
        self.raw, self.start, self.whole = (self.folder / n for n in ("raw", "before", "after"))
        self.start.mkdir(parents=True)
        if not self.raw.exists():
            self.raw.mkdir()
            raw(self.raw)
        for step in self.command.before:
            self.do(lambda step=step: step(self.raw, self.start / "s.zarr"))
        shutil.copytree(self.start, self.whole)
        began = time.monotonic()
        self.operations = len(self.killed(self.whole, 0))
        self.seconds = time.monotonic() - began
        self.seen = [
            self.do(lambda place=place: seen(place / self.command.makes))
            for place in (self.start, self.whole)
        ]
        self.bytes = bytes_of(self.whole)

    def do(self, function: Callable[[], object]) -> object:
        """Return the result of a function that is run in another process."""
        self.number += 1
        log = self.folder / f"{self.number}.json"
        done = result_of(fork(function, log=log), log)
        if "result" not in done:
            raise AssertionError(done.get("error", "killed"))
        return done["result"]

    def command_on(self, place: Path, log: Path, counter: Path | None = None, kill_at: int = 0) -> None:
        """Run the command on the store in a folder, in this process; with a cluster, in a new one in its place."""
        words = [self.name, self.raw, place, log, counter or "", kill_at]
        if self.backend == "cluster":
            os.execv(sys.executable, [sys.executable, __file__, "--run", *map(str, words)])
        run_here(self.name, self.backend, *words[1:3], counter, kill_at)

    def killed(self, place: Path, kill_at: int, after: float | None = None) -> bytes:
        """Run the command, kill it at an operation or after some seconds; return a byte per operation."""
        counter, log = self.folder / "counter", self.folder / "killed.json"
        for path in (counter, log):
            path.unlink(missing_ok=True)

        pid = fork(lambda: self.command_on(place, log, counter, kill_at), log=log)
        if after is not None:
            time.sleep(after)
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        done = result_of(pid, log)
        assert "error" not in done, done["error"]
        return counter.read_bytes()

    def look(self, place: Path, until: Path | None = None) -> list[str]:
        """Look at the store as a reader does, once or until a file is there; return what was not right."""
        wrong, root = list[str](), place / self.command.makes
        while True:
            before = _stamp(root)
            try:
                now = seen(root)
            except Exception as error:
                if _stamp(root) == before and until is None:
                    return [f"{type(error).__name__}: {error}"]
                now = None  # of a store that changes while it is read
            if (
                now is not None
                and _stamp(root) == before
                and not agrees(now, *self.seen, self.command.by_scene)
            ):
                wrong.append(f"a reader saw {now}, not {self.seen}")
            if until is None or until.exists() or wrong:
                return wrong
            time.sleep(0.01)  # whoever is killed is to get on

    def trial(self, kill_at: int, after: float | None, *, is_watched: bool) -> list[str]:
        """Kill the command once, look, run it again, and return what was not right."""
        self.number += 1
        place = self.folder / f"trial{self.number}"
        shutil.copytree(self.start, place)
        stop, log = self.folder / "stop", self.folder / "watch.json"
        for path in (stop, log):
            path.unlink(missing_ok=True)
        watcher = fork(lambda: self.look(place, stop), log=log) if is_watched else None
        self.killed(place, kill_at, after)
        wrong = list[str]()
        if self.number % 2:
            wrong += self.do(lambda: self.look(place))
        wrong += self.run_again(place)
        if watcher is not None:
            stop.touch()
            watched = result_of(watcher, log)
            wrong += watched.get("result", [watched.get("error", "the reader was killed")])
        shutil.rmtree(place)
        return wrong

    def run_again(self, place: Path) -> list[str]:
        """Run the command again, and return what is not as if it had never been killed."""
        self.number += 1
        log = self.folder / f"{self.number}.json"
        done, wrong = result_of(fork(lambda: self.command_on(place, log), log=log), log), list[str]()
        allowed = ALREADY.get(self.name)
        if "error" in done and not (allowed and allowed.__name__ in done["kinds"]):
            wrong.append(f"run again: {done['error']}")
        found = bytes_of(place)
        other = sorted(k for k in self.bytes.keys() | found.keys() if self.bytes.get(k) != found.get(k))
        if other:
            wrong.append(f"{len(other)} files are not as they should be: {', '.join(other[:4])}")
        if empty := sorted(p.name for p in place.iterdir() if p.name not in ("s.zarr", self.command.makes)):
            wrong.append(f"left beside the store: {', '.join(empty)}")
        return wrong


def run_here(name: str, backend: str, raw: Path, place: Path, counter: Path | None, kill_at: int) -> None:
    """Run a command in this process, which counts its operations and kills itself, if that is asked for."""
    if counter is not None:
        count_operations(place, counter, kill_at)
    with BACKENDS[backend]():
        COMMANDS[name].run(raw, place / "s.zarr")


def _stamp(root: Path) -> tuple[int, ...]:
    """Return what changes with each change of a store."""
    out = []
    journal = f"../{root.name}.ingest/.journal.json"
    for name in ("zarr.json", "catalog", "documents", "documents/scenes", journal):
        try:
            found = (root / name).stat()
            out += [found.st_ino, found.st_ctime_ns]
        except OSError:
            out += [0, 0]
    return tuple(out)


def run_trials(
    folder: Path, name: str, backend: str, points: int, times: int, seed: int = 0
) -> tuple[int, list[str]]:
    """Kill a command at so many operations, spread evenly, and at so many random times; return kills and faults."""
    trials, draw, wrong = (
        Trials(folder / f"{name}-{backend}", name, backend),
        random.Random(seed),
        list[str](),
    )
    at = [1 + round(i * (trials.operations - 1) / max(points - 1, 1)) for i in range(points)]
    kills = [(k, None) for k in at] + [(0, draw.random() * trials.seconds) for _ in range(times)]
    for number, (kill_at, after) in enumerate(kills):
        found = trials.trial(kill_at, after, is_watched=number % 4 == 1)
        moment = f"operation {kill_at} of {trials.operations}" if after is None else f"{after:.2f} s"
        wrong += [f"{name}, {backend}, killed at {moment}: {text}" for text in found]
    shutil.rmtree(folder)
    return len(kills), wrong


PLAN = (
    [("ingest", backend, 15, 5) for backend in ("synchronous", "threads", "forked")]
    + [("ingest", "cluster", 0, 2), ("border", "forked", 8, 2), ("classic", "threads", 6, 2)]
    + [(n, "synchronous", 5, 1) for n in COMMANDS if n not in ("ingest", "border", "classic")]
)
"""Command, who does the work, kills at an operation, kills at a random time."""


def load() -> None:
    """Import here what each forked process would import for itself."""
    for module in pkgutil.walk_packages(sz.__path__, "sarzarr."):
        if not re.match(r"sarzarr\.(torch|__main__)", module.name):
            importlib.import_module(module.name)
    for name in ("distributed", "rioxarray", "zarr.storage"):
        importlib.import_module(name)


def main() -> int:
    """Run the plan, or the commands that are named, and print what was not right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", help="ingest, remove, ...; all if left out")
    parser.add_argument("--backend", help="synchronous, threads, forked or cluster; all if left out")
    parser.add_argument(
        "--times", type=float, default=1.0, help="how many times as many kills as the plan has"
    )
    parser.add_argument("--part", default="0/1", help="every n-th row of the plan, from the i-th on, as i/n")
    given = parser.parse_args()
    first, step = map(int, given.part.split("/"))
    load()
    total, faults, began = 0, list[str](), time.monotonic()
    for name, backend, points, times in PLAN[first::step]:
        if (given.commands and name not in given.commands) or given.backend not in (None, backend):
            continue
        with tempfile.TemporaryDirectory(prefix="kills-") as folder:
            count, wrong = run_trials(
                Path(folder) / "t", name, backend, round(points * given.times), round(times * given.times)
            )
        total, faults = total + count, faults + wrong
        print(f"{name:<8} {backend:<12} {count:3} kills, {len(wrong)} faults", flush=True)
        for line in wrong[:5]:
            print(f"    {line}", flush=True)
    print(f"{total} kills, {len(faults)} faults, {time.monotonic() - began:.0f} s")
    return bool(faults)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        name, raw_, place_, log_, counter_, kill_at_ = sys.argv[2:]
        paths = Path(raw_), Path(place_), Path(counter_) if counter_ else None
        tell(lambda: run_here(name, "cluster", *paths, int(kill_at_)), Path(log_))
    else:
        sys.exit(main())
