"""The module table of ARCHITECTURE.md is true, and torch stays at the edge."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sarzarr

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sarzarr"


def table():
    """Return the row of each module, as ARCHITECTURE.md says."""
    lines = re.findall(r"^\| (\d+) \| `(\w+)` \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    return {module: int(row) for row, module in lines}


def imported(path):
    """Return the sarzarr modules that a file imports; what only a type checker sees does not count."""

    class Visitor(ast.NodeVisitor):
        def __init__(self):
            self.found = set()

        def visit_If(self, node):
            if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
                self.generic_visit(node)

        def visit_Import(self, node):
            self.found |= {n.name.split(".")[1] for n in node.names if n.name.startswith("sarzarr.")}

        def visit_ImportFrom(self, node):
            if node.module == "sarzarr":
                self.found |= {n.name for n in node.names if (PACKAGE / f"{n.name}.py").exists()}
            elif node.module and node.module.startswith("sarzarr."):
                self.found.add(node.module.split(".")[1])

    visitor = Visitor()
    visitor.visit(ast.parse(path.read_text()))
    return visitor.found


def test_the_table_names_every_module_and_no_other():
    assert set(table()) == {p.stem for p in PACKAGE.glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda p: p.stem)
def test_a_module_imports_only_from_rows_above_its_own(path):
    rows = table()
    if path.stem == "__init__":
        assert imported(path) == set()
        return
    below = {m for m in imported(path) if rows[m] >= rows[path.stem]}
    assert not below, f"{path.stem} (row {rows[path.stem]}) imports {below}"


def test_the_table_can_be_broken(tmp_path):
    bad = tmp_path / "errors.py"
    bad.write_text("def f():\n    from sarzarr.store import open_store\n")
    assert imported(bad) == {"store"}


def mentions_torch(path):
    names = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Import | ast.ImportFrom))
    return any(
        name.split(".")[0] == "torch"
        for node in names
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    )


def test_only_the_torch_module_imports_torch():
    assert [p.stem for p in PACKAGE.glob("*.py") if mentions_torch(p)] == ["torch"]


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it raises ImportError, as where it is not installed
import sarzarr as sz
files = sz.write_synthetic_scenes(sys.argv[1] + "/raw", count=1, shape=(512, 512))
store = sz.ingest(sz.plan_ingest(files, sys.argv[1] + "/s.zarr"))
batch = next(iter(sz.PatchReader(store, batch_size=2, min_valid=0, min_unsaturated=0)))
assert batch.shape == (2, 1, 256, 256), batch.shape
for name in sz.__all__:
    getattr(sz, name)
"""


def run(code, folder):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(folder)], capture_output=True, text=True, check=False
    )


def test_everything_but_the_torch_module_works_without_torch(tmp_path):
    done = run(WITHOUT_TORCH, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_torch_module_does_not(tmp_path):
    done = run("import sys; sys.modules['torch'] = None; import sarzarr.torch", tmp_path)
    assert done.returncode != 0
    assert "pip install 'sarzarr[torch]'" in done.stderr


WITHOUT_A_CLUSTER = """
import sys
import sarzarr as sz
from sarzarr import scheduling
scheduling.PROCESS_WORTH = int(sys.argv[1])
files = sz.write_synthetic_scenes(sys.argv[2] + "/raw", count=1, shape=(512, 512))
sz.ingest(sz.plan_ingest(files, sys.argv[2] + "/s.zarr"))
assert "distributed" not in sys.modules
"""


@pytest.mark.parametrize("worth", [0, 10**12], ids=["processes", "threads"])
def test_an_ingest_on_this_machine_imports_no_cluster(tmp_path, worth):
    """It takes 0.3 s, and Dask does it for whoever names a scheduler."""
    command = [sys.executable, "-c", WITHOUT_A_CLUSTER, str(worth), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_import_sarzarr_is_light():
    code = "import sys, sarzarr; assert not {'numpy', 'xarray', 'dask', 'torch'} & set(sys.modules)"
    assert run(code, "").returncode == 0


def test_public_names_are_all_there_and_documented():
    assert set(sarzarr.__all__) == set(sarzarr._HOME)
    for name in sarzarr.__all__:
        assert getattr(sarzarr, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = sarzarr.nope
