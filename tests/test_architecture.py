"""The package is the house that ARCHITECTURE.md draws: one line of imports, no circles, and doors that are kept."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from figures import circles, graph_of, leftward, line_of_imports, read_package

import sarzarr

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sarzarr"
FILES = sorted(PACKAGE.rglob("*.py"))


MODULES = read_package(PACKAGE)


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def test_every_import_runs_to_the_left_of_the_printed_line():
    places = line_of_imports((ROOT / "ARCHITECTURE.md").read_text())
    assert set(places) == {name.split(".")[0] for name in MODULES} - {"__init__", "__main__"}
    assert not leftward(graph_of(MODULES), places)


def test_no_module_reaches_itself():
    assert not circles(graph_of(MODULES))


# ------------------------------------------------------------------ doors
def calls_and_imports(path):
    """Return the dotted names that a file calls or imports: ``rasterio.open``, ``shutil.rmtree``, ``fcntl``.

    A method that is called with one argument, as those of paths are, is ``.rename(path)``: `str.replace` takes two.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and len(node.args) == 1:
            found.add(f".{node.func.attr}(path)")
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


DOORS = {
    "torch": r"torch\.",
    "multiprocessing": r"tasks|torch\.epochs\.counter|torch\.slots",
    "rasterio.open": r"rasters|grids\.warp\.read|scenes\.synthetic\.|export\.cog",
    "dask": r"tasks|pixels\.bounds|patches\.stacks\.cube|scenes\.scene|store\.stored_pixels",
    **dict.fromkeys(("os.fsync", "os.link", "shutil.rmtree", "fcntl", ".replace(path)"), "files"),
    ".rename(path)": r"files|pixels\.radiometry|store\.store",
}
"""What only some modules may use; `pixels.radiometry` and `store.store` rename variables of xarray."""


@pytest.mark.parametrize("what", DOORS)
def test_a_door_is_kept(what):
    users = {
        name_of(path) for path in FILES
        if any(f"{used}.".startswith(f"{what}.") for used in calls_and_imports(path))
    }  # fmt: skip
    assert users, "a door that nobody uses is kept by nobody"
    assert not {name for name in users if not re.match(DOORS[what], f"{name}.")}


# ------------------------------------------------------------------ the public face
def test_public_names_are_all_there_and_documented():
    assert len(sarzarr.__all__) > 50
    assert set(sarzarr.__all__) <= set(dir(sarzarr))
    for name in sarzarr.__all__:
        assert getattr(sarzarr, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = sarzarr.nope


def test_no_public_name_is_a_module():
    """Importing a room puts it in the place of a public name that it shares."""
    for module in pkgutil.walk_packages([str(PACKAGE)], "sarzarr."):
        if module.name != "sarzarr.__main__" and not module.name.startswith("sarzarr.torch"):
            importlib.import_module(module.name)
    assert not [name for name in sarzarr.__all__ if isinstance(getattr(sarzarr, name), ModuleType)]


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


def test_everything_but_the_torch_room_works_without_torch(tmp_path):
    done = run(WITHOUT_TORCH, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_torch_room_does_not(tmp_path):
    done = run("import sys; sys.modules['torch'] = None; import sarzarr.torch", tmp_path)
    assert done.returncode != 0
    assert "pip install 'sarzarr[torch]'" in done.stderr


WITHOUT_A_CLUSTER = """
import sys
import sarzarr as sz
from sarzarr import tasks
tasks.PROCESS_WORTH = int(sys.argv[1])
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


def test_the_torch_room_is_there_without_an_import_of_it(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
    assert run("import sarzarr; sarzarr.torch.ZarrPatchDataset", tmp_path).returncode == 0
    done = run("import sys; sys.modules['torch'] = None; import sarzarr; sarzarr.torch", tmp_path)
    assert "MissingExtraError" in done.stderr


LIGHT = """
import sys
import sarzarr as sz
for name in sz.__all__:
    getattr(sz, name)
assert not {"rioxarray", "torch", "distributed", "matplotlib"} & set(sys.modules), "by a name"
store = sz.open_store(sys.argv[1])
next(iter(sz.PatchReader(store, batch_size=2, min_valid=0, min_unsaturated=0)))
assert not {"rioxarray", "torch", "distributed", "matplotlib"} & set(sys.modules), "by a batch"
store.db(store.scenes[0]).rio
"""


def test_rioxarray_is_imported_where_an_object_with_rio_is_handed_out(tmp_path):
    files = sarzarr.write_synthetic_scenes(tmp_path / "raw", count=1, shape=(512, 512))
    sarzarr.ingest(sarzarr.plan_ingest(files, tmp_path / "s.zarr"))
    done = run(LIGHT, tmp_path / "s.zarr")
    assert done.returncode == 0, done.stderr


def test_import_sarzarr_is_light():
    code = "import sys, sarzarr; assert not {'numpy', 'xarray', 'dask', 'torch', 'ast'} & set(sys.modules)"
    assert run(code, "").returncode == 0
