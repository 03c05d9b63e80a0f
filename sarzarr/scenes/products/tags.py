"""Products whose TIFF tags tell what the pixels are: Capella, ICEYE, OPERA, ASAR."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from sarzarr.conventions import Quantity, Representation
from sarzarr.scenes.products.family import BandMetadata

MAX_JSON: Final = 2**20
"""Bytes of JSON that are read."""
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


def read_tags(tags: Mapping[str, str]) -> BandMetadata | None:
    """Return the metadata that a file's tags tell of each of its bands; None where no known product wrote them.

    `BandMetadata.factor` brings |DN|^2 to linear power; NaN where a product names a factor that is no number.
    """
    for read in (_capella, _iceye, _opera, _asar):
        if (band := read(tags)) is not None:
            return band
    return None


def _json(text: str) -> dict[str, Any]:
    """Return a JSON object; an empty one where the text is none, or longer than `MAX_JSON`."""
    if not text.lstrip().startswith("{") or len(text) > MAX_JSON:
        return {}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _below(document: Mapping[str, Any], *path: str) -> Any:
    for key in path:
        document = document.get(key, {}) if isinstance(document, dict) else {}
    return document or None


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _capella(tags: Mapping[str, str]) -> BandMetadata | None:
    """Return what Capella's JSON tells: (scale factor x DN)^2 is the power (Capella, SAR data format)."""
    document = _json(tags.get("TIFFTAG_IMAGEDESCRIPTION", ""))
    image = _below(document, "collect", "image")
    if not isinstance(image, dict) or "scale_factor" not in image:
        return None
    radar = _below(document, "collect", "radar")
    letters = [_below(radar or {}, f"{way}_polarization") for way in ("transmit", "receive")]
    quantity = _QUANTITIES.get(str(image.get("radiometry")).lower())
    return BandMetadata(
        product="Capella",
        polarization="".join(letter for letter in letters if isinstance(letter, str)),
        quantity=quantity or Quantity.DN,
        representation=Representation.AMPLITUDE,
        factor=1.0 if quantity is None else _number(image["scale_factor"]) ** 2,
    )


def _iceye(tags: Mapping[str, str]) -> BandMetadata | None:
    """Return what ICEYE's tags tell: factor x |DN|^2 is sigma0 of GRD and beta0 of SLC; scans are not calibrated.

    Source: ICEYE product documentation, radiometric calibration (2026-01).
    """
    properties = _json(tags.get("ICEYE_PROPERTIES", ""))
    said = properties.get("iceye:calibration_factor", tags.get("CALIBRATION_FACTOR"))
    if said is None or not (properties or "ICEYE" in tags.get("SATELLITE_NAME", "").upper()):
        return None
    level = str(
        properties.get("sar:product_type") or tags.get("PRODUCT_LEVEL") or tags.get("PRODUCT_TYPE", "")
    )
    mode = str(properties.get("sar:instrument_mode") or tags.get("ACQUISITION_MODE", ""))
    polarizations = properties.get("sar:polarizations") or [tags.get("POLARIZATION", "")]
    is_scan = mode.upper().startswith("SC") or "SCAN" in mode.upper()
    is_slc = level.upper().startswith("SLC")
    return BandMetadata(
        product="ICEYE",
        polarization=str(polarizations[0]) if isinstance(polarizations, list) and polarizations else "",
        quantity=Quantity.DN if is_scan else Quantity.BETA0 if is_slc else Quantity.SIGMA0,
        representation=Representation.AMPLITUDE,
        factor=1.0 if is_scan else _number(said),
    )


def _opera(tags: Mapping[str, str]) -> BandMetadata | None:
    """Return what OPERA's tags tell: a terrain-corrected power (OPERA RTC product specification)."""
    if tags.get("PRODUCT_TYPE") != "RTC-S1" or _CONVENTION not in tags:
        return None
    return BandMetadata(
        product="OPERA RTC-S1",
        quantity=_QUANTITIES.get(tags[_CONVENTION].lower()),
        representation=Representation.POWER if "intensity" in tags.get(_EXPRESSION, "") else None,
    )


def _asar(tags: Mapping[str, str]) -> BandMetadata | None:
    """Return what the headers of Envisat ASAR tell: ``H/H`` and detected digital numbers."""
    if not tags.get("MPH_PRODUCT", "").startswith("ASA_"):
        return None
    ways = re.fullmatch(r"([HV])/([HV])", tags.get("SPH_MDS1_TX_RX_POLAR", "").strip())
    return BandMetadata(
        product="Envisat ASAR",
        polarization="".join(ways.groups()) if ways else "",
        quantity=Quantity.DN,
        representation=Representation.AMPLITUDE,
    )
