"""The product families that are known: one line each. The earlier ones win where two speak."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from sarzarr.scenes.acquisition import merge_facts
from sarzarr.scenes.products import sentinel1, snap
from sarzarr.scenes.products.family import Family, Product
from sarzarr.scenes.products.rasters import content_of
from sarzarr.scenes.words import polarizations_in

FAMILIES: Final[tuple[Family, ...]] = (
    snap.FAMILY,
    sentinel1.FAMILY,
)


def read_product(path: Path) -> Product:
    """Return the metadata in a TIFF and in the files around it; what is malformed says nothing."""
    products = [replace(family.read(path), family=family.name) for family in FAMILIES]
    telling = next((p for p in products if p.bands), Product())
    folder = next((p.folder for p in products if p.folder), None)
    calibrated = next((p for p in products if p.calibrations), Product())
    return replace(
        telling,
        folder=folder,
        facts=merge_facts(p.facts for p in products),
        calibrations=calibrated.calibrations,
        fields=next((p.fields for p in products if p.fields), {}),
        border_noise=calibrated.border_noise,
    )


def scene_of(path: Path) -> str | None:
    """Return the name that a family gives to the scene of a file; None where no family knows it."""
    if named := next((name for family in FAMILIES if (name := family.scene_of(path))), None):
        return named
    found = content_of(path)
    is_polarization = found is not None and not found.needs_folder and polarizations_in(found.token)
    return (found.base or None) if found is not None and is_polarization else None
