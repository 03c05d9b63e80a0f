"""The code that a newcomer copies runs as it stands."""

import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sarzarr as sz

ROOT = Path(__file__).parents[1]


RUN = """
import re, sys
from pathlib import Path
page, text = sys.argv[1], Path(sys.argv[1]).read_text()
pieces = re.findall(r"```python\\n(.*?)```", text, re.DOTALL)
space = {"__name__": "newcomer"}
for piece in pieces:
    exec(compile(piece, page, "exec"), space)
exec(sys.argv[2], space)
"""
"""Runs the code of a page as one who pastes it into a fresh interpreter: what it does not import is not there."""
README_HOLDS = """
assert store.scenes == ("s1_20260101", "s1_20260113")
assert 0 <= float(z.min()) <= float(z.max()) <= 1
assert int(vv_plain.isnull().sum()) == int(db.vv_db.isnull().sum()) > 0
assert abs(float(vv_plain.mean()) - float(db.vv_db.mean())) < 1e-3
xr.align(vv_db, db.vv_db, join="exact")
"""
LAZY_HOLDS = """
import numpy as np
import rasterio
with rasterio.open("part.tif") as file:
    assert file.crs.to_epsg() == 3857
    assert 0 < (file.read_masks(1) == 0).sum() == np.isnan(file.read(1)).sum()
"""
CHOOSING_HOLDS = """
assert 0 < len(reader.selection) and both.table()["store"].nunique() == 2
assert len(either.selection) + len(common.selection) == len(one.selection) + len(two.selection)
assert len(dense.selection) == store.patch_columns(dense.index).sizes["patch"]
"""
OVERVIEWS_HOLDS = """
assert store.levels("s1_20260101") == (0, 1, 2)
assert grid.shape == small.shape == level["vv"].shape == tree["2/vv"].shape == (512, 512)
assert grid.transform[0] == 40 and small.rio.transform()[0] == level["vv"].rio.transform()[0] == 40
"""
WAY_BACK_HOLDS = """
import json
from pathlib import Path
import rasterio
with rasterio.open("out/part.tif") as file:
    assert np.array_equal(file.read(1), store.power(scene, "vv").values[:512, :512], equal_nan=True)
assert abs(float((power_db - mean_db)[0, 0]) - 0.512) < 1e-3
own = sz.normalize(store.db(scene, "vv"), reader.preprocessing_params.values()).values
assert np.nanmax(np.abs(maps[scene].values[0] - own / 2)) < 1e-5
assert np.array_equal(np.isnan(maps[scene].values[0]), np.isnan(own))
features = json.loads(Path("out/ships.geojson").read_text())["features"]
assert features[0]["properties"]["y_min"] == 276 and features[0]["properties"]["class"] == "ship"
"""
PREDICT_HOLDS = """
assert layer.attrs["model"] == "smooth 5x5"
assert float(db.min()) >= layer.attrs["vmin"] and float(db.max()) <= layer.attrs["vmax"]
assert sz.open_store("s.zarr").layers(scene) == ("smooth_vh", "smooth_vv")
"""
PTYCHOGRAPHY_HOLDS = """
assert grouped["X_full"].shape == (128, 64, 64, 4)
assert tuple(data.X.shape) == (128, 4, 64, 64) and tuple(data.coords.shape) == (128, 4, 1, 2)
assert batch.shape == (16, 4, 64, 64)
assert np.array_equal(same["X_full"], grouped["X_full"])
"""
COLLECTIONS_HOLDS = """
import numpy as np
import rasterio
assert split.counts == {"held_back": 0, "train": 12, "val": 4, "test": 0}
assert done.lines == ["10 train, 6 val, 0 test", "no ground is on two sides"]
assert tuple(images.shape[1:]) == (len(dataset.reader.arrays), 256, 256) and len(dataset.reader.selection) == 10
with rasterio.open("out.tif") as mine, rasterio.open(f"chips/{chip}.tif") as file:
    assert mine.transform == file.transform and mine.crs == file.crs
    off = mine.read() - file.read([file.descriptions.index(name) + 1 for name in mine.descriptions])
    assert np.nanmax(abs(off)) < 0.00123 and np.isfinite(off).mean() > 0.5
"""


@pytest.fixture
def newcomer(tmp_path):
    """A folder as a newcomer has it: two dates of raw scenes."""
    sz.write_synthetic_scenes(tmp_path / "raw", count=2, shape=(1024, 1024))
    return tmp_path


PAGES = [
    ("README.md", README_HOLDS, "torch"),
    ("docs/lazy.md", LAZY_HOLDS, "h5netcdf"),
    ("docs/ptychography.md", PTYCHOGRAPHY_HOLDS, "torch"),
    ("docs/choosing.md", CHOOSING_HOLDS, "numpy"),
    ("docs/overviews.md", OVERVIEWS_HOLDS, "numpy"),
    (
        "docs/pictures.md",
        "assert len(patches.axes) == 4 and over_time.axes and figure.axes",
        "matplotlib",
    ),
    ("docs/way_back.md", WAY_BACK_HOLDS, "numpy"),
    ("docs/predict.md", PREDICT_HOLDS, "scipy"),
    ("docs/collections_training.md", COLLECTIONS_HOLDS, "torch"),
    ("docs/npy.md", "assert images.max() <= 1", "torch"),
]
"""Pages whose code is run: what it must hold, and the package that it needs."""


@pytest.mark.parametrize(
    ("page", "holds", "needs"),
    [pytest.param(*row, marks=[] if row[0] == "README.md" else [pytest.mark.slow]) for row in PAGES],
)
def test_the_code_of_a_page_runs_in_a_fresh_interpreter(newcomer, page, holds, needs):
    pytest.importorskip(needs)
    command = [sys.executable, "-W", "error", "-c", RUN, str(ROOT / page), holds]
    done = subprocess.run(command, cwd=newcomer, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [p.relative_to(ROOT).as_posix() for p in ROOT.glob("*.md")] + ["docs"])
def test_links_lead_somewhere(page):
    pages = [ROOT / page] if page != "docs" else sorted((ROOT / "docs").rglob("*.md"))
    for place in pages:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", place.read_text()):
            assert (place.parent / target).exists(), f"{place.name}: {target}"


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))]
)
def test_names_of_the_package_are_there(page):
    """``sz.X`` and ``sarzarr.X`` are there after ``import sarzarr``; modules are named in imports alone."""
    text = (ROOT / page).read_text()
    used = re.findall(r"(?<![\w./])(?<!from )(?<!import )(?:sarzarr|sz)\.([A-Za-z_]\w*)\.\w", text)
    assert set(used) <= {*sz.__all__, "torch"}
    for name in set(re.findall(r"\b(?:sarzarr|sz)\.([A-Za-z_][\w.]*\w)", text)):
        if name.split(".")[0] == "torch":
            pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
        if "." in name:
            pkgutil.resolve_name(f"sarzarr.{name}")
        else:
            getattr(sz, name)
