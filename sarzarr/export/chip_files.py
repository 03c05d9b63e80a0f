"""Single chips of a collection as GeoTIFFs again, with their georeference."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.conventions import Representation
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.export.cog import OutputBand, Raster, write_cog
from sarzarr.export.geotiff import Written, check_bands, written_form
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.window import Window
from sarzarr.pixels.bounds import ClipBounds
from sarzarr.pixels.radiometry import denormalize, from_codes, from_db
from sarzarr.store.chip_columns import chip_times
from sarzarr.store.collections import ABSENT, ChipArray, ChipLayer, Collection, open_collection
from sarzarr.store.place import local_folder
from sarzarr.store.store import AnyStore


def export_chip(
    store: AnyStore,
    collection: str,
    chip: str | int,
    path: str | Path,
    *,
    representation: str = "db",
    arrays: Sequence[str] | str | None = None,
    clip: tuple[float, float] | None = None,
) -> Path:
    """Write a chip of a collection as a GeoTIFF, whole or not at all, and return its path.

    A band is an array of backscatter, float32, NaN where nothing was measured; or a layer, as it is stored. CRS,
    transform and size are the chip's own. Tags say source, time, quantity and facts of the acquisition.

    Parameters
    ----------
    store, collection, chip
        The store, the collection's name, and the chip's id or its number.
    path
        The file, ``x.tif``; what is there is replaced.
    representation
        ``db``, ``power``, ``amplitude``, or ``normalized``: [0, 1] of ``clip``.
    arrays
        Names of arrays, or of layers, the bands in their order; all backscatter that the chip has if left out.
    clip
        dB of 0 and 1 of normalized values; each array's recommended clip if left out.

    Raises `NotInStoreError` where a collection, chip, array or layer is not in the store; `InvalidInputError` where
    an option is unknown, or bands do not fit one file; `CorruptStoreError`, `NoRoomError`.
    """
    made, place = open_collection(store, collection), local_folder(path, "a GeoTIFF")
    row, form = made.number(chip), written_form(representation, clip)
    held = [a.name for a in made.contents.arrays if made.table[f"valid_{a.name}"].values[row] != ABSENT]
    names = [arrays] if isinstance(arrays, str) else held if arrays is None else list(arrays)
    if not names or len(set(names)) < len(names):
        raise InvalidInputError(f"names of arrays, each once, were expected, got {names}. Name one at least.")
    bands = [_band(made, row, name, form, held) for name in names]
    check_bands(bands)
    table, grid = made.table, made.grid(row)
    facts = made.contents.facts[int(table["facts"].values[row])]
    # GDAL ends a tag's name at a colon.
    tags = {
        key.replace(":", "_"): str(facts[key]) for key in cv.ACQUISITION_KEYS if facts.get(key) is not None
    }
    tags |= {
        "sarzarr_chip": made.ids[row],
        "sarzarr_source": str(table["source"].values[row]).replace("\t", "="),
    }
    if when := str(chip_times(table["time"].values[row : row + 1])[0]):
        tags["sarzarr_time"] = when
    forms = {band.tags.get(cv.REPRESENTATION.upper(), "") for band in bands}
    if len(forms) == 1 and (said := forms.pop()):
        tags[cv.REPRESENTATION.upper()] = said
    raster = Raster(
        bands=bands,
        place=Georeference(grid=grid),
        window=Window.of(*grid.shape),
        tags={"TIFFTAG_SOFTWARE": f"sarzarr {version('sarzarr')}", **tags},
    )
    return write_cog(place, raster)


def _band(made: Collection, row: int, name: str, form: Written, held: Sequence[str]) -> OutputBand:
    """Return the band of an array or a layer of a chip; `NotInStoreError` where the chip has none of that name."""
    layers = {layer.name: i for i, layer in enumerate(made.contents.layers)}
    bits = int(made.table["layers"].values[row])
    known = [*held, *(layer for layer, bit in layers.items() if bits >> bit & 1)]
    if name not in known:
        raise NotInStoreError(
            f"arrays and layers of {made.ids[row]!r} are {', '.join(known)}, got {name!r}. Name some of them."
        )
    if name in layers:
        return _layer(made, row, made.layer(name))
    array = made.array(name)
    if form.representation == Representation.NORMALIZED and form.clip is None:
        form = replace(form, clip=made.store.bounds[array.bounds_key].clip)
    tags = {cv.QUANTITY.upper(): array.quantity, "POLARIZATION": array.polarization or "", **form.tags}
    return OutputBand(
        name=name,
        dtype="float32",
        nodata=math.nan,
        units=form.units,
        tags={key: value for key, value in tags.items() if value},
        read=partial(_read, made, row, array, form),
        from_mean=form.of_power,
    )


def _read(made: Collection, row: int, array: ChipArray, form: Written, window: Window) -> tuple[Array, Array]:
    """Return a window of an array as it is written, and as linear power, float32 (rows, columns)."""
    stored = made.stored(row, array.name)[window.slices]
    values = from_codes(stored) if stored.dtype == np.uint16 else stored.astype(np.float32)
    db = denormalize(values, ClipBounds(array.vmin, array.vmax))
    power = from_db(db)
    power[made.stored(row, array.flags)[window.slices] == cv.Flag.NONPOSITIVE] = 0
    linear = form.representation in (Representation.POWER, Representation.AMPLITUDE)
    return (form.of_power(power) if linear else form.of_db(db)), power


def _layer(made: Collection, row: int, layer: ChipLayer) -> OutputBand:
    """Return the band of a layer, as it is stored."""

    def read(window: Window) -> tuple[Array, None]:
        return made.stored(row, layer.name)[window.slices], None

    is_float = np.dtype(layer.dtype).kind == "f"
    return OutputBand(
        name=layer.name,
        dtype={"float16": "float32", "bool": "uint8"}.get(layer.dtype, layer.dtype),
        nodata=math.nan if is_float and layer.nodata is None else layer.nodata,
        units=layer.units,
        tags={"sarzarr_layer_kind": layer.kind},
        read=read,
    )
