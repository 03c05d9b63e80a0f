"""All that is known of the product of a file, from the metadata around it, its tags and its name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sarzarr.scenes.header import Header
from sarzarr.scenes.identify import refused
from sarzarr.scenes.products.family import BandMetadata, Calibrator, Product
from sarzarr.scenes.products.rasters import Content, Found, content_of
from sarzarr.scenes.products.table import read_product
from sarzarr.scenes.products.tags import Tagged, read_tags


@dataclass(frozen=True)
class Known:
    """The products that tags and the name of a file tell."""

    tagged: Tagged | None
    """The word of its tags; None where no known product wrote them."""
    named: Found | None
    """The product by its name; None where no row knows it."""

    @property
    def companion(self) -> Content | None:
        """The raster that the name says it is, where that is no backscatter; None elsewhere."""
        return self.named.content if self.named and self.named.content.companion else None

    @property
    def refusal(self) -> str | None:
        """Why a companion is refused, where it comes alone."""
        if self.named is None or self.companion is None:
            return None
        what = f"{self.companion.companion} ({self.named.product} calls it {self.named.token!r})"
        return refused(what, is_certain=True).refusal

    @property
    def calibrations(self) -> Mapping[str, Calibrator]:
        """The calibrations by a constant that tags tell, or the product has."""
        return (self.tagged.calibrations if self.tagged else {}) or (
            self.named.calibrations if self.named else {}
        )


def products_of(file: Path, header: Header) -> tuple[Product, Known, tuple[str, ...]]:
    """Return the metadata of a file's product, what tags and name tell, and a sentence where bands are of others."""
    told, known = read_product(file), Known(read_tags(header.tags), content_of(file))
    product = replace(told, calibrations=told.calibrations or known.calibrations)
    if len(told.bands) == header.bands:
        return product, known, ()
    count = (
        f"{told.family} metadata of {len(told.bands)} bands is left out, since the file has {header.bands}."
    )
    notes = (f"{file.name}: {count}",) if told.bands else ()
    return replace(product, bands=(BandMetadata(),) * header.bands), known, notes
