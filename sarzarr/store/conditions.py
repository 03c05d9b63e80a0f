"""Expressions over columns: ``incidence < 40 and mean_db > -20``, read by Python's grammar and never executed.

What may stand in one is names of columns, numbers, text in quotes, comparisons, ``in``, ``and``, ``or``,
``not`` and ``+ - * /``. Columns stand a patch or an array (an acquisition's polarization); what speaks of
arrays alone is evaluated once an array.
"""

import ast
import difflib
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError

MAX_LENGTH: Final = 2000
"""Characters of an expression."""
MAX_DEPTH: Final = 100
"""How deep one may nest."""
_ARITHMETIC: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Columns:
    """The names of an expression: columns per patch, and columns per array with each patch's array."""

    patch: Mapping[str, Array]
    """(n,) each."""
    array: Mapping[str, Array]
    """(arrays,) each."""
    owner: Array
    """(n,) the array of each patch, by its number."""

    @property
    def names(self) -> list[str]:
        """Every name, sorted."""
        return sorted({*self.patch, *self.array})


@dataclass(frozen=True, eq=False)
class _Value:
    """A value: one for all, one an array, or one a patch."""

    values: Any
    level: int
    """0: one for all; 1: an array; 2: a patch."""

    def at(self, level: int, columns: Columns) -> Any:
        return self.values[columns.owner] if (self.level, level) == (1, 2) else self.values


def columns_of(table: xr.Dataset, catalog: xr.Dataset) -> Columns:
    """Return the columns of a patch table as stored, and of the catalog row of each of its arrays.

    An array that the catalog does not have is NaN and empty text there.
    """
    named = zip(catalog["scene"].values.tolist(), catalog["name"].values.tolist(), strict=True)
    number = {key: i for i, key in enumerate(named)}
    owners = zip(table["owner_scene"].values.tolist(), table["owner_array"].values.tolist(), strict=True)
    rows = np.array([number.get(key, -1) for key in owners], np.int64)
    arrays = {
        str(k): _taken(column.values, rows)
        for k, column in catalog.data_vars.items()
        if column.dims == ("array",)
    }
    arrays |= {"scene": table["owner_scene"].values, "array": table["owner_array"].values}
    patches = {str(k): v.values for k, v in table.data_vars.items() if v.dims == ("patch",) and k != "owner"}
    return Columns(patch=patches, array=arrays, owner=table["owner"].values)


def _taken(values: Array, rows: Array) -> Array:
    if values.dtype.kind in "OTU":
        return np.array([values[i] if i >= 0 else "" for i in rows.tolist()], object)
    return np.where(rows < 0, np.nan, values[rows]) if (rows < 0).any() else values[rows]


def names_in(text: str) -> set[str]:
    """Return the names of columns (n,) in an expression; raises as `where_mask`."""
    return {node.id for node in ast.walk(_parsed(text)) if isinstance(node, ast.Name)}


def where_mask(text: str, columns: Columns) -> Array:
    """Return (n,) bool: the patches for which an expression holds. Comparisons with NaN do not hold.

    Raises `InvalidInputError` where the expression is not of the grammar, names no column, compares text with
    numbers, or is no condition.

    Examples
    --------
    >>> columns = Columns(
    ...     patch={"mean_db": np.array([-25.0, -10.0, -12.0])},
    ...     array={"polarization": np.array(["VV", "VH"], object)},
    ...     owner=np.array([0, 0, 1]),
    ... )
    >>> where_mask("mean_db > -20 and polarization == 'VV'", columns)
    array([False,  True, False])
    """
    tree = _parsed(text)
    try:
        with np.errstate(invalid="ignore", divide="ignore"):
            found = _value(tree.body, columns, text)
            out = np.asarray(found.at(2, columns))
    except OverflowError as error:
        raise InvalidInputError(f"numbers that fit 64 bits were expected, got {text!r} ({error}).") from None
    except TypeError as error:
        raise InvalidInputError(
            f"numbers compared with numbers and text with text were expected, got {text!r} ({error})."
        ) from None
    if out.dtype != bool:
        raise InvalidInputError(
            f"a condition was expected, got {text!r}. Compare it with something: mean_db > -20."
        )
    mask: Array = np.broadcast_to(out, columns.owner.shape).copy()
    return mask


def _parsed(text: str) -> ast.Expression:
    if not isinstance(text, str) or len(text) > MAX_LENGTH:
        raise InvalidInputError(
            f"an expression of at most {MAX_LENGTH} characters was expected, got {text!r:.80}."
        )
    try:
        tree = ast.parse(text.strip(), mode="eval")
        if _depth(tree) > MAX_DEPTH:
            raise ValueError("too deep")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or type(error).__name__
        raise InvalidInputError(
            f"an expression such as 'incidence < 40 and mean_db > -20' was expected, got {text[:200]!r} ({reason})."
        ) from None
    return tree


def _depth(tree: ast.AST) -> int:
    """Return how deep a tree is, up to just beyond the limit."""
    layer, depth = [tree], 0
    while layer and depth <= MAX_DEPTH:
        layer = [child for node in layer for child in ast.iter_child_nodes(node)]
        depth += 1
    return depth


def _value(node: ast.AST, columns: Columns, text: str) -> _Value:
    match node:
        case ast.Constant(value=bool() | int() | float() | str()):
            return _Value(node.value, 0)
        case ast.Name():
            return _column(node.id, columns)
        case ast.BoolOp():
            return _logic(node, columns, text)
        case ast.UnaryOp(op=ast.Not()):
            value = _condition(_value(node.operand, columns, text), text)
            return _Value(np.logical_not(value.values), value.level)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            value = _value(node.operand, columns, text)
            return _Value(-value.values if isinstance(node.op, ast.USub) else value.values, value.level)
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            sides = _value(node.left, columns, text), _value(node.right, columns, text)
            return _combined(_ARITHMETIC[type(node.op)], *sides, columns)
        case ast.Compare():
            return _compared(node, columns, text)
    raise InvalidInputError(
        "names, numbers, text, comparisons, and, or, not, in and + - * / were expected, got "
        f"{(ast.get_source_segment(text.strip(), node) or type(node).__name__)[:80]!r} in {text[:200]!r}."
    )


def _column(name: str, columns: Columns) -> _Value:
    if name in columns.patch:
        values = columns.patch[name]
        return _Value(values.astype(np.int64) if values.dtype == np.int32 else values, 2)  # products fit
    if name in columns.array:
        return _Value(columns.array[name], 1)
    near = difflib.get_close_matches(name, columns.names, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    if name.endswith("_fraction"):
        meant += (
            " Shares of a layer are columns when they have been found: `sarzarr index STORE --layer NAME`."
        )
    raise InvalidInputError(f"a column among {', '.join(columns.names)} was expected, got {name!r}.{meant}")


def _combined(function: Callable[[Any, Any], Any], one: _Value, two: _Value, columns: Columns) -> _Value:
    level = max(one.level, two.level)
    sides = [one.at(level, columns), two.at(level, columns)]
    kinds = {_is_text(v) for v in sides}
    if len(kinds) > 1:
        raise TypeError("text beside a number")
    try:
        return _Value(function(*sides), level)
    except ZeroDivisionError:
        return _Value(float("nan"), level)


def _is_text(values: Any) -> bool:
    return isinstance(values, str) or (isinstance(values, np.ndarray) and values.dtype.kind in "OTU")


def _condition(value: _Value, text: str) -> _Value:
    if np.asarray(value.values).dtype != bool:
        raise InvalidInputError(
            f"conditions on both sides of and, or and not were expected, got {text[:200]!r}."
        )
    return value


def _logic(node: ast.BoolOp, columns: Columns, text: str) -> _Value:
    function = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
    parts = [_condition(_value(v, columns, text), text) for v in node.values]
    out = parts[0]
    for part in parts[1:]:
        level = max(out.level, part.level)
        out = _Value(function(out.at(level, columns), part.at(level, columns)), level)
    return out


def _compared(node: ast.Compare, columns: Columns, text: str) -> _Value:
    """Return a chain of comparisons: ``a < b <= c`` is ``a < b and b <= c``."""
    out = _Value(True, 0)
    left = node.left
    for op, right in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            found = _among(
                _value(left, columns, text), list(_listed(right, text)), negated=isinstance(op, ast.NotIn)
            )
        elif type(op) in _COMPARISONS:
            sides = _value(left, columns, text), _value(right, columns, text)
            found = _combined(_COMPARISONS[type(op)], *sides, columns)
            found = _Value(np.asarray(found.values, bool), found.level)
        else:
            raise InvalidInputError(
                f"<, <=, >, >=, ==, != or in were expected, got another comparison in {text!r}."
            )
        level = max(out.level, found.level)
        out = _Value(np.logical_and(out.at(level, columns), found.at(level, columns)), level)
        left = right
    return out


def _listed(node: ast.AST, text: str) -> Iterator[Any]:
    if not isinstance(node, ast.Tuple | ast.List | ast.Set):
        raise InvalidInputError(f"after in, a list such as ('VV', 'VH') was expected, got {text[:200]!r}.")
    for item in node.elts:
        match item:
            case ast.Constant(value=bool() | int() | float() | str()):
                yield item.value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())):
                yield -item.operand.value  # type: ignore[attr-defined]
            case _:
                raise InvalidInputError(
                    f"after in, numbers or text in the list were expected, got {text[:200]!r}."
                )


def _among(value: _Value, items: list[Any], *, negated: bool) -> _Value:
    if any(_is_text(value.values) != isinstance(i, str) for i in items):
        raise TypeError("text beside a number")
    values = np.asarray(value.values)
    found = np.zeros(values.shape, bool)
    for item in items:
        found |= np.asarray(values == item, bool)
    return _Value(~found if negated else found, value.level)
