"""The bands of a raster: what each is called, what is said of it, and which of them may be backscatter."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError
from sarzarr.scenes.acquisition import Acquisition
from sarzarr.scenes.grammars import polarization_named
from sarzarr.scenes.header import MAX_BANDS, Header
from sarzarr.scenes.identify import Claim, refused
from sarzarr.scenes.names import array_names, scene_folder
from sarzarr.scenes.products.family import Product
from sarzarr.scenes.products.known import Known
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
MAX_SAID: Final = 200
"""Characters of a tag that a maker wrote to say one thing."""
_POLARIZATION_TAGS: Final = ("POLARIZATION", "POLARISATION", "POL", cv.SAR_POLARIZATIONS.upper())
_DAY: Final = re.compile(r"(?<![0-9a-z])\d{2}(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)\d{4}(?!\d)")


@dataclass(frozen=True)
class Band:
    """A band, what it is called, and what is said of it."""

    number: int
    """Its number in the file, from 1."""
    own: str | None
    """Its own name; None where it has none."""
    polarization: str | None
    """``VV``, ``VH``, ``HH``, ``HV``, ...; None where nothing says it."""
    claims: tuple[Claim, ...]
    """What is said of its numbers, the most specific source first."""
    foreign: str | None
    """What it is instead of backscatter, as ``an angle``; None where it may be backscatter."""
    source: str
    """Where that stands, for the reader."""


def bands_of(
    file: Path, header: Header, product: Product, polarizations: Sequence[str] | None, known: Known
) -> tuple[Band, ...]:
    """Return the bands of a file, the first `MAX_BANDS` of them, each named by the caller where it names them.

    Raises `InvalidInputError` where the caller's names are not one for each band, or not names of their own.
    """
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
    bands, of_file = [], _file_claims(file, header, known)
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
            *of_file,
        )
        foreign = not_backscatter_in(units if said.representation else f"{name} {units}")
        source = next((c.source for c in claims if not_backscatter_in(c.text) == foreign), claims[1].source)
        if foreign is None and polarizations is None and is_combined(name):
            foreign, source = "a combination of polarizations", claims[1].source
        if header.is_alpha[i]:
            foreign, source = "an opacity", f"band {i + 1} is an alpha channel"
        bands.append(Band(i + 1, own[i], polarization, claims, foreign, source))
    return tuple(bands)


def _polarizations(file: Path, header: Header, own: Sequence[str | None], known: Known) -> list[str | None]:
    """Return each band's polarization: by its name, else its tags, else the file's name."""
    found = [own_polarization(name or "") for name in own]
    if not any(found):
        found = [own_polarization(first_tag(tags, _POLARIZATION_TAGS) or "") for tags in header.band_tags]
        if len(own) == 1:
            said = known.tagged.polarization if known.tagged else None
            found = [found[0] or own_polarization(said or first_tag(header.tags, _POLARIZATION_TAGS) or "")]
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


def first_tag(tags: Mapping[str, str], wanted: Sequence[str]) -> str | None:
    """Return the first of the wanted tags, in upper case, that there is, whatever its case; None where none is."""
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
        if key in upper and len(upper[key]) <= MAX_SAID and not upper[key].lstrip().startswith(("{", "<"))
    ]


def _file_claims(file: Path, header: Header, known: Known) -> list[Claim]:
    """Return what tags, the product by the file's name, and the names of the file or its folder declare."""
    claims = []
    name = telling_name(file.stem, file.parent.name)
    # tags of a product are its layers', too
    if (said := known.tagged) is not None and not not_backscatter_in(name):
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


def sort_out(
    file: Path, bands: Sequence[Band], *, is_told: bool
) -> tuple[list[Band], tuple[str, ...], str | None]:
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


def is_named(band: Band) -> bool:
    """Whether a band's polarization, and nothing else but quantity and representation, is its name."""
    words = tokens(without_polarizations(band.own or ""))
    return band.polarization is not None and all(
        quantity_in(word) or representation_in(word) for word in words
    )


def of_one_day(facts: Acquisition, bands: Sequence[Band]) -> tuple[Acquisition, tuple[str, ...]]:
    """Return the facts of bands, and a sentence where their names tell several days (SNAP's stacks): then no time."""
    names = [re.sub("_", " ", (band.own or "").lower()) for band in bands]
    days = dict.fromkeys(day for name in names for day in _DAY.findall(name))
    if len(days) < 2:
        return facts, ()
    note = f"bands of several days ({listed(days, most=3)}) have no time in common: none is kept."
    return replace(facts, datetime=None, absolute_orbit=None), (note,)
