"""The product families that are known: one line each. The earlier ones win where two speak."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from sarzarr.scenes.acquisition import Acquisition, merge_facts, only_stamp
from sarzarr.scenes.products import sentinel1, snap
from sarzarr.scenes.products.family import Family, Product

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


def facts_from_name(text: str) -> Acquisition:
    """Return the facts in a file's, folder's or product's name: a family's, else the one date in it.

    >>> facts_from_name("20190428").datetime, facts_from_name("20180106-20180130_ifg").datetime
    ('2019-04-28T00:00:00Z', None)
    """
    of_family = (facts for family in FAMILIES if (facts := family.facts_from_name(text)))
    return next(of_family, None) or Acquisition(datetime=only_stamp(text))


def scene_of(path: Path) -> str | None:
    """Return the name that a family gives to the scene of a file; None where no family knows it."""
    return next((name for family in FAMILIES if (name := family.scene_of(path))), None)
