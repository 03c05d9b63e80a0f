"""Annotation of a SAFE folder's measurement files: where it is, its numbers, and whether it is of the very image."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import UnsupportedRasterError
from sarzarr.rasters import open_raster
from sarzarr.scenes.acquisition import time_stamp
from sarzarr.scenes.products.xml import MAX_XML, parse_xml, texts_of
from sarzarr.scenes.words import tokens
from sarzarr.zips import read_bytes

_HEADER: Final = (
    "missionId",
    "productType",
    "polarisation",
    "mode",
    "swath",
    "missionDataTakeId",
    "imageNumber",
)
"""What the headers of all annotation of one measurement file have alike."""
_NONE: Final = "Fetch the product again, or keep its digital numbers with --calibrate none."
NO_DENOISE: Final = "Leave out --denoise."


def remedy_for(file: Path) -> str:
    """Return what to do about an annotation file of calibration, or of noise, that is of no use."""
    return NO_DENOISE if file.name.startswith("noise-") else _NONE


@dataclass(frozen=True, kw_only=True)
class SafeFiles:
    """The places of a measurement file's annotation, in a folder or an archive; some may not be there."""

    measurement: Path
    """The measurement file, a TIFF (rows, columns)."""

    @property
    def folder(self) -> Path:
        """The product's folder."""
        return self.measurement.parent.parent

    @property
    def stem(self) -> str:
        """The stem that annotation shares with the file: without the ``-cog`` of COG_SAFE."""
        return re.sub(r"-cog$", "", self.measurement.stem, flags=re.IGNORECASE)

    @property
    def product(self) -> Path:
        """The annotation of the image: facts, angles (degrees) and places."""
        return self.folder / "annotation" / f"{self.stem}.xml"

    @property
    def calibration(self) -> Path:
        """The tables that calibrate it, by line and pixel."""
        return self.folder / "annotation/calibration" / f"calibration-{self.stem}.xml"

    @property
    def noise(self) -> Path:
        """The tables of thermal noise, in DN^2."""
        return self.folder / "annotation/calibration" / f"noise-{self.stem}.xml"

    @property
    def manifest(self) -> Path:
        """The product's manifest, at most `MAX_XML` bytes of which are read."""
        return self.folder / "manifest.safe"


def read_annotation(path: Path) -> Element | None:
    """Return the root of an annotation file of at most `MAX_XML` bytes; None where there is no such file.

    Raises `UnsupportedRasterError` where it is malformed.
    """
    data = read_bytes(path, MAX_XML)
    if data is None:
        return None
    try:
        return parse_xml(data)
    except ValueError as error:
        raise UnsupportedRasterError(f"{path.name}: {error}. {remedy_for(path)}") from error


def check_owner(annotation: SafeFiles, file: Path, root: Element, product: Element | None) -> None:
    """Refuse annotation of another measurement file: by the headers, and by the file's name."""
    header = _header(root)
    owner = {} if product is None else _header(product)
    differ = [k for k in _HEADER if k in header and k in owner and header[k] != owner[k]]
    start, own = (time_stamp(h.get("startTime", "")) for h in (header, owner))
    if start and own and _seconds_apart(start, own) > 5:
        differ.append("startTime")
    if differ:
        raise UnsupportedRasterError(
            f"expected the annotation of {annotation.measurement.name!r}, got {file.name!r} of another one: "
            f"{differ[0]} {header[differ[0]]}, not {owner[differ[0]]}. {remedy_for(file)}"
        )
    words = tokens(annotation.stem)
    for key in ("polarisation", "missionId"):
        told = header.get(key, "").lower()
        others = {"polarisation": ("vv", "vh", "hh", "hv"), "missionId": ("s1a", "s1b", "s1c", "s1d")}[key]
        named = [word for word in words if word in others]
        if told and named and told not in named:
            raise UnsupportedRasterError(
                f"expected the annotation of {annotation.measurement.name!r}, got {file.name!r} of another one: "
                f"{key} {told.upper()}. {remedy_for(file)}"
            )


def _seconds_apart(one: str, other: str) -> float:
    times = (np.datetime64(text.removesuffix("Z"), "us") for text in (one, other))
    return float(abs(next(times) - next(times)) / np.timedelta64(1, "s"))


def _header(root: Element) -> Mapping[str, str]:
    header = root.find("adsHeader")
    return {} if header is None else texts_of(header)


def check_image(annotation: SafeFiles, product: Element | None, shape: tuple[int, int]) -> None:
    """Refuse a raster that is not the annotated image, pixel by pixel: a part of it, or one of another size."""
    if product is None:
        return
    told = [
        product.find(f"imageAnnotation/imageInformation/{k}") for k in ("numberOfLines", "numberOfSamples")
    ]
    numbers = tuple(int(e.text or "0") for e in told if e is not None and (e.text or "").strip().isdigit())
    if len(numbers) == 2 and numbers != shape:
        raise UnsupportedRasterError(
            f"expected the annotated image of {numbers[0]} x {numbers[1]} pixels, got {shape[0]} x {shape[1]} in "
            f"{annotation.measurement.name!r}. Give the measurement file as it was downloaded, or keep its digital "
            "numbers with --calibrate none."
        )


def vectors_of(
    root: Element, name: str, values: str, file: Path
) -> tuple[list[float], list[Array], list[Array]]:
    """Return the lines of vectors, and of each the pixels and values, (n,) float64."""
    lines, pixels, tables = [], [], []
    for vector in root.iter(name):
        lines.append(float(numbers_of(vector, "line", file)[0]))
        pixels.append(numbers_of(vector, "pixel", file))
        tables.append(numbers_of(vector, values, file))
    if not lines:
        raise UnsupportedRasterError(
            f"expected vectors {name} in {file.name!r}, got none. {remedy_for(file)}"
        )
    return lines, pixels, tables


def numbers_of(element: Element, name: str, file: Path) -> Array:
    """Return the numbers (n,) float64 in a child; refuses where there is none, or it holds something else."""
    child = element.find(name)
    try:
        found = np.array((child.text or "").split() if child is not None else [], np.float64)
    except ValueError:
        found = np.empty(0)
    if not found.size:
        raise UnsupportedRasterError(
            f"expected numbers for {name} in {file.name!r}, got none or something else. {remedy_for(file)}"
        )
    return found


def check_covers(lines: list[float], pixels: list[Array], shape: tuple[int, int], file: Path) -> None:
    """Refuse tables that are not as wide, or not as long, as the image: they are of another one.

    Of SLC the first and last vectors may lie a burst inside of the image, whose edges they are held to.
    """
    height, width = shape
    ends = [float(p[-1]) for p in pixels]
    step = max((float(np.diff(p).max()) for p in pixels if len(p) > 1), default=1.0)
    reach = 2 * max(np.diff(sorted(lines)), default=height)
    is_short = min(p[0] for p in pixels) > 0 or max(ends) < width - 1
    is_short |= max(lines) + reach < height - 1 or min(lines) - reach > 0
    if is_short or max(ends) > width - 1 + 2 * step:
        raise UnsupportedRasterError(
            f"expected a table of {height} x {width} pixels, got one of lines {min(lines):g} to {max(lines):g} and "
            f"pixels {min(p[0] for p in pixels):g} to {max(ends):g} in {file.name!r}. {remedy_for(file)}"
        )


def ipf_version(annotation: SafeFiles) -> tuple[int, int] | None:
    """Return (major, minor) of the processor: by the manifest, else by the file's tag; None where neither tells."""
    try:
        manifest = parse_xml(read_bytes(annotation.manifest, MAX_XML) or b"")
        told = (e.get("version", "") for e in manifest.iter() if e.tag.split(":")[-1] == "software")
        text = next(told, "")
    except ValueError:
        text = ""
    if not text:
        with open_raster(annotation.measurement) as dataset:
            text = str(dataset.tags().get("TIFFTAG_SOFTWARE", ""))
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None
