"""The product families that are known: one line each. The earlier ones win where two speak."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from sarzarr.scenes.acquisition import Acquisition, merge_facts, only_stamp
from sarzarr.scenes.grammars import facts_named
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
    calibrations = next((p.calibrations for p in products if p.calibrations), {})
    facts = merge_facts(p.facts for p in products)
    return replace(telling, folder=folder, facts=facts, calibrations=calibrations)


def facts_from_name(text: str) -> Acquisition:
    """Return the facts in a file's, folder's or product's name: of a known product, else the one time in it.

    >>> facts_from_name("20190428").datetime, facts_from_name("20180106-20180130_ifg").datetime
    ('2019-04-28T00:00:00Z', None)
    """
    return product_facts(text) or Acquisition(datetime=only_stamp(text))


def product_facts(text: str) -> Acquisition | None:
    """Return the facts, UTC, in the name of a known product; None for another text."""
    of_family = (facts for family in FAMILIES if (facts := family.facts_from_name(text)))
    return facts_named(text) or next(of_family, None)


def scene_of(path: Path) -> str | None:
    """Return the name that a family gives to the scene of a file; None where no family knows it."""
    if named := next((name for family in FAMILIES if (name := family.scene_of(path))), None):
        return named
    found = content_of(path)
    is_polarization = found is not None and not found.needs_folder and polarizations_in(found.token)
    return (found.base or None) if found is not None and is_polarization else None
