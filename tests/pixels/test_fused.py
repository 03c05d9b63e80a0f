"""Compiled loops give the bits that NumPy gives, and nothing needs them."""

import importlib.util
import multiprocessing
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from conftest import speckle, tree_hash, write_band
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

import sarzarr as sz
from sarzarr.errors import CorruptStoreError
from sarzarr.pixels.compiled import object_code
from sarzarr.pixels.compiled.calls import STRIP
from sarzarr.pixels.compiled.fused import SWITCH, WORTH_COMPILING, WORTH_LOADING, kept, loops
from sarzarr.pixels.compiled.object_code import FOLDER
from sarzarr.pixels.turns import apply

HAS_NUMBA = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed (sarzarr[fast])")


@pytest.fixture(autouse=True)
def _not_started():
    """Leave no loops started: what pays for itself elsewhere is decided elsewhere."""
    forget()
    yield
    forget()


def forget():
    loops.cache_clear()
    kept.cache_clear()


@needs_numba
@given(
    st.sampled_from([1, 4, 7, 8, 12, 32, 45, 256]),
    st.lists(st.integers(0, 7), min_size=1, max_size=9),
    st.integers(0, 9),
)
def test_squares_turn_as_pixels_do(size, operations, gap):
    cells = np.random.default_rng(gap).integers(0, 65536, (len(operations), size * size + 2 * gap), np.uint16)
    out = np.zeros((len(operations), size, size), np.uint16)
    loops().turn_codes(cells, np.array(operations, np.uint8), out)
    for cell, turned, operation in zip(cells, out, operations, strict=True):
        np.testing.assert_array_equal(turned, apply(operation, cell[: size * size].reshape(size, size)))


def run(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_the_switch_leaves_numba_out():
    code = "from sarzarr.pixels.compiled.fused import loops; import sys\n"
    code += "print(loops() is None, 'llvmlite' in sys.modules)"
    assert run(code, **{SWITCH: "0"}) == "True False"


def test_importing_the_package_does_not_import_numba():
    assert run("import sys, sarzarr; sarzarr.PatchReader; print('numba' in sys.modules)") == "False"


@needs_numba
@given(
    st.sampled_from([2, 4, 6, 8, 14, 34, 46]),
    st.lists(st.integers(0, 7), min_size=1, max_size=6),
    st.integers(0, 99),
    st.one_of(st.none(), st.integers(0, 5)),
)
def test_chunks_are_delivered_as_they_are_up_to_one_that_is_not(size, operations, seed, damaged):
    """Read, checked whatever their length, turned and stretched, each into its slot."""
    if not loops().can_deliver:
        pytest.skip("this processor has no instruction for CRC-32C")
    count, rng = len(operations), np.random.default_rng(seed)
    images = rng.integers(0, 65536, (count, size, size), np.uint16)
    cells = [image.tobytes() + crc32c(image.tobytes()).to_bytes(4, "little") for image in images]
    if (whole := count if damaged is None else min(damaged, count)) < count:
        at = int(rng.integers(len(cells[whole])))
        cells[whole] = cells[whole][:at] + bytes([cells[whole][at] ^ 1]) + cells[whole][at + 1 :]
    slots, law = rng.permutation(count), (5000, 60000, 5000.0, 1 / 55000)
    out, wanted = np.full((2, count, size, size), np.nan, np.float32)
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(cells))
        file.flush()
        cell = len(cells[0])
        done = loops().deliver(
            np.full(count, file.fileno(), np.int32), np.arange(count) * cell, slots,
            np.array(operations, np.uint8), np.empty(cell, np.uint8), np.empty((STRIP, size), np.uint16), out, law,
        )  # fmt: skip
    assert done == whole
    for slot, image, operation in zip(slots[:whole], images, operations, strict=False):
        loops().stretch_codes(np.ascontiguousarray(apply(operation, image)), wanted[slot], law)
    np.testing.assert_array_equal(out, wanted)


USE = (
    "import sys; from pathlib import Path; import numpy as np; from sarzarr.pixels.compiled import fused\n"
    "from sarzarr.pixels.stretch import Stretch\n"
    "out = np.zeros((1, 16), np.float32); stored = np.full((1, 16), 65535, np.uint16)\n"
    "law = Stretch.between('uint16', (-60, 100), (-25, 5))\n"
    "law(stored, out, out.ravel().copy(), fused.loops_for(int(sys.argv[1])))\n"
    "found = fused.loops_for(0)\n"
    "print(out.min(), found is not None, 'numba' in sys.modules)\n"
)


@pytest.mark.slow
@needs_numba
def test_loops_are_compiled_once_a_machine_and_loaded_without_numba(tmp_path):
    """Never is Numba in a process that works: it takes 0.4 s to start and 100 MB."""
    folder = tmp_path / "kept"
    assert run(USE, str(WORTH_LOADING), **{FOLDER: str(folder)}) == "1.0 False False"
    assert run(USE, str(WORTH_COMPILING), **{FOLDER: str(folder)}) == "1.0 True False"
    (file,) = folder.iterdir()
    before = file.stat()
    assert file.suffix == ".o"
    for work in (WORTH_LOADING, WORTH_COMPILING):
        assert run(USE, str(work), **{FOLDER: str(folder)}) == "1.0 True False"
    assert run(USE, str(WORTH_LOADING - 1), **{FOLDER: str(folder)}) == "1.0 False False"
    assert [p.name for p in folder.iterdir()] == [file.name]
    assert file.stat().st_mtime_ns == before.st_mtime_ns

    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))  # never loaded: compiled anew
    assert run(USE, str(WORTH_LOADING), **{FOLDER: str(folder)}) == "1.0 False False"
    assert run(USE, str(WORTH_COMPILING), **{FOLDER: str(folder)}) == "1.0 True False"
    assert file.stat().st_mtime_ns > before.st_mtime_ns


@needs_numba
def test_loops_are_left_out_where_they_cannot_be_kept(tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert run(USE, str(WORTH_COMPILING), **{FOLDER: str(tmp_path / "file/kept")}) == "1.0 False False"


@needs_numba
def test_a_process_that_is_forked_while_a_thread_loads_does_without(monkeypatch):
    """LLVM's lock would be held there for ever."""
    loops()
    monkeypatch.setattr(object_code, "_load", lambda code: forked_answer())
    assert object_code.kept_loops() == (True, True)


def forked_answer():
    """Return whether a child that is forked now gets no loops, and ends at all."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(left_out), [os.getpid()] == object_code._LOADING


def left_out():
    return object_code.kept_loops() is None and object_code.new_loops() is None


@pytest.mark.slow
@needs_numba
def test_a_loop_that_could_raise_is_not_kept(tmp_path):
    """Kept code has nobody to raise for it, and lacks what Numba raises with."""
    code = (
        "from numba import carray, cfunc, types\n"
        "from sarzarr.pixels.compiled import loops, object_code\n"
        "@cfunc(types.int64(types.CPointer(types.int64), types.int64))\n"
        "def risky(values, n):\n"
        "    if values[0] > n: raise ValueError('too many')\n"
        "    return carray(values, (n,))[:].reshape(2, n // 2)[1, 0]\n"
        "loops.LOOPS['risky'] = risky\n"
        "try: object_code.keep()\n"
        "except ImportError as error: print(str(error)[:38])\n"
    )
    assert run(code, **{FOLDER: str(tmp_path)}) == "the loop 'risky' may raise, or allocat"


@needs_numba
@pytest.mark.parametrize("bad", [np.zeros((2, 16), np.int16), np.zeros((2, 32), np.uint16)[:, ::2]])
def test_arrays_that_a_loop_would_read_wrongly_are_refused(bad):
    with pytest.raises(TypeError, match="stretch_codes: argument 0 must be C-contiguous uint16"):
        loops().stretch_codes(bad, np.zeros((2, 16), np.float32), (0, 9, 0.0, 1.0))


# ------------------------------------------------------------------ ingest
SOURCES = {
    "power": (lambda p: p, "power", None),
    "power with a tag": (lambda p: np.where(p > 0.09, np.float32(0.125), p), "power", 0.125),
    "amplitude": (lambda p: np.where(p > 0.2, -np.sqrt(p), np.sqrt(p)), "amplitude", None),
    "DN": (lambda p: np.sqrt(p * 1e8).astype(np.uint16), "amplitude", 7.0),
    "signed": (lambda p: (np.sqrt(p * 1e8) - 900).astype(np.int16), "amplitude", -5.0),
    "beyond": (
        lambda p: p * np.float32(1e-5) + (p > 0.1) * np.float32(1e12),
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


@needs_numba
@pytest.mark.parametrize("options", STORES, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_a_store_is_the_same_without_numba(tmp_path, monkeypatch, source, options):
    turn, representation, nodata = SOURCES[source]
    with np.errstate(invalid="ignore"):  # roots of what is negative, and NaN as an integer
        values = turn(mixed((760, 1000)))
    write_band(tmp_path / "a_vv.tif", values, nodata=nodata, tiles=256)
    hashes = []
    for switch in ("1", "0"):
        monkeypatch.setenv(SWITCH, switch)
        forget()
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
@needs_numba
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
def test_batches_are_the_same_without_numba(tmp_path, monkeypatch, dtype, options):
    write_band(tmp_path / "a_vv.tif", mixed((760, 1000)), tiles=256)
    plan = sz.plan_ingest(
        tmp_path / "a_vv.tif", tmp_path / "a.zarr", representation="power", quantity="sigma0", dtype=dtype
    )
    store, found = sz.ingest(plan), []
    for switch in ("1", "0"):
        monkeypatch.setenv(SWITCH, switch)
        forget()
        reader = sz.PatchReader(store, batch_size=4, shuffle=True, seed=3, **{"min_valid": 0.5} | options)
        found.append([np.concatenate(part) for part in zip(*map(_parts, reader), strict=True)])
    assert len(found[0][0]) >= 6
    for fast, slow in zip(*found, strict=True):
        np.testing.assert_array_equal(fast, slow)


def _parts(batch):
    return [part.copy() for part in (batch if isinstance(batch, tuple) else (batch,))]


@needs_numba
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
