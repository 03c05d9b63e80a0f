"""Patches of results, stitched into one array a scene."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.export.place_patches import placed
from sarzarr.grids.dataset import grid_coordinates, handed_out
from sarzarr.grids.grid import Grid
from sarzarr.pixels.turns import apply, inverse
from sarzarr.store.free_values import extreme
from sarzarr.store.store import AnyStore, open_store

BLENDS: Final = ("mean", "majority", "last")
MOST_CLASSES: Final = 64
"""Classes that are counted for a majority."""


def stitch(
    patches: Any,
    table: Any = None,
    *,
    store: AnyStore,
    blend: str | None = None,
    nodata: int | None = None,
) -> dict[str, xr.DataArray]:
    """Put patches of results back in place: one array a scene, (K, rows, columns), or (rows, columns), by scene id.

    Coordinates and CRS are the scene's. What lies beyond the scene, as padding does, is cut off; a patch that was
    delivered turned is turned back, by the ``turn`` of its batch. Pixels that no patch covers are NaN, and those of
    integers ``nodata``. Where patches come with ``flags``, pixels that were not measured count as not covered; NaN
    in a patch likewise. Batches are taken one after another: what is held is a batch and the arrays, while they are
    made 12 bytes per pixel and channel of floats.

    Parameters
    ----------
    patches
        (N, K, h, w) or (N, h, w), numbers or classes of any dtype; or an iterable of such batches; or, without
        ``table``, of pairs: ``((model(b["image"]), b) for b in reader)`` of a reader ``with_meta=True``.
    table
        A row for each patch, in their order, with ``scene``, ``row`` and ``col`` (top-left pixel): those of
        ``PatchReader.table()`` or ``Store.patches()``, or a batch's dict.
    store
        The store that the patches are from.
    blend
        What overlaps become: the ``mean`` (floats), the ``majority`` of classes (integers; of as many, the lowest),
        or the ``last`` one. By the dtype if left out.
    nodata
        The integer of pixels that no patch covers; the dtype's lowest, or highest if it has no sign, if left out.

    Raises `InvalidInputError` where patches and table do not fit, patches differ in shape, or a class is ``nodata``;
    `NotInStoreError` where a scene is not in the store.
    """
    opened, made = open_store(store), dict[str, _Canvas]()
    if blend is not None and blend not in BLENDS:
        raise InvalidInputError(f"blend must be one of {', '.join(BLENDS)}, got {blend!r}.")
    for result, place in placed(patches, table):
        patch = np.asarray(result)
        if patch.ndim not in (2, 3) or patch.dtype.kind not in "iufb":
            raise InvalidInputError(
                f"patches (K, h, w) or (h, w) of real numbers were expected, got {patch.shape} of {patch.dtype}."
            )
        if place.shape is not None and patch.shape[-2:] != place.shape:
            raise InvalidInputError(
                f"patches of {place.shape[0]} x {place.shape[1]} pixels were expected, as the table has them, got "
                f"{patch.shape}. Bring them to the pixels of their scene first."
            )
        if place.scene not in made:
            made[place.scene] = _Canvas.of(opened.grid(place.scene), patch, blend, nodata)
        flags = None if place.flags is None else apply(inverse(place.turn), place.flags)
        made[place.scene].add(apply(inverse(place.turn), patch), place.row, place.col, flags)
    if not made:
        raise InvalidInputError("at least one patch was expected, got none.")
    return {scene: canvas.result() for scene, canvas in sorted(made.items())}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Canvas:
    """A scene's array while patches come in."""

    grid: Grid
    """The scene's grid."""
    blend: str
    """One of `BLENDS`."""
    nodata: int | float
    """The value of what no patch covers."""
    total: Array
    """(K, rows, columns): sums float64 of a mean; else the values."""
    count: Array
    """(K, rows, columns) uint32 of patches that cover a pixel, for a mean; else (0,)."""
    ndim: int
    """Two, where patches have no channels, or three."""
    dtype: np.dtype[Any]
    """The dtype of patches."""
    votes: dict[int, Array] = field(default_factory=dict)
    """(K, rows, columns) uint16 for each class, for a majority."""

    @classmethod
    def of(cls, grid: Grid, patch: Array, blend: str | None, nodata: int | None) -> "_Canvas":
        """Return an empty array for patches like one (K, h, w) or (h, w)."""
        dtype = np.dtype(np.uint8) if patch.dtype.kind == "b" else patch.dtype
        is_float = dtype.kind == "f"
        how = blend or ("mean" if is_float else "majority")
        if (how == "mean") != is_float and how != "last":
            raise InvalidInputError(
                f"blend='mean' is of floats and blend='majority' of classes, got {how!r} of {dtype}. Use the "
                "other, or 'last'."
            )
        fill = np.nan if is_float else int(extreme(str(dtype))) if nodata is None else nodata
        shape = (*(patch.shape[:-2] or (1,)), *grid.shape)
        total = np.zeros(shape) if how == "mean" else np.full(shape, fill, dtype)
        count = np.zeros(shape if how == "mean" else (0,), np.uint32)
        return cls(grid=grid, blend=how, nodata=fill, total=total, count=count, ndim=patch.ndim, dtype=dtype)

    def add(self, patch: Array, row: int, col: int, flags: Array | None) -> None:
        """Add a patch whose first pixel is that of a row and a column of the scene."""
        values = patch if patch.ndim == 3 else patch[None]
        if patch.ndim != self.ndim or len(values) != len(self.total):
            raise InvalidInputError(
                f"patches of {len(self.total)} channels were expected, got {patch.shape}."
            )
        rows = slice(max(row, 0), max(min(row + values.shape[1], self.grid.height), 0))
        cols = slice(max(col, 0), max(min(col + values.shape[2], self.grid.width), 0))
        own = (slice(rows.start - row, rows.stop - row), slice(cols.start - col, cols.stop - col))
        if rows.start >= rows.stop or cols.start >= cols.stop:
            raise InvalidInputError(
                f"patches that meet their scene of {self.grid.height} x {self.grid.width} pixels were expected, "
                f"got row {row}, col {col}. Check the table."
            )
        here, values = (slice(None), rows, cols), values[:, *own]
        covers = np.ones(values.shape, bool) if self.dtype.kind != "f" else ~np.isnan(values)
        if flags is not None:
            covers &= cv.Flag.is_valid(flags[own])
        if self.dtype.kind != "f" and (values[covers] == self.nodata).any():
            raise InvalidInputError(
                f"classes other than nodata={self.nodata} were expected, got it. Pass another nodata=."
            )
        if self.blend == "mean":
            self.total[here] += np.where(covers, values, 0)
            self.count[here] += covers
        elif self.blend == "last":
            np.copyto(self.total[here], values.astype(self.dtype), where=covers)
        else:
            self._vote(here, values, covers)

    def _vote(self, here: Any, values: Array, covers: Array) -> None:
        for value in np.unique(values[covers]).tolist():
            if value not in self.votes and len(self.votes) == MOST_CLASSES:
                raise InvalidInputError(
                    f"at most {MOST_CLASSES} classes were expected for a majority, got more. Pass blend='last'."
                )
            counted = self.votes.setdefault(int(value), np.zeros(self.total.shape, np.uint16))
            counted[here] += covers & (values == value)

    def result(self) -> xr.DataArray:
        """Return the array with the scene's coordinates and CRS."""
        values = self.total
        if self.blend == "mean":
            with np.errstate(invalid="ignore"):
                values = np.divide(self.total, self.count, out=self.total)
            values = values.astype(self.dtype, copy=False)
        most = np.zeros(self.total.shape, np.uint16) if self.votes else None
        for value, counted in sorted(self.votes.items()):
            if most is not None:
                np.copyto(values, value, where=counted > most)
                np.maximum(most, counted, out=most)
        dims, data = (("channel", "y", "x"), values) if self.ndim == 3 else (("y", "x"), values[0])
        about = {} if self.dtype.kind == "f" else {cv.NODATA: self.nodata}
        variable = {"stitched": (dims, data, about)}
        stitched: xr.DataArray = handed_out(xr.Dataset(variable, grid_coordinates(self.grid)))["stitched"]
        return stitched
