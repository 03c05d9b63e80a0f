"""Compiled loops give the bits that NumPy gives, and nothing needs them."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import speckle, tree_hash, write_band
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

import sarzarr as sz
from sarzarr.errors import CorruptStoreError
from sarzarr.pixels.compiled.when import SWITCH, WORTH, loops
from sarzarr.pixels.stretch import Stretch
from sarzarr.pixels.turns import apply


@pytest.fixture(autouse=True)
def _not_started():
    """Leave no loops started: what pays for itself elsewhere is decided elsewhere."""
    loops.cache_clear()
    yield
    loops.cache_clear()


# ------------------------------------------------------------------ one loop
squares = st.sampled_from([1, 2, 4, 6, 7, 8, 12, 31, 32, 34, 45, 64, 100, 192, 256])
turns = st.lists(st.integers(0, 7), min_size=1, max_size=6)
laws = st.sampled_from(
    [None, (-25, 5), (-59.9, 120), (-60, 100), tuple(-60 + 160 * (c - 1) / 65534 for c in (14_000, 27_000))]
)


def delivered(images, operations, clip):
    """Return what NumPy delivers: turned views, and the passes of a stretch."""
    turned = np.stack([apply(o, image) for o, image in zip(operations, images, strict=True)])
    if clip is None:
        return turned
    out = np.empty(turned.shape, np.float32)
    cells = turned.reshape(len(turned), -1)
    law = Stretch.between(str(images.dtype), (-60, 100), clip)
    law(cells, out.reshape(cells.shape), np.empty(out.size, np.float32))
    return out


def room(count, size, clip, dtype="uint16"):
    """Return (law, scratch, out): what `deliver` takes besides."""
    law = None if clip is None else Stretch.between(dtype, (-60, 100), clip)
    if law is not None:
        law = law.law_of_codes if dtype == "uint16" else law.law_of_floats
    out = np.zeros((count, size, size), dtype if clip is None else np.float32)
    return law, (np.empty((loops().STRIP, size), dtype), np.empty((size, size), dtype)), out


def whole(count, size):
    """Return pieces of images that are each a chunk, one behind the other in memory."""
    parts = np.tile(np.array([0, 0, size, size], np.int32), (count, 1))
    return np.arange(count), parts, np.arange(1, count + 1), (size, size), 0


def pixels(rng, shape, dtype):
    """Return stored values of any kind: codes, flags, or floats in [0, 1] with what was not measured."""
    if dtype != "float32":
        return rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    values = rng.random(shape, np.float32)
    return np.where(rng.random(shape) < 0.1, np.float32(np.nan), values)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("clip", [(-60, 100.1), (-25, 5), (-59.9, 120), (-60, -59.99)])
def test_halves_are_the_nearest_to_their_float32(half, dtype, clip):
    """Every code there is, by loops and by NumPy: float16 as NumPy rounds it, bfloat16 as torch does."""
    codes = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    if dtype == "float32":
        codes = (codes / np.float32(65535)) ** 3  # down to where float16 has no normal numbers
        codes[0, 0, 0] = np.nan
    law = Stretch.between(dtype, (-60, 100), clip, half)
    places = np.zeros(1, np.int64), np.zeros(1, np.uint8)
    _, scratch, _ = room(1, 256, clip, dtype)
    out, passes = np.zeros((2, 1, 256, 256), np.uint16)
    of_loops = law.law_of_codes if dtype == "uint16" else law.law_of_floats
    loops().deliver(codes.reshape(1, -1), None, whole(1, 256), places, scratch, out, of_loops)
    law(codes.reshape(1, -1), passes.reshape(1, -1), np.empty(2 * codes.size, np.float32))
    floats = delivered(codes, [0], clip)
    if half == "float16":
        expected = floats.astype(np.float16).view(np.uint16)
    else:
        torch = pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
        expected = torch.from_numpy(floats).bfloat16().view(torch.uint16).numpy()
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(passes, expected)


dtypes = st.sampled_from(["uint16", "float32", "uint8"])


@given(squares, turns, laws, st.integers(0, 9), dtypes)
def test_chunks_in_memory_are_placed_as_numpy_places_them(size, operations, clip, gap, dtype):
    rng, count = np.random.default_rng(gap), len(operations)
    clip = None if dtype == "uint8" else clip
    cells = pixels(rng, (count, size * size + 2 * gap), dtype)
    slots, (law, scratch, out) = rng.permutation(count), room(count, size, clip, dtype)
    places = slots, np.array(operations, np.uint8)
    assert loops().deliver(cells, None, whole(count, size), places, scratch, out, law) == count
    images = cells[:, : size * size].reshape(count, size, size)
    np.testing.assert_array_equal(out[slots], delivered(images, operations, clip))


@given(
    st.sampled_from([4, 6, 8, 32, 34]),
    st.sampled_from([4, 8, 12, 32, 34, 64, 100]),
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90), st.integers(0, 7)), min_size=1, max_size=6),
    laws,
    st.tuples(st.integers(1, 100), st.integers(1, 100)),
    dtypes,
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**20),
)
def test_windows_are_slices_of_the_array(cell, size, windows, clip, shape, dtype, in_memory, exchanged, seed):
    """Whatever chunks they need: in memory, or read, trusted or not; absent, cut by the edge, or the whole window.

    A damaged one, or another in its place, is never delivered, and never trusted.
    """
    rng, clip = np.random.default_rng(seed), None if dtype == "uint8" else clip
    grid = [-(-n // cell) for n in shape]
    fill = np.array(np.nan if dtype == "float32" else 0, dtype)
    array = np.full([n * cell for n in grid], fill)
    array[: shape[0], : shape[1]] = pixels(rng, shape, dtype)
    cells = array.reshape(grid[0], cell, grid[1], cell).swapaxes(1, 2).reshape(-1, cell, cell)
    is_there = rng.random(len(cells)) < 0.8
    cells[~is_there] = fill
    array = cells.reshape(*grid, cell, cell).swapaxes(1, 2).reshape(array.shape)
    nbytes = cells[0].nbytes + 4
    crcs = np.array([crc32c(c.tobytes()) for c in cells], np.uint32)
    wrong = int(rng.integers(len(cells)))
    trusted = (rng.random(len(cells)) < 0.5).astype(np.uint8)
    trusted[wrong] = 0
    inside = [(min(r, shape[0] - 1), min(c, shape[1] - 1), o) for r, c, o in windows]
    if size == cell:  # some are whole chunks
        inside = [(r // cell * cell, c // cell * cell, o) if o % 2 else (r, c, o) for r, c, o in inside]
    padded = np.pad(array[: shape[0], : shape[1]], ((0, size), (0, size)), constant_values=fill)
    images = np.stack([padded[r : r + size, c : c + size] for r, c, _ in inside])
    parts, chunks, ends, first = [], [], [], len(inside)
    for k, (r, c, _) in enumerate(inside):
        for i, j in np.ndindex(*grid):
            y, x = i * cell - r, j * cell - c
            if -cell < y < size and -cell < x < size and is_there[number := i * grid[1] + j]:
                parts.append((y, x, min(cell, shape[0] - i * cell), min(cell, shape[1] - j * cell)))
                chunks.append(number)
                first = min(first, k) if number == wrong and not in_memory else first
        ends.append(len(parts))
    numbers, operations = np.array(chunks, np.int64), np.array([o for *_, o in inside], np.uint8)
    slots, (law, scratch, out) = rng.permutation(len(inside)), room(len(inside), size, clip, dtype)
    pieces = np.array(parts, np.int32).reshape(-1, 4), np.array(ends, np.int64), (cell, cell), fill
    with tempfile.TemporaryFile() as file:
        for number, image in enumerate(cells):
            written = bytearray(image.tobytes() + crcs[number].tobytes())
            if number == wrong and not exchanged:
                written[int(rng.integers(nbytes))] ^= 1 << int(rng.integers(8))
            file.write(written)
        file.flush()
        listed = crcs.copy()
        listed[wrong] ^= exchanged
        handles = np.full(len(chunks), file.fileno(), np.int32)
        reads = handles, numbers * nbytes, listed[numbers], numbers, trusted, 1
        raw, held = np.empty((1, nbytes), np.uint8).view(dtype), np.zeros(len(chunks), np.int64)
        if in_memory:
            raw, held, reads = cells.reshape(len(cells), -1), numbers, None
        before = trusted.copy()
        done = loops().deliver(raw, reads, (held, *pieces), (slots, operations), scratch, out, law)
    assert done == first
    assert not trusted[wrong]
    delivered_from = numbers[: ends[done - 1]] if done and not in_memory else numbers[:0]
    assert trusted[delivered_from].all()
    assert (trusted >= before).all()
    if done:
        np.testing.assert_array_equal(out[slots[:done]], delivered(images[:done], operations[:done], clip))


def test_without_functions_of_c_what_is_in_memory_is_delivered(monkeypatch):
    """As on Windows: they have no address, and nothing is read."""
    made = loops()
    nothing = [type(made.C[0])(1, function.signature()) for function in made.C]
    monkeypatch.setattr(made, "C", tuple(nothing))
    codes = np.arange(32, dtype=np.uint16).reshape(2, 16)
    law, scratch, out = room(2, 4, None)
    places = np.arange(2), np.zeros(2, np.uint8)
    assert made.deliver(codes, None, whole(2, 4), places, scratch, out, law) == 2
    np.testing.assert_array_equal(out, codes.reshape(2, 4, 4))


@pytest.mark.compat
@given(
    st.sampled_from(["uint16", "float32"]),
    st.integers(1, 40),
    st.integers(1, 70),
    st.integers(0, 5),
    st.integers(0, 99),
)
def test_columns_add_up_as_numpy_adds_them(dtype, rows, columns, gap, seed):
    rng = np.random.default_rng(seed)
    values = (rng.integers(0, 65536, (rows, columns + gap)) / (1 if dtype == "uint16" else 65535)).astype(
        dtype
    )
    low, high = (20_000, 50_000) if dtype == "uint16" else (0.25, 0.75)
    inside, total, squares = loops().column_sums(values, columns, low, high)
    seen = values[:, :columns]
    between = (seen >= low) & (seen <= high)
    wide = seen.astype(np.float64)
    np.testing.assert_array_equal(inside, between.sum(0))
    np.testing.assert_array_equal(total, np.cumsum(wide, axis=0)[-1])
    np.testing.assert_array_equal(squares, np.cumsum(np.square(wide), axis=0)[-1])


@pytest.mark.parametrize("bad", [np.zeros((2, 16), np.int16), np.zeros((2, 32), np.uint16)[:, ::2]])
def test_arrays_that_a_loop_would_read_wrongly_are_refused(bad):
    law, scratch, out = room(2, 4, (-25, 5))
    places = np.arange(2), np.zeros(2, np.uint8)
    with pytest.raises((TypeError, KeyError), match=r"No matching definition|int16"):
        loops().deliver(bad, None, whole(2, 4), places, scratch, out, law)


# ------------------------------------------------------------------ when they take part
PACKAGE = Path(sz.__file__).parent


def run(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)} | environment,
        cwd=PACKAGE.parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )


USE = (
    "import logging, sys, sarzarr; from sarzarr.pixels.compiled.when import loops_for; import numpy as np\n"
    "logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
    "sarzarr.PatchReader, sarzarr.ingest\n"
    "first = loops_for(int(sys.argv[1])); found = loops_for(0)\n"
    "if found: found.column_sums(np.ones((3, 2), np.float32), 2, 0, 2)\n"
    "print(first is not None, found is not None, 'numba' in sys.modules, len(found.COMPILED) if found else 0)\n"
)


@pytest.mark.slow
def test_numba_is_imported_for_large_work_alone():
    assert run(USE, str(WORTH - 1)).stdout.split() == ["False", "False", "False", "0"]
    assert run(USE, str(WORTH)).stdout.split()[:3] == ["True", "True", "True"]
    assert run(USE, "1", **{SWITCH: "1"}).stdout.split()[:3] == ["True", "True", "True"]
    assert run(USE, str(WORTH), **{SWITCH: "0"}).stdout.split() == ["False", "False", "False", "0"]


@pytest.mark.slow
def test_loops_are_compiled_once_a_machine(tmp_path):
    first = run(USE, str(WORTH), NUMBA_CACHE_DIR=str(tmp_path))
    assert "_add_up was compiled, once on this machine" in first.stderr
    assert int(first.stdout.split()[3]) == 1
    second = run(USE, str(WORTH), NUMBA_CACHE_DIR=str(tmp_path))
    said = [
        line for line in second.stderr.splitlines() if "NumExpr" not in line
    ]  # which pandas loads if it is there
    assert (second.stdout.split()[3], said) == ("0", [])


@pytest.mark.slow
def test_where_the_package_cannot_be_written_loops_are_kept_for_the_user(tmp_path):
    package = shutil.copytree(PACKAGE, tmp_path / "site/sarzarr", ignore=shutil.ignore_patterns("*.nb?"))
    kept = package / "pixels/compiled/__pycache__"
    shutil.rmtree(kept, ignore_errors=True)
    kept.write_text("no folder")
    home = {
        "PYTHONPATH": str(package.parent),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }
    assert run(USE, str(WORTH), **home).stdout.split()[:3] == ["True", "True", "True"]
    assert run(USE, str(WORTH), **home).stdout.split()[3] == "0"
    assert list((tmp_path / "cache").rglob("*.nbi"))


@pytest.mark.parametrize("fault", ["ImportError: numba", "RuntimeError: cannot cache function"])
def test_where_numba_does_not_work_numpy_does_and_says_so(tmp_path, fault):
    (tmp_path / "numba").mkdir()
    kind, _, message = fault.partition(": ")
    (tmp_path / "numba/__init__.py").write_text(f"raise {kind}({message!r})")
    done = run(USE, str(WORTH), PYTHONPATH=os.pathsep.join((str(tmp_path), str(PACKAGE.parent))))
    assert done.stdout.split()[:2] == ["False", "False"]
    assert f"compiled loops were expected, got {kind}({message!r})" in done.stderr


def test_where_a_loop_cannot_be_compiled_numpy_does_its_work_and_says_so():
    broken = (
        "from numba.core.dispatcher import Dispatcher\n"
        "def fails(*_): raise RuntimeError('no target for this processor')\n"
        "Dispatcher.compile = fails\n"
    )
    done = run(broken + USE, str(WORTH))
    assert done.stdout.split()[:2] == ["False", "False"]
    assert "compiled loops were expected, got RuntimeError('no target for this processor')" in done.stderr


FORK = (
    "import os, sys, threading, time\n"
    "from sarzarr.pixels.compiled.when import loops\n"
    "thread = threading.Thread(target=loops)\n"
    "thread.start()\n"
    "while 'numba' not in sys.modules: time.sleep(0.001)\n"  # it is being imported
    "child = os.fork()\n"
    "if not child: os._exit(0 if loops().READS else 1)\n"
    "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])); thread.join()\n"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_that_is_forked_while_a_thread_loads_has_loops_too():
    """The fork waits: locks of Python and Numba that the thread holds would be held there for ever."""
    assert run(FORK, **{SWITCH: "1"}).stdout.strip() == "0"


def test_processes_that_are_forked_after_it_share_them():
    loops()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(add_up) == [3.0, 3.0]


def add_up():
    return loops().column_sums(np.ones((3, 2), np.float32), 2, 0, 2)[1].tolist()


# ------------------------------------------------------------------ ingest
SOURCES = {
    "power": (lambda p: p, "power", None),
    "power with a tag": (lambda p: np.where(p > 0.09, np.float32(0.125), p), "power", 0.125),
    "amplitude": (lambda p: np.where(p > 0.2, -np.sqrt(p), np.sqrt(p)), "amplitude", None),
    "DN": (lambda p: np.sqrt(p * 1e8).astype(np.uint16), "amplitude", 7.0),
    "signed": (lambda p: (np.sqrt(p * 1e8) - 900).astype(np.int16), "amplitude", -5.0),
    "beyond": (
        lambda p: np.where(p < 0.1, p, p * np.float32(1e-5) + (p > 0.2) * np.float32(1e12)),
        "power",
        -3.4028234663852886e38,
    ),
}


def mixed(shape):
    """Return power whose chunks are clean, nearly clean, and anything but."""
    power = speckle(shape, seed=1)
    power[5, 300] = 0
    power[200, 20] = np.nan
    power[210, 700] = np.inf
    power[600:620, 100:400] = 0
    power[:40, :30] = 0
    power[1, 900] = -1
    power[700, 700] = np.float32(1e-45)
    return power


STORES = [
    {},
    {"dtype": "float32"},
    {"dtype": "float32", "bounds": "fixed"},
    {"dtype": "float16"},
    {"bounds": "percentile"},
    {"bounds": "fixed"},
    {"border": 3},
]


@pytest.mark.parametrize("options", STORES, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_a_store_is_the_same_without_loops(tmp_path, monkeypatch, source, options):
    turn, representation, nodata = SOURCES[source]
    with np.errstate(invalid="ignore"):  # roots of what is negative, and NaN as an integer
        values = turn(mixed((760, 1000)))
    write_band(tmp_path / "a_vv.tif", values, nodata=nodata, tiles=256)
    hashes = []
    for switch in ("1", "0"):
        monkeypatch.setenv(SWITCH, switch)
        loops.cache_clear()
        plan = sz.plan_ingest(
            tmp_path / "a_vv.tif", tmp_path / f"{switch}.zarr", representation=representation,
            quantity="sigma0", shard=512, **options,
        )  # fmt: skip
        root = sz.ingest(plan).root
        hashes.append(
            [tree_hash(root / part) for part in ("scenes/a/vv", "scenes/a/vv_flags", "histograms", "patches")]
        )
    assert hashes[0] == hashes[1]


# ------------------------------------------------------------------ the loader
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"augment": "d4"},
        {"patch_size": 100, "augment": "d4"},
        {"stride": 96},
        {"flags": True, "min_valid": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["uint16", "float32", "float16"])
def test_batches_are_the_same_without_loops(tmp_path, monkeypatch, dtype, options):
    write_band(tmp_path / "a_vv.tif", mixed((760, 1000)), tiles=256)
    plan = sz.plan_ingest(
        tmp_path / "a_vv.tif", tmp_path / "a.zarr", representation="power", quantity="sigma0", dtype=dtype
    )
    store, found = sz.ingest(plan), []
    for switch in ("1", "0"):
        monkeypatch.setenv(SWITCH, switch)
        loops.cache_clear()
        reader = sz.PatchReader(store, batch_size=4, shuffle=True, seed=3, **{"min_valid": 0.5} | options)
        found.append([np.concatenate(part) for part in zip(*map(_parts, reader), strict=True)])
    assert len(found[0][0]) >= 6
    for fast, slow in zip(*found, strict=True):
        np.testing.assert_array_equal(fast, slow)


def _parts(batch):
    return [part.copy() for part in (batch if isinstance(batch, tuple) else (batch,))]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: os.truncate(path, 150_000), "end of the file"),
        (lambda path: path.write_bytes(b"\1" + path.read_bytes()[1:]), "CRC-32C"),
        (lambda path: path.unlink(), "no such file"),
    ],
    ids=["cut", "flipped", "gone"],
)
def test_damage_is_said_by_compiled_reads_too(tmp_path, monkeypatch, damage, said):
    write_band(tmp_path / "a_vv.tif", speckle((512, 512)), tiles=256)
    plan = sz.plan_ingest(
        tmp_path / "a_vv.tif", tmp_path / "a.zarr", representation="power", quantity="sigma0"
    )
    monkeypatch.setenv(SWITCH, "1")
    reader = sz.PatchReader(sz.ingest(plan), batch_size=4)
    assert len(next(iter(reader))) == 4
    damage(tmp_path / "a.zarr/scenes/a/vv/c/0/0")
    with pytest.raises(CorruptStoreError, match=f"{said}.*scene 'a'"):
        next(iter(reader))
