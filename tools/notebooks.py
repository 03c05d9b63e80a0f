"""Execute the notebooks from start to end, each in a folder and a kernel of its own.

``python tools/notebooks.py`` runs those of ``notebooks/``, or those that are named, one after the other, and prints
the seconds of each, on the clock and of processors. It ends with 1 where a cell raises, anything is written to
stderr, sarzarr or a cell warns, or ``--limit`` seconds are exceeded by both: others who use the machine stretch the
clock, a second core the other. ``--keep FOLDER`` keeps the executed copies and their pictures, to be looked at.
"""

import argparse
import base64
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "notebooks"
LIMIT: Final = 120.0
"""Seconds that a notebook may take, on two cores that nothing else uses."""
PATIENCE: Final = 5
"""Times the limit, after which a cell is given up, on a machine that others use."""
FIRST: Final = r"""
import warnings
warnings.filterwarnings("error", module=r"(sarzarr(\..*)?|__main__)$")
"""
"""Runs before a notebook: warnings that sarzarr or a cell is told are errors."""


def execute(path: Path, folder: Path, *, limit: float = LIMIT) -> tuple[Any, list[str], tuple[float, float]]:
    """Return the executed notebook, one sentence per thing that is wrong, and its (clock, processors) seconds."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FIRST))
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=math.ceil(PATIENCE * limit),
        resources={"metadata": {"path": str(folder)}},
    )
    begun, worked, wrong = time.monotonic(), _processor_seconds(), list[str]()
    try:
        client.execute(env=_environment(folder))
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        wrong.append(str(error))
    seconds = time.monotonic() - begun, _processor_seconds() - worked
    del notebook.cells[0]
    wrong += [f"a cell wrote to stderr:\n{text}" for text in _stderr(notebook)]
    if min(seconds) > limit:
        wrong.append(
            "{:.0f} s were expected at most, got {:.0f} s, {:.0f} s of processors.".format(limit, *seconds)
        )
    return notebook, wrong, seconds


def _processor_seconds() -> float:
    """Return the seconds of processors of all processes that this one, and they, have waited for."""
    times = os.times()
    return times.children_user + times.children_system


def _environment(folder: Path) -> dict[str, str]:
    """Return this environment with temporary files, and the settings of IPython and matplotlib, in ``folder``."""
    own = {name: str(folder / name.lower()) for name in ("TMPDIR", "IPYTHONDIR", "MPLCONFIGDIR")}
    for place in own.values():
        Path(place).mkdir()
    return {**os.environ, **own, "JUPYTER_PREFER_ENV_PATH": "1"}


def _stderr(notebook: Any) -> Iterator[str]:
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "stream" and output.name == "stderr":
                yield output.text


def keep(notebook: Any, name: str, folder: Path) -> None:
    """Write an executed notebook, and each PNG in its outputs by the number of its cell, into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            if picture := output.get("data", {}).get("image/png"):
                (folder / f"{name}-{number:02}.png").write_bytes(base64.b64decode(picture))


def main() -> int:
    """Run the notebooks that are named, or all; return an exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="all of notebooks/ if left out")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds of each, {LIMIT:.0f}")
    parser.add_argument("--keep", type=Path, help="a folder for executed copies and their pictures")
    asked = parser.parse_args()
    failed = False
    for path in asked.notebooks or sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook, wrong, seconds = execute(path, Path(folder), limit=asked.limit)
        took = "{:.0f} s, {:.0f} s of processors".format(*seconds)
        print(f"{path.name}: {took}{', failed' if wrong else ''}", flush=True)
        for sentence in wrong:
            print(sentence, file=sys.stderr, flush=True)
        if asked.keep:
            keep(notebook, path.stem, asked.keep)
        failed |= bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
