"""The options of an ingest: how files are understood, and how their pixels are stored."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypedDict, Unpack

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError
from sarzarr.ingestion.layers.layer import Layer, layers_of
from sarzarr.pixels.bounds import Histogram, clip_bounds_from_histogram
from sarzarr.scenes.calibrate import CalibrationChoice
from sarzarr.scenes.products.family import FIELDS
from sarzarr.store.codecs import default_codec
from sarzarr.store.documents import Encoding

MEGABYTE: Final = 1_000_000
STORED: Final = "stored"
COMPANIONS: Final = ("layer", "skip")
METHODS: Final = ("percentile", "fixed", "sigma")


@dataclass(frozen=True, kw_only=True)
class IngestOptions:
    """The choices of an ingest: what files mean, and how their pixels are stored."""

    quantity: str | None = None
    """The quantity of the numbers (``sigma0``, ``dn``, ...), where the files do not say it."""
    representation: str | None = None
    """Their form (``power``, ``amplitude``, ``db``, ...), where the files do not say it."""
    polarizations: Sequence[str] | None = None
    """Names of the bands of each file, in order, whatever it says itself."""
    calibrate: str | None = None
    """The quantity that digital numbers become by their product's calibration: ``sigma0``, ``beta0``, ``gamma0``;
    ``none`` keeps them. What the product has if left out: ``sigma0`` of Sentinel-1 with its annotation."""
    denoise: bool = False
    """Whether thermal noise is subtracted from them, by their product's annotation."""
    id: str | None = None
    """The id of the one scene that the files make; of each scene, where ``{folder}`` or ``{name}`` stands in it."""
    dtype: str | None = None
    """``uint16`` codes, ``float32`` or ``float16``; ``uint16`` if None."""
    codec: str | None = None
    """A name in `sarzarr.store.codecs.CODECS`; the measured best for ``dtype`` if None."""
    shard: int | None = None
    """Rows and columns of a shard, `conventions.SHARD` if None; 0 writes a file a chunk."""
    bounds: str = "stored"
    """``stored``: the whole range of the schema. ``percentile``, ``fixed`` or ``sigma`` make a classic store,
    clipped at ingest to the bounds of each group, which new scenes of the group then share."""
    low: float = 1.0
    """Percentile that becomes 0 in a classic store."""
    high: float = 99.0
    """Percentile that becomes 1."""
    vmin: float = -25.0
    """dB that becomes 0, where bounds are fixed."""
    vmax: float = 5.0
    """dB that becomes 1."""
    k: float = 3.0
    """Standard deviations around the mean, for sigma."""
    crs: str | None = None
    """CRS to bring scenes onto (``EPSG:32633``); each keeps its own grid if left out."""
    pixel_size: float | None = None
    """Width and height of a pixel there, in units of the CRS."""
    like: str | None = None
    """A scene of the store whose grid is taken, pixel for pixel."""
    resampling: str | None = None
    """A method of `sarzarr.grids.warp.plan.METHODS`; what suits the data if left out."""
    exact: bool = False
    """Whether positions between two CRSs are computed pixel by pixel, rather than within 1e-4 pixels."""
    layers: tuple[Layer, ...] = ()
    """Rasters that are kept beside the backscatter as they are: ``{"mask": "labels/*.tif"}``, or what else
    `sarzarr.ingestion.layers.layer.layers_of` takes."""
    companions: str = "layer"
    """``layer``: rasters that a product delivers beside its backscatter (angles of incidence, layover and shadow,
    masks, elevation, area) are layers of its scene, where they lie on its pixels. ``skip``: they are left out."""
    annotation: Sequence[str] = ()
    """What the product's annotation says of every pixel, kept as layers: ``incidence_angle``, degrees, and ``nesz``,
    the noise equivalent sigma0, dB, an array a polarization (``nesz_vv``)."""
    nodata: float | None = None
    """The value of pixels that were not measured, where it is not the file's tag that says it."""
    border: int | None = None
    """Pixels around nodata that are flagged as border, and are not valid; 0 if None."""
    border_noise: bool = False
    """Whether border noise is flagged as border: what is no stronger than thermal noise, by the product's annotation,
    at the edges of Sentinel-1 images from before 13 March 2018 (IPF before 2.90)."""
    full_hash: bool = False
    """Whether known files are recognised by every byte, not by samples."""
    overviews: bool = False
    """Whether overviews of the scenes are made, too: `sarzarr.make_overviews`."""
    replace: bool = False
    """Whether a scene is written anew that is in the store with other pixels, or stored in another way than
    what is asked for here: dtype, codec, shard, border, quantity, names, resampling, as far as they are not None."""
    ignore_space: bool = False
    """Whether to begin though less space is free than what would be written at the most."""
    strict: bool = False
    """Whether one refused file or scene refuses them all, before anything is written; else the others go in."""
    memory: int = 1000 * MEGABYTE
    """Bytes that a worker process may use."""
    threads: int = 2
    """Tasks that a worker process runs at once, for the projected peak."""
    collection: str | None = None
    """The name of the collection of chips that all files go into, however few or mixed; by itself an archive of many
    small ones does, under the name of its folder."""
    scenes: bool = False
    """Whether each file, however small and many, is a scene of its own, or a polarization of one."""

    def __post_init__(self) -> None:
        if self.dtype not in (None, "uint16", "float32", "float16"):
            raise InvalidInputError(f"dtype must be uint16, float32 or float16, got {self.dtype!r}.")
        if self.collection is not None and self.scenes:
            raise InvalidInputError(
                f"a collection or scenes were expected, got collection {self.collection!r} and scenes. Leave one out."
            )
        if self.companions not in COMPANIONS:
            raise InvalidInputError(
                f"companions must be one of {', '.join(COMPANIONS)}, got {self.companions!r}."
            )
        _ = self.calibration  # refuses an unknown choice here
        if unknown := sorted(set(self.annotation) - set(FIELDS)):
            raise InvalidInputError(
                f"expected annotation of {', '.join(FIELDS)}, got {unknown[0]!r}. Choose among them."
            )
        for layer in self.layers:
            if layer.name.lower().startswith(tuple(self.annotation)):
                raise InvalidInputError(
                    f"expected one layer {layer.name!r}, got it by --layer and --annotation. Leave out one."
                )
        if self.bounds not in (STORED, *METHODS):
            raise InvalidInputError(
                f"bounds must be one of {', '.join((STORED, *METHODS))}, got {self.bounds!r}."
            )
        if self.like and (self.crs or self.pixel_size):
            raise InvalidInputError(
                f"a grid by scene or by CRS and pixel size was expected, got both: {self.like!r} and "
                f"{self.crs or self.pixel_size!r}. Leave one out."
            )
        if self.pixel_size is not None and not self.pixel_size > 0:
            raise InvalidInputError(f"pixel_size must be positive, got {self.pixel_size}.")
        if self.border is not None and self.border < 0:
            raise InvalidInputError(f"border must be 0 or more pixels, got {self.border}.")
        if self.resampling is not None and not self.has_grid:
            raise InvalidInputError(
                f"a grid to resample onto was expected, got resampling {self.resampling!r} alone. Pass --crs with "
                "--pixel-size, or --grid like:SCENE, or leave --resampling out."
            )
        if self.exact and not (self.has_grid or self.layers):
            raise InvalidInputError(
                "a grid to place pixels on was expected, got --exact alone. Pass --crs with --pixel-size, or "
                "--grid like:SCENE, or leave --exact out."
            )
        if self.border_noise and self.has_grid:
            raise InvalidInputError(
                "expected the image's own edges to find border noise, got another grid. Leave out the grid, or say "
                "how many pixels are border with --border N."
            )
        if (self.border or self.border_noise) and self.bounds not in (STORED, "fixed"):
            raise InvalidInputError(
                f"bounds that do not depend on pixels were expected with a border, got {self.bounds!r}, "
                "found with the border's pixels in it. Pass --bounds fixed, or leave --bounds out."
            )
        if self.bounds != STORED:
            clip_bounds_from_histogram(Histogram.empty(), **self.method)  # refuses what is out of range
        _ = self.encoding  # refuses an unknown codec or shard here, where it was said

    def changed(self, **changes: Unpack["IngestKeywords"]) -> "IngestOptions":
        """Return these options with others in their place, each of the type and unit (pixels, bytes, dB) it has."""
        given: dict[str, Any] = {**changes}
        return replace(self, **given | {"layers": layers_of(given.get("layers", self.layers))})

    @property
    def has_grid(self) -> bool:
        """Whether scenes are brought onto another grid than their own."""
        return bool(self.crs or self.pixel_size or self.like)

    @property
    def calibration(self) -> CalibrationChoice:
        """The wish for linear power of digital numbers."""
        return CalibrationChoice(
            calibrate=self.calibrate, denoise=self.denoise, border_noise=self.border_noise
        )

    @property
    def encoding(self) -> Encoding:
        """The dtype, codec and shard that pixels are written with."""
        dtype = self.dtype or "uint16"
        shard = cv.SHARD if self.shard is None else self.shard
        return Encoding(dtype=dtype, codec=self.codec or default_codec(dtype, shard), shard=shard)

    @property
    def method(self) -> dict[str, Any]:
        """Arguments of `clip_bounds_from_histogram` for a classic store: percentiles, dB and standard deviations."""
        numbers = {
            "low_pct": self.low,
            "high_pct": self.high,
            "vmin": self.vmin,
            "vmax": self.vmax,
            "k": self.k,
        }
        return {"method": self.bounds, **numbers}


class IngestKeywords(TypedDict, total=False):
    """Fields of `IngestOptions` with its units (pixels, bytes, dB), for editors and type checkers."""

    quantity: str | None
    representation: str | None
    polarizations: Sequence[str] | None
    calibrate: str | None
    denoise: bool
    id: str | None
    dtype: str | None
    codec: str | None
    shard: int | None
    bounds: str
    low: float
    high: float
    vmin: float
    vmax: float
    k: float
    crs: str | None
    pixel_size: float | None
    like: str | None
    resampling: str | None
    exact: bool
    layers: Mapping[str, Any] | Iterable[Layer | str]
    companions: str
    annotation: Sequence[str]
    nodata: float | None
    border: int | None
    border_noise: bool
    full_hash: bool
    overviews: bool
    replace: bool
    ignore_space: bool
    strict: bool
    memory: int
    threads: int
    collection: str | None
    scenes: bool
