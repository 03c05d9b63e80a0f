"""docs/migrate.md: its table of 105 lines names tests that exist, its code runs, the old patch cut is reproduced."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import speckle, write_band

import sarzarr as sz
from sarzarr import conventions as cv

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "migrate.md"
COUNTS = {"A": 35, "B": 24, "C": 23, "D": 23}


@cache
def collected_from(file):
    """Return the names of the tests that pytest collects of a file: functions, and methods of ``Test`` classes."""
    tree = ast.parse((ROOT / file).read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test")]
    nodes = [*tree.body, *(node for owner in classes for node in owner.body)]
    return {
        node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def rows():
    """Return the cells of each line of the table."""
    lines = re.findall(r"^\| [A-D]\d\d \|.*\|$", PAGE.read_text(), re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_each_of_the_105_lines_stands_once_in_order():
    assert [row[0] for row in rows()] == [
        f"{k}{n:02}" for k, count in COUNTS.items() for n in range(1, count + 1)
    ]
    assert {len(row) for row in rows()} == {4}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_line_names_tests_that_are_collected_or_says_why_not(row):
    _, what, shown, note = row
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", shown)
    assert what
    assert named or (shown == "-" and note)
    assert shown in ("-", ", ".join(f"`{file}::{name}`" for file, name in named))
    for file, name in named:
        assert name in collected_from(file), f"{file}::{name}"


def test_the_code_of_the_page_runs(tmp_path):
    sz.write_synthetic_scenes(tmp_path / "raw", count=1, shape=(600, 700))
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(8, 1, 256, 256)")


def old_cut(image, size, stride, min_valid):
    """Return the positions that the older pipeline kept: strictly between 0.01 and 0.99, at least ``min_valid``."""
    return [
        (i, j)
        for i in range(0, image.shape[0] - size + 1, stride)
        for j in range(0, image.shape[1] - size + 1, stride)
        if np.mean((image[i : i + size, j : j + size] > 0.01) & (image[i : i + size, j : j + size] < 0.99))
        >= min_valid
    ]


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_old_patch_cut_is_reproduced_exactly(tmp_path, dtype):
    """Dark, bright and missing ground is so cut that shares lie on both sides of nine tenths, and close to it."""
    power = speckle((1100, 1300), seed=5)
    rows, cols = np.indices(power.shape)
    power[(rows + 2 * cols) % 1700 < 150] *= 1e-4
    power[(3 * rows + cols) % 2100 < 90] *= 1e4
    power[:, :70] = np.nan
    power[500:560, 300:420] = np.nan
    path = write_band(tmp_path / "sigma0_vv.tif", power, nodata=np.nan)
    store = sz.ingest(
        sz.plan_ingest(path, tmp_path / "s.zarr", representation="power", quantity="sigma0", dtype=dtype)
    )
    reader = sz.PatchReader(
        store, patch_size=256, stride=128, min_valid=0.0001, min_unsaturated=0,
        where="unsaturated_fraction >= 0.9", with_meta=True,
    )  # fmt: skip
    kept, images = [], []
    for batch in reader:
        kept += [*zip(batch["row"].tolist(), batch["col"].tolist(), strict=True)]
        images += [*batch["image"][:, 0]]
    bounds = tuple(store.preprocessing_params[k] for k in (cv.VMIN, cv.VMAX))
    image = sz.normalize(store.db(store.scenes[0], "vv").values, bounds)
    image = np.where(np.isnan(image), 0, image).astype(
        np.float32
    )  # as the older pipeline had what it could not use
    expected = old_cut(image, 256, 128, 0.9)
    assert 10 < len(expected) < len(old_cut(image, 256, 128, 0)) - 10
    assert kept == expected
    patches, positions = sz.extract_patches(image)
    assert [tuple(place) for place in positions.tolist()] == expected
    np.testing.assert_allclose(np.array(images), patches, atol=1e-6)
