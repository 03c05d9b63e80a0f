"""Scenes of a store as GeoTIFFs again: the way back to the map."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.conventions import Representation
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.export.cog import OutputBand, Raster, write_cog
from sarzarr.grids.crs import LONLAT, crs_name
from sarzarr.grids.georeference import Georeference, bbox_in, check_placed, edge_points, locate
from sarzarr.grids.grid import Grid
from sarzarr.grids.region import GroundRegion
from sarzarr.grids.window import Window
from sarzarr.patches.stored_array import StoredArray
from sarzarr.pixels.bounds import ClipBounds
from sarzarr.pixels.kernels import check_bounds
from sarzarr.pixels.radiometry import denormalize, from_codes, from_db, log_bias, normalize, to_db
from sarzarr.store.catalog import catalog_rows
from sarzarr.store.place import local_folder
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.store.stored_pixels import StoredPixels
from sarzarr.tasks import Progress

REPRESENTATIONS: Final = tuple(r.value for r in Representation if r is not Representation.COMPLEX)
_EDGE: Final = 1e-6
"""Pixels by which bounds may overshoot an edge between pixels through rounding, without a further pixel."""
_OF_THE_STORE: Final = (
    *(cv.NODATA, cv.FILL_VALUE, cv.REPRESENTATION, cv.UNITS),
    *(cv.GRID_MAPPING, cv.COORDINATES, cv.VMIN, cv.VMAX),
)
"""Attributes of a layer that the file says in its own way, or that are of the store."""
_DTYPES: Final = {"float16": "float32", "bool": "uint8"}
"""The dtype in a TIFF of dtypes that GDAL does not have."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """The form that backscatter is written in: representation, clip of normalized values, looks of means."""

    representation: Representation
    """Power, amplitude, dB or normalized."""
    clip: ClipBounds | None = None
    """The dB of 0 and 1 of normalized values; None of others."""
    looks: float | None = None
    """The looks of speckle whose mean in dB predictions are; None: they are taken as they are."""

    def of_db(self, db: Array) -> Array:
        """Return dB, of any shape, in this form."""
        if self.representation == Representation.DB:
            return db
        if self.clip is not None:
            return normalize(db, self.clip)
        return self.of_power(from_db(db))

    def of_power(self, power: Array) -> Array:
        """Return linear power, of any shape, in this form."""
        if self.representation == Representation.POWER:
            return power
        if self.representation == Representation.AMPLITUDE:
            return np.sqrt(power)
        return self.of_db(np.maximum(to_db(power), cv.DB_FLOOR))

    @property
    def tags(self) -> dict[str, str]:
        """The tags of a band in this form."""
        tags = {cv.REPRESENTATION.upper(): str(self.representation)}
        if self.clip is not None:
            tags |= {cv.VMIN.upper(): repr(self.clip.vmin), cv.VMAX.upper(): repr(self.clip.vmax)}
        if self.looks is not None:
            tags["MEAN_OF_POWER_FOR_LOOKS"] = f"{self.looks:g}"
        return tags

    @property
    def units(self) -> str:
        """The unit: dB, or 1."""
        return "dB" if self.representation == Representation.DB else "1"


def export_geotiff(
    store: AnyStore,
    scene: str,
    path: str | Path,
    *,
    representation: str = "db",
    arrays: Sequence[str] | str | None = None,
    window: Window | Sequence[int] | None = None,
    bounds: Any = None,
    clip: tuple[float, float] | None = None,
    looks: float | None = None,
    compress: str = "deflate",
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Write a scene, or a part of it, as a cloud-optimized GeoTIFF, whole or not at all, and return its path.

    A band is an array, float32, NaN (the tagged nodata value) where nothing was measured; CRS and transform, or
    ground control points, are the scene's. Nonpositive power, which was measured, is 0 as power and amplitude, the
    stored floor (-60) in dB, and 0 of normalized values. Overviews are means of linear power, in the representation
    of the file. Layers are written as they are stored, in their dtype and with their nodata value, NaN of floats;
    one that says a ``representation`` in its attributes, as predictions do, is written like backscatter. Tags say
    quantity, representation, sources and facts of the acquisition. A block of 1024 x 2048 pixels of a band is held at
    most.

    Parameters
    ----------
    store, scene
        The store, and the scene's id.
    path
        The file, ``x.tif``; what is there is replaced.
    representation
        ``db``, ``power``, ``amplitude`` (its root), or ``normalized``: [0, 1] of ``clip``.
    arrays
        Names of arrays and layers, the bands in their order; all backscatter if left out, or all layers of a scene of
        layers alone.
    window
        (row, col, height, width) in pixels of the scene, within it; all of it if left out.
    bounds
        (left, bottom, right, top) in longitude and latitude, or ``((left, bottom, right, top), "EPSG:32633")``: the
        pixels that they touch, as far as the scene reaches.
    clip
        dB of 0 and 1 of normalized values; each array's recommended clip if left out.
    looks
        For layers that hold a model's mean in dB of speckle of so many looks: they become the dB of the mean power,
        as `denormalize` has it. Measured backscatter is refused then.
    compress
        ``deflate``, ``zstd``, ``lzw`` or ``none``; lossless, with a predictor.
    progress
        Called with the bytes of pixels that are done.

    Raises
    ------
    InvalidInputError
        The window or bounds are beyond the scene, an option is unknown, or bands do not fit one file, with remedy.
    NotInStoreError, CorruptStoreError, NoRoomError
        A scene, array or layer is not in the store, stored bytes are damaged, or the disk has no room or fails.
    """
    opened, place = open_store(store), local_folder(path, "a GeoTIFF")
    written = written_form(representation, clip, looks)
    bands, located = _bands(opened, scene, arrays, written), opened.placements[scene]
    part = _part(located, scene, window, bounds)
    raster = Raster(
        bands=bands,
        place=_moved(located, part),
        window=part,
        tags=_tags(opened, scene, part, bands),
        compress=compress,
    )
    report = None if progress is None else lambda done, total: progress(Progress(done, total, scene))
    return write_cog(place, raster, report)


def written_form(
    representation: str, clip: tuple[float, float] | None, looks: float | None = None
) -> Written:
    """Return the form that is asked for, clip in dB; `InvalidInputError` where there is none such."""
    if representation not in REPRESENTATIONS:
        raise InvalidInputError(
            f"representation must be one of {', '.join(REPRESENTATIONS)}, got {representation!r}."
        )
    form = Representation(representation)
    if clip is not None and form != Representation.NORMALIZED:
        raise InvalidInputError(
            f"clip= belongs to representation='normalized', got {form.value!r}. Leave it out."
        )
    pair = None if clip is None else ClipBounds(*check_bounds(clip))
    return Written(representation=form, clip=pair, looks=looks)


def _bands(
    store: Store, scene: str, arrays: Sequence[str] | str | None, written: Written
) -> list[OutputBand]:
    """Return the bands of a file, of one dtype and one nodata value."""
    names = _chosen(store, scene, arrays)
    measured = {row["name"]: row for row in catalog_rows(store.rows(scene))} if store.arrays(scene) else {}
    if written.looks is not None and (given := [name for name in names if name in measured]):
        raise InvalidInputError(
            "layers that hold a model's mean in dB were expected for looks=, got measured pixels "
            f"({', '.join(given)}), of which no mean was taken in dB. Leave looks= out, or name the layers with "
            "arrays=."
        )
    bands = [
        _measured(store, measured[name], written) if name in measured else _layer(store, scene, name, written)
        for name in names
    ]
    check_bands(bands)
    return bands


def _chosen(store: Store, scene: str, arrays: Sequence[str] | str | None) -> list[str]:
    """Return the names of the bands, one at least, each of which is in the scene."""
    own, layers = store.arrays(scene), store.layers(scene)
    names = [arrays] if isinstance(arrays, str) else list(own or layers) if arrays is None else list(arrays)
    if unknown := [name for name in names if name not in (*own, *layers)]:
        raise NotInStoreError(
            f"arrays and layers of {scene!r} are {', '.join((*own, *layers))}, got {unknown[0]!r}. Name some of them."
        )
    if not names or len(set(names)) < len(names):
        raise InvalidInputError(f"names of arrays, each once, were expected, got {names}. Name one at least.")
    return names


def _measured(store: Store, row: Mapping[str, Any], written: Written) -> OutputBand:
    """Return the band of an array of backscatter."""
    array, about = StoredArray.of(store.place, row), store.node_attrs(row["scene"], row["name"])
    if written.representation == Representation.NORMALIZED and written.clip is None:
        written = replace(written, clip=store.bounds[row["bounds_key"]].clip)
    tags = {cv.QUANTITY.upper(): row["quantity"], "POLARIZATION": row["polarization"] or ""}
    kept = (
        cv.CALIBRATED_BY,
        cv.DENOISED_BY,
        cv.REASON,
        cv.SOURCE_REPRESENTATION,
        cv.RESAMPLING,
        cv.RESAMPLING_LOOKS,
    )
    # SOURCE_REPRESENTATION in upper case would be taken for what the pixels are
    tags |= {f"sarzarr_{key}": str(about[key]) for key in kept if key in about}
    return OutputBand(
        name=row["name"],
        dtype="float32",
        nodata=math.nan,
        units=written.units,
        tags={k: v for k, v in (tags | written.tags).items() if v},
        read=partial(_read_measured, array, written),
        from_mean=written.of_power,
    )


def _read_measured(array: StoredArray, written: Written, window: Window) -> tuple[Array, Array]:
    """Return a window of an array as it is written, and as linear power, float32 (rows, columns)."""
    codes = array.codes(window.slices)
    z = from_codes(codes) if codes.dtype == np.uint16 else codes.astype(np.float32)
    db = denormalize(z, array.stored)
    power = from_db(db)
    power[array.flags(window.slices) == cv.Flag.NONPOSITIVE] = 0
    linear = written.representation in (Representation.POWER, Representation.AMPLITUDE)
    return (written.of_power(power) if linear else written.of_db(db)), power


def _layer(store: Store, scene: str, name: str, written: Written) -> OutputBand:
    """Return the band of a layer: as it is stored, or, where it says what its numbers are, as backscatter."""
    about, pixels = store.layer_attrs(scene, name), store.pixels(scene, name)
    dtype, nodata = str(pixels.dtype), about.get(cv.NODATA)
    form, is_float = str(about.get(cv.REPRESENTATION, "")), pixels.dtype.kind == "f"
    tags = {
        f"sarzarr_{k}": str(v)
        for k, v in about.items()
        if k not in _OF_THE_STORE and not k.startswith(cv.SARZARR)
    }
    if is_float and form in REPRESENTATIONS:
        stored = _Form.of(about, form, name, written.looks)
        if written.representation == Representation.NORMALIZED and written.clip is None:
            if stored.range is None:
                raise InvalidInputError(
                    f"a clip for normalized values of {name!r} was expected, got none. Pass clip=(vmin, vmax) in dB."
                )
            written = replace(written, clip=stored.range)
        return OutputBand(
            name=name, dtype="float32", nodata=math.nan, units=written.units, tags=tags | written.tags,
            read=partial(_read_formed, pixels, stored, nodata, written), from_mean=written.of_power,
        )  # fmt: skip
    if written.looks is not None:
        raise InvalidInputError(
            f"a layer in dB, or normalized with vmin and vmax, was expected for looks=, got {name!r}, whose "
            f"attributes say {form or 'no representation'}. Leave looks= out."
        )
    is_mean = is_float and about.get(cv.LAYER_KIND) == "continuous"
    return OutputBand(
        name=name,
        dtype=_DTYPES.get(dtype, dtype),
        nodata=math.nan if is_float else nodata,
        units=str(about.get(cv.UNITS, "")),
        tags=tags,
        read=partial(_read_layer, pixels, nodata, is_mean),
    )


@dataclass(frozen=True, kw_only=True)
class _Form:
    """The form of a layer's floats: their representation, the dB of 0 and 1, and what is added to dB."""

    representation: str
    """Power, amplitude, dB or normalized."""
    range: ClipBounds | None
    """dB of 0 and 1; None where nothing says it."""
    bias: float
    """dB that are added."""

    @classmethod
    def of(cls, about: Mapping[str, Any], form: str, name: str, looks: float | None) -> Self:
        """Return the form that the attributes of a layer say."""
        span = (
            ClipBounds(float(about[cv.VMIN]), float(about[cv.VMAX]))
            if {cv.VMIN, cv.VMAX} <= {*about}
            else None
        )
        if form == Representation.NORMALIZED and span is None:
            raise InvalidInputError(
                f"vmin and vmax in dB were expected in the attributes of {name!r}, whose values are normalized, "
                "got none. Make the layer again with them."
            )
        if looks is not None and form not in (Representation.DB, Representation.NORMALIZED):
            raise InvalidInputError(
                f"a mean in dB was expected for looks=, got {name!r} as {form}. Leave looks= out."
            )
        return cls(representation=form, range=span, bias=0.0 if looks is None else log_bias(looks))

    def power(self, values: Array) -> Array:
        """Return float32 of any shape as linear power."""
        if self.representation == Representation.POWER:
            return values
        if self.representation == Representation.AMPLITUDE:
            return values * values
        db = (
            values
            if self.range is None or self.representation == Representation.DB
            else denormalize(values, self.range)
        )
        return from_db(db + np.float32(self.bias))


def _read_formed(
    pixels: StoredPixels, stored: _Form, nodata: float | None, written: Written, window: Window
) -> tuple[Array, Array]:
    """Return a window of a layer that says what its numbers are, as it is written, and as linear power, float32."""
    values, _ = _read_layer(pixels, nodata, True, window)
    power = stored.power(values.astype(np.float32))
    is_same = stored.representation == Representation.DB and not stored.bias
    return (written.of_db(values.astype(np.float32)) if is_same else written.of_power(power)), power


def _read_layer(
    pixels: StoredPixels, nodata: float | None, is_mean: bool, window: Window
) -> tuple[Array, Array | None]:
    """Return a window of a layer, (rows, columns), NaN where floats are nodata; twice, where means are taken."""
    values = pixels.read(window.slices)
    if values.dtype.kind == "f" and nodata is not None and not math.isnan(nodata):
        values = np.where(values == values.dtype.type(nodata), values.dtype.type(math.nan), values)
    return values, values if is_mean else None


def check_bands(bands: Sequence[OutputBand]) -> None:
    """Refuse bands of several dtypes (uint8, float32, ...), or nodata values: a GeoTIFF has one of each."""
    kinds = {(band.dtype, str(band.nodata)): band.name for band in bands}
    if len(kinds) > 1:
        said = ", ".join(f"{band.name} {band.dtype} (nodata {band.nodata})" for band in bands)
        own = " and ".join(f"arrays=[{name!r}]" for name in kinds.values())
        raise InvalidInputError(
            f"bands of one dtype and one nodata value were expected for one file, got {said}. Write a file each: "
            f"{own}."
        )


def _part(place: Georeference, scene: str, window: Window | Sequence[int] | None, bounds: Any) -> Window:
    """Return the window of a scene that is written."""
    whole = Window.of(*place.grid.shape)
    if window is not None and bounds is not None:
        raise InvalidInputError("window= or bounds= was expected, got both. Leave one of them out.")
    if bounds is not None:
        return _window_of_bounds(place, scene, bounds)
    if window is None:
        return whole
    if not isinstance(window, Window):
        numbers = tuple(window)
        if len(numbers) != 4 or any(int(n) != n for n in numbers):
            raise InvalidInputError(
                f"window (row, col, height, width) was expected, got {numbers}. Give 4 whole numbers."
            )
        row, col, height, width = map(int, numbers)
        window = Window(row=row, col=col, height=height, width=width)
    if window.is_empty or window.intersection(whole) != window:
        raise InvalidInputError(
            f"a window within the {whole.height} x {whole.width} pixels of {scene!r} was expected, got row "
            f"{window.row}, col {window.col}, {window.height} x {window.width}. Rows go from 0 to "
            f"{whole.height - 1}, columns from 0 to {whole.width - 1}."
        )
    return window


def _window_of_bounds(place: Georeference, scene: str, bounds: Any) -> Window:
    """Return the pixels of a scene that bounds touch; `InvalidInputError` where there are none."""
    named = replace(place, name=scene)
    check_placed(named, LONLAT)
    region = GroundRegion.of_bounds(bounds)
    (ring,), *_ = region.parts
    (left, bottom), (right, top) = ring.min(axis=0).tolist(), ring.max(axis=0).tolist()
    box = Grid(
        height=1, width=1, transform=(right - left, 0, left, 0, bottom - top, top), crs_wkt=region.crs_wkt
    )
    rows, cols = locate(named, box, *edge_points(box))
    is_placed = np.isfinite(rows) & np.isfinite(cols)
    part = Window(row=0, col=0, height=0, width=0)
    if is_placed.any():
        rows, cols = rows[is_placed], cols[is_placed]
        row, col = math.floor(rows.min() + _EDGE), math.floor(cols.min() + _EDGE)
        height, width = math.ceil(rows.max() - _EDGE) - row, math.ceil(cols.max() - _EDGE) - col
        part = Window(row=row, col=col, height=height, width=width).intersection(Window.of(*place.grid.shape))
    if part.is_empty:
        extent = ", ".join(f"{v:.10g}" for v in bbox_in(named, region.crs_wkt))
        raise InvalidInputError(
            f"bounds that meet {scene!r} were expected, got {bounds!r:.120}. It reaches from {extent} (left, "
            f"bottom, right, top in {crs_name(region.crs_wkt)})."
        )
    return part


def _moved(place: Georeference, part: Window) -> Georeference:
    """Return the place of the pixels of a window of a raster."""
    grid = place.grid.window(row=part.row, col=part.col, height=part.height, width=part.width)
    gcps = tuple((row - part.row, col - part.col, *rest) for row, col, *rest in place.gcps)
    return replace(place, grid=grid, gcps=gcps)  # type: ignore[arg-type]


def _tags(store: Store, scene: str, part: Window, bands: Sequence[OutputBand]) -> dict[str, str]:
    """Return what is said of a whole file: its scene, its sources and the facts of the acquisition.

    GDAL ends a tag's name at a colon: STAC's have an underscore in its place, as `facts_from_fields` reads them.
    """
    about, grid = store.node_attrs(scene), store.grid(scene)
    facts = {key.replace(":", "_"): str(about[key]) for key in cv.ACQUISITION_KEYS if key in about}
    is_part = part != Window.of(*grid.shape)
    forms = {band.tags.get(cv.REPRESENTATION.upper(), "") for band in bands}
    tags = {
        "TIFFTAG_SOFTWARE": f"sarzarr {version('sarzarr')}",
        cv.EXPORTED_SCENE: scene,
        **facts,
        "sarzarr_source_files": ", ".join(map(str, about.get(cv.SOURCE_FILES, ()))),
        "sarzarr_source_hash": str(about.get(cv.SOURCE_HASH, "")),
        "sarzarr_geolocation": str(about.get(cv.GEOLOCATION, "")),
        "sarzarr_window": f"{part.row},{part.col},{part.height},{part.width}" if is_part else "",
    }
    tags[cv.REPRESENTATION.upper()] = forms.pop() if len(forms) == 1 else ""
    return {key: value for key, value in tags.items() if value}
