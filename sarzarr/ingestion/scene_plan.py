"""The plan of one scene: its blocks, what they read and write, and the memory that a worker needs."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.grids.grid import Grid
from sarzarr.grids.warp.plan import Passthrough, WarpPlan
from sarzarr.grids.warp.read import TILE
from sarzarr.ingestion.blocks.jobs import ArraySource, BlockJob, Step
from sarzarr.ingestion.layers.plan import LayerJob, LayerPlan
from sarzarr.ingestion.options import MEGABYTE, IngestOptions
from sarzarr.scenes.acquisition import Acquisition
from sarzarr.scenes.probe import ArrayProbe
from sarzarr.scenes.scene import SceneProbe
from sarzarr.store.documents import Encoding
from sarzarr.store.shard_job import job_side, rectangles
from sarzarr.store.store import bounds_key
from sarzarr.text import counted

PROCESS_BASE: Final = 390 * MEGABYTE
"""Resident memory of a worker before it reads: Python, the imports (40 MB of it pyarrow, which pandas takes in where
it is), compiled loops (30 MB of it), and GDAL's bounded cache in use."""
BLOCK_PIXELS: Final = 8192 * 2048
"""Pixels that a block of a tiled file aims at: enough to make tasks few, few enough to keep workers busy."""
WARP_BYTES: Final = 160 * MEGABYTE
"""Bytes that a warp takes besides: the source's pixels under a tile in all their copies, and GDAL's own."""
BYTES_A_PIXEL: Final = 14
"""Beyond the raw pixels themselves, what a band costs: a mask, labels and their copies, at the worst."""
_FAMILIES: Final = ("sentinel-1", "iceye", "capella", "umbra", "rcm", "cosmo-skymed")
"""Platforms of several units whose digital numbers are of one unit."""


def group_of(scene: SceneProbe, array: ArrayProbe) -> str:
    """Return the group that an array shares bounds (dB) with: ``vv/sigma0``.

    The unit of digital numbers is that of a sensor, a mode and a product: one sigma0 is 17 dB apart in those of
    Sentinel-1 IW and stripmap. So their groups say it, as far as it is known: ``vv/dn-sentinel-1-iw-grd``; and
    whether they were taken as anything but amplitude: ``vv/dn-power``.
    """
    return group_named(array.name, str(array.quantity), str(array.representation), scene.acquisition)


def group_named(name: str, quantity: str, representation: str, facts: Acquisition) -> str:
    """Return the group of an array, as `group_of`, by its name, what its numbers are, and the acquisition."""
    if quantity != cv.Quantity.DN:
        return bounds_key(name, quantity)
    platform = facts.platform or ""
    family = next((name for name in _FAMILIES if platform.startswith(name)), platform)
    form = "" if representation == cv.Representation.AMPLITUDE else representation
    words = (family, facts.instrument_mode, facts.product_type, form)
    kind = "-".join(re.sub(r"[^a-z0-9]+", "-", word.lower()) for word in words if word)
    return bounds_key(name, f"{cv.Quantity.DN}-{kind}" if kind else str(cv.Quantity.DN))


@dataclass(frozen=True, kw_only=True)
class ScenePlan:
    """One scene that will be written."""

    probe: SceneProbe
    """Its files, probed."""
    encoding: Encoding
    """The encoding of its arrays; layers have their own dtype and codec in it."""
    bounds: dict[str, tuple[float, float]]
    """(vmin, vmax) in dB of each array's stored range, by name."""
    replaces: bool
    """Whether the store holds another scene of that id."""
    border: int = 0
    """Pixels around nodata that become border."""
    onto: tuple[WarpPlan | Passthrough, ...] = ()
    """The way of each array onto the grid, in their order; empty where the scene keeps its own."""
    layers: tuple[LayerPlan, ...] = ()
    """Rasters that are kept beside its arrays, on the same grid."""
    only_layers: bool = False
    """Whether the scene is in the store as planned, and its layers alone are written."""
    columns: int = BLOCK_PIXELS
    """Columns that a block may have, so that its bands fit the memory."""
    workload: int = 0
    """Pixels that each worker may expect of the whole ingest."""

    @property
    def id(self) -> str:
        """The scene's id, at most 128 bytes of ASCII."""
        return self.probe.id

    @property
    def grid(self) -> Grid:
        """The grid that is stored: CRS, transform and (rows, columns)."""
        keeps = not self.onto or (isinstance(self.onto[0], Passthrough) and self.onto[0].is_identity)
        return self.probe.grid if keeps else self.onto[0].grid

    @property
    def geolocation(self) -> str:
        """The tie of the stored pixels to the ground, as `conventions.GEOLOCATION` names it."""
        return self.onto[0].geolocation if self.onto else self.probe.geolocation

    @property
    def has_border(self) -> bool:
        """Whether some valid pixels become border, so that flags are found in a pass of their own."""
        return bool(self.border) or any(array.border_noise for array in self.probe.arrays)

    @property
    def is_warped(self) -> bool:
        """Whether pixels are resampled."""
        return any(isinstance(plan, WarpPlan) for plan in self.onto)

    @property
    def fingerprint(self) -> str:
        """Names the sources and everything that decides the bytes: staged work of another is not taken up."""
        bounds = sorted(self.bounds.items())
        parts: list[Any] = [
            cv.SCHEMA_VERSION,
            self.probe.source_hash,
            self.encoding,
            bounds,
            self.border,
            self.columns,
        ]
        parts += [self.identity_of(a) for a in self.probe.arrays]
        parts += [a.border_noise.identity for a in self.probe.arrays if a.border_noise]
        parts += [layer.identity for layer in self.layers]
        parts += [self.only_layers] if self.only_layers else []
        return sha256(repr(parts).encode()).hexdigest()

    def identity_of(self, array: ArrayProbe) -> tuple[Any, ...]:
        """Return everything but the source's bytes that decides an array's power (rows, columns), pixel by pixel."""
        read = (array.name, array.band, array.representation, array.nodata, array.unmeasured)
        onto = [(type(p).__name__, p.grid, p.attrs) for p in self.onto]
        return *read, array.calibration and array.calibration.identity, onto

    def source(self, array: ArrayProbe) -> ArraySource:
        """Return a (rows, columns) array as a worker reads it."""
        vmin, vmax = self.bounds[array.name]
        onto = self.onto[self.probe.arrays.index(array)] if self.onto else None
        is_warped = isinstance(onto, WarpPlan)
        return ArraySource(
            name=array.name,
            file=next(file.stamp for file in self.probe.files if file.path == array.path),
            band=array.band,
            representation=str(cv.Representation.POWER if is_warped else array.representation),
            itemsize=np.dtype(array.dtype).itemsize,
            nodata=None if is_warped else array.nodata,
            unmeasured=None if is_warped else array.unmeasured,
            vmin=vmin,
            vmax=vmax,
            onto=None if isinstance(onto, Passthrough) and onto.is_identity else onto,
            calibration=None if is_warped else array.calibration,
            border_noise=array.border_noise,
        )

    @property
    def _files(self) -> list[list[ArrayProbe]]:
        """Arrays that are written, those of one file together."""
        files: dict[Path, list[ArrayProbe]] = {}
        for array in () if self.only_layers else self.probe.arrays:
            files.setdefault(array.path, []).append(array)
        return list(files.values())

    def group(self, array: ArrayProbe) -> str:
        """Return the group that an array shares bounds (dB) with: ``vv/sigma0``."""
        return group_of(self.probe, array)

    @property
    def groups(self) -> set[str]:
        """The groups of its arrays, that share bounds (dB) with others."""
        return {self.group(array) for array in self.probe.arrays}

    def jobs(self, folder: str, *, step: Step = Step.WRITE, mask: str = "") -> Iterator[BlockJob]:
        """Yield the units of work, whole shards of pixels, file by file and row by row.

        They write into ``folder``; ``mask`` is the folder of the flags of a first pass, if borders are eroded.
        """
        for arrays in self._files:
            sources = tuple(self.source(a) for a in arrays)
            for place in self._blocks(arrays[0]):
                yield BlockJob(
                    **place,
                    scene=self.id,
                    folder=folder,
                    encoding=self.encoding,
                    arrays=sources,
                    shape=self.grid.shape,
                    step=step,
                    border=self.border if step is Step.WRITE else 0,
                    mask=mask,
                    workload=self.workload,
                )

    def layer_jobs(self, folder: str) -> Iterator[LayerJob]:
        """Yield the units of work of its layers, whole shards of pixels, which are written into ``folder``."""
        for layer in self.layers:
            encoding = layer.encoding(self.encoding)
            for place in self._blocks(layer):
                yield LayerJob(**place, scene=self.id, folder=folder, encoding=encoding, layer=layer)

    def _blocks(self, array: ArrayProbe | LayerPlan) -> Iterator[dict[str, Any]]:
        """Return the rectangle of each block, and the rows that are read of it at once, as fields of a job."""
        size = self.block_shape(array)
        rows = {"band_rows": self.band_rows(array, size[0])}
        return (place | rows for place in rectangles(self.grid.shape, size))

    @property
    def tasks(self) -> int:
        """Units of work, (rows, columns) of pixels each; each pass over the file counted."""
        blocks = sum(1 for _ in self.jobs("")) * (2 if self.has_border else 1)
        return blocks + sum(1 for _ in self.layer_jobs(""))

    @property
    def _written(self) -> list[ArrayProbe | LayerPlan]:
        """Arrays and layers that are written."""
        return [*(() if self.only_layers else self.probe.arrays), *self.layers]

    @property
    def bytes_in(self) -> int:
        """Bytes of the decoded source pixels; of layers, of the pixels that they become."""
        pixels = math.prod(self.probe.grid.shape), math.prod(self.grid.shape)
        return sum(pixels[isinstance(a, LayerPlan)] * np.dtype(a.dtype).itemsize for a in self._written)

    @property
    def bytes_worked(self) -> int:
        """Sum of its jobs' ``source_bytes``: pixels of the grid, where it is not the source's own."""
        return math.prod(self.grid.shape) * sum(np.dtype(a.dtype).itemsize for a in self._written)

    @property
    def bytes_out(self) -> int:
        """Bytes of the stored pixels at the most, before a codec makes them fewer; flags not counted."""
        chunk = self.encoding.chunk
        pixels = math.prod(math.ceil(n / chunk) * chunk for n in self.grid.shape)
        dtypes = (a.dtype if isinstance(a, LayerPlan) else self.encoding.dtype for a in self._written)
        return pixels * sum(np.dtype(dtype).itemsize for dtype in dtypes)

    @property
    def patches(self) -> int:
        """Whole patches of 256 x 256 pixels, all arrays together."""
        return math.prod(n // cv.CHUNK for n in self.grid.shape) * len(self.probe.arrays)

    def peak_memory(self, threads: int) -> int:
        """Return the projected resident peak of a worker, in bytes, with ``threads`` tasks at once."""
        worst = 0
        for arrays in self._units:
            height, width = self.block_shape(arrays[0])
            rows = min(self.band_rows(arrays[0], height), self.grid.height)
            columns = min(width, self.grid.width)
            itemsize = max(np.dtype(a.dtype).itemsize for a in arrays)
            held = rows * columns * (itemsize + BYTES_A_PIXEL) + max(a.block_bytes for a in arrays)
            worst = max(worst, held + (WARP_BYTES if self._warps(arrays[0]) else 0))
        return PROCESS_BASE + threads * worst

    @property
    def _units(self) -> list[Sequence[ArrayProbe | LayerPlan]]:
        """Arrays that are read together: those of each file, and each layer."""
        return [*self._files, *([layer] for layer in self.layers)]

    def _warps(self, array: ArrayProbe | LayerPlan) -> bool:
        return array.is_warped if isinstance(array, LayerPlan) else self.is_warped

    def block_shape(self, array: ArrayProbe | LayerPlan) -> tuple[int, int]:
        """Return (rows, columns) of a block: whole shards; full width where the file is in strips."""
        size = job_side(self.encoding.file_size)
        if self._warps(array):
            return size, size
        width = self.grid.width
        wanted = width if array.block_shape[1] >= width else BLOCK_PIXELS // size
        return size, max(min(math.ceil(wanted / size), self.columns // size), 1) * size

    def band_rows(self, array: ArrayProbe | LayerPlan, height: int) -> int:
        """Return the rows that are read at once: whole chunks, and whole rows of TIFF blocks where that fits."""
        if self._warps(array):
            return TILE  # a warp makes so many at once
        chunk, block = self.encoding.chunk, array.block_shape[0]
        rows = math.lcm(chunk, min(block, height))
        return rows if rows <= min(height, 1024) and block <= height else chunk

    def fitted(self, options: IngestOptions) -> "ScenePlan":
        """Return the plan with blocks of as few columns as the memory asks for; wide strips are then read again."""
        fit, size = self, job_side(self.encoding.file_size)
        while fit.peak_memory(options.threads) > options.memory:
            widest = max(fit.block_shape(arrays[0])[1] for arrays in fit._units)
            if widest <= size:
                break
            fit = replace(fit, columns=max(widest // 2 // size, 1) * size)
        return fit

    def __repr__(self) -> str:
        arrays = "+".join(a.name for a in self._written)
        return f"<sarzarr.ScenePlan {self.id!r}: {self.grid.height} x {self.grid.width}, {arrays}>"

    def __str__(self) -> str:
        tasks = counted(self.tasks, "task")
        layers = [f"    {layer}" for layer in self.layers]
        if self.only_layers:
            return "\n".join([f"  {self.id}: is there, and gets layers alone, {tasks}", *layers])
        gcps = counted(len(self.probe.georeference.gcps), "GCP")
        tie = {
            "affine": "georeferenced",
            "rotated_affine": "rotated affine",
            "gcp_tps_no_dem": f"by {gcps} without terrain",
            "gcps": f"{gcps}, image geometry (--crs and --pixel-size georeference it)",
            "rpcs": "RPC, image geometry (orthorectify it with a DEM to georeference it)",
        }.get(self.geolocation, self.probe.georeference.unplaced or "no CRS")
        place = f"{self.grid.height} x {self.grid.width}, {tie}"
        way = "warped" if self.is_warped else "passthrough"
        held = counted(self.patches, "patch") if self.probe.arrays else "layers alone"
        lines = [f"  {self.id}: {place}, {way}, {tasks}, {held}"]
        lines[0] += ", replaces the one there" if self.replaces else ""
        lines += [f"    {plan}" for plan in self.onto]
        lines += [f"    {a.name}: {a.quantity} as {a.representation} ({a.reason})" for a in self.probe.arrays]
        return "\n".join(lines + layers)
