"""The legs of the CI beside the pinned one: tests marked ``compat``, with other versions of the dependencies.

``python tools/legs.py oldest`` takes the lower bounds of pyproject.toml on the oldest Python that is declared,
``newest`` the newest releases on the newest Python that is found. Each makes an environment of its own and needs
wheels alone. Both go without torch: its oldest wheels bring gigabytes of CUDA. A leg whose Python is not found is
skipped, and says so.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
CONSTRAINTS: Final = "constraints-oldest.txt"
EXTRAS: Final = ("torch", "plot", "table", "vector", "onnx", "test")
"""Extras whose lower bounds are held; the others are tools of the house."""


@dataclass(frozen=True)
class Leg:
    """One set of versions that the tests marked ``compat`` run with."""

    pythons: tuple[str, ...]
    """Versions of Python, the one to be preferred first."""
    constraint: str | None
    """Pip's file of constraints; without one the newest releases are taken."""
    warnings: tuple[tuple[str, str], ...]
    """Warnings of others' making, which are no errors: whose, and pytest's filter."""


LEGS: Final = {
    "oldest": Leg(
        pythons=("3.11", "3.12"),
        constraint=CONSTRAINTS,
        warnings=(
            ("zarr 3.1.0, of its own text", "ignore:The codec `vlen-utf8` is currently not part:UserWarning"),
            (
                "matplotlib 3.9 calls functions of pyparsing 3.3 by their old names",
                "ignore::pyparsing.warnings.PyparsingDeprecationWarning:matplotlib._fontconfig_pattern",
            ),
            ("the same", "ignore::pyparsing.warnings.PyparsingDeprecationWarning:matplotlib._mathtext"),
            (
                "rioxarray 0.19 tries with NumPy 2.0 whether a tag is a list of numbers",
                "ignore:string or file could not be read to its end:DeprecationWarning:rioxarray._io",
            ),
        ),
    ),
    "newest": Leg(
        pythons=("3.14", "3.13", "3.12"),
        constraint=None,
        warnings=(
            (
                "rioxarray 0.23 multiplies affines of affine 3 by *",
                "ignore:Use `@` matmul:PendingDeprecationWarning:rioxarray.rioxarray",
            ),
            ("the same", "ignore:Use `@` matmul:PendingDeprecationWarning:rioxarray._spatial_utils"),
        ),
    ),
}


def lower_bounds() -> list[str]:
    """Return the lines of the constraints: ``name==bound`` of each declared dependency, in their order."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *(d for e in EXTRAS for d in project["optional-dependencies"][e])]
    pairs = (requirement.split(">=") for requirement in declared)
    return list(dict.fromkeys(f"{name.split('[')[0]}=={bound}" for name, bound in pairs))


def find_python(version: str) -> str | None:
    """Return a command of Python ``version`` that makes environments: this one, on PATH, or of pyenv; or None."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [
        sys.executable,
        shutil.which(f"python{version}"),
        *sorted(pyenv.glob(f"{version}.*/bin/python")),
    ]
    test = f"import ensurepip, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    for candidate in filter(None, candidates):
        if not subprocess.run([candidate, "-c", test], capture_output=True, check=False).returncode:
            return str(candidate)
    return None


def run(name: str) -> int:
    """Make the environment of a leg and run its tests; return an exit status, 0 too where its Python is not found."""
    leg = LEGS[name]
    base = next(filter(None, map(find_python, leg.pythons)), None)
    if base is None:
        print(
            f"skipped: the {name} leg, since no Python {', '.join(leg.pythons)} with venv is on PATH or of pyenv."
        )
        return 0
    venv = ROOT / f".venv-compat-{name}"
    python = venv / "bin" / "python"
    subprocess.run([base, "-m", "venv", "--clear", venv], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    chosen = ["--constraint", leg.constraint] if leg.constraint else []
    wheels = ["install", "--quiet", "--only-binary", ":all:", *chosen, "--editable", ".[test]"]
    subprocess.run([*pip, *wheels], cwd=ROOT, check=True)
    subprocess.run([*pip, "list", "--format", "freeze"], cwd=ROOT, check=True)
    filters = [f"-W{text}" for _, text in leg.warnings]
    return subprocess.run(
        [python, "-m", "pytest", "-m", "compat", *filters], cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(run(sys.argv[1]))
