"""All that a file's header and name tell of its bands, without a look at a pixel: of one small raster among many."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sarzarr import conventions as cv
from sarzarr.scenes.acquisition import Acquisition
from sarzarr.scenes.bands import Band, bands_of, of_one_day, sort_out
from sarzarr.scenes.header import Header
from sarzarr.scenes.names import array_names
from sarzarr.scenes.probe import acquisition_of, unusable
from sarzarr.scenes.products.known import products_of

Kind = tuple[str, tuple[tuple[str | None, str | None, str], ...]]
"""The dtype of a file, and the quantity, the representation and the name of each of its bands, as they are said."""


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

    @property
    def kind(self) -> Kind:
        """What says alike is alike: files of one kind that are of one archive mean the same by their numbers."""
        said = []
        for band, name in zip(self.bands, self.names, strict=True):
            says = [claim.says for claim in band.claims]
            quantity, representation = (next((str(s[i]) for s in says if s[i]), None) for i in (0, 1))
            said.append((quantity, representation, name))
        return str(self.header.dtype), tuple(said)


def told_by(
    file: Path,
    header: Header,
    *,
    polarizations: Sequence[str] | None = None,
    nodata: float | None = None,
    representation: str | None = None,
) -> Told:
    """Return what a header and a name tell; the options are those of `sarzarr.scenes.probe.probe_file`."""
    product, known, _ = products_of(file, header)
    bands = bands_of(file, header, product, polarizations, known)
    is_told = representation is not None
    kept, _, refusal = sort_out(file, bands, is_told=is_told)
    refusal = known.refusal or refusal or unusable(header, product, is_told=is_told)
    if refusal is None and product.calibrations:
        refusal = (
            f"expected backscatter as it is in the file, got digital numbers that {product.family or 'their product'} "
            "calibrates. Ingest it as a scene: --scenes."
        )
    facts, _ = of_one_day(acquisition_of(file, header, product), kept)
    own = [product.bands[b.number - 1].nodata if header.nodata is None else header.nodata for b in kept]
    is_ours = cv.EXPORTED_SCENE in header.tags and header.nodata is not None and math.isnan(header.nodata)
    return Told(
        header=header,
        bands=tuple(kept),
        names=array_names([b.own for b in kept], [b.polarization for b in kept]),
        nodata=tuple(own if nodata is None else [float(nodata)] * len(kept)),
        is_told=nodata is not None or is_ours,
        facts=facts,
        refusal=refusal,
    )
