"""Plans: what an ingest will read, do and write, decided before any of it and printable.

Probing looks at headers and a small sample; from there on a plan is pure arithmetic. It is refused
as a whole where a file cannot be taken as asked or the work cannot fit the memory it may use.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sarzarr import conventions as cv
from sarzarr.codecs import DEFAULT_CODECS
from sarzarr.documents import Encoding, read_json
from sarzarr.errors import InvalidInputError, SceneExistsError, StoreExistsError, UnsupportedRasterError
from sarzarr.gridding import onto_grid
from sarzarr.layer_blocks import LayerPlan
from sarzarr.layer_matching import match_layers, probe_layers
from sarzarr.layers import layers_of
from sarzarr.naming import counted
from sarzarr.options import IngestOptions
from sarzarr.probe import ArrayProbe, RasterProbe, probe_file
from sarzarr.rasters import raster_files
from sarzarr.resampling import WarpPlan
from sarzarr.scene import SceneProbe, group_scenes
from sarzarr.scene_plan import PROCESS_BASE, ScenePlan
from sarzarr.store import Store, bounds_key, open_store

_ENCODED: Final = ("dtype", "codec", "shard")


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
    refused: tuple[str, ...] = field(default=())
    """One sentence a scene or file that was refused, and is left out since that was asked for."""

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
        scenes = f"{counted(len(self.scenes), 'scene')} to write, {len(self.present)} already there"
        lines = [f"{self.store.name}: {scenes}"]
        for s in self.scenes:
            warped = "warped" if s.is_warped else "passthrough"
            lines.append(
                f"  {s.id}: {s.grid.height} x {s.grid.width}, {_placed(s)}, {warped}, {counted(s.tasks, 'task')}, "
                f"{s.patches} patches" + (", replaces the one there" if s.replaces else "")
                if not s.only_layers
                else f"  {s.id}: is there, and gets layers alone, {counted(s.tasks, 'task')}"
            )
            if not s.only_layers:
                lines += [f"    {plan}" for plan in s.onto]
                lines += [
                    f"    {a.name}: {a.quantity} as {a.representation} ({a.reason})" for a in s.probe.arrays
                ]
            lines += [f"    {layer}" for layer in s.layers]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  refused, left out: {why}" for why in self.refused]
        if self.options.bounds in ("percentile", "sigma"):
            lines.append("  classic store: one more pass first, to find the bounds that it is clipped to")
        for encoding in dict.fromkeys(s.encoding for s in self.scenes):
            shards = f"shards of {encoding.shard}" if encoding.shard else "no shards"
            lines.append(
                f"  stored as {encoding.dtype}, codec {encoding.codec}, chunks of {encoding.chunk}, {shards}"
            )
        lines.append(
            f"  {_size(self.bytes_in)} in, at most {_size(self.bytes_out)} out, {counted(self.tasks, 'task')}; "
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
        "rpcs": "RPC, image geometry (orthorectify it with a DEM to georeference it)",
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
        GeoTIFFs, or folders of them (`sarzarr.rasters.raster_files`). Files that are one scene's
        polarizations become one scene; a file that is given twice is taken once.
    store
        Path of the ``.zarr`` directory, new or existing.
    options
        An `IngestOptions`; fields of it can be given by name instead (``dtype="float32"``). ``layers`` may
        then be anything that `sarzarr.layers.layers_of` takes: ``layers={"mask": "labels/*.tif"}``.

    Raises
    ------
    UnsupportedRasterError
        A file is not backscatter as far as can be seen, or cannot fit the memory; says the remedy. With
        ``skip_refused``, all of them are.
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
    root = Path(store)
    _check_place(root)
    there = open_store(root) if (root / "zarr.json").exists() else None
    refused: list[str] = []
    scenes, notes = _scenes(paths, options, refused)
    asked = []
    for scene in scenes:
        with _leaving_out(refused, options):
            asked.append(
                ScenePlan(
                    probe=scene,
                    encoding=options.encoding,
                    bounds=_stored_ranges(scene, there, options),
                    replaces=_known_hash(there, scene.id) is not None,
                    border=options.border or 0,
                    onto=onto_grid(scene, there, options),
                )
            )
    if options.layers:
        pairs = [(s.probe, s.grid) for s in asked]
        layers, more = match_layers(probe_layers(options.layers), pairs, exact=options.exact)
        asked = [replace(s, layers=own) for s, own in zip(asked, layers, strict=True)]
        notes += more
    plans, present = [], []
    kept: dict[str, list[str]] = {}
    for planned in asked:
        left = planned
        if there is not None and planned.replaces:
            found = _left_to_do(there, planned, options)
            otherwise = _stored_otherwise(there, planned, options)
            if otherwise and (found is None or found.only_layers):
                kept.setdefault(", ".join(otherwise), []).append(planned.id)
            if found is None:
                present.append(planned.id)
                continue
            left = found
            notes += [] if left.only_layers else _lost_layers(there, left)
        fitted = left.fitted(options)
        with _leaving_out(refused, options):
            _check_memory(fitted, options)
            plans.append(fitted)
    if refused and not (plans or present):
        raise UnsupportedRasterError("\n".join(refused))
    notes += [
        f"{_some(ids)} kept as stored: {how}. Pass --replace to change it." for how, ids in kept.items()
    ]
    return IngestPlan(
        store=root,
        scenes=tuple(plans),
        present=tuple(present),
        options=options,
        notes=tuple(notes),
        refused=tuple(refused),
    )


def _scenes(
    paths: Iterable[str | Path], options: IngestOptions, refused: list[str]
) -> tuple[list[SceneProbe], list[str]]:
    """Return the scenes that files make, and a sentence for what is left out of them; adds to ``refused``."""
    probes: dict[Path, RasterProbe] = {}
    notes = []
    for path in raster_files(paths):
        if (place := path.resolve()) in probes:
            notes.append(f"{path.name} is given twice, and taken once.")
            continue
        with _leaving_out(refused, options):
            probes[place] = probe_file(
                path,
                quantity=options.quantity,
                representation=options.representation,
                polarizations=options.polarizations,
                nodata=options.nodata,
                full_hash=options.full_hash,
            )
    scenes = group_scenes(probes.values(), scene_id=options.scene_id)
    unfit = [f"{_names(s)}: {s.refusal}" for s in scenes if s.refusal]
    if unfit and not options.skip_refused:
        raise UnsupportedRasterError("\n".join(unfit))
    refused += unfit
    taken = [scene for scene in scenes if not scene.refusal]
    notes += [note for scene in taken for file in scene.files for note in file.left_out]
    return taken, notes


@contextmanager
def _leaving_out(refused: list[str], options: IngestOptions) -> Iterator[None]:
    """Note a refusal instead of raising it, where refused files are to be left out."""
    try:
        yield
    except UnsupportedRasterError as error:
        if not options.skip_refused:
            raise
        refused.append(str(error))


def _check_place(root: Path) -> None:
    """Refuse a place where no store can be made, before any file is looked into."""
    if root.exists() and not root.is_dir():
        raise StoreExistsError(
            f"a .zarr store, or a place where there is nothing, was expected, got {str(root)!r}, which is a file. "
            "Name another place with -o."
        )


def _names(scene: SceneProbe) -> str:
    return ", ".join(dict.fromkeys(f.path.name for f in scene.files))


def _some(ids: list[str]) -> str:
    """Return ids for people: at most three of them, with the verb."""
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return f"{', '.join(ids[:3])}{more} {'is' if len(ids) == 1 else 'are'}"


def _known_hash(store: Store | None, scene: str) -> str | None:
    if store is None or scene not in store.scenes:
        return None
    return str(store.rows(scene)["source_hash"].values[0])


def _left_to_do(store: Store, planned: ScenePlan, options: IngestOptions) -> ScenePlan | None:
    """Return what is left to do of a scene that the store knows: all of it, some layers, or nothing (None).

    Raises
    ------
    SceneExistsError
        Something of it would be written over, which was not asked for, or arrays of it would be lost.
    """
    known = _known_hash(store, planned.id)
    same_pixels = known in (planned.probe.source_hash, _hash_like(str(known), planned.probe, options))
    is_same = same_pixels and store.grid(planned.id) == planned.grid
    if not is_same or (options.replace and _stored_otherwise(store, planned, options)):
        if not (same_pixels and options.polarizations):  # where names alone are other ones, nothing is lost
            _check_arrays(store, planned)
        if not options.replace:
            raise SceneExistsError(
                f"a new scene was expected, got {planned.id!r}, which {store.root.name} holds "
                f"{'on another grid' if same_pixels else 'with other pixels'}. "
                "Pass --replace to write it anew, or --id to add it under another name."
            )
        return _as_stored(store, planned, options)
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
    beside = _encoding(store, planned.id)
    return replace(planned, layers=(*new, *other), only_layers=True, encoding=beside)


def _check_arrays(store: Store, planned: ScenePlan) -> None:
    """Refuse to write a scene anew that would lack arrays that the store holds."""
    given = [array.name for array in planned.probe.arrays]
    lost = [name for name in store.rows(planned.id)["name"].values.tolist() if name not in given]
    if lost:
        raise SceneExistsError(
            f"files for all arrays of {planned.id!r} were expected, got {', '.join(given)} alone: {store.root.name} "
            f"holds {', '.join(lost)} too, which would be lost. Give the files of {', '.join(lost)} in the same "
            f"command, take the scene out first (`sarzarr remove {store.root.name} {planned.id}`), or add it "
            "under another name with --id."
        )


def _encoding(store: Store, scene: str) -> Encoding:
    """Return how a scene's pixels are stored."""
    row = store.rows(scene).isel(array=0)
    return Encoding(
        dtype=str(row["dtype"].values),
        codec=str(row["codec"].values),
        chunk=int(row["chunk"]),
        shard=int(row["shard"]),
    )


def _border(store: Store, scene: str) -> int:
    """Return how many pixels around nodata of a scene were flagged as border."""
    return int(read_json(store.root / cv.SCENES / scene / "zarr.json")["attributes"].get(cv.BORDER, 0))


def _as_stored(store: Store, planned: ScenePlan, options: IngestOptions) -> ScenePlan:
    """Return the plan of a scene that is written anew: what was not asked for stays as it is stored."""
    old = _encoding(store, planned.id)
    dtype = options.dtype or old.dtype
    codec = options.codec or (old.codec if dtype == old.dtype else DEFAULT_CODECS[dtype])
    shard = old.shard if options.shard is None else options.shard
    border = _border(store, planned.id) if options.border is None else options.border
    return replace(planned, encoding=replace(old, dtype=dtype, codec=codec, shard=shard), border=border)


def _stored_otherwise(store: Store, planned: ScenePlan, options: IngestOptions) -> list[str]:
    """Return how a scene is stored otherwise than was asked for (``dtype uint16, not float32``); its grid apart.

    What was not asked for by name does not count.
    """
    compared = (*_ENCODED, cv.BORDER, "nodata", "polarizations", "quantity", "representation", "resampling")
    if not options.exact and all(getattr(options, name) is None for name in compared):
        return []
    scene, old = planned.id, _encoding(store, planned.id)
    rows = store.rows(scene)
    said: list[tuple[str, Any, Any]] = []  # what, as stored, as asked
    for name in _ENCODED:
        asked = getattr(options, name)
        said += [] if asked is None else [(name, getattr(old, name), asked)]
    if options.border is not None:
        said.append((cv.BORDER, _border(store, scene), options.border))
    if options.polarizations is not None:
        held, told = rows["name"].values.tolist(), [array.name for array in planned.probe.arrays]
        said.append(("arrays", "+".join(sorted(held)), "+".join(sorted(told))))
    for option, column in (("quantity", "quantity"), ("representation", "source_representation")):
        if asked := getattr(options, option):
            said.append((option, "+".join(sorted(set(rows[column].values.tolist()))), asked))
    if options.nodata is not None:
        said.append(("nodata", _first_attrs(store, scene).get(cv.SOURCE_NODATA), options.nodata))
    warped = next((plan for plan in planned.onto if isinstance(plan, WarpPlan)), None)
    if warped is not None:
        attrs = _first_attrs(store, scene)
        keys = [cv.RESAMPLING] if options.resampling else []
        keys += [cv.RESAMPLING_TOLERANCE] if options.exact else []
        said += [(key, attrs.get(key, "none"), warped.attrs[key]) for key in keys]
    return [f"{what} {stored}, not {asked}" for what, stored, asked in said if stored != asked]


def _first_attrs(store: Store, scene: str) -> Mapping[str, Any]:
    """Return the attributes of a scene's first array."""
    name = str(store.rows(scene)["name"].values[0])
    attrs: Mapping[str, Any] = read_json(store.root / cv.SCENES / scene / name / "zarr.json")["attributes"]
    return attrs


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


def _check_memory(scene: ScenePlan, options: IngestOptions) -> None:
    """Refuse a scene of which a worker would need more memory than it may use."""
    peak = scene.peak_memory(options.threads)
    if peak > options.memory:
        read: list[ArrayProbe | LayerPlan] = [*scene.probe.arrays, *scene.layers]
        giant = max(read, key=lambda a: a.block_bytes)
        raise UnsupportedRasterError(
            f"{scene.id}: a worker within {_size(options.memory)} was expected, got a projected "
            f"{_size(peak)}: a block of {giant.path.name} is {giant.block_shape[0]} x {giant.block_shape[1]} "
            f"pixels, {_size(giant.block_bytes)} decoded. Pass --memory {math.ceil(peak / 1e9 * 10) / 10:g}GB"
            + (" or a smaller --shard," if scene.encoding.shard > cv.SHARD else ",")
            + " or rewrite the file in tiles: gdal_translate -co TILED=YES."
        )
