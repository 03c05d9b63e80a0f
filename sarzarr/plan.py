"""Plans: what an ingest will read, do and write, decided before any of it and printable.

Probing looks at headers and a small sample; from there on a plan is pure arithmetic. It is refused
as a whole where a file cannot be taken as asked or the work cannot fit the memory it may use.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.blocks import ArraySource, BlockJob, Step
from sarzarr.documents import Encoding
from sarzarr.errors import InvalidInputError, SceneExistsError, UnsupportedRasterError
from sarzarr.grid import Grid
from sarzarr.gridding import onto_grid
from sarzarr.options import MEGABYTE, IngestOptions
from sarzarr.probe import ArrayProbe, probe_file
from sarzarr.resampling import Passthrough, WarpPlan
from sarzarr.scene import SceneProbe, group_scenes
from sarzarr.store import Store, bounds_key, open_store
from sarzarr.warp import TILE

PROCESS_BASE: Final = 320 * MEGABYTE
"""Resident memory of a worker before it reads: Python, the imports and GDAL's bounded cache in use."""
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
    columns: int = BLOCK_PIXELS
    """Columns that a block may have, so that its bands fit the memory."""

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
                    )

    @property
    def tasks(self) -> int:
        """Units of work, each pass over the file counted."""
        return sum(1 for _ in self.jobs("")) * (2 if self.border else 1)

    @property
    def bytes_in(self) -> int:
        """Bytes of the decoded source pixels."""
        pixels = self.probe.grid.height * self.probe.grid.width
        return sum(pixels * np.dtype(a.dtype).itemsize for a in self.probe.arrays)

    @property
    def bytes_out(self) -> int:
        """Bytes of the stored pixels at the most, before a codec makes them fewer; flags not counted."""
        chunk, grid = self.encoding.chunk, self.grid
        chunks = math.ceil(grid.height / chunk) * math.ceil(grid.width / chunk)
        itemsize = np.dtype(self.encoding.dtype).itemsize
        return chunks * chunk * chunk * itemsize * len(self.probe.arrays)

    @property
    def patches(self) -> int:
        """Whole 256x256 patches, all arrays together."""
        grid = self.grid
        return (grid.height // cv.CHUNK) * (grid.width // cv.CHUNK) * len(self.probe.arrays)

    def peak_memory(self, threads: int) -> int:
        """Return the projected resident peak of a worker, in bytes, with ``threads`` tasks at once."""
        worst = 0
        for arrays in self.files().values():
            height, width = self.block_shape(arrays[0])
            rows = min(self.band_rows(arrays[0], height), self.grid.height)
            columns = min(width, self.grid.width)
            itemsize = max(np.dtype(a.dtype).itemsize for a in arrays)
            worst = max(
                worst, rows * columns * (itemsize + BYTES_A_PIXEL) + max(a.block_bytes for a in arrays)
            )
        return PROCESS_BASE + threads * (worst + (WARP_BYTES if self.is_warped else 0))

    def block_shape(self, array: ArrayProbe) -> tuple[int, int]:
        """Return (rows, columns) of a unit of work: whole shards; full width where the file is in strips."""
        size = max(self.encoding.file_size, cv.SHARD)
        if self.is_warped:
            return size, size
        width = self.grid.width
        wanted = width if array.block_shape[1] >= width else BLOCK_PIXELS // size
        return size, max(min(math.ceil(wanted / size), self.columns // size), 1) * size

    def band_rows(self, array: ArrayProbe, height: int) -> int:
        """Return how many rows are read at once: whole chunks, and whole rows of TIFF blocks where that fits."""
        if self.is_warped:
            return TILE  # what a warp makes at once
        chunk, block = self.encoding.chunk, array.block_shape[0]
        rows = math.lcm(chunk, min(block, height))
        return rows if rows <= min(height, 1024) and block <= height else chunk

    def fitted(self, options: IngestOptions) -> "ScenePlan":
        """Return the plan with blocks as narrow as the memory asks for; wide strips are then read again."""
        fit, size = self, max(self.encoding.file_size, cv.SHARD)
        while fit.peak_memory(options.threads) > options.memory:
            widest = max(fit.block_shape(arrays[0])[1] for arrays in fit.files().values())
            if widest <= size:
                break
            fit = replace(fit, columns=max(widest // 2 // size, 1) * size)
        return fit


@dataclass(frozen=True, kw_only=True)
class IngestPlan:
    """What an ingest will do. Print it before paying for it."""

    store: Path
    """The store to make or to add to."""
    scenes: tuple[ScenePlan, ...]
    """Scenes to write."""
    present: tuple[str, ...]
    """Ids of scenes that are in the store already, with the same pixels: skipped."""
    options: IngestOptions
    """How they were asked for."""
    notes: tuple[str, ...] = field(default=())
    """One sentence a band or file that is left out, or that needs a word."""

    @property
    def tasks(self) -> int:
        """Units of work."""
        return sum(s.tasks for s in self.scenes)

    @property
    def bytes_in(self) -> int:
        """Bytes of the decoded source pixels."""
        return sum(s.bytes_in for s in self.scenes)

    @property
    def bytes_out(self) -> int:
        """Bytes of the stored pixels at the most."""
        return sum(s.bytes_out for s in self.scenes)

    @property
    def peak_memory(self) -> int:
        """Projected resident peak of a worker process, in bytes."""
        return max((s.peak_memory(self.options.threads) for s in self.scenes), default=PROCESS_BASE)

    def __str__(self) -> str:
        encoding = self.options.encoding
        lines = [f"{self.store.name}: {len(self.scenes)} scenes to write, {len(self.present)} already there"]
        for s in self.scenes:
            warped = "warped" if s.is_warped else "passthrough"
            lines.append(
                f"  {s.id}: {s.grid.height} x {s.grid.width}, {_placed(s)}, {warped}, {s.tasks} tasks, "
                f"{s.patches} patches" + (", replaces the one there" if s.replaces else "")
            )
            lines += [f"    {plan}" for plan in s.onto]
            lines += [
                f"    {a.name}: {a.quantity} as {a.representation} ({a.reason})" for a in s.probe.arrays
            ]
        lines += [f"  note: {note}" for note in self.notes]
        if self.options.bounds in ("percentile", "sigma"):
            lines.append("  classic store: one more pass first, to find the bounds that it is clipped to")
        shards = f"shards of {encoding.shard}" if encoding.shard else "no shards"
        lines.append(
            f"  stored as {encoding.dtype}, codec {encoding.codec}, chunks of {encoding.chunk}, {shards}"
        )
        lines.append(
            f"  {_size(self.bytes_in)} in, at most {_size(self.bytes_out)} out, {self.tasks} tasks; "
            f"projected peak {_size(self.peak_memory)} a worker process of {_size(self.options.memory)}"
        )
        return "\n".join(lines)


def _placed(scene: ScenePlan) -> str:
    """Return how a scene's stored pixels are tied to the ground, for people."""
    gcps = len(scene.probe.gcps)
    return {
        "affine": "georeferenced",
        "rotated_affine": "rotated affine",
        "gcp_tps_no_dem": f"by {gcps} GCPs without terrain",
        "gcps": f"{gcps} GCPs, image geometry (--crs and --pixel-size georeference it)",
    }.get(scene.geolocation, "no CRS")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def plan_ingest(
    files: Iterable[str | Path] | str | Path,
    store: str | Path,
    *,
    options: IngestOptions | None = None,
    **changes: Any,
) -> IngestPlan:
    """Probe files and plan their ingest into one store; nothing is written.

    Parameters
    ----------
    files
        GeoTIFFs. Files that are one scene's polarizations become one scene.
    store
        Path of the ``.zarr`` directory, new or existing.
    options
        An `IngestOptions`; fields of it can be given by name instead (``dtype="float32"``).

    Raises
    ------
    UnsupportedRasterError
        A file is not backscatter as far as can be seen, or cannot fit the memory; says the remedy.
    SceneIdError, SceneExistsError
        Two scenes claim one id, or the store has another scene of that id.
    """
    options = replace(options or IngestOptions(), **changes)
    paths = [files] if isinstance(files, str | Path) else list(files)
    if not paths:
        raise InvalidInputError(
            "at least one GeoTIFF was expected, got none. Check the pattern of the file names."
        )
    probes = [
        probe_file(
            path,
            quantity=options.quantity,
            representation=options.representation,
            polarizations=options.polarizations,
            full_hash=options.full_hash,
        )
        for path in paths
    ]
    scenes = group_scenes(probes, scene_id=options.scene_id)
    refused = [f"{_names(s)}: {s.refusal}" for s in scenes if s.refusal]
    if refused:
        raise UnsupportedRasterError("\n".join(refused))
    root = Path(store)
    there = open_store(root) if (root / "zarr.json").exists() else None
    plans, present = [], []
    for scene in scenes:
        known = _known_hash(there, scene.id)
        planned = ScenePlan(
            probe=scene,
            encoding=options.encoding,
            bounds=_stored_ranges(scene, there, options),
            replaces=known is not None,
            border=options.border,
            onto=onto_grid(scene, there, options),
        ).fitted(options)
        if there is not None and known is not None:
            same_pixels = known in (scene.source_hash, _hash_like(known, scene, options))
            same_grid = there.grid(scene.id) == planned.grid
            if same_pixels and same_grid:
                present.append(scene.id)
                continue
            if not options.replace:
                other = "on another grid" if same_pixels else "with other pixels"
                raise SceneExistsError(
                    f"a new scene was expected, got {scene.id!r}, which {root.name} holds {other}. "
                    "Pass --replace to write it anew, or --id to add it under another name."
                )
        plans.append(planned)
    notes = [note for probe in probes for note in probe.left_out]
    plan = IngestPlan(
        store=root, scenes=tuple(plans), present=tuple(present), options=options, notes=tuple(notes)
    )
    _check_memory(plan)
    return plan


def _names(scene: SceneProbe) -> str:
    return ", ".join(dict.fromkeys(f.path.name for f in scene.files))


def _known_hash(store: Store | None, scene: str) -> str | None:
    if store is None or scene not in store.scenes:
        return None
    return str(store.rows(scene)["source_hash"].values[0])


def _hash_like(known: str, scene: SceneProbe, options: IngestOptions) -> str:
    """Return the scene's hash of the kind that the store knows it by: sampled, or of every byte."""
    if known.split(":")[0] == scene.source_hash.split(":")[0]:
        return scene.source_hash
    again = [
        probe_file(
            file.path,
            quantity=options.quantity,
            representation=options.representation,
            polarizations=options.polarizations,
            full_hash=not options.full_hash,
        )
        for file in scene.files
    ]
    return group_scenes(again, scene_id=scene.id)[0].source_hash


def _stored_ranges(
    scene: SceneProbe, store: Store | None, options: IngestOptions
) -> dict[str, tuple[float, float]]:
    """Return the stored range of each array: its group's if the store has one, else what is asked for.

    Ranges that are still to be found from the pixels are the whole range until they are.
    """
    out = {}
    for array in scene.arrays:
        key = bounds_key(array.name, str(array.quantity))
        entry = store.bounds.get(key) if store is not None else None
        asked = (options.vmin, options.vmax) if options.bounds == "fixed" else cv.STORED_RANGE
        if entry is not None and options.bounds == "fixed" and asked != (entry.vmin, entry.vmax):
            raise InvalidInputError(
                f"{key} is stored from {entry.vmin:g} to {entry.vmax:g} dB, got bounds {asked[0]:g} to "
                f"{asked[1]:g}. Leave out --bounds, or make another store."
            )
        out[array.name] = asked if entry is None else (entry.vmin, entry.vmax)
    return out


def _check_memory(plan: IngestPlan) -> None:
    for scene in plan.scenes:
        peak = scene.peak_memory(plan.options.threads)
        if peak > plan.options.memory:
            giant = max(scene.probe.arrays, key=lambda a: a.block_bytes)
            raise UnsupportedRasterError(
                f"{scene.id}: a worker within {_size(plan.options.memory)} was expected, got a projected "
                f"{_size(peak)}: a block of {giant.path.name} is {giant.block_shape[0]} x {giant.block_shape[1]} "
                f"pixels, {_size(giant.block_bytes)} decoded. Pass --memory {math.ceil(peak / 1e9 * 10) / 10:g}GB"
                + (" or a smaller --shard," if plan.options.shard > cv.SHARD else ",")
                + " or rewrite the file in tiles: gdal_translate -co TILED=YES."
            )
