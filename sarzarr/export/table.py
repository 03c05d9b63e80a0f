"""Scenes and layers of one lattice as a table: a row a pixel that somebody measured, in Parquet."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, MissingExtraError
from sarzarr.files import whole_file
from sarzarr.grids.crs import crs_name, is_same_crs
from sarzarr.grids.georeference import in_turn_of
from sarzarr.grids.grid import Grid
from sarzarr.patches.stored_array import StoredArray
from sarzarr.pixels.radiometry import denormalize, from_codes, from_db
from sarzarr.store.catalog import catalog_rows
from sarzarr.store.place import local_folder
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.store.stored_pixels import StoredPixels
from sarzarr.tasks import Progress

BLOCK_BYTES: Final = 200_000_000
"""Bytes of a block of rows, with what Parquet makes of them, at the most; one row of pixels is held in any case."""
_PIXEL_BYTES: Final = 48
"""Bytes of a pixel beside those of its columns: y and x, and copies of them."""
_HEIGHTS: Final = tuple(cv.CHUNK >> i for i in range(9))
"""Rows of a block: those of a chunk, or the largest part of it that fits."""
Window = tuple[slice, slice]
"""Rows and columns, pixels."""


@dataclass(frozen=True, kw_only=True)
class _Column:
    """One array, or layer, of a scene as a column of the table."""

    name: str
    """Its name there."""
    scene: str
    """The scene's id."""
    array: str
    """The name in its scene group."""
    units: str
    """The unit of its numbers; empty where nothing tells."""
    dtype: np.dtype[Any]
    """The dtype of its values."""
    read: Callable[[Window], tuple[Array, Array]]
    """From a window of the array, (rows, columns) of values, and of bool: which of them are data."""
    place: tuple[int, int]
    """Row and column of its first pixel on the lattice of the first scene."""
    shape: tuple[int, int]
    """(rows, columns)."""

    def within(self, first: tuple[int, int], shape: tuple[int, int]) -> tuple[Array, Array]:
        """Return (rows, columns) of values, and which are data, of a rectangle of the lattice; none is beyond it."""
        values, is_data = np.zeros(shape, self.dtype), np.zeros(shape, bool)
        low = np.maximum(first, self.place)
        high = np.minimum(np.add(first, shape), np.add(self.place, self.shape))
        if (low < high).all():
            ends = (low - self.place, high - self.place), (low - first, high - first)
            own, here = (
                tuple(slice(*span) for span in zip(*map(np.ndarray.tolist, end), strict=True)) for end in ends
            )
            values[here], is_data[here] = self.read((own[0], own[1]))
        return values, is_data


def export_table(
    store: AnyStore,
    output: str | Path,
    scenes: Sequence[str] | str | None = None,
    *,
    db: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Write scenes with their layers as one Parquet table, whole or not at all, and return its path.

    A row is a pixel that any column has data of: the outer join of all of them on pixel centres. Columns are ``y``
    and ``x``, float64 in units of the CRS (index + 0.5 without one), ascending in that order; then those of each
    scene: backscatter as linear power, float32, or in dB (``vv_db``), and layers in their stored dtype. Null says no
    data; zeros are kept. A column has the array's own name where no other scene has it, else ``SCENE_NAME``. The CRS
    is ``crs_wkt`` of the schema's metadata, and each field tells its scene and array. A block of rows is a row group,
    and all that is held.

    Parameters
    ----------
    store
        The store.
    output
        The file, ``x.parquet``; what is there is replaced.
    scenes
        Ids; all scenes if left out. Their extents may differ, their lattice may not.
    db
        Whether backscatter is written in dB; nonpositive power is at the stored floor then.
    progress
        Called with the bytes of the columns that are done.

    Raises
    ------
    InvalidInputError
        Scenes do not share one lattice of north-up pixels, or there is none. Says the remedy.
    NotInStoreError, CorruptStoreError, MissingExtraError
        A scene is not in the store, stored bytes are damaged, or pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError(
            "pyarrow was expected, got none. Install it: pip install 'sarzarr[table]'."
        ) from None
    opened, place = open_store(store), local_folder(output, "a table").absolute()
    names = [scenes] if isinstance(scenes, str) else list(opened.scenes if scenes is None else scenes)
    if not names:
        raise InvalidInputError("at least one scene was expected, got none. Ingest some first.")
    grid, columns = opened.grid(names[0]), _columns(opened, list(dict.fromkeys(names)), db=db)
    fields = [pa.field(axis, pa.float64(), nullable=False) for axis in ("y", "x")]
    for column in columns:
        about = {"scene": column.scene, "array": column.array, "units": column.units}
        fields.append(pa.field(column.name, pa.from_numpy_dtype(column.dtype), metadata=about))
    schema = pa.schema(fields, metadata={"crs_wkt": grid.crs_wkt or ""})
    by = [parquet.SortingColumn(0), parquet.SortingColumn(1)]
    place.parent.mkdir(parents=True, exist_ok=True)
    total = sum(math.prod(column.shape) * column.dtype.itemsize for column in columns)
    with (
        whole_file(place) as partial_file,
        parquet.ParquetWriter(partial_file, schema, compression="zstd", sorting_columns=by) as writer,
    ):
        for done, block in _blocks(grid, columns):
            if len(block[0][0]):
                arrays = [pa.array(values, mask=~is_data) for values, is_data in block]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=len(arrays[0]))
            if progress is not None:
                progress(Progress(round(done * total), total, place.name))
    return place


def _columns(store: Store, scenes: Sequence[str], *, db: bool) -> list[_Column]:
    """Return the columns of scenes: of each its arrays of backscatter, then its layers."""
    out = list[_Column]()
    owners = Counter(name for scene in scenes for name in (*store.arrays(scene), *store.layers(scene)))
    for scene in scenes:
        place, shape = _place(store, scenes[0], scene), store.grid(scene).shape
        shared: dict[str, Any] = {"scene": scene, "place": place, "shape": shape}
        names = {name: name if owners[name] == 1 else f"{scene}_{name}" for name in owners}
        for row in catalog_rows(store.rows(scene)) if store.arrays(scene) else ():
            array = StoredArray.of(store.place, row)
            name, units = f"{names[array.name]}_db" if db else names[array.name], "dB" if db else "1"
            read = partial(_read_backscatter, array, db)
            out.append(
                _Column(name=name, array=array.name, units=units, dtype=np.dtype("f4"), read=read, **shared)
            )
        for layer in store.layers(scene):
            pixels, attrs = store.pixels(scene, layer), store.layer_attrs(scene, layer)
            read = partial(_read_layer, pixels, attrs.get(cv.NODATA))
            units, dtype = str(attrs.get(cv.UNITS, "")), pixels.dtype
            out.append(_Column(name=names[layer], array=layer, units=units, dtype=dtype, read=read, **shared))
    twice = [name for name, n in Counter(["y", "x", *(column.name for column in out)]).items() if n > 1]
    if twice:
        raise InvalidInputError(
            f"columns of names of their own were expected, got {twice[0]!r} twice. Ingest one of them with --id."
        )
    return out


def _place(store: Store, first: str, scene: str) -> tuple[int, int]:
    """Return the row and column of a scene's first pixel on the lattice of the first scene."""
    reference, grid = store.grid(first), store.grid(scene)
    if first == scene and not grid.is_rotated:
        return 0, 0
    if grid.is_rotated or not grid.is_georeferenced:
        got = (
            "a rotated affine" if grid.is_rotated else "some that no affine ties to the ground, beside others"
        )
        raise InvalidInputError(
            f"north-up pixels of {scene!r} were expected, got {got}. Ingest it with --crs and --pixel-size."
        )
    is_same = is_same_crs(reference.crs_wkt, grid.crs_wkt)
    offset = reference.whole_pixel_offset(in_turn_of(grid, reference)) if is_same else None
    if offset is None:
        raise InvalidInputError(
            f"{scene!r} on the pixels of {first!r} was expected, {_lattice(reference)}, got {_lattice(grid)}. "
            f"Ingest it onto them: --grid like:{first} --id NAME."
        )
    return offset


def _lattice(grid: Grid) -> str:
    across, down = grid.pixel_size
    origin = f"({grid.transform[2]:.10g}, {grid.transform[5]:.10g})"
    return f"{across:g} x {down:g} from {origin} in {crs_name(grid.crs_wkt)}"


def _read_backscatter(array: StoredArray, db: bool, window: Window) -> tuple[Array, Array]:
    """Return a window of an array, float32 linear power or dB, and which of it was measured."""
    codes = array.codes(window)
    z = from_codes(codes) if codes.dtype == np.uint16 else codes.astype(np.float32)
    values = denormalize(z, array.stored)
    if not db:
        values = np.where(array.flags(window) == cv.Flag.NONPOSITIVE, np.float32(0), from_db(values))
    return values, ~np.isnan(z)


def _read_layer(pixels: StoredPixels, nodata: float | None, window: Window) -> tuple[Array, Array]:
    """Return a window of a layer as it is stored, and which of it is data."""
    values = pixels.read(window)
    is_data = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    return values, is_data if nodata is None else is_data & (values != values.dtype.type(nodata))


def _blocks(grid: Grid, columns: Sequence[_Column]) -> Iterator[tuple[float, list[tuple[Array, Array]]]]:
    """Yield, block by block in the order of y and x, the share of rows that is done, and values and validity (n,).

    Blocks are whole rows of chunks, or parts of them where the pixels are too many.
    """
    ends = [(np.array(c.place), np.add(c.place, c.shape)) for c in columns]
    (top, left), (bottom, right) = (np.array(v).T for v in zip(*ends, strict=True))
    top, left, bottom, right = int(top.min()), int(left.min()), int(bottom.max()), int(right.max())
    width = right - left
    row_bytes = width * (_PIXEL_BYTES + sum(3 * c.dtype.itemsize + 3 for c in columns))
    rows = next((n for n in _HEIGHTS if n * row_bytes <= BLOCK_BYTES), 1)
    a, _, c, _, e, f = grid.transform if grid.is_georeferenced else Grid.transform
    xs = (0.5 * a + c) + a * np.arange(left, right)
    down, across = slice(None, None, 1 if e > 0 else -1), slice(None, None, 1 if a > 0 else -1)
    starts = range(top // rows * rows, bottom, rows)
    for start in starts[down]:
        first, shape = (max(start, top), left), (min(start + rows, bottom) - max(start, top), width)
        ys = (0.5 * e + f) + e * np.arange(first[0], first[0] + shape[0])
        read = [column.within(first, shape) for column in columns]
        is_kept = np.any([is_data for _, is_data in read], axis=0)[down, across]
        at = np.nonzero(is_kept)
        everywhere = np.ones(at[0].size, bool)
        block = [(ys[down][at[0]], everywhere), (xs[across][at[1]], everywhere)]
        block += [(values[down, across][is_kept], is_data[down, across][is_kept]) for values, is_data in read]
        done = abs(start - starts[down][0]) + rows
        yield min(done / max(bottom - top, 1), 1.0), block
