"""The plan of one scene: its blocks, what they read and write, and the memory that a worker needs."""

import math
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
from sarzarr.ingestion.blocks.jobs import ArraySource, BlockJob, LayerJob, LayerPlan, Step
from sarzarr.ingestion.options import MEGABYTE, IngestOptions
from sarzarr.scenes.probe import ArrayProbe
from sarzarr.scenes.scene import SceneProbe
from sarzarr.store.documents import Encoding
from sarzarr.store.store import bounds_key

PROCESS_BASE: Final = 350 * MEGABYTE
"""Resident memory of a worker before it reads: Python, the imports, compiled loops (which are 30 MB of it), and
GDAL's bounded cache in use."""
BLOCK_PIXELS: Final = 8192 * 2048
"""Pixels that a block of a tiled file aims at: enough to make tasks few, few enough to keep workers busy."""
WARP_BYTES: Final = 160 * MEGABYTE
"""What a warp takes besides: the source's pixels under a tile in all their copies, and GDAL's own."""
BYTES_A_PIXEL: Final = 14
"""Beyond the raw pixels themselves, what a band costs: a mask, labels and their copies, at the worst."""


@dataclass(frozen=True, kw_only=True)
class ScenePlan:
    """One scene that will be written."""

    probe: SceneProbe
    """What its files are."""
    encoding: Encoding
    """How its pixels become bytes."""
    bounds: dict[str, tuple[float, float]]
    """(vmin, vmax) in dB of each array's stored range, by name."""
    replaces: bool
    """Whether the store holds another scene of that id."""
    border: int = 0
    """Pixels around nodata that become border."""
    onto: tuple[WarpPlan | Passthrough, ...] = ()
    """How each array comes onto the grid, in their order; empty where the scene keeps its own."""
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
        """The scene's id."""
        return self.probe.id

    @property
    def grid(self) -> Grid:
        """The grid that is stored."""
        keeps = not self.onto or (isinstance(self.onto[0], Passthrough) and self.onto[0].is_identity)
        return self.probe.grid if keeps else self.onto[0].grid

    @property
    def geolocation(self) -> str:
        """How the stored pixels are tied to the ground."""
        return self.onto[0].geolocation if self.onto else self.probe.geolocation

    @property
    def is_warped(self) -> bool:
        """Whether pixels are resampled."""
        return any(isinstance(plan, WarpPlan) for plan in self.onto)

    @property
    def fingerprint(self) -> str:
        """Names the sources and everything that decides the bytes: staged work of another is not taken up."""
        said: list[Any] = [self.probe.source_hash, self.encoding, sorted(self.bounds.items()), self.border]
        said.append(self.columns)
        said += [(a.name, a.band, a.representation, a.nodata) for a in self.probe.arrays]
        said += [(type(p).__name__, p.grid, p.attrs) for p in self.onto]
        said += [layer.said for layer in self.layers]
        said += [self.only_layers] if self.only_layers else []
        return sha256(repr(said).encode()).hexdigest()

    def source(self, array: ArrayProbe) -> ArraySource:
        """Return an array as a worker reads it."""
        vmin, vmax = self.bounds[array.name]
        onto = self.onto[self.probe.arrays.index(array)] if self.onto else None
        is_warped = isinstance(onto, WarpPlan)
        return ArraySource(
            name=array.name,
            path=str(array.path),
            band=array.band,
            representation=str(cv.Representation.POWER if is_warped else array.representation),
            itemsize=np.dtype(array.dtype).itemsize,
            nodata=None if is_warped else array.nodata,
            vmin=vmin,
            vmax=vmax,
            onto=None if isinstance(onto, Passthrough) and onto.is_identity else onto,
        )

    def files(self) -> dict[Path, list[ArrayProbe]]:
        """Arrays by the file that holds them."""
        out: dict[Path, list[ArrayProbe]] = {}
        for array in self.probe.arrays:
            out.setdefault(array.path, []).append(array)
        return out

    def group(self, array: ArrayProbe) -> str:
        """Return the group that an array shares bounds with."""
        return bounds_key(array.name, str(array.quantity))

    def jobs(self, folder: str, *, step: Step = Step.WRITE, mask: str = "") -> Iterator[BlockJob]:
        """Yield the units of work, file by file and row by row.

        Parameters
        ----------
        folder
            The folder that files are written into: the staged scene group.
        step
            What is done.
        mask
            Where a first pass wrote the flags, if borders are eroded.
        """
        for arrays in self.files().values():
            if self.only_layers:
                return
            height, width = self.block_shape(arrays[0])
            sources = tuple(self.source(a) for a in arrays)
            for row in range(0, self.grid.height, height):
                for col in range(0, self.grid.width, width):
                    yield BlockJob(
                        scene=self.id,
                        arrays=sources,
                        folder=folder,
                        encoding=self.encoding,
                        row=row,
                        col=col,
                        height=min(height, self.grid.height - row),
                        width=min(width, self.grid.width - col),
                        shape=self.grid.shape,
                        step=step,
                        border=self.border if step is Step.WRITE else 0,
                        mask=mask,
                        band_rows=self.band_rows(arrays[0], height),
                        workload=self.workload,
                    )

    def layer_jobs(self, folder: str) -> Iterator[LayerJob]:
        """Yield the units of work of its layers, which are written into ``folder``."""
        for layer in self.layers:
            height, width = self.block_shape(layer)
            for row in range(0, self.grid.height, height):
                for col in range(0, self.grid.width, width):
                    yield LayerJob(
                        scene=self.id,
                        layer=layer,
                        folder=folder,
                        encoding=layer.encoding(self.encoding),
                        row=row,
                        col=col,
                        height=min(height, self.grid.height - row),
                        width=min(width, self.grid.width - col),
                        band_rows=self.band_rows(layer, height),
                    )

    @property
    def tasks(self) -> int:
        """Units of work, each pass over the file counted."""
        blocks = sum(1 for _ in self.jobs("")) * (2 if self.border else 1)
        return blocks + sum(1 for _ in self.layer_jobs(""))

    @property
    def bytes_in(self) -> int:
        """Bytes of the decoded source pixels; of layers, of the pixels that they become."""
        pixels = 0 if self.only_layers else math.prod(self.probe.grid.shape)
        own = sum(pixels * np.dtype(a.dtype).itemsize for a in self.probe.arrays)
        return own + math.prod(self.grid.shape) * sum(np.dtype(a.dtype).itemsize for a in self.layers)

    @property
    def bytes_worked(self) -> int:
        """What its jobs' ``source_bytes`` add up to: pixels of the grid, where it is not the source's own."""
        read: list[ArrayProbe | LayerPlan] = [*self.layers]
        read += [] if self.only_layers else self.probe.arrays
        return math.prod(self.grid.shape) * sum(np.dtype(a.dtype).itemsize for a in read)

    @property
    def bytes_out(self) -> int:
        """Bytes of the stored pixels at the most, before a codec makes them fewer; flags not counted."""
        chunk, grid = self.encoding.chunk, self.grid
        chunks = math.ceil(grid.height / chunk) * math.ceil(grid.width / chunk)
        arrays = 0 if self.only_layers else len(self.probe.arrays)
        dtypes = [self.encoding.dtype] * arrays + [layer.dtype for layer in self.layers]
        return chunks * chunk * chunk * sum(np.dtype(dtype).itemsize for dtype in dtypes)

    @property
    def patches(self) -> int:
        """Whole 256x256 patches, all arrays together."""
        grid = self.grid
        return (grid.height // cv.CHUNK) * (grid.width // cv.CHUNK) * len(self.probe.arrays)

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
        """What is read together: the arrays of each file, and each layer."""
        files = [] if self.only_layers else list(self.files().values())
        return [*files, *([layer] for layer in self.layers)]

    def _warps(self, array: ArrayProbe | LayerPlan) -> bool:
        return array.is_warped if isinstance(array, LayerPlan) else self.is_warped

    def block_shape(self, array: ArrayProbe | LayerPlan) -> tuple[int, int]:
        """Return (rows, columns) of a unit of work: whole shards; full width where the file is in strips."""
        size = max(self.encoding.file_size, cv.SHARD)
        if self._warps(array):
            return size, size
        width = self.grid.width
        wanted = width if array.block_shape[1] >= width else BLOCK_PIXELS // size
        return size, max(min(math.ceil(wanted / size), self.columns // size), 1) * size

    def band_rows(self, array: ArrayProbe | LayerPlan, height: int) -> int:
        """Return how many rows are read at once: whole chunks, and whole rows of TIFF blocks where that fits."""
        if self._warps(array):
            return TILE  # what a warp makes at once
        chunk, block = self.encoding.chunk, array.block_shape[0]
        rows = math.lcm(chunk, min(block, height))
        return rows if rows <= min(height, 1024) and block <= height else chunk

    def fitted(self, options: IngestOptions) -> "ScenePlan":
        """Return the plan with blocks as narrow as the memory asks for; wide strips are then read again."""
        fit, size = self, max(self.encoding.file_size, cv.SHARD)
        while fit.peak_memory(options.threads) > options.memory:
            widest = max(fit.block_shape(arrays[0])[1] for arrays in fit._units)
            if widest <= size:
                break
            fit = replace(fit, columns=max(widest // 2 // size, 1) * size)
        return fit
