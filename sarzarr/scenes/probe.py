"""Probe a GeoTIFF: its header and a small fixed sample, and what its numbers are."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sarzarr import conventions as cv
from sarzarr.errors import UnsupportedRasterError
from sarzarr.pixels.calibration import Calibration, Noise
from sarzarr.rasters import FileStamp, Unmeasured, local_file
from sarzarr.scenes.acquisition import Acquisition, facts_from_fields, merge_facts
from sarzarr.scenes.bands import MAX_SAID, Band, bands_of, first_tag, is_named, of_one_day, sort_out
from sarzarr.scenes.calibrate import CalibrationChoice
from sarzarr.scenes.grammars import facts_from_name, facts_named
from sarzarr.scenes.header import (
    MAX_BANDS,
    MAX_PIXELS,
    MAX_SAMPLED_BLOCK,
    MAX_SIDE,
    Header,
    Placed,
    read_header,
)  # fmt: skip
from sarzarr.scenes.identify import (
    Identity,
    Sample,
    check_said,
    identify,
    neighbour_noise,
    refused,
    sample_statistics,
    unlike,
    unlike_speckle,
)
from sarzarr.scenes.measured import BandSample, declared_scale, out_of_range, sample_band
from sarzarr.scenes.names import array_names, naming_parts
from sarzarr.scenes.products.family import Product
from sarzarr.scenes.products.known import Known, products_of
from sarzarr.scenes.products.rasters import Content, companion_of
from sarzarr.scenes.words import is_of_radar, representation_in


@dataclass(frozen=True, kw_only=True)
class ArrayProbe:
    """One band of a raster that will be one array of a scene."""

    name: str
    """Name of the array: ``vv``, or the band's own name made safe, or ``band_1``."""
    polarization: str | None
    """``VV``, ``VH``, ``HH``, ``HV``; None where nothing says it."""
    path: Path
    """The file that holds the band."""
    band: int
    """Number of the band in its file, from 1."""
    dtype: str
    """NumPy dtype that `read_window` gives: ``uint16``, ``float32``, ``complex64``, ..."""
    nodata: float | None
    """The file's sentinel; NaN where the tag says NaN, None where nothing is declared."""
    block_shape: tuple[int, int]
    """(rows, columns) of the file's TIFF blocks: windows aligned to them decode each block once."""
    block_bytes: int
    """Bytes of one decoded TIFF block, all bands of a pixel-interleaved file included."""
    quantity: str | None
    """`conventions.Quantity` of its power, calibrated where it has a `calibration`; None where it is refused."""
    representation: str | None
    """`conventions.Representation` of the file's numbers; None where the file is refused."""
    reason: str
    """One sentence: how quantity and representation were found, and what tells which pixels were measured."""
    unmeasured: Unmeasured | None = None
    """What tells, beside ``nodata``, which pixels nobody measured: a mask, or values that stand for nothing."""
    calibration: Calibration | None = None
    """The way of its digital numbers to ``quantity``; None where they are taken as they are."""
    border_noise: Noise | None = None
    """What pixels at the scene's edges are compared with, in DN^2, to be border; None: with nothing."""


@dataclass(frozen=True, kw_only=True)
class RasterProbe(Placed):
    """The findings of a GeoTIFF's header, its surroundings and a fixed sample of its pixels."""

    path: Path
    """The file, absolute."""
    header: Header
    """Everything that the file says of itself."""
    file_size: int
    """Bytes on disk."""
    arrays: tuple[ArrayProbe, ...]
    """The bands that are backscatter."""
    left_out: tuple[str, ...]
    """One sentence per band that is not backscatter beside others that are, for metadata of other bands, and for
    values that stand for nothing though no tag declares them."""
    reason: str
    """One sentence: how quantity and representation were found."""
    acquisition: Acquisition
    """The facts of the acquisition in tags, names and product metadata."""
    stamp: FileStamp
    """Its bytes, and when they last changed."""
    refusal: str | None
    """Why the file cannot be ingested as asked, with the remedy; None where it can."""
    companion: Content | None = None
    """The raster of a product that is delivered beside its backscatter: a mask, an angle; None where it is none."""

    @property
    def source_hash(self) -> str:
        """``sha256-sampled:<hex>`` of size, header and sampled bytes, or ``sha256:<hex>`` of all of them."""
        return self.stamp.hash

    @property
    def declared_bytes(self) -> int:
        """Bytes of all bands decoded; far beyond ``file_size``, it is a hollow file or a bomb."""
        return math.prod(self.grid.shape) * self.header.bands * self.header.dtype.itemsize

    @property
    def block_shape(self) -> tuple[int, int]:
        """(rows, columns) of a TIFF block."""
        return self.header.block_shape

    @property
    def block_bytes(self) -> int:
        """Bytes of one decoded TIFF block, all bands of a pixel-interleaved file included."""
        return self.header.block_bytes

    @property
    def quantity(self) -> str | None:
        """`conventions.Quantity` of the file; None where it is refused."""
        return self.arrays[0].quantity if self.arrays else None

    @property
    def representation(self) -> str | None:
        """`conventions.Representation` of the file, such as dB or power; None where it is refused."""
        return self.arrays[0].representation if self.arrays else None


def probe_file(
    path: str | Path,
    *,
    quantity: str | None = None,
    representation: str | None = None,
    polarizations: Sequence[str] | None = None,
    nodata: float | None = None,
    full_hash: bool = False,
    calibrate: CalibrationChoice | str | None = None,
) -> RasterProbe:
    """Return the bands of a GeoTIFF, from its header, its surroundings and a small fixed sample of its pixels.

    ``refusal`` of the result is set where the file opened and cannot be ingested as asked.

    Raises `RasterNotFoundError` or `UnsupportedRasterError` where there is no such file, or it is no TIFF;
    `InvalidInputError` where the path is no local file, or what the caller says does not exist or fit the bands.

    ``quantity`` and ``representation`` say what the numbers are, and ``nodata`` the value of pixels that were not
    measured, where the caller knows better than the file. ``polarizations`` are a name for each band, in order: any
    word, of which ``VV VH HH HV`` are polarizations; they count whatever the file says, and no two are alike.
    ``full_hash`` hashes every byte of the file instead of a sample of them. ``calibrate`` says what digital numbers
    become (``sigma0``, ``beta0``, ``gamma0``; ``none``: they stay); left out, it is what their product has, unless
    ``quantity`` says what they are.
    """
    check_said(quantity, representation)
    choice = CalibrationChoice.of_caller(calibrate, quantity)
    file, status = local_file(path)
    header = read_header(file)
    product, known, notes = products_of(file, header)
    bands = bands_of(file, header, product, polarizations, known)
    kept, left_out, refusal = sort_out(file, bands, is_told=representation is not None)
    companion = known.companion
    refusal = known.refusal or refusal or unusable(header, product, is_told=representation is not None)
    identities: list[Identity] = []
    calibrations: list[Calibration | None] = []
    border_noise = None
    samples: list[BandSample] = []
    try:
        if refusal is None:
            samples = [_band_sample(file, header, product, band.number, nodata) for band in kept]
            if not (quantity or representation):
                refusal = _contradiction(file, known)
            if not (quantity or representation or known.named or known.tagged):
                kept, samples, odd = _apart(file, header, kept, samples)
                left_out = (*left_out, *odd)
            said: dict[str, Any] = {"quantity": quantity, "representation": representation}
            is_said = polarizations is not None or not header.is_integer
            if not (is_said or is_from_radar(file, header, product, known, kept)):
                said["noise"] = lambda: neighbour_noise(w for band in samples for w in band.windows)
            identities, unlike_said = _identities(header, kept, samples, said)
            refusal = refusal or unlike_said
            companion = next((companion_of(i.foreign, file.stem) for i in identities if i.foreign), None)
        elif companion is None and not kept and bands[0].foreign:
            companion = companion_of(bands[0].foreign, f"{bands[0].own} {file.stem}")
        if refusal is None:
            calibrations = [choice.of(product, i.quantity, header.grid.shape) for i in identities]
            border_noise = choice.border_of(product, header.grid.shape)
            refusal = next(filter(None, map(_twice_calibrated, samples, identities, calibrations)), None)
    except UnsupportedRasterError as error:
        refusal = str(error)
    facts, said_days = of_one_day(acquisition_of(file, header, product), kept)
    arrays = () if refusal else _arrays(file, header, kept, identities, calibrations, samples, border_noise)
    return RasterProbe(
        path=file,
        header=header,
        file_size=status.st_size,
        georeference=header.georeference,
        arrays=arrays,
        left_out=(
            *notes,
            *left_out,
            *(f"{file.name}: {note}" for note in said_days),
            *_said_of_pixels(arrays, samples),
        ),
        reason=identities[0].reason if identities else str(refusal),
        acquisition=facts,
        stamp=FileStamp.of(file, full=full_hash),
        refusal=refusal,
        companion=companion,
    )


def _arrays(
    file: Path,
    header: Header,
    kept: Sequence[Band],
    identities: Sequence[Identity],
    calibrations: Sequence[Calibration | None],
    samples: Sequence[BandSample],
    border_noise: Noise | None,
) -> tuple[ArrayProbe, ...]:
    names = array_names([b.own for b in kept], [b.polarization for b in kept])
    shared: dict[str, Any] = {"path": file, "dtype": str(header.dtype), "border_noise": border_noise}
    shared |= {"block_shape": header.block_shape, "block_bytes": header.block_bytes}
    return tuple(
        ArrayProbe(
            name=name,
            polarization=band.polarization,
            band=band.number,
            nodata=sample.nodata,
            **_meaning(identity, calibration, sample),
            **shared,
        )
        for name, band, identity, calibration, sample in zip(
            names, kept, identities, calibrations, samples, strict=True
        )
    )


def _meaning(identity: Identity, calibration: Calibration | None, sample: BandSample) -> dict[str, Any]:
    """Return what the numbers of a band are, and become, as fields of an `ArrayProbe`."""
    form = str(identity.representation)
    calibrated = () if calibration is None else (str(calibration),)
    return {
        "quantity": identity.quantity if calibration is None else calibration.quantity,
        "representation": identity.representation,
        "reason": "; ".join((identity.reason, *calibrated, *sample.said(form))),
        "unmeasured": sample.unmeasured(form),
        "calibration": calibration,
    }


def unusable(header: Header, product: Product, *, is_told: bool) -> str | None:
    """Return why a file cannot be taken whatever its numbers are, with the remedy."""
    if header.pages > 1:
        return (
            f"expected one picture in the file, got {header.pages} pages. "
            "Write each to its own file: gdal_translate GTIFF_DIR:1:IN.tif OUT.tif."
        )
    rows, cols = header.grid.shape
    if rows * cols > MAX_PIXELS or max(rows, cols) > MAX_SIDE:
        return (
            f"expected at most {MAX_SIDE:,} rows and columns and {MAX_PIXELS:,} pixels, got {rows:,} x {cols:,}. "
            "Fetch or write the file again, or cut it."
        )
    if header.bands > MAX_BANDS:
        return f"expected at most {MAX_BANDS} bands, got {header.bands}. Write out the ones that you need."
    scales = {*header.scales, *(band.scale for band in product.bands if band.scale != 1)}
    offsets = {*header.offsets, *(band.offset for band in product.bands if band.offset != 0)}
    if scales != {1.0} or offsets != {0.0}:
        return (
            f"expected pixels that are the values, got scale {sorted(scales)} and offset {sorted(offsets)}. "
            "Write the values: gdal_translate -unscale -ot Float32."
        )
    if refusal := declared_scale((header.tags, *header.band_tags)):
        return refusal
    if any(band.is_log for band in product.bands):
        return "expected pixels that are the values, got LOG10_SCALED bands. Export them from SNAP unscaled."
    if first_tag(header.tags, (cv.REPRESENTATION.upper(),)) == cv.Representation.NORMALIZED:
        return "expected power, amplitude, dB or complex values, got normalized ones. Export them as dB."
    if header.is_picture and not is_told:
        return refused("a colour picture or a colour table").refusal
    return None


def _band_sample(file: Path, header: Header, product: Product, band: int, nodata: float | None) -> BandSample:
    """Return the sampled pixels of a band; of complex ones nothing is looked at."""
    own = product.bands[band - 1].nodata if header.nodata is None else header.nodata
    said = own if nodata is None else float(nodata)
    is_ours = cv.EXPORTED_SCENE in header.tags and header.nodata is not None and math.isnan(header.nodata)
    return sample_band(file, header, band, nodata=said, is_told=nodata is not None or is_ours)


def _apart(
    file: Path, header: Header, bands: Sequence[Band], samples: Sequence[BandSample]
) -> tuple[list[Band], list[BandSample], tuple[str, ...]]:
    """Return the bands that are like the others by their own pixels, and a sentence for each other one.

    A file's bands are judged together, so that one that is an angle, a mask or a ratio would be what the others are.
    Those whose own names say that they are backscatter are never left out, and of one band nothing is.
    """
    is_bare = [not is_named(band) for band in bands]
    if len(bands) == 1 or not any(is_bare):
        return list(bands), list(samples), ()
    own = [_sample(header, [sample]) for sample in samples]
    odd = [
        unlike_speckle(sample, is_integer=header.is_integer) if bare else None
        for sample, bare in zip(own, is_bare, strict=True)
    ]
    together = _sample(header, [s for s, what in zip(samples, odd, strict=True) if what is None])
    medians = [sample.median for sample, what in zip(own, odd, strict=True) if what is None]
    others = sorted(medians)[(len(medians) - 1) // 2] if medians else math.nan
    odd = [
        what or (unlike(sample, together, others) if bare else None)
        for what, sample, bare in zip(odd, own, is_bare, strict=True)
    ]
    if all(odd) or not any(odd):
        return list(bands), list(samples), ()
    notes = tuple(
        f"{file.name}: band {band.number}{f' {band.own!r}' if band.own else ''} is left out, since it has {what}."
        for band, what in zip(bands, odd, strict=True)
        if what
    )
    like = [(band, sample) for band, sample, what in zip(bands, samples, odd, strict=True) if what is None]
    return [band for band, _ in like], [sample for _, sample in like], notes


def _identities(
    header: Header, kept: Sequence[Band], samples: Sequence[BandSample], said: Mapping[str, Any]
) -> tuple[list[Identity], str | None]:
    """Return what the numbers of each band are, and why they are not taken; None where they are."""
    facts: dict[str, Any] = {"dtype": header.dtype, "is_integer": header.is_integer, **said}
    facts["sample"] = _sample(header, samples)
    identities = [identify(claims=band.claims, **facts) for band in kept]
    refusal = next((i.refusal for i in identities if i.refusal), None)
    if refusal is None:
        ends = (out_of_range(s, str(i.representation)) for s, i in zip(samples, identities, strict=True))
        refusal = next(filter(None, ends), None)
    return identities, refusal


def is_from_radar(file: Path, header: Header, product: Product, known: Known, bands: Sequence[Band]) -> bool:
    """Return whether a name, a tag or a product of a file says that a radar made its pixels."""
    if product.family or product.folder or known.tagged or known.named:
        return True
    is_named = any(band.polarization or any(any(claim.says) for claim in band.claims) for band in bands)
    facts = replace(acquisition_of(file, header, product), datetime=None)  # a date is of anything
    return is_named or bool(facts.attrs()) or any(map(is_of_radar, naming_parts(file)))


def _contradiction(file: Path, known: Known) -> str | None:
    """Return why a product's tags do not hold: a file that is derived from it keeps them, and says so by its name."""
    told = known.tagged.representation if known.tagged else None
    named = representation_in(file.stem)
    if told is None or named in (None, told):
        return None
    what = f"{named} by the file's name, and {told} by {known.tagged.product} tags" if known.tagged else ""
    return refused(what).refusal


def _twice_calibrated(sample: BandSample, identity: Identity, calibration: Calibration | None) -> str | None:
    """Return why a band cannot be calibrated by one constant: its pixels have been, as those of a file derived."""
    if calibration is None or calibration.table is not None:
        return None
    return out_of_range(sample, str(identity.representation), factor=calibration.factor)


def _said_of_pixels(arrays: Sequence[ArrayProbe], samples: Sequence[BandSample]) -> Iterator[str]:
    """Yield a sentence for each value of an array that stands for nothing though no tag declares it."""
    for array, sample in zip(arrays, samples, strict=False):
        for clause in sample.found(str(array.representation)):
            yield f"{array.path.name}: {array.name}: {clause}."


def _sample(header: Header, samples: Sequence[BandSample]) -> Sample:
    """Return the statistics of the sampled pixels of bands."""
    sample = sample_statistics(w for band in samples for w in band.windows)
    if header.block_bytes <= MAX_SAMPLED_BLOCK:
        return sample
    height, width = header.block_shape
    return replace(sample, absence=f"blocks of {height} x {width} pixels, too large to look into")


def acquisition_of(file: Path, header: Header, product: Product) -> Acquisition:
    """Return the facts: product metadata first, then tags, then names of products in tags, then the file's own."""
    said = (header.tags.get(tag, "")[:MAX_SAID] for tag in ("TIFFTAG_IMAGEDESCRIPTION", "MPH_PRODUCT"))
    products = (facts_named(text) for text in said)  # the dates of other texts may be of anything
    stem, *folders = naming_parts(file)
    own = (facts_from_name(name) for name in (stem, product.folder or "", *folders))
    return merge_facts([product.facts, facts_from_fields(header.tags), *filter(None, products), *own])
