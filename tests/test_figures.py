"""Each figure of the house is counted, and each rule can be broken."""

import re
import subprocess
import sys
from pathlib import Path

import figures
import pytest
from figures import MEASURED, Source, circles, imported, leftward, line_of_imports, lonely, parameters

TOOL = Path(figures.__file__)
LINE = "    errors text | store | cli\n"
GOOD = '''"""Stores."""

from sarzarr import errors, text


def opened(path):
    """Return the rows (n, 4) of a store."""
    return errors, text, path
'''


def write(root, path, content):
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).write_text(content)


@pytest.fixture
def house(tmp_path):
    """A repository in which every figure holds."""
    files = {
        "ARCHITECTURE.md": f"# Architecture\n\n{LINE}",
        "sarzarr/__init__.py": '"""Everything."""\n',
        "sarzarr/errors.py": '"""Errors."""\n',
        "sarzarr/text.py": '"""Text."""\n\nfrom sarzarr import errors\n',
        "sarzarr/store/__init__.py": '"""The format."""\n',
        "sarzarr/store/store.py": GOOD,
        "sarzarr/cli.py": '"""C."""\n\nfrom sarzarr import errors, text\nfrom sarzarr.store import store\n',
        "tests/test_all.py": "a = 1\n" * 50,
    }
    for path, content in files.items():
        write(tmp_path, path, content)
    return tmp_path


def broken(root):
    return [figure for figure in figures.figures(root) if not figure.holds]


def test_a_house_in_order_breaks_nothing(house, capsys):
    assert not broken(house)
    assert figures.main(["--root", str(house), "--check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(figures.figures(house)) == 13
    assert all(re.search(r"  [\d.,]+ +(<=|>=) [\d.,]+ +ok$", line) for line in lines)


def function(name, *, names="", lines=0, text='"""Return rows (n, 4)."""'):
    return f"\n\ndef {name}({names}):\n    {text}\n" + "    x = 1\n" * lines


EIGHT = "a, b, c, d, *, e, f, g, h"
BREAKS = {
    "a circle": ("sarzarr/errors.py", '"""E."""\nfrom sarzarr import text\n', "circle", "errors"),
    "to the right": (
        "sarzarr/store/store.py", GOOD + "    import sarzarr.cli\n", "left", "store.store -> cli",
    ),
    "no room": ("sarzarr/attic/old.py", '"""Old."""\n', "left", "attic has no place in the line"),
    "imports of the face": (
        "sarzarr/__init__.py", '"""E."""\nimport sarzarr.text\n', "left", "__init__ -> text",
    ),
    "parameters": ("sarzarr/store/store.py", GOOD + function("f", names=EIGHT), "parameters", "store.store.f (8)"),
    "parameters of a method": (
        "sarzarr/store/store.py",
        GOOD + f'\n\nclass A:\n    """Rows (n, 4)."""\n\n    def __init__(self, {EIGHT}): ...\n',
        "parameters", "store.store.A.__init__ (8)",
    ),
    "a long function": ("sarzarr/store/store.py", GOOD + function("f", lines=79), "function", "store.store.f (81)"),
    "a long module": ("sarzarr/store/store.py", GOOD + "a = 1\n" * 600, "module", "store.store (608)"),
    "no docstring": ("sarzarr/store/store.py", GOOD + function("f", text="pass"), "a docstring", "store.store.f"),
    "a silent module": ("sarzarr/store/other.py", "a = 1\n", "with a docstring", "store.other"),
    "no shape": (
        "sarzarr/store/store.py", GOOD + function("f", text='"""Return a thing."""'), "shape", "store.store.f",
    ),
    "a riddle": (
        "sarzarr/store/store.py", GOOD + function("f", text='"""Where (n, 4) is."""'), "begin", "store.store.f",
    ),
    "a riddle of a module": ("sarzarr/store/store.py", GOOD.replace("Stores", "How they"), "begin", "store.store"),
    "twice": ("sarzarr/store/other.py", '"""O."""\n' + function("opened"), "two", "opened: store.other, store.store"),
    "few tests": ("tests/test_all.py", "a = 1\n", "tests", None),
}  # fmt: skip


@pytest.mark.parametrize("case", BREAKS)
def test_each_rule_can_be_broken(house, case):
    path, content, name, culprit = BREAKS[case]
    write(house, path, content)
    (figure,) = [figure for figure in broken(house) if name in figure.name]
    assert culprit is None or culprit in figure.culprits
    assert str(figure).endswith("NOT")


def test_a_module_of_one_importer_stands_in_a_folder(house):
    write(house, "sarzarr/cli.py", '"""C."""\nfrom sarzarr import errors\nfrom sarzarr.store import store\n')
    (figure,) = broken(house)
    assert "one importer" in figure.name
    assert figure.culprits == ("text",)
    write(house, "sarzarr/__main__.py", '"""M."""\nfrom sarzarr import text\n')
    assert [f.culprits for f in broken(house)] == [("text",)], "__main__ is no importer"


def test_a_top_of_many_files_and_a_long_package_are_too_much(house):
    for i in range(12):
        write(house, f"sarzarr/a{i}.py", '"""A."""\n' + "a = 1\n" * 590)
    (house / "ARCHITECTURE.md").write_text(
        LINE.replace("text", " ".join(["text", *(f"a{i}" for i in range(12))]))
    )
    names = [figure.name for figure in broken(house)]
    assert "modules at the top of the package" in names
    for i in range(12, 110):
        write(house, f"sarzarr/store/a{i}.py", '"""A."""\n' + "a = 1\n" * 590)
    assert "lines of the package" in [figure.name for figure in broken(house)]


def test_the_check_fails_and_says_why(house):
    write(house, "sarzarr/store/store.py", GOOD + function("f", names=EIGHT))
    command = [sys.executable, str(TOOL), "--root", str(house)]
    done = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "    store.store.f (8)\n" in done.stdout
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


# ------------------------------------------------------------------ parts
def tree(text):
    return Source("store.store", text)


def test_what_a_type_checker_alone_sees_is_no_import():
    code = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sarzarr.cli\nimport sarzarr.text\n"
    )
    assert imported(tree(code).tree, {}) == {"text"}
    lazy = "def f():\n    from sarzarr.store.store import open_store\n    import sarzarr.cli\n"
    assert imported(tree(lazy).tree, {"store.store": tree("")}) == {"store.store", "cli"}


def test_circles_are_found_at_any_length():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c"]
    assert not circles({"a": {"b"}, "b": {"c"}, "c": set()})


def test_rooms_between_two_bars_do_not_import_each_other_but_the_first_do():
    places = line_of_imports("text\n\n    a b | c d | e\n")
    assert places == {"a": 0, "b": 0, "c": 1, "d": 1, "e": 2}
    graph = {"a": {"b"}, "b": set(), "c.x": {"d.y", "c.z"}, "c.z": set(), "d.y": {"e"}, "e": {"c.x"}}
    assert leftward(graph, places) == ["c.x -> d.y", "d.y -> e"]


def test_one_importer_inside_a_folder_is_no_matter():
    assert lonely({"a": {"b", "c.d"}, "b": set(), "c.d": set(), "__init__": {"b"}}) == ["b"]


@pytest.mark.parametrize(
    ("signature", "count"),
    [("", 0), ("self, a", 1), ("cls, a, /, b", 2), ("a, *b, c, **d", 4), ("*, self", 1)],
)
def test_parameters_count_all_but_self(signature, count):
    ((_, node),) = tree(f"def f({signature}): ...").definitions
    assert parameters(node) == count


def test_a_command_and_a_compiled_loop_may_have_many_parameters():
    command = f"@app.command()\ndef f({EIGHT}): ...\n"
    assert not figures.many_parameters({"cli": tree(command)})
    assert not figures.many_parameters({"pixels": Source("pixels.compiled.loops", f"def f({EIGHT}): ...\n")})
    assert figures.many_parameters({"store": tree(f"def f({EIGHT}): ...\n")}) == {"store.store.f": 8}


def test_each_exception_is_there_and_has_a_reason():
    modules = figures.read_package(TOOL.parents[1] / "sarzarr")
    names = {name for module in modules.values() for name, _ in module.definitions}
    assert set(figures.MANY_PARAMETERS) <= names
    assert all(len(reason) > 10 for reason in figures.MANY_PARAMETERS.values())


def test_public_is_what_has_no_underscore_in_its_way():
    code = """
class A:
    def f(self): ...
    def _g(self): ...
    @property
    def p(self): ...
    @p.setter
    def p(self, value): ...
class _B:
    def f(self): ...
@overload
def h(a): ...
def h(a):
    def inner(): ...
"""
    assert [name for name, _ in tree(code).public] == [f"store.store.{n}" for n in ("A", "A.f", "A.p", "h")]
    assert not Source("store._hidden", code).public


def test_a_field_speaks_for_its_class():
    code = 'class A:\n    """A thing."""\n\n    a: int\n    """In metres."""\n    b: int = 2\n'
    ((_, node),) = tree(code).public
    assert MEASURED.search(figures.documentation(node))


@pytest.mark.parametrize(
    "text",
    ["(n, 4) of them", "(rows, columns)", "(cells,)", "(3, rows, columns)", "(..., 3)", "(2 * n, y, x)", "in dB",
     "float32 arrays", "codes, uint16", "16 bytes", "in [0, 1]", "90 %", "of 5 metres", "in seconds", "(N, height)"],
)  # fmt: skip
def test_shapes_types_and_units_are_seen(text):
    assert MEASURED.search(f"Return something {text}.")


@pytest.mark.parametrize(
    "text", ["(train, val)", "a store", "(name, key)", "dBm", "f(x)", "uint16x", "(store, split)"]
)
def test_other_words_are_none(text):
    assert not MEASURED.search(f"Return {text}.")
