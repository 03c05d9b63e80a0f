"""Results of patches, put back in place: patches as they are delivered, each with its scene, row and column."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError

COLUMNS: Final = ("scene", "row", "col")


@dataclass(frozen=True, kw_only=True, eq=False)
class Placing:
    """The place of one patch in its scene."""

    scene: str
    """The scene's id."""
    row: int
    """First row, pixels."""
    col: int
    """First column, pixels."""
    turn: int
    """The operation of `sarzarr.pixels.turns` that it was delivered under; 0 for none."""
    shape: tuple[int, int] | None
    """(rows, columns) of the patch as it was delivered; None where nothing tells."""
    flags: Array | None
    """(rows, columns) uint8 under the same operation; None where they were not delivered."""


def placed(results: Any, table: Any) -> Iterator[tuple[Any, Placing]]:
    """Yield each patch's result with its place.

    ``results`` are those of all patches, one after another, or an iterable of batches of them, and ``table`` has a
    row for each: a `pandas.DataFrame`, a Dataset or a mapping. Without it, batches are pairs of results and of the
    dict that the reader delivered with them.

    Raises `InvalidInputError` where a table lacks a column, has no row for each result, is of scaled crops, or is of
    several arrays, dates or stores, whose results would lie one upon another.
    """
    owners = dict[tuple[str, str], str]()
    if table is not None:
        yield from _joined(results, table, owners)
        return
    for pair in results:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Mapping)):
            raise InvalidInputError(
                "pairs of results and the dict of their batch were expected without a table, got "
                f"{type(pair).__name__}. Pass the table, or ((model(b['image']), b) for b in reader), the reader "
                "made with with_meta=True."
            )
        yield from _joined(*pair, owners)


def _joined(results: Any, table: Any, owners: dict[tuple[str, str], str]) -> Iterator[tuple[Any, Placing]]:
    """Yield results with the places of a table's rows."""
    places = _rows(table, owners)
    for result in _each(results):
        if (place := next(places, None)) is None:
            raise InvalidInputError(
                "a row of the table for each patch was expected, got more patches than rows."
            )
        yield result, place
    if next(places, None) is not None:
        raise InvalidInputError(
            "a patch for each row of the table was expected, got fewer patches than rows."
        )


def _each(results: Any) -> Iterator[Any]:
    """Yield single results of an array (n, ...), a list of dicts, or an iterable of such batches."""
    if hasattr(results, "shape"):
        yield from results
        return
    for result in results:
        if isinstance(result, Mapping):
            yield result
        elif hasattr(result, "shape") or isinstance(result, list | tuple):
            yield from result
        else:
            raise InvalidInputError(
                f"arrays of patches, or dicts of boxes, were expected, got {type(result).__name__}."
            )


def _rows(table: Any, owners: dict[tuple[str, str], str]) -> Iterator[Placing]:
    """Yield the places that a table tells, in its order; ``owners`` has the array and store of each scene so far."""
    if lacking := [name for name in COLUMNS if name not in table]:
        raise InvalidInputError(
            f"a table with the columns scene, row and col was expected, got none named {lacking[0]!r}. Take "
            "PatchReader(..., with_meta=True), PatchReader.table() or Store.patches()."
        )
    scenes = np.asarray(table["scene"], object)
    if scenes.ndim != 1:
        raise InvalidInputError(
            "patches of one date each were expected, got a stack's. Put back each date by itself."
        )
    for name in ("array", "name", "store"):
        told = np.asarray(table[name], object).tolist() if name in table else []
        for scene, owner in zip(scenes.tolist(), map(str, told), strict=False):
            if (known := owners.setdefault((scene, name), owner)) != owner:
                raise InvalidInputError(
                    f"patches of one {'store' if name == 'store' else 'array'} were expected of {scene!r}, got "
                    f"those of {known} and {owner}, which would lie one upon another. Read with polarizations=, or "
                    "put back the rows of each by themselves."
                )
    if "span" in table:
        spans = ", ".join(map(str, np.unique(np.asarray(table["span"])).tolist()[:3]))
        raise InvalidInputError(
            f"patches of the scene's own pixels were expected, got crops scaled from windows of {spans} pixels. Read "
            "without scale=."
        )
    numbers = zip(
        *(np.asarray(table[name]).astype(np.int64).tolist() for name in ("row", "col")), strict=True
    )
    turns = np.asarray(table["turn"]).tolist() if "turn" in table else [0] * len(scenes)
    flags: Any = [None] * len(scenes)
    if (
        "flags" in table and getattr(table["flags"], "ndim", 3) > 2
    ):  # a column of that name has names of arrays
        flags = table["flags"]
    for scene, (row, col), turn, codes in zip(scenes.tolist(), numbers, turns, flags, strict=True):
        yield Placing(
            scene=str(scene), row=row, col=col, turn=int(turn), shape=_shape(table), flags=_flags(codes)
        )


def _shape(table: Any) -> tuple[int, int] | None:
    """Return (rows, columns) of the patches of a table: those of its images, or as its attributes say."""
    if "image" in table:
        rows, cols = table["image"].shape[-2:]
        return int(rows), int(cols)
    size = getattr(table, "attrs", {}).get("size")
    return None if size is None else (int(size), int(size))


def _flags(codes: Any) -> Array | None:
    """Return the flags (rows, columns) of a patch of one channel or more: the worst of them."""
    if codes is None:
        return None
    own = np.asarray(codes)
    worst: Array = own.reshape(-1, *own.shape[-2:]).max(axis=0)
    return worst
