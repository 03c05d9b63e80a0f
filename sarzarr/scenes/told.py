"""All that a file's header and name tell of its bands, without a look at a pixel: of one small raster among many."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sarzarr import conventions as cv
from sarzarr.scenes.acquisition import Acquisition
from sarzarr.scenes.bands import Band, bands_of, of_one_day, sort_out
from sarzarr.scenes.header import Header
from sarzarr.scenes.names import array_names
from sarzarr.scenes.probe import acquisition_of, unusable
from sarzarr.scenes.products.family import Product
from sarzarr.scenes.products.known import products_of

Kind = tuple[str, tuple[tuple[str | None, str | None, str], ...]]
"""The dtype of a file, and the quantity, the representation and the name of each of its bands, as they are said."""
_NUMBERS: Final = re.compile(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])|\d{3,}")
"""Numbers in names that are counts, dates and places: no word of a quantity or a band has so many digits."""
_MOST: Final = 4096
"""What is kept of files that were seen."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """The bands of a file as its header and its name tell them."""

    header: Header
    """Its header."""
    bands: tuple[Band, ...]
    """Bands that may be backscatter."""
    names: tuple[str, ...]
    """Their array names: ``vv``, ``vh``, ..."""
    nodata: tuple[float | None, ...]
    """The sentinel of each."""
    is_told: bool
    """Whether the caller says the sentinel, or a store wrote it: nothing else but the mask tells of others then."""
    facts: Acquisition
    """The facts of the acquisition."""
    refusal: str | None
    """Why it cannot be taken, whatever its pixels are; None where it can."""
    kind: Kind
    """What says alike is alike: files of one kind that are of one archive mean the same by their numbers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Teller:
    """Tell of many files: what their names and headers have in common is worked out once.

    The options are those of `sarzarr.scenes.probe.probe_file`.
    """

    polarizations: Sequence[str] | None = None
    """Names for the bands of each file."""
    nodata: float | None = None
    """The value of pixels that were not measured."""
    representation: str | None = None
    """How the numbers are written down."""
    _seen: dict[Any, Told] = field(default_factory=dict)

    def of(self, file: Path, header: Header) -> Told:
        """Return what a file's header and name tell."""
        product, known, _ = products_of(file, header)
        key = None
        if product == Product(bands=product.bands):
            key = _NUMBERS.sub("0", file.stem), _NUMBERS.sub("0", file.parent.name), _essence(header)
            if (seen := self._seen.get(key)) is not None:
                facts, _ = of_one_day(acquisition_of(file, header, product), seen.bands)
                return replace(seen, header=header, facts=facts)
        bands = bands_of(file, header, product, self.polarizations, known)
        is_told = self.representation is not None
        kept, _, refusal = sort_out(file, bands, is_told=is_told)
        refusal = known.refusal or refusal or unusable(header, product, is_told=is_told)
        if refusal is None and product.calibrations:
            refusal = (
                "expected backscatter as it is in the file, got digital numbers that "
                f"{product.family or 'their product'} calibrates. Ingest it as a scene: --scenes."
            )
        facts, _ = of_one_day(acquisition_of(file, header, product), kept)
        names = array_names([b.own for b in kept], [b.polarization for b in kept])
        own = [product.bands[b.number - 1].nodata if header.nodata is None else header.nodata for b in kept]
        is_ours = cv.EXPORTED_SCENE in header.tags and header.nodata is not None and math.isnan(header.nodata)
        told = Told(
            header=header,
            bands=tuple(kept),
            names=names,
            nodata=tuple(own if self.nodata is None else [float(self.nodata)] * len(kept)),
            is_told=self.nodata is not None or is_ours,
            facts=facts,
            refusal=refusal,
            kind=(str(header.dtype), tuple(map(_said, kept, names))),
        )
        if key is not None and len(self._seen) < _MOST:
            self._seen[key] = told
        return told


def _said(band: Band, name: str) -> tuple[str | None, str | None, str]:
    """Return the quantity and the representation that are said first of a band, and its name."""
    says = [claim.says for claim in band.claims]
    quantity, representation = (next((str(s[i]) for s in says if s[i]), None) for i in (0, 1))
    return quantity, representation, name


def _essence(header: Header) -> tuple[Any, ...]:
    """Return everything of a header but the place of its pixels and its masks."""
    tags = [tuple(sorted(held.items())) for held in (header.tags, *header.band_tags)]
    return (
        *(
            header.bands,
            str(header.dtype),
            header.is_integer,
            repr(header.nodata),
            header.names,
            header.units,
        ),
        *(header.scales, header.offsets, header.is_alpha, header.is_picture, header.pages, header.grid.shape),
        *tags,
    )
