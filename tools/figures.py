"""The figures of the house, read from its source alone: nothing of the package is imported.

``python tools/figures.py`` prints them; with ``--check`` it ends with 1 where one does not hold, and with ``--why``
it names the culprits of each.
"""

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

FUNCTION_LINES: Final = 80
MODULE_LINES: Final = 600
PARAMETERS: Final = 7
TOP_MODULES: Final = 12
PACKAGE_LINES: Final = 62_000
"""21,850 after the move into rooms, and what was added since: 800 for schema 2; 5,150 for what a file is: products
and companions 1,300, names and stacks 700, Sentinel-1's calibration and archives 1,400, pixels that were not
measured 600, turns of longitude, boxes and chips 500, one refused file among many 300, lazily as rioxarray 150;
4,800 for nothing lost: chunks bound to their places and sealed documents 800, verify and repair 1,500, journals,
locks, full disks and clean 1,000, clusters 600, limits for what strangers give 900; 5,600 for the formats people
come from: ptychography 1,850, patches in .npy 1,500, spectrograms and samples of any cut 1,200, layers alone and
tables 1,050; 3,500 for training frameworks: an epoch that ranks agree on 650, Lightning and a loader that is left
alone 350, patches by ground and time, of several stores, with their moments and pictures 1,400, values, polygons,
shares of layers, folds and clusters in words 1,100; 8,000 for seeing it and the way back: overviews 1,100,
quicklooks and what notebooks show 1,500, maps and the report 1,200, GeoTIFFs, detections and stitching 1,600,
predictions 1,900, crops, chunks checked once and values of 16 bits 700; 9,600 for any window and for many: crops of
several scales and by square metres 650, floats, decoded chunks that are kept and workers' slots 700, labels
(rotated boxes, classes, float chips) 900, tables that grow, copies of documents in parts, a tree and files that are
remembered 1,900, archives of chips 2,750, training on them (ground that chips share, lists, labels, batches,
pictures, GeoTIFFs) 2,700; 2,400 for all that chips have: boxes, weights, shares of layers and loaders of all sides
900, layers that come later 550, tar and Zarr archives 950; 250 for plans over known scenes that read none of them."""
SHAPED: Final = 0.6
TEST_SHARE: Final = 0.75

MANY_PARAMETERS: Final = {
    "reader.reader.PatchReader": "each option of a reader stands in its signature",
    "reader.samples.SampleReader": "each option of a reader stands in its signature",
    "torch.dataset.ZarrPatchDataset": "the options of PatchReader, for torch",
    "torch.datamodule.SARDataModule": "kept for compatibility: the signature of older training scripts",
    "ptychography.raw_data.RawDataTorch": "kept for compatibility: the signature of older training scripts",
    "ptychography.raw_data.RawDataTorch.generate_grouped_data": "kept for compatibility, as its class",
    "ptychography.bridge.MemmapDatasetBridge.get_grouped_data": "kept for compatibility, as its class",
    "ingestion.plan.plan_ingest": "each option of an ingest stands in its signature",
    "scenes.synthetic.scenes.write_synthetic_scenes": "each property of the scenes stands in its signature",
    "export.geotiff.export_geotiff": "each option of an export stands in its signature",
    "splits.make.make_split": "each option of a split stands in its signature",
}
"""Functions, and classes with their ``__init__``, that may have more parameters, with the reason."""
COMPILED: Final = "pixels.compiled."
"""Loops here take arrays and numbers alone: a compiler knows no dataclass."""

DIMENSIONS: Final = """
    n m k h w v u x y z row rows col cols column columns height width band bands plane planes channel channels time
    dates cell cells chunk chunks patch patches sample samples box boxes pixels points pairs windows slots size side
    bins levels arrays files scenes units corners lon lat longitude latitude x_min y_min x_max y_max batch blocks
"""
"""Words that, in a tuple in brackets, make it a shape or the columns of an array: (n, 4), (rows, columns)."""
DTYPES: Final = """
    bool float16 float32 float64 complex64 complex128 int8 int16 int32 int64 uint8 uint16 uint32 uint64
"""
UNITS: Final = """
    dB decibels pixel pixels byte bytes kB MB GB metre metres km degree degrees radians second seconds milliseconds
    percent percentile percentiles rows columns MB/s
"""
_AXIS: Final = rf"(?:\d+|\.\.\.|(?:\d+ ?\* ?)?(?i:{'|'.join(DIMENSIONS.split())})(?: [-+*/] \d+)?)"
_WORDS: Final = "|".join((*(DTYPES + UNITS).split(), *map(str.capitalize, UNITS.split())))
MEASURED: Final = re.compile(
    rf"\({_AXIS}(?:, {_AXIS})+,?\)|\({_AXIS},\)|\[0, 1\]|\d ?%|(?<![\w.])(?:{_WORDS})(?!\w)"
)
"""A shape, a dtype or a unit."""
RIDDLES: Final = ("What", "How", "Where")
"""First words of a line that asks and does not say."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


@dataclass(frozen=True)
class Source:
    """A file of the package."""

    name: str
    """Its dotted name in the package; ``__init__`` for the package's own, a folder's name for a folder's."""
    text: str
    """All of it."""

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax."""
        return ast.parse(self.text)

    @property
    def is_public(self) -> bool:
        """Whether no part of its name has an underscore in front."""
        return not any(part.startswith("_") and part != "__init__" for part in self.name.split("."))

    @cached_property
    def definitions(self) -> tuple[tuple[str, Definition], ...]:
        """Functions and classes, nested ones too, with their dotted names in the package."""
        return tuple(_definitions(self.tree, self.name))

    @property
    def public(self) -> tuple[tuple[str, Definition], ...]:
        """Public functions, classes, methods and properties; an overload and a setter speak by the getter."""
        return tuple(_public(self.tree.body, self.name)) if self.is_public else ()


def _definitions(node: ast.AST, name: str) -> Iterator[tuple[str, Definition]]:
    for child in ast.iter_child_nodes(node):
        inner = name
        if isinstance(child, Definition):
            inner = f"{name}.{child.name}"
            yield inner, child
        yield from _definitions(child, inner)


def _public(body: Sequence[ast.stmt], name: str) -> Iterator[tuple[str, Definition]]:
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_") and not _is_echo(node):
            yield f"{name}.{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body, f"{name}.{node.name}")


def _is_echo(node: Definition) -> bool:
    """Whether another speaks for it: a getter, an implementation, or the method of a protocol that it names."""
    if (ast.get_docstring(node) or "").startswith("See `"):
        return True
    return any(re.fullmatch(r".*\.setter|(typing\.)?overload", ast.unparse(d)) for d in node.decorator_list)


def read_package(folder: Path) -> dict[str, Source]:
    """Return the modules of a package, by their dotted names in it."""
    out = {}
    for path in sorted(folder.rglob("*.py")):
        name = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        out[name] = Source(name, path.read_text())
    return out


# ------------------------------------------------------------------ imports
def imported(tree: ast.Module, modules: Mapping[str, Source], package: str = "sarzarr") -> set[str]:
    """Return the modules of the package that a file imports, lazily too, but not for the type checker alone."""
    unseen = {
        id(node)
        for check in ast.walk(tree)
        if isinstance(check, ast.If) and isinstance(check.test, ast.Name) and check.test.id == "TYPE_CHECKING"
        for node in ast.walk(check)
    }
    out = set()
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            out |= {
                n.name.removeprefix(f"{package}.") for n in node.names if n.name.startswith(f"{package}.")
            }
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            base = node.module.removeprefix(package).lstrip(".")
            for name in node.names:
                whole = f"{base}.{name.name}".lstrip(".")
                out.add(whole if whole in modules else base)
    return out - {""}


def graph_of(modules: Mapping[str, Source]) -> dict[str, set[str]]:
    """Return the imports of each module; its own folder, which has nothing but a line in it, does not count."""
    return {name: imported(m.tree, modules) - {name.rpartition(".")[0]} for name, m in modules.items()}


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the modules that reach themselves."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = list(graph[start])
        while left:
            if (name := left.pop()) not in seen:
                seen.add(name)
                left += graph.get(name, ())
        return seen

    return sorted(name for name in graph if name in reached(name))


def line_of_imports(text: str) -> dict[str, int]:
    """Return the place of each room in the one line that ARCHITECTURE.md prints; rooms between two bars share one."""
    (printed,) = re.findall(r"^    (\w+ .*\|.*)$", text, re.MULTILINE)
    return {room: place for place, rooms in enumerate(printed.split("|")) for room in rooms.split()}


def leftward(graph: Mapping[str, set[str]], places: Mapping[str, int]) -> list[str]:
    """Return the imports, as ``module -> module``, that do not run to the left, and the rooms without a place.

    Files of the first place may import each other; the package's own ``__init__`` imports nothing.
    """
    rooms = {name.split(".")[0] for name in graph} - {"__init__", "__main__"}
    out = [f"{room} has no place in the line" for room in sorted(rooms - set(places))]
    ends = {**places, "__init__": -1, "__main__": len(places)}
    for name, others in sorted(graph.items()):
        room = name.split(".")[0]
        for other in sorted(others):
            target = other.split(".")[0]
            if target == room or room not in ends or target not in places:
                continue
            if places[target] >= ends[room] and not places[target] == ends[room] == 0:
                out.append(f"{name} -> {other}")
    return out


def lonely(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the modules at the top of the package that exactly one other module imports."""
    importers = [others for name, others in graph.items() if name not in ("__init__", "__main__")]
    users = Counter(other for others in importers for other in others)
    return sorted(name for name, count in users.items() if "." not in name and count == 1)


# ------------------------------------------------------------------ functions
def parameters(node: Function) -> int:
    """Return the number of parameters of a function, ``self`` and ``cls`` apart."""
    given = node.args
    names = [a.arg for a in (*given.posonlyargs, *given.args)]
    others = [*given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return len(names) + len(others) - (names[:1] in (["self"], ["cls"]))


def is_command(node: Definition) -> bool:
    """Return whether typer runs a function: its parameters are the options of a command."""
    return any(re.search(r"\.(command|callback)\(", ast.unparse(d)) for d in node.decorator_list)


def measured_functions(modules: Mapping[str, Source]) -> Iterator[tuple[str, Function]]:
    """Return the functions of the package with their dotted names."""
    for module in modules.values():
        for name, node in module.definitions:
            if isinstance(node, Function):
                yield name, node


def many_parameters(modules: Mapping[str, Source]) -> dict[str, int]:
    """Return the number of parameters of each function that has no reason to have many."""
    return {
        name: parameters(node)
        for name, node in measured_functions(modules)
        if not is_command(node)
        and not name.startswith(COMPILED)
        and name.removesuffix(".__init__") not in MANY_PARAMETERS
    }


def function_lines(node: Function) -> int:
    """Return the lines of a function; of a command, the lines of its body, since its signature is its help."""
    begin = node.body[0].lineno if is_command(node) else node.lineno
    return (node.end_lineno or begin) - begin + 1


# ------------------------------------------------------------------ words
def documentation(node: Definition) -> str:
    """Return a docstring, and of a class the lines under its fields."""
    parts = [ast.get_docstring(node) or ""]
    if isinstance(node, ast.ClassDef):
        parts += _field_lines(node)
    return "\n".join(parts)


def _field_lines(node: ast.ClassDef) -> Iterator[str]:
    for field, line in zip(node.body, node.body[1:], strict=False):
        is_text = isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
        if isinstance(field, ast.AnnAssign | ast.Assign) and is_text and isinstance(line.value.value, str):
            yield line.value.value


def riddles(modules: Mapping[str, Source]) -> list[str]:
    """Return the names of public things, modules too, whose docstring begins with What, How or Where."""
    out = []
    for module in modules.values():
        named: list[tuple[str, ast.Module | Definition]] = [(module.name, module.tree), *module.public]
        out += [
            name
            for name, node in named
            if re.match(rf"({'|'.join(RIDDLES)})\b", ast.get_docstring(node) or "")
        ]
    return out


def twice(modules: Mapping[str, Source]) -> list[str]:
    """Return the names that two public functions or classes of modules bear."""
    homes: dict[str, list[str]] = {}
    for module in modules.values():
        for node in module.tree.body:
            if isinstance(node, Definition) and not node.name.startswith("_") and not _is_echo(node):
                homes.setdefault(node.name, []).append(module.name)
    return [f"{name}: {', '.join(places)}" for name, places in sorted(homes.items()) if len(places) > 1]


# ------------------------------------------------------------------ figures
@dataclass(frozen=True)
class Figure:
    """A figure of the house, and whether it holds."""

    name: str
    """Of what it counts."""
    value: float
    """As it is: a count, or a share in [0, 1]."""
    limit: float
    """As it may be."""
    culprits: tuple[str, ...] = ()
    """Those that break it, or that come nearest."""
    is_least: bool = False
    """Whether the limit is the least there must be; the most, otherwise."""

    @property
    def holds(self) -> bool:
        """Whether the value is within the limit."""
        return self.value >= self.limit if self.is_least else self.value <= self.limit

    def __str__(self) -> str:
        def shown(value: float) -> str:
            return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"

        limit = f"{'>=' if self.is_least else '<='} {shown(self.limit)}"
        return f"{self.name:<58} {shown(self.value):>7}   {limit:<10}  {'ok' if self.holds else 'NOT'}"


def _most(name: str, limit: int, counts: Mapping[str, int]) -> Figure:
    over = sorted(((count, who) for who, count in counts.items() if count > limit), reverse=True)
    return Figure(
        name, max(counts.values(), default=0), limit, tuple(f"{who} ({count})" for count, who in over)
    )


def _none(name: str, culprits: Sequence[str]) -> Figure:
    return Figure(name, len(culprits), 0, tuple(culprits))


def figures(root: Path) -> list[Figure]:
    """Return the figures of a repository: a folder with ``sarzarr/``, ``tests/`` and ``ARCHITECTURE.md``."""
    modules = read_package(root / "sarzarr")
    graph = graph_of(modules)
    places = line_of_imports((root / "ARCHITECTURE.md").read_text())
    public = [item for module in modules.values() for item in module.public]
    spoken = [(name, documentation(node)) for name, node in public]
    silent = [name for name, text in spoken if not text.strip()] + [
        m.name for m in modules.values() if m.is_public and not ast.get_docstring(m.tree)
    ]
    unmeasured = [name for name, text in spoken if not MEASURED.search(text)]
    top = [name for name in modules if "." not in name and (root / "sarzarr" / f"{name}.py").exists()]
    lines = {name: len(m.text.splitlines()) for name, m in modules.items()}
    tests = sum(len(path.read_text().splitlines()) for path in (root / "tests").rglob("*.py"))
    total = sum(lines.values())
    all_public = len(public) + sum(m.is_public for m in modules.values())
    return [
        _none("modules in a circle of imports", circles(graph)),
        _none("imports that do not run to the left", leftward(graph, places)),
        _most("most parameters of a function", PARAMETERS, many_parameters(modules)),
        _most(
            "lines of the longest function",
            FUNCTION_LINES,
            {name: function_lines(node) for name, node in measured_functions(modules)},
        ),
        _most("lines of the longest module", MODULE_LINES, lines),
        Figure("modules at the top of the package", len(top), TOP_MODULES, tuple(top)),
        _none("modules at the top with exactly one importer", lonely(graph)),
        Figure(
            "share of public things with a docstring",
            1 - len(silent) / max(all_public, 1), 1.0, tuple(silent), is_least=True,
        ),
        Figure(
            "share of public docstrings with a shape, dtype or unit",
            1 - len(unmeasured) / max(len(public), 1), SHAPED, tuple(unmeasured), is_least=True,
        ),
        _none("public docstrings that begin with What, How or Where", riddles(modules)),
        _none("public names of two functions or classes", twice(modules)),
        Figure("lines of tests per line of the package", tests / max(total, 1), TEST_SHARE, is_least=True),
        Figure("lines of the package", total, PACKAGE_LINES),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None, show: Callable[[str], None] = print) -> int:
    """Print the figures; return 1 where ``--check`` is given and one does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="of the repository")
    parser.add_argument("--check", action="store_true", help="end with 1 where a figure does not hold")
    parser.add_argument("--why", action="store_true", help="name the culprits of each figure")
    given = parser.parse_args(arguments)
    counted = figures(given.root)
    for figure in counted:
        show(str(figure))
        if given.why or (given.check and not figure.holds):
            for culprit in figure.culprits:
                show(f"    {culprit}")
    return int(given.check and not all(figure.holds for figure in counted))


if __name__ == "__main__":
    sys.exit(main())
