"""A product family: all that is known of files of one maker, in one value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sarzarr.conventions import Quantity, Representation
from sarzarr.errors import UnsupportedRasterError
from sarzarr.pixels.calibration import Calibration, Field, Noise
from sarzarr.scenes.acquisition import Acquisition
from sarzarr.scenes.identify import check_said

FIELDS: Final = ("incidence_angle", "nesz")
"""Names of what products say of every pixel: degrees, dB."""
Calibrator = Callable[[tuple[int, int], bool], Calibration]
"""From a raster's (rows, columns), and whether noise is subtracted, its calibration; a refusal where it has none."""


@dataclass(frozen=True, kw_only=True)
class BandMetadata:
    """The metadata of one band in a product."""

    name: str = ""
    """Its name: ``Sigma0_VH``; empty where it has none."""
    unit: str = ""
    """Its unit, of which words are read as in names: ``intensity_db``, ``phase``, ``real``, ``deg``, ..."""
    quantity: Quantity | None = None
    """Its quantity, which outweighs names and units; None where the product does not say."""
    representation: Representation | None = None
    """Its representation, such as dB or power, likewise."""
    scale: float = 1.0
    """Declared scale."""
    offset: float = 0.0
    """Declared offset."""
    is_log: bool = False
    """Whether the pixels are stored as logarithms of the values."""
    nodata: float | None = None
    """Declared nodata value, where it is in use."""

    def __post_init__(self) -> None:
        check_said(self.quantity, self.representation)


@dataclass(frozen=True, kw_only=True)
class Product:
    """The metadata of the product that a raster is of."""

    folder: str | None = None
    """Name of the product folder; None for a file outside of one."""
    bands: tuple[BandMetadata, ...] = ()
    """Its bands, in the order of the file."""
    family: str = ""
    """Name of the family that tells of the bands; `read_product` sets it."""
    facts: Acquisition = field(default_factory=Acquisition)
    """Its acquisition."""
    fields: Mapping[str, Callable[[tuple[int, int]], Field]] = field(default_factory=dict)
    """What it says of every pixel of a raster of (rows, columns), by the names in `FIELDS`."""
    calibrations: Mapping[str, Calibrator] = field(default_factory=dict)
    """The calibrations of its digital numbers by `conventions.Quantity`, the one that is taken unasked first."""
    border_noise: Callable[[tuple[int, int]], Noise | None] | None = None
    """From a raster's (rows, columns), noise in DN^2, no weaker than what stands for nothing at its edges; None where
    its processor cleared them. None instead of it where the product says nothing of noise."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One maker's products. Each function says nothing of files that are others', and raises for none."""

    name: str
    """Its name, for the reader: ``SNAP``."""
    read: Callable[[Path], Product] = lambda _: Product()
    """From a TIFF, its metadata: embedded, or in the files around it. What is malformed says nothing."""
    scene_of: Callable[[Path], str | None] = lambda _: None
    """From a TIFF's path, the name of its scene: the same for all its polarizations. None for a file of others."""


def constant_calibration(quantity: str, factor: float | str, source: str) -> dict[str, Calibrator]:
    """Return the calibrations of a product that has one constant: linear power of ``quantity`` per DN^2.

    A factor that is no positive number is refused when it is asked for, and so is noise to be subtracted.
    """

    def calibrate(shape: tuple[int, int], denoise: bool) -> Calibration:
        if denoise:
            raise UnsupportedRasterError(
                f"expected a table of noise to subtract, got {source} alone. Leave out --denoise."
            )
        return Calibration.constant(factor, quantity=quantity, source=source)

    return {quantity: calibrate}
