"""Options as keywords: a record says them once, and every signature and docstring shows them."""

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from difflib import get_close_matches
from functools import wraps
from itertools import pairwise
from textwrap import dedent, indent
from typing import Any, TypeVar

from sarzarr.errors import InvalidInputError

T = TypeVar("T", bound=Callable[..., Any])


def shows_options(record: type[Any], keywords: type[Any], **defaults: Any) -> Callable[[T], T]:
    """Return a decorator of a function or class that takes the fields of ``record`` as ``**options``.

    Parameters
    ----------
    record
        A dataclass: its defaults stand in the signature, its fields' lines in the docstring, in the place of
        ``**options``. A field that the docstring describes itself keeps that description.
    keywords
        A TypedDict: the fields that are taken, with their types, for editors and type checkers.
    **defaults
        Defaults that are not the record's: they are shown, and passed where the keyword is left out.
    """
    kinds = keywords.__annotations__
    shown_defaults = {f.name: f.default for f in fields(record) if f.name in kinds} | defaults

    def decorate(target: T) -> T:
        function = vars(target)["__init__"] if isinstance(target, type) else target
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kinds[name])
            for name, default in shown_defaults.items()
        ]
        shown = signature.replace(parameters=[*own, *options])

        @wraps(function)
        def checked(*args: Any, **given: Any) -> Any:
            if unknown := [name for name in given if name not in shown.parameters]:
                known = [name for name in shown.parameters if name != "self"]
                near = get_close_matches(unknown[0], known, 1)
                remedy = f"Did you mean {near[0]!r}?" if near else f"Choose among {', '.join(known)}."
                raise InvalidInputError(
                    f"a keyword of {target.__name__} was expected, got {unknown[0]!r}. {remedy}"
                )
            return function(*args, **{**defaults, **given})

        vars(checked)["__signature__"] = shown
        documented = target if isinstance(target, type) else checked
        documented.__doc__ = _with_lines(target.__doc__ or "", record, list(shown_defaults))
        if isinstance(target, type):
            type.__setattr__(target, "__init__", checked)
            return target
        return checked  # type: ignore[return-value]

    return decorate


def _with_lines(doc: str, record: type[Any], names: list[str]) -> str:
    """Return a docstring with a field's line for each name, in the place of its ``**`` entry."""
    doc, lines = inspect.cleandoc(doc), field_lines(record)
    entries = [
        f"{name}\n{indent(lines.get(name, ''), '    ')}\n"
        for name in names
        if not re.search(rf"^(\w+, )*{name}(, \w+)*$", doc, re.MULTILINE)
    ]
    return re.sub(r"^\*\*\w+\n(    .*\n?)*", lambda _: "".join(entries), doc, flags=re.MULTILINE)


def field_lines(record: type[Any]) -> dict[str, str]:
    """Return what stands under each field of a class and its bases, by name; none where there is no source."""
    lines: dict[str, str] = {}
    for base in reversed(record.__mro__[:-1]):
        try:
            (tree,) = ast.parse(dedent(inspect.getsource(base))).body
        except (OSError, TypeError):
            continue
        for field, line in pairwise(vars(tree)["body"]):
            if isinstance(field, ast.AnnAssign) and isinstance(line, ast.Expr):
                lines[ast.unparse(field.target)] = inspect.cleandoc(str(ast.literal_eval(line.value)))
    return lines
