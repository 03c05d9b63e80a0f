"""Compiled loops give the bits that NumPy gives, and nothing needs them."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarzarr.augment import apply
from sarzarr.fused import SWITCH, loops

needs_numba = pytest.mark.skipif(loops() is None, reason="numba is not installed (sarzarr[fast])")


@needs_numba
@given(
    st.sampled_from([4, 8, 12, 256]), st.lists(st.integers(0, 7), min_size=1, max_size=9), st.integers(0, 9)
)
def test_words_turn_as_pixels_do(size, operations, gap):
    cells = np.random.default_rng(gap).integers(0, 65536, (len(operations), size * size + 2 * gap), np.uint16)
    stored = cells[:, : size * size].reshape(-1, size, size) if gap == 0 else _images(cells, size)
    out = np.zeros(stored.shape, np.uint16)
    loops().turn_words(stored.view(np.uint64), np.array(operations, np.uint8), out.view(np.uint64))
    for image, turned, operation in zip(stored, out, operations, strict=True):
        np.testing.assert_array_equal(turned, apply(operation, image))


def _images(cells, size):
    """Return images that lie at any multiple of four bytes, as cells with a checksum do."""
    return np.ndarray((len(cells), size, size), np.uint16, cells, strides=(cells.strides[0], 2 * size, 2))


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_switch_leaves_numba_out():
    code = "import sys; from sarzarr.fused import loops; print(loops() is None, 'numba' in sys.modules)"
    assert run(code, **{SWITCH: "0"}) == "True False"


def test_importing_the_package_does_not_import_numba():
    assert run("import sys, sarzarr; sarzarr.PatchReader; print('numba' in sys.modules)") == "False"


@needs_numba
def test_loops_work_where_they_cannot_be_kept():
    code = (
        "from pathlib import Path; import numpy as np; from sarzarr.stretch import Stretch;"
        "out = np.zeros((1, 16), np.float32); stored = np.full((1, 16), 65535, np.uint16);"
        "Stretch.between('uint16', (-60, 100), (-25, 5))(stored, out, out.ravel().copy()); print(out.min())"
    )
    assert run(code, NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator") == "1.0"
