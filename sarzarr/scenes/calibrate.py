"""The calibration of a raster's digital numbers: what was asked for, by what its product has."""

from dataclasses import dataclass

from sarzarr.conventions import Quantity
from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.pixels.calibration import Calibration
from sarzarr.scenes.products.family import Product

KEPT = "none"
"""The choice to keep digital numbers as they are."""
CHOICES = (Quantity.SIGMA0.value, Quantity.BETA0.value, Quantity.GAMMA0.value, KEPT)
"""The choices of ``calibrate``."""


@dataclass(frozen=True, kw_only=True)
class CalibrationChoice:
    """The wish of a caller for the calibration of digital numbers."""

    calibrate: str | None = None
    """One of `CHOICES`; None: by the product's own default, where it has a calibration."""
    denoise: bool = False
    """Whether thermal noise is subtracted from DN^2."""

    def __post_init__(self) -> None:
        if self.calibrate not in (None, *CHOICES):
            raise InvalidInputError(
                f"expected a calibration of {', '.join(CHOICES)}, got {self.calibrate!r}. Choose one of them."
            )
        if self.denoise and self.calibrate == KEPT:
            raise InvalidInputError(
                "expected calibrated backscatter with --denoise, got --calibrate none. Leave one of them out."
            )

    @classmethod
    def of_caller(
        cls, calibrate: "CalibrationChoice | str | None", quantity: str | None
    ) -> "CalibrationChoice":
        """Return the choice that a caller made; digital numbers stay whose quantity alone was said."""
        choice = calibrate if isinstance(calibrate, CalibrationChoice) else cls(calibrate=calibrate)
        is_said = quantity is not None and choice == cls()
        return cls(calibrate=KEPT) if is_said else choice

    def of(self, product: Product, quantity: str | None, shape: tuple[int, int]) -> Calibration | None:
        """Return the calibration of a raster, (rows, columns), whose numbers are of ``quantity``; None: as it is.

        Raises `UnsupportedRasterError` where what was asked for cannot be had, or what is there cannot be right.
        """
        is_asked = self.denoise or self.calibrate not in (None, KEPT)
        if quantity != Quantity.DN:
            if self.denoise or (is_asked and self.calibrate != quantity):
                raise UnsupportedRasterError(
                    f"expected digital numbers to calibrate, got {quantity}. Leave out --calibrate and --denoise."
                )
            return None
        if self.calibrate == KEPT or not (is_asked or product.calibrations):
            return None
        wanted = self.calibrate or next(iter(product.calibrations), "")
        if wanted not in product.calibrations:
            known = ", ".join(product.calibrations) or "none"
            raise UnsupportedRasterError(
                f"expected a calibration to {wanted or 'backscatter'} in the product around the file, got {known}. "
                "Give the product whole, as it was downloaded, or leave out --calibrate and --denoise."
            )
        return product.calibrations[wanted](shape, self.denoise)
