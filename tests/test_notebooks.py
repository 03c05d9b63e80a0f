"""The notebooks hold code and prose alone, use public names, and are executed by a tool that sees what goes wrong."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest

import sarzarr as sz

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
PUBLIC_MODULES = {"sarzarr", "sarzarr.torch"}
"""Modules of the package that a notebook may import from."""


def code_of(notebook):
    """All code cells as one module; lines of IPython are left out."""
    cells = ("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    return ast.parse(re.sub(r"(?m)^[%!].*$", "", "\n".join(cells)))


def private_names(tree):
    """What of sarzarr a module uses that is not public: imports, ``sz.x``, and attributes with an underscore."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {a.name for a in node.names if a.name.split(".")[0] == "sarzarr"}
            found |= names - PUBLIC_MODULES
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "sarzarr":
            is_public = node.module == "sarzarr.torch" or all(a.name in sz.__all__ for a in node.names)
            if not is_public or node.module not in PUBLIC_MODULES:
                found.add(node.module)
        elif isinstance(node, ast.Attribute):
            of_package = isinstance(node.value, ast.Name) and node.value.id in ("sz", "sarzarr")
            if (of_package and node.attr not in {*sz.__all__, "torch"}) or re.match(r"_(?!_)", node.attr):
                found.add(node.attr)
    return found


def test_there_are_three_uses():
    assert [path.stem for path in NOTEBOOKS] == ["01_explore", "02_build_a_store", "03_train_and_map"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_nothing_of_a_run_or_a_machine_is_in_git(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"] == {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    assert not re.search(r"/(home|root|Users|tmp|work)/|[A-Z]:\\\\", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_is_of_the_format(path):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (sarzarr[notebooks])")
    nbformat.validate(nbformat.read(path, as_version=nbformat.NO_CONVERT))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_only_public_names_are_used(path):
    assert private_names(code_of(json.loads(path.read_text(encoding="utf-8")))) == set()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_code_has_a_sentence_before_it_and_few_lines(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert cells[0]["cell_type"] == "markdown"
    kinds = "".join(c["cell_type"][0] for c in cells)
    assert "ccc" not in kinds
    assert max(len(c["source"]) for c in cells) <= 40


def test_the_sight_of_private_names():
    private = "import sarzarr.store.store\nfrom sarzarr.pixels import kernels\nsz.nothing\nstore._place\n"
    assert private_names(ast.parse(private)) == {
        "sarzarr.store.store",
        "sarzarr.pixels",
        "nothing",
        "_place",
    }
    public = "import sarzarr as sz\nfrom sarzarr.torch import ZarrPatchDataset\nsz.open_store\n"
    assert private_names(ast.parse(public)) == set()


PASSES = "import sarzarr; sarzarr.__all__"
FAILS = {
    "a cell raises": ("1 / 0", "ZeroDivisionError"),
    "a cell warns": ("import warnings; warnings.warn('old', DeprecationWarning)", "DeprecationWarning: old"),
    "a cell writes to stderr": ("import sys; print('trouble', file=sys.stderr)", "trouble"),
}


@pytest.fixture(scope="module")
def tool():
    pytest.importorskip("nbclient", reason="nbclient is not installed (sarzarr[notebooks])")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (sarzarr[notebooks])")
    import notebooks

    return notebooks


def run(tool, tmp_path, monkeypatch, source, *options):
    import nbformat.v4 as v4

    notebook = v4.new_notebook(cells=[v4.new_code_cell(source)])
    path = tmp_path / "one.ipynb"
    path.write_text(json.dumps(notebook))
    monkeypatch.setattr(sys, "argv", ["notebooks.py", str(path), *options])
    return tool.main()


@pytest.mark.slow
@pytest.mark.parametrize("what", FAILS)
def test_the_tool_fails_where(tool, tmp_path, monkeypatch, capfd, what):
    source, words = FAILS[what]
    assert run(tool, tmp_path, monkeypatch, source) == 1
    assert words in re.sub(r"\x1b\[[\d;]*m", "", capfd.readouterr().err)


@pytest.mark.slow
def test_the_tool_keeps_pictures_and_holds_the_limit(tool, tmp_path, monkeypatch, capfd):
    picture = "import matplotlib.pyplot as plt\nplt.plot([0, 1])\nplt.show()"
    kept = tmp_path / "kept"
    assert run(tool, tmp_path, monkeypatch, f"{PASSES}\n{picture}", "--keep", str(kept)) == 0
    assert sorted(p.name for p in kept.iterdir()) == ["one-00.png", "one.ipynb"]
    busy = "import time\nwhile time.process_time() < 3:\n    pass"
    assert run(tool, tmp_path, monkeypatch, busy, "--limit", "2") == 1
    assert "2 s were expected at most" in capfd.readouterr().err
    assert run(tool, tmp_path, monkeypatch, "import time\ntime.sleep(60)", "--limit", "1") == 1
    assert "timed out" in capfd.readouterr().err
