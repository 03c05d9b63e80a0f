"""Products whose TIFF tags tell what the pixels are: Capella, ICEYE, OPERA, ASAR."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sarzarr.conventions import Quantity, Representation
from sarzarr.scenes.acquisition import json_object
from sarzarr.scenes.products.family import Calibrator, constant_calibration

_CONVENTION: Final = "PROCESSING_INFORMATION_OUTPUT_BACKSCATTER_NORMALIZATION_CONVENTION"
_EXPRESSION: Final = "PROCESSING_INFORMATION_OUTPUT_BACKSCATTER_EXPRESSION_CONVENTION"
_QUANTITIES: Final = {
    "sigma_nought": Quantity.SIGMA0,
    "beta_nought": Quantity.BETA0,
    "gamma_nought": Quantity.GAMMA0,
    "sigma0": Quantity.SIGMA0,
    "beta0": Quantity.BETA0,
    "gamma0": Quantity.GAMMA0_RTC,
}


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """The word of a file's own tags for its pixels, all bands alike."""

    product: str
    """Name of the product, for people."""
    polarization: str = ""
    """Its polarization, two letters; empty where the tags do not say."""
    quantity: Quantity | None = Quantity.DN
    """Quantity of the pixels as they are in the file; None where the tags do not say."""
    representation: Representation | None = Representation.AMPLITUDE
    """Their representation, likewise."""
    calibrations: Mapping[str, Calibrator] = field(default_factory=dict)
    """The calibrations by the constants that they tell."""


def read_tags(tags: Mapping[str, str]) -> Tagged | None:
    """Return the product and pixels that a file's tags tell; None where no known product wrote them.

    A constant that is no positive number is refused when it is used.
    """
    for read in (_capella, _iceye, _opera, _asar):
        if (told := read(tags)) is not None:
            return told
    return None


def _below(document: Mapping[str, Any], *path: str) -> Any:
    for key in path:
        document = document.get(key, {}) if isinstance(document, dict) else {}
    return document or None


def _capella(tags: Mapping[str, str]) -> Tagged | None:
    """Return what Capella's JSON tells: (scale factor x DN)^2 is the power (Capella, SAR data format)."""
    document = json_object(tags.get("TIFFTAG_IMAGEDESCRIPTION", ""))
    image = _below(document, "collect", "image")
    if not isinstance(image, dict) or "scale_factor" not in image:
        return None
    radar = _below(document, "collect", "radar")
    letters = [_below(radar or {}, f"{way}_polarization") for way in ("transmit", "receive")]
    quantity = _QUANTITIES.get(str(image.get("radiometry")).lower())
    constant = str(image["scale_factor"])
    return Tagged(
        product="Capella",
        polarization="".join(letter for letter in letters if isinstance(letter, str)),
        calibrations=constant_calibration(quantity, _square(constant), f"Capella's scale factor {constant}")
        if quantity
        else {},
    )


def _square(text: str) -> float | str:
    """Return the square of a positive number; any other text as it is, to be refused by its name."""
    try:
        value = float(text)
    except ValueError:
        return text
    return value * value if value > 0 else text


def _iceye(tags: Mapping[str, str]) -> Tagged | None:
    """Return what ICEYE's tags tell: factor x |DN|^2 is sigma0 of GRD and beta0 of SLC; scans are not calibrated.

    Source: ICEYE product documentation, radiometric calibration (2026-01).
    """
    properties = json_object(tags.get("ICEYE_PROPERTIES", ""))
    factor = properties.get("iceye:calibration_factor", tags.get("CALIBRATION_FACTOR"))
    if factor is None or not (properties or "ICEYE" in tags.get("SATELLITE_NAME", "").upper()):
        return None
    level = str(
        properties.get("sar:product_type") or tags.get("PRODUCT_LEVEL") or tags.get("PRODUCT_TYPE", "")
    )
    mode = str(properties.get("sar:instrument_mode") or tags.get("ACQUISITION_MODE", "")).upper()
    polarizations = properties.get("sar:polarizations") or [tags.get("POLARIZATION", "")]
    quantity = Quantity.BETA0 if level.upper().startswith("SLC") else Quantity.SIGMA0
    is_scan = mode.startswith("SC") or "SCAN" in mode
    return Tagged(
        product="ICEYE",
        polarization=str(polarizations[0]) if isinstance(polarizations, list) and polarizations else "",
        calibrations={}
        if is_scan
        else constant_calibration(quantity, str(factor), f"ICEYE's calibration factor {factor}"),
    )


def _opera(tags: Mapping[str, str]) -> Tagged | None:
    """Return what OPERA's tags tell: a terrain-corrected power (OPERA RTC product specification)."""
    if tags.get("PRODUCT_TYPE") != "RTC-S1" or _CONVENTION not in tags:
        return None
    return Tagged(
        product="OPERA RTC-S1",
        quantity=_QUANTITIES.get(tags[_CONVENTION].lower()),
        representation=Representation.POWER if "intensity" in tags.get(_EXPRESSION, "") else None,
    )


def _asar(tags: Mapping[str, str]) -> Tagged | None:
    """Return what the headers of Envisat ASAR tell: ``H/H`` and digital numbers."""
    if not tags.get("MPH_PRODUCT", "").startswith("ASA_"):
        return None
    ways = re.fullmatch(r"([HV])/([HV])", tags.get("SPH_MDS1_TX_RX_POLAR", "").strip())
    return Tagged(product="Envisat ASAR", polarization="".join(ways.groups()) if ways else "")
