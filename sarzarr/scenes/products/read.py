"""Product metadata of a file: embedded in it, or in its SAFE folder."""

from dataclasses import dataclass, field
from pathlib import Path

from sarzarr.scenes.acquisition import Acquisition
from sarzarr.scenes.products.safe import read_annotation, read_product_info
from sarzarr.scenes.products.snap import BandMetadata, read_snap


@dataclass(frozen=True, kw_only=True)
class Product:
    """What the product of a raster says."""

    folder: str | None = None
    """Name of the product folder, for a file in ``measurement/``."""
    bands: tuple[BandMetadata, ...] = ()
    """Its bands, in the order of the file."""
    facts: Acquisition = field(default_factory=Acquisition)
    """Its acquisition."""


def read_product(path: Path) -> Product:
    """Return what the TIFF's own product tag and the folder around it say; what is malformed says nothing."""
    bands, facts = read_snap(path)
    folder = path.parent.parent if path.parent.name.lower() == "measurement" else None
    if folder is not None:
        facts = facts.or_else(read_product_info(folder / "productInfo.json"))
        facts = facts.or_else(read_annotation(folder / "annotation" / f"{path.stem}.xml"))
    return Product(folder=folder.name if folder else None, bands=bands, facts=facts)
