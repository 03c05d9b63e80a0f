"""Probe a GeoTIFF: its header and a small fixed sample, and what its numbers are."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.pixels.calibration import Calibration, Noise
from sarzarr.rasters import Unmeasured, local_file, source_hash
from sarzarr.scenes.acquisition import Acquisition, facts_from_fields, merge_facts
from sarzarr.scenes.calibrate import CalibrationChoice
from sarzarr.scenes.grammars import facts_from_name, facts_named, polarization_named
from sarzarr.scenes.header import MAX_BANDS, MAX_SAMPLED_BLOCK, Header, Placed, read_header
from sarzarr.scenes.identify import (
    Claim,
    Identity,
    Sample,
    check_said,
    identify,
    refused,
    sample_statistics,
    unlike,
    unlike_speckle,
)
from sarzarr.scenes.measured import BandSample, declared_scale, out_of_range, sample_band
from sarzarr.scenes.names import array_names, naming_parts, scene_folder
from sarzarr.scenes.products.family import Product
from sarzarr.scenes.products.known import Known, products_of
from sarzarr.scenes.products.rasters import Content, companion_of
from sarzarr.scenes.words import (
    PARTS,
    file_polarization,
    is_combined,
    is_diagonal,
    is_optical,
    not_backscatter_in,
    own_polarization,
    polarizations_in,
    quantity_in,
    representation_in,
    telling_name,
    tokens,
    without_polarizations,
)
from sarzarr.text import listed


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
    source_hash: str
    """``sha256-sampled:<hex>`` of size, header and sampled bytes, or ``sha256:<hex>`` of all of them."""
    refusal: str | None
    """Why the file cannot be ingested as asked, with the remedy; None where it can."""
    companion: Content | None = None
    """The raster of a product that is delivered beside its backscatter: a mask, an angle; None where it is none."""

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


_NUMBER_TAGS: Final = ("DATA_TYPE", "DATA_UNITS", "UNITS", "UNIT", "UNITTYPE")
"""Tags that say what the numbers are: radians are no backscatter, whatever the caller says."""
_OTHER_TAGS: Final = (
    cv.REPRESENTATION.upper(),
    cv.SOURCE_REPRESENTATION.upper(),
    cv.QUANTITY.upper(),
    "CALIBRATION",
    "RADIOMETRY",
    "BACKSCATTER",
    "LONG_NAME",
    "STANDARD_NAME",
    "TIFFTAG_IMAGEDESCRIPTION",
)
_MAX_SAID: Final = 200
"""Characters of a tag that a maker wrote to say one thing."""
_POLARIZATION_TAGS: Final = ("POLARIZATION", "POLARISATION", "POL", cv.SAR_POLARIZATIONS.upper())


@dataclass(frozen=True)
class _Band:
    """A band, what it is called, and what is said of it."""

    number: int
    own: str | None
    polarization: str | None
    claims: tuple[Claim, ...]
    foreign: str | None
    source: str


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
    bands = _bands(file, header, product, polarizations, known)
    kept, left_out, refusal = _sort_out(file, header, bands, is_told=representation is not None)
    companion = known.companion
    refusal = known.refusal or refusal or _unusable(header, product, is_told=representation is not None)
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
            said = {"quantity": quantity, "representation": representation}
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
    facts, said_days = _of_one_day(_acquisition(file, header, product), kept)
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
        source_hash=source_hash(file, full=full_hash),
        refusal=refusal,
        companion=companion,
    )


def _arrays(
    file: Path,
    header: Header,
    kept: Sequence[_Band],
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


def _bands(
    file: Path, header: Header, product: Product, polarizations: Sequence[str] | None, known: Known
) -> tuple[_Band, ...]:
    count = min(header.bands, MAX_BANDS)
    if polarizations is not None and len(polarizations) != header.bands:
        raise InvalidInputError(
            f"expected a name for each of the {header.bands} bands of {file.name!r}, "
            f"got {len(polarizations)}: {', '.join(polarizations)}. Name every band, in order."
        )
    own: list[str | None] = [header.names[i] or product.bands[i].name or None for i in range(count)]
    found = _polarizations(file, header, own, known)
    if polarizations is not None:
        own, found = list(polarizations), [_upper(own_polarization(name)) for name in polarizations]
        for name, array in zip(polarizations, array_names(polarizations, found), strict=True):
            if re.fullmatch(r"band_\d+", array):  # it is empty, reserved or another band's
                raise InvalidInputError(
                    f"expected a name of its own for each band of {file.name!r}, got {name!r} in "
                    f"{','.join(polarizations)!r}. Give each band a polarization (VV, VH, HH, HV) or a word that no "
                    "other one has."
                )
    bands = []
    for i, polarization in enumerate(found):
        said, name = product.bands[i], own[i] or ""
        units = " ".join(unit for unit in (header.units[i], said.unit) if unit)
        what = " ".join(kind for kind in (said.quantity, said.representation) if kind)
        source = f"band {i + 1} is {what} by its {product.family} metadata"
        claims = (
            Claim(text="", source=source, quantity=said.quantity, representation=said.representation),
            Claim(text=name, source=f"band {i + 1} is named {name!r}"),
            Claim(text=units, source=f"band {i + 1} is in {units!r}", is_certain=True),
            *_tag_claims(header.band_tags[i], f"tag {{}} of band {i + 1}"),
            *_file_claims(file, header, known),
        )
        foreign = not_backscatter_in(units if said.representation else f"{name} {units}")
        source = next((c.source for c in claims if not_backscatter_in(c.text) == foreign), claims[1].source)
        if foreign is None and polarizations is None and is_combined(name):
            foreign, source = "a combination of polarizations", claims[1].source
        if header.is_alpha[i]:
            foreign, source = "an opacity", f"band {i + 1} is an alpha channel"
        bands.append(_Band(i + 1, own[i], polarization, claims, foreign, source))
    return tuple(bands)


def _polarizations(file: Path, header: Header, own: Sequence[str | None], known: Known) -> list[str | None]:
    """Return each band's polarization: by its name, else its tags, else the file's name."""
    found = [own_polarization(name or "") for name in own]
    if not any(found):
        found = [own_polarization(_first_tag(tags, _POLARIZATION_TAGS) or "") for tags in header.band_tags]
        if len(own) == 1:
            said = known.tagged.polarization if known.tagged else None
            found = [found[0] or own_polarization(said or _first_tag(header.tags, _POLARIZATION_TAGS) or "")]
    if not any(found) and len(own) == 1:
        found = [own_polarization(known.named.token if known.named else "") or file_polarization(file.stem)]
    if not any(found):
        words = _polarizations_of(file)
        found = list(words) if len(words) == len(own) else [None] * len(own)
    return [_upper(name) for name in found]


def _upper(name: str | None) -> str | None:
    return name.upper() if name else None


def _polarizations_of(file: Path) -> tuple[str, ...]:
    """Return the polarizations that a file's name tells; its folder's, where that is named by nothing else."""
    glued = polarization_named(file.stem)
    is_folders = scene_folder(file) != file.parent
    return (
        (glued,)
        if glued
        else polarizations_in(file.stem) or polarizations_in(file.parent.name if is_folders else "")
    )


def _first_tag(tags: Mapping[str, str], wanted: Sequence[str]) -> str | None:
    upper = {key.upper(): value for key, value in tags.items()}
    return next((upper[key] for key in wanted if key in upper), None)


def _tag_claims(tags: Mapping[str, str], source: str) -> list[Claim]:
    """Return what tags declare. A text of many words, such as a product's JSON, is no evidence by one of them."""
    upper = {key.upper(): value for key, value in tags.items()}
    return [
        Claim(
            text=upper[key],
            source=f"{source.format(key)} is {upper[key][:80]!r}",
            is_certain=key in _NUMBER_TAGS,
        )
        for key in (*_NUMBER_TAGS, *_OTHER_TAGS)
        if key in upper and len(upper[key]) <= _MAX_SAID and not upper[key].lstrip().startswith(("{", "<"))
    ]


def _file_claims(file: Path, header: Header, known: Known) -> list[Claim]:
    """Return what tags, the product by the file's name, and the names of the file or its folder declare."""
    claims = []
    name = telling_name(file.stem, file.parent.name)
    if (said := known.tagged) is not None and not not_backscatter_in(
        name
    ):  # tags of a product are its layers', too
        source = f"{said.product} tags of the file"
        claims.append(
            Claim(text="", source=source, quantity=said.quantity, representation=said.representation)
        )
    claims += _tag_claims(header.tags, "tag {}")
    if known.named is not None:
        content, source = known.named.content, f"{known.named.product} calls the file {known.named.token!r}"
        claims.append(
            Claim(text="", source=source, quantity=content.quantity, representation=content.representation)
        )
    kind = "file" if name == file.stem else "folder"
    return [*claims, Claim(text=name, source=f"the {kind} is named {name!r}")]


def _sort_out(
    file: Path, header: Header, bands: Sequence[_Band], *, is_told: bool
) -> tuple[list[_Band], tuple[str, ...], str | None]:
    """Return the bands that may be backscatter, a sentence for each other one, and why none of them is."""
    parts = [b for b in bands if b.foreign in PARTS and not (is_told and is_diagonal(b.own or ""))]
    if parts and not is_told:
        return [], (), refused(f"{parts[0].foreign} ({parts[0].source})").refusal
    if is_optical([b.own or "" for b in bands]) and not is_told:
        return [], (), refused(f"an optical image ({bands[0].source})").refusal
    kept = [b for b in bands if b not in parts and (b.foreign is None or b.foreign in PARTS)]
    others = [b for b in bands if b not in kept]
    if not kept:
        return [], (), refused(f"{others[0].foreign} ({others[0].source})", is_certain=True).refusal
    called = [f"{b.number} {b.own!r}" if b.own else str(b.number) for b in others]
    notes = (
        f"{file.name}: band {c} is left out, since it is {b.foreign}."
        for c, b in zip(called, others, strict=True)
    )
    return kept, tuple(notes), None


def _unusable(header: Header, product: Product, *, is_told: bool) -> str | None:
    """Return why a file cannot be taken whatever its numbers are, with the remedy."""
    if header.pages > 1:
        return (
            f"expected one picture in the file, got {header.pages} pages. "
            "Write each to its own file: gdal_translate GTIFF_DIR:1:IN.tif OUT.tif."
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
    if _first_tag(header.tags, (cv.REPRESENTATION.upper(),)) == cv.Representation.NORMALIZED:
        return "expected power, amplitude, dB or complex values, got normalized ones. Export them as dB."
    if header.is_picture and not is_told:
        return refused("a colour picture or a colour table").refusal
    return None


def _band_sample(file: Path, header: Header, product: Product, band: int, nodata: float | None) -> BandSample:
    """Return the sampled pixels of a band; of complex ones nothing is looked at."""
    own = product.bands[band - 1].nodata if header.nodata is None else header.nodata
    said = own if nodata is None else float(nodata)
    return sample_band(file, header, band, nodata=said, is_told=nodata is not None)


def _apart(
    file: Path, header: Header, bands: Sequence[_Band], samples: Sequence[BandSample]
) -> tuple[list[_Band], list[BandSample], tuple[str, ...]]:
    """Return the bands that are like the others by their own pixels, and a sentence for each other one.

    A file's bands are judged together, so that one that is an angle, a mask or a ratio would be what the others are.
    Those whose own names say that they are backscatter are never left out, and of one band nothing is.
    """
    is_bare = [not _is_named(band) for band in bands]
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


def _is_named(band: _Band) -> bool:
    """Whether a band's polarization, and nothing else but quantity and representation, is its name."""
    words = tokens(without_polarizations(band.own or ""))
    return band.polarization is not None and all(
        quantity_in(word) or representation_in(word) for word in words
    )


def _identities(
    header: Header, kept: Sequence[_Band], samples: Sequence[BandSample], said: Mapping[str, str | None]
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


_DAY: Final = re.compile(r"(?<![0-9a-z])\d{2}(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)\d{4}(?!\d)")


def _of_one_day(facts: Acquisition, bands: Sequence[_Band]) -> tuple[Acquisition, tuple[str, ...]]:
    """Return the facts of bands, and a sentence where their names tell several days (SNAP's stacks): then no time."""
    names = [re.sub("_", " ", (band.own or "").lower()) for band in bands]
    days = dict.fromkeys(day for name in names for day in _DAY.findall(name))
    if len(days) < 2:
        return facts, ()
    note = f"bands of several days ({listed(days, most=3)}) have no time in common: none is kept."
    return replace(facts, datetime=None, absolute_orbit=None), (note,)


def _acquisition(file: Path, header: Header, product: Product) -> Acquisition:
    """Return the facts: product metadata first, then tags, then names of products in tags, then the file's own."""
    said = (header.tags.get(tag, "")[:_MAX_SAID] for tag in ("TIFFTAG_IMAGEDESCRIPTION", "MPH_PRODUCT"))
    products = (facts_named(text) for text in said)  # the dates of other texts may be of anything
    stem, *folders = naming_parts(file)
    own = (facts_from_name(name) for name in (stem, product.folder or "", *folders))
    return merge_facts([product.facts, facts_from_fields(header.tags), *filter(None, products), *own])
