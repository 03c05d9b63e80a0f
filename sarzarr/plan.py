"""Plans: what an ingest will read, do and write, decided before any of it and printable.

Probing looks at headers and a small sample; from there on a plan is pure arithmetic. It is refused
as a whole where a file cannot be taken as asked or the work cannot fit the memory it may use.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sarzarr import conventions as cv
from sarzarr.documents import Encoding
from sarzarr.errors import InvalidInputError, SceneExistsError, StoreExistsError, UnsupportedRasterError
from sarzarr.gridding import onto_grid
from sarzarr.layer_blocks import LayerPlan
from sarzarr.layer_matching import match_layers, probe_layers
from sarzarr.layers import layers_of
from sarzarr.options import IngestOptions
from sarzarr.probe import ArrayProbe, probe_file
from sarzarr.scene import SceneProbe, group_scenes
from sarzarr.scene_plan import PROCESS_BASE, ScenePlan
from sarzarr.store import Store, bounds_key, open_store


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
                if not s.only_layers
                else f"  {s.id}: is there, and gets layers alone, {s.tasks} tasks"
            )
            if not s.only_layers:
                lines += [f"    {plan}" for plan in s.onto]
                lines += [
                    f"    {a.name}: {a.quantity} as {a.representation} ({a.reason})" for a in s.probe.arrays
                ]
            lines += [f"    {layer}" for layer in s.layers]
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
        An `IngestOptions`; fields of it can be given by name instead (``dtype="float32"``). ``layers`` may
        then be anything that `sarzarr.layers.layers_of` takes: ``layers={"mask": "labels/*.tif"}``.

    Raises
    ------
    UnsupportedRasterError
        A file is not backscatter as far as can be seen, or cannot fit the memory; says the remedy.
    SceneIdError, SceneExistsError
        Two scenes claim one id, or the store has another scene of that id.
    """
    if "layers" in changes:
        changes["layers"] = layers_of(changes["layers"])
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
    _check_place(root)
    there = open_store(root) if (root / "zarr.json").exists() else None
    notes = [note for probe in probes for note in probe.left_out]
    asked = [
        ScenePlan(
            probe=scene,
            encoding=options.encoding,
            bounds=_stored_ranges(scene, there, options),
            replaces=_known_hash(there, scene.id) is not None,
            border=options.border,
            onto=onto_grid(scene, there, options),
        )
        for scene in scenes
    ]
    if options.layers:
        pairs = [(s.probe, s.grid) for s in asked]
        layers, more = match_layers(probe_layers(options.layers), pairs, exact=options.exact)
        asked = [replace(s, layers=own) for s, own in zip(asked, layers, strict=True)]
        notes += more
    plans, present = [], []
    for planned in asked:
        left = planned
        if there is not None and planned.replaces:
            found = _left_to_do(there, planned, options)
            if found is None:
                present.append(planned.id)
                continue
            left = found
            notes += [] if left.only_layers else _lost_layers(there, left)
        plans.append(left.fitted(options))
    plan = IngestPlan(
        store=root, scenes=tuple(plans), present=tuple(present), options=options, notes=tuple(notes)
    )
    _check_memory(plan)
    return plan


def _check_place(root: Path) -> None:
    """Refuse a place where no store can be made, before any file is looked into."""
    if root.exists() and not root.is_dir():
        raise StoreExistsError(
            f"a .zarr store, or a place where there is nothing, was expected, got {str(root)!r}, which is a file. "
            "Name another place with -o."
        )


def _names(scene: SceneProbe) -> str:
    return ", ".join(dict.fromkeys(f.path.name for f in scene.files))


def _known_hash(store: Store | None, scene: str) -> str | None:
    if store is None or scene not in store.scenes:
        return None
    return str(store.rows(scene)["source_hash"].values[0])


def _left_to_do(store: Store, planned: ScenePlan, options: IngestOptions) -> ScenePlan | None:
    """Return what is left to do of a scene that the store knows: all of it, some layers, or nothing (None).

    Raises
    ------
    SceneExistsError
        Something of it would be written over, which was not asked for.
    """
    known = _known_hash(store, planned.id)
    same_pixels = known in (planned.probe.source_hash, _hash_like(str(known), planned.probe, options))
    if not same_pixels or store.grid(planned.id) != planned.grid:
        if not options.replace:
            raise SceneExistsError(
                f"a new scene was expected, got {planned.id!r}, which {store.root.name} holds "
                f"{'on another grid' if same_pixels else 'with other pixels'}. "
                "Pass --replace to write it anew, or --id to add it under another name."
            )
        return planned
    held = {name: store.layer_attrs(planned.id, name) for name in store.layers(planned.id)}
    new = [layer for layer in planned.layers if layer.name not in held]
    other = [
        layer
        for layer in planned.layers
        if layer.name in held and any(held[layer.name].get(k) != v for k, v in layer.attrs.items())
    ]
    if other and not options.replace:
        raise SceneExistsError(
            f"a new layer was expected, got {other[0].name!r} of {planned.id!r}, which {store.root.name} holds from "
            "another file or in another way. Pass --replace to write the layer anew, or give it another name."
        )
    if not (new or other):
        return None
    row = store.rows(planned.id).isel(array=0)
    beside = Encoding(
        dtype=str(row["dtype"].values),
        codec=str(row["codec"].values),
        chunk=int(row["chunk"]),
        shard=int(row["shard"]),
    )
    return replace(planned, layers=(*new, *other), only_layers=True, encoding=beside)


def _lost_layers(store: Store, planned: ScenePlan) -> list[str]:
    """Return a sentence where a scene that is written anew has layers that are not asked for again."""
    lost = sorted(set(store.layers(planned.id)) - {layer.name for layer in planned.layers})
    return (
        [f"{planned.id!r} loses its layers {', '.join(lost)}: give them again to keep them."] if lost else []
    )


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
            read: list[ArrayProbe | LayerPlan] = [*scene.probe.arrays, *scene.layers]
            giant = max(read, key=lambda a: a.block_bytes)
            raise UnsupportedRasterError(
                f"{scene.id}: a worker within {_size(plan.options.memory)} was expected, got a projected "
                f"{_size(peak)}: a block of {giant.path.name} is {giant.block_shape[0]} x {giant.block_shape[1]} "
                f"pixels, {_size(giant.block_bytes)} decoded. Pass --memory {math.ceil(peak / 1e9 * 10) / 10:g}GB"
                + (" or a smaller --shard," if plan.options.shard > cv.SHARD else ",")
                + " or rewrite the file in tiles: gdal_translate -co TILED=YES."
            )
