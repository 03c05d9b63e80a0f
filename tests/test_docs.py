"""The code that a newcomer copies runs as it stands."""

import json
import pkgutil
import re
from pathlib import Path

import pytest

import sarzarr as sz

ROOT = Path(__file__).parents[1]


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.fixture
def newcomer(tmp_path, monkeypatch):
    """A folder as a newcomer has it: two dates of raw scenes."""
    monkeypatch.chdir(tmp_path)
    sz.write_synthetic_scenes(tmp_path / "raw", count=2, shape=(1024, 1024))
    return tmp_path


def test_the_readme_runs(newcomer):
    pytest.importorskip("torch", reason="the README's training section needs torch")
    pieces = blocks("README.md")
    assert len(pieces) >= 5
    space = {"__name__": "readme"}
    for piece in pieces:
        exec(compile(piece, "README.md", "exec"), space)
    assert space["store"].scenes == ("s1_20260101", "s1_20260113")
    assert 0 <= float(space["z"].min()) <= float(space["z"].max()) <= 1
    ours = space["db"].vv_db
    assert int(space["vv_db"].isnull().sum()) == int(ours.isnull().sum()) > 0
    assert float(space["vv_db"].mean()) == pytest.approx(float(ours.mean()), abs=1e-3)


def test_the_notebook_runs(newcomer):
    pytest.importorskip("matplotlib")
    import matplotlib as mpl

    mpl.use("agg")
    notebook = json.loads((ROOT / "notebooks" / "explore.ipynb").read_text())
    space = {"__name__": "notebook"}
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert cells
    for cell in cells:
        exec(compile(cell, "explore.ipynb", "exec"), space)


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
