"""Probe a GeoTIFF: its header and a small fixed sample, and what its numbers are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sarzarr.acquisition import Acquisition
from sarzarr.grid import Grid


@dataclass(frozen=True, kw_only=True)
class ArrayProbe:
    """One band of a raster that will be one array of a scene."""

    name: str
    """Name of the array: ``vv``, or the band's own name made safe, or ``band_1``."""
    polarization: str | None
    """``VV``, ``VH``, ``HH``, ``HV``; None where nothing says it."""
    path: Path
    """The file that holds the band."""
    band: int
    """Number of the band in its file, from 1."""
    dtype: str
    """NumPy dtype that `read_window` gives: ``uint16``, ``float32``, ``complex64``, ..."""
    nodata: float | None
    """The file's sentinel; NaN where the tag says NaN, None where nothing is declared."""
    block_shape: tuple[int, int]
    """(rows, columns) of the file's blocks: windows aligned to them decode each block once."""
    block_bytes: int
    """Bytes of one decoded block, all bands of a pixel-interleaved file included."""
    quantity: str | None
    """`conventions.Quantity`; None where the file is refused."""
    representation: str | None
    """`conventions.Representation`; None where the file is refused."""
    reason: str
    """One sentence: how quantity and representation were found."""
    scale: float = 1.0
    """Declared scale; anything but 1 is refused."""
    offset: float = 0.0
    """Declared offset; anything but 0 is refused."""


@dataclass(frozen=True, kw_only=True)
class RasterProbe:
    """What the header of a GeoTIFF, its surroundings and a fixed sample of its pixels say."""

    path: Path
    """The file, absolute."""
    file_size: int
    """Bytes on disk."""
    declared_bytes: int
    """Bytes of all bands decoded; far beyond ``file_size``, it is a hollow file or a bomb."""
    grid: Grid
    """CRS, transform and shape; no CRS where the file has none or only GCPs."""
    geolocation: str
    """``affine``, ``rotated_affine``, ``gcps`` or ``none``."""
    gcps: tuple[tuple[float, float, float, float, float], ...]
    """Ground control points: (row, col, x, y, z) in the CRS of ``gcps_crs_wkt``."""
    gcps_crs_wkt: str | None
    """WKT2 of the GCPs' CRS."""
    block_shape: tuple[int, int]
    """(rows, columns) of a block."""
    block_bytes: int
    """Bytes of one decoded block, all bands of a pixel-interleaved file included."""
    compression: str
    """``none``, ``deflate``, ``lzw``, ``zstd``, ... in lower case."""
    interleaving: str
    """``band`` or ``pixel``."""
    arrays: tuple[ArrayProbe, ...]
    """The bands that are backscatter."""
    left_out: tuple[str, ...]
    """One sentence a band that is not backscatter (an angle, a mask) beside others that are."""
    quantity: str | None
    """`conventions.Quantity` of the file; None where it is refused."""
    representation: str | None
    """`conventions.Representation` of the file; None where it is refused."""
    reason: str
    """One sentence: how quantity and representation were found."""
    acquisition: Acquisition
    """What tags, names and product metadata say of the acquisition."""
    source_hash: str
    """``sha256-sampled:<hex>`` of size, header and sampled bytes, or ``sha256:<hex>`` of all of them."""
    refusal: str | None
    """Why the file cannot be ingested as asked, with the remedy; None where it can."""


def probe_file(
    path: str | Path,
    *,
    quantity: str | None = None,
    representation: str | None = None,
    polarizations: Sequence[str] | None = None,
    full_hash: bool = False,
) -> RasterProbe:
    """Return what a GeoTIFF holds, from its header and a small fixed sample."""
    raise NotImplementedError
