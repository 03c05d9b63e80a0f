"""Samples: pictures that came alone, PNG, JPEG and small TIFF, read as one channel.

They are for screens: 8 or 16 bits without a unit, or floats in [0, 1]. A picture in colour becomes the middle one
of its three values, which leaves grey as it is.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from sarzarr.arrays import Array
from sarzarr.conventions import Quantity, Representation
from sarzarr.errors import SarzarrError, UnsupportedRasterError
from sarzarr.rasters import mask_beside, open_picture, without_stop
from sarzarr.scenes.probe import probe_file

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""Suffixes of pictures, in lower case."""
DTYPES: Final = ("uint8", "uint16", "float32")
"""Dtypes of pictures that are taken."""
_REMEDY: Final = (
    "Ingest backscatter with `sarzarr ingest FOLDER --collection NAME`, where dB, power and what was not measured "
    "are understood; or write pictures from 0, black, to 1, or in 8 or 16 bits."
)
_ROUNDED: Final = 1e-6
"""What floats of a picture may lie beyond [0, 1], as rounding leaves them."""
MAX_SIDE: Final = 8192
"""Rows or columns of a picture; what is larger is a scene."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Pixels:
    """The pixels of a sample: one channel."""

    values: Array
    """(rows, columns) in the file's dtype, C-contiguous."""
    is_measured: Array
    """(rows, columns) bool: not where the file's nodata, mask or alpha says so, nor where a channel is not finite."""
    is_coloured: bool
    """Whether the file's channels differed anywhere."""


def probe_sample(path: Path) -> tuple[int, int, str]:
    """Return (rows, columns, dtype) of a picture, from its header; the dtype is one of `DTYPES`.

    Raises `UnsupportedRasterError` where it is no picture, or none of a dtype and size that are taken, or floats that
    are understood as backscatter, as those of scenes are.
    """
    with open_picture(path) as dataset:
        found = _probe(dataset, path)
        is_placed = dataset.crs is not None
    if found[2] == "float32" and (what := _backscatter_in(path, is_placed=is_placed)):
        raise UnsupportedRasterError(f"a picture was expected, got {path.name!r}, {what}. {_REMEDY}")
    return found


def _backscatter_in(path: Path, *, is_placed: bool) -> str | None:
    """Return what shows that floats are backscatter, such as power in [0, 1]; None of pictures.

    Without a place on the ground what they look like does not count: a dark picture looks like power. A name that
    says dB is that of a picture where no pixel is negative.
    """
    try:
        probe = probe_file(path)
    except (SarzarrError, OSError):
        return None
    if probe.refusal is not None or not probe.arrays:
        return None
    is_named = probe.quantity not in (Quantity.POWER, Quantity.DN)
    by_value = probe.reason.startswith("by value") and not is_named
    if by_value and not is_placed:
        return None
    if probe.representation == Representation.DB and not by_value and not _has_negative(path):
        return None
    return f"{probe.representation} of {probe.quantity} ({probe.reason})"


def _has_negative(path: Path) -> bool:
    """Return whether a measured pixel of a file is below 0."""
    pixels = _decoded(path)
    return bool((pixels.values[pixels.is_measured] < 0).any())


def _probe(dataset: Any, path: Path) -> tuple[int, int, str]:
    dtype = dataset.dtypes[0]
    if dtype not in DTYPES or dataset.count > 4:
        raise UnsupportedRasterError(
            f"a picture of {', '.join(DTYPES)} with at most 4 channels was expected, got {path.name!r} with "
            f"{dataset.count} of {dtype}. {_REMEDY}"
        )
    if max(*dataset.shape, *dataset.block_shapes[0]) > MAX_SIDE:  # a block is decoded whole
        raise UnsupportedRasterError(
            f"a picture of at most {MAX_SIDE} pixels a side was expected, got {path.name!r} with {dataset.height} x "
            f"{dataset.width} in blocks of {' x '.join(map(str, dataset.block_shapes[0]))}. Ingest it as a scene, or "
            "cut it."
        )
    return dataset.height, dataset.width, dtype


def read_sample(path: Path) -> Pixels:
    """Return the pixels of a picture as one channel: of three that differ, the middle one at each pixel.

    Floats are in [0, 1], what rounding left beyond cut. Raises `UnsupportedRasterError` where it is no picture that
    is taken, or its bytes cannot be decoded.
    """
    pixels = _decoded(path)
    if pixels.values.dtype.kind != "f":
        return pixels
    _check_unit(pixels.values[pixels.is_measured], path)
    return replace(pixels, values=np.clip(pixels.values, 0, 1))


def _decoded(path: Path) -> Pixels:
    """Return the pixels of a picture as they are in its file."""
    with open_picture(path) as dataset:
        _probe(dataset, path)
        kinds = dataset.colorinterp
        wanted = [i + 1 for i, kind in enumerate(kinds) if kind != ColorInterp.alpha][:3] or [1]
        try:
            channels = dataset.read(wanted)
            is_measured = np.isfinite(channels).all(axis=0)
            if any(MaskFlags.all_valid not in flags for flags in dataset.mask_flag_enums):
                is_measured &= dataset.dataset_mask() != 0
            if beside := mask_beside(path.absolute()):
                with open_picture(beside) as mask:
                    is_measured &= (mask.read() != 0).any(axis=0)
        except RasterioError as error:
            raise UnsupportedRasterError(
                f"intact pixels in {path.name!r} were expected, got {without_stop(error.__cause__ or error)}. "
                "Fetch or write the file again."
            ) from error
        if kinds[0] == ColorInterp.palette:
            channels = _painted(channels[0], dataset.colormap(1))
    is_coloured = len(channels) == 3 and bool((channels != channels[:1]).any())
    values = np.sort(channels, axis=0)[1] if is_coloured else channels[0]
    return Pixels(values=np.ascontiguousarray(values), is_measured=is_measured, is_coloured=is_coloured)


def _check_unit(values: Array, path: Path) -> None:
    """Refuse floats that are no picture: they would be delivered as they are, dB with padding as its brightest."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if low < -_ROUNDED or high > 1 + _ROUNDED:
        raise UnsupportedRasterError(
            f"float pictures in [0, 1] were expected, got {low:.4g} to {high:.4g} in {path.name!r}. {_REMEDY}"
        )


def _painted(index: Array, colours: dict[int, tuple[int, int, int, int]]) -> Array:
    """Return (3, rows, columns): the colours that a palette gives."""
    table = np.array([colours.get(i, (0, 0, 0))[:3] for i in range(256)], np.uint8)
    return np.moveaxis(table[index], -1, 0)
