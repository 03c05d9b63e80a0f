"""Ingest plans: all that an ingest will read, do and write, decided before any of it and printable.

Probing looks at headers and a small sample; from there on a plan is pure arithmetic. A scene that cannot be taken
as asked, or cannot fit the memory it may use, is left out with its reason.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Unpack

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, StoreExistsError, UnsupportedRasterError
from sarzarr.ingestion.again import (
    PlannedStore,
    calibrated_as_stored,
    changed_unasked,
    damage_of,
    has_another,
    known_hash,
    left_to_do,
    stored_otherwise,
)
from sarzarr.ingestion.collections.plan import CollectionPlan, plan_collections
from sarzarr.ingestion.layers.alone import scenes_of_layers
from sarzarr.ingestion.layers.annotated import annotated_layers
from sarzarr.ingestion.layers.layer import Layer
from sarzarr.ingestion.layers.match import match_layers, probe_layers
from sarzarr.ingestion.layers.plan import LayerPlan
from sarzarr.ingestion.onto_grid import onto_grid
from sarzarr.ingestion.options import IngestKeywords, IngestOptions
from sarzarr.ingestion.scene_plan import PROCESS_BASE, ScenePlan, group_of
from sarzarr.keywords import shows_options
from sarzarr.scenes.companions import Companion
from sarzarr.scenes.probe import ArrayProbe
from sarzarr.scenes.refusals import Refusals
from sarzarr.scenes.scene import SceneProbe
from sarzarr.scenes.survey import Survey, survey_files
from sarzarr.store.html import MOST_ROWS, Section, page_part
from sarzarr.store.place import local_folder
from sarzarr.store.store import Store, open_store
from sarzarr.text import counted, listed, logged, size_text

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class IngestPlan:
    """All that an ingest will do. Print it before paying for it."""

    store: Path
    """The store to make or to add to."""
    scenes: tuple[ScenePlan, ...]
    """Scenes to write."""
    present: tuple[str, ...]
    """Ids of scenes that are in the store already, with the same pixels: skipped."""
    options: IngestOptions
    """The options that they were asked for with."""
    notes: tuple[str, ...] = ()
    """One sentence per band or file that is left out, or that needs a word."""
    refused: Refusals = field(default_factory=Refusals)
    """Files and scenes that are left out, each with its reason; `ingest` adds those that fail on the way."""
    collections: tuple[CollectionPlan, ...] = ()
    """Collections of chips to write, or to add to."""

    @property
    def tasks(self) -> int:
        """Units of work: blocks of (rows, columns), each pass over them counted."""
        return sum(s.tasks for s in self.scenes) + sum(c.tasks for c in self.collections)

    @property
    def bytes_in(self) -> int:
        """Bytes of the decoded source pixels."""
        return sum(s.bytes_in for s in self.scenes) + sum(c.bytes_in for c in self.collections)

    @property
    def bytes_out(self) -> int:
        """Bytes of the stored pixels at the most."""
        scenes = sum(s.bytes_out for s in self.scenes)
        chips = sum(c.bytes_out for c in self.collections)
        return (
            chips + scenes + (scenes // 2 if self.options.overviews else 0)
        )  # a third, and the parts they are made of

    @property
    def peak_memory(self) -> int:
        """Projected resident peak of a worker process, in bytes."""
        return max((s.peak_memory(self.options.threads) for s in self.scenes), default=PROCESS_BASE)

    @property
    def _counts(self) -> str:
        scenes = f"{counted(len(self.scenes), 'scene')} to write, {len(self.present)} already there"
        if not self.collections:
            return scenes
        chips, there = (
            sum(n) for n in zip(*((len(c.chips), c.present) for c in self.collections), strict=True)
        )
        of_chips = f"{counted(chips, 'chip')} to write, {there:,} already there"
        return f"{of_chips}; {scenes}" if self.scenes or self.present else of_chips

    def __repr__(self) -> str:
        return f"<sarzarr.IngestPlan {self.store.name!r}: {self._counts}, {counted(self.tasks, 'task')}>"

    def _repr_html_(self) -> str:
        rows = []
        for s in self.scenes[:MOST_ROWS]:
            arrays = "\n".join(
                f"{a.name}: {a.quantity} as {a.representation} ({a.reason})" for a in s.probe.arrays
            )
            way = "replaces the one there" if s.replaces else "warped" if s.is_warped else "as it is"
            size = f"{s.grid.height} x {s.grid.width}"
            layers = "\n".join(layer.name for layer in s.layers)
            rows.append((s.id, arrays, layers, size, way, s.tasks, size_text(s.bytes_in)))
        columns = ("scene", "arrays", "layers", "rows x columns", "way", "tasks", "read")
        scenes = Section(
            title="Scenes to write", rows=rows, columns=columns, total=len(self.scenes), is_open=True
        )
        refused = [(listed(path.name for path in r.files), r.reason) for r in self.refused]
        work = (
            ("read", size_text(self.bytes_in)),
            ("written, at most", size_text(self.bytes_out)),
            ("tasks", self.tasks),
            (
                "peak of a worker process",
                f"{size_text(self.peak_memory)} of {size_text(self.options.memory)}",
            ),
        )
        sections = [
            scenes,
            Section.of("Refused", refused, columns=("files", "reason"), is_open=True),
            Section.of("Collections", [[str(plan)] for plan in self.collections], is_open=True),
            Section.of("Notes", [[note] for note in self.notes]),
            Section.of("Already there", [[scene] for scene in self.present]),
            Section.of("Work", work),
        ]
        return page_part("sarzarr.IngestPlan", self.store.name, self._counts, sections)

    def __str__(self) -> str:
        lines = [f"{self.store.name}: {self._counts}", *map(str, self.collections), *map(str, self.scenes)]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  refused: {line}" for line in self.refused.lines()]
        if self.options.bounds in ("percentile", "sigma"):
            lines.append("  classic store: one more pass first, to find the bounds that it is clipped to")
        for e in dict.fromkeys(s.encoding for s in self.scenes if s.probe.arrays):
            shards = f"shards of {e.shard}" if e.shard else "no shards"
            lines.append(f"  stored as {e.dtype}, codec {e.codec}, chunks of {e.chunk}, {shards}")
        if self.options.overviews:
            lines.append("  then overviews: half the rows and columns, and half of that, averaged in power")
        lines.append(
            f"  {size_text(self.bytes_in)} in, at most {size_text(self.bytes_out)} out, "
            f"{counted(self.tasks, 'task')}; "
            f"projected peak {size_text(self.peak_memory)} a worker process of {size_text(self.options.memory)}"
        )
        return "\n".join(lines)


@shows_options(IngestOptions, IngestKeywords)
def plan_ingest(
    files: Iterable[str | Path] | str | Path,
    store: str | Path,
    *,
    options: IngestOptions | None = None,
    **changes: Unpack[IngestKeywords],
) -> IngestPlan:
    """Probe files and plan their ingest into one store; nothing is written.

    What cannot be taken is in ``refused`` of the plan, and the others go in. Where nothing is left, or with
    ``strict`` anything is refused, all reasons are raised at once: `UnsupportedRasterError`, or where all are of one
    kind `RasterNotFoundError`, `InvalidInputError`, `SceneIdError` or `SceneExistsError`; each says the remedy.

    Parameters
    ----------
    files
        GeoTIFFs, or folders of them (`sarzarr.zips.listing.raster_files`). Files that are one scene's
        polarizations become one scene; a file that is given twice is taken once. Without any (``[]``), and with
        ``layers=``, scenes of layers alone are made: one for each file of the first layer.
    store
        Path of the ``.zarr`` directory, new or existing.
    options
        Options to begin with; those that are given by name (``dtype="float32"``) stand in the place of its own.
    **changes
        The fields of `IngestOptions`.
    """
    options = (options or IngestOptions()).changed(**changes)
    paths = [files] if isinstance(files, str | Path) else list(files)
    if not (paths or options.layers):
        raise InvalidInputError(
            "at least one GeoTIFF was expected, got none. Check the pattern of the file names; a raster that is no "
            "backscatter goes in with --layer NAME=FILE."
        )
    root = local_folder(store, "a store")
    if root.exists() and not root.is_dir():
        raise StoreExistsError(
            f"a .zarr store, or a place where there is nothing, was expected, got {str(root)!r}, which is a file. "
            "Name another place with -o."
        )
    known = PlannedStore(open_store(root).place) if (root / "zarr.json").exists() else None
    packed = plan_collections(paths, known, options)
    if packed.plans:
        paths, options = list(packed.rest), replace(options, layers=packed.layers)
    survey = _surveyed(paths, options)
    refused, notes = survey.refused, [*packed.notes, *survey.notes]
    refused.extend(packed.refused)
    if paths:
        asked = _asked(survey, known, options)
    else:
        asked = [] if packed.plans else scenes_of_layers(known, options, refused)
    if options.layers and asked:
        asked = _with_layers(asked, options, notes, refused)
    asked = [
        _with_companions(scene, survey.companions.get(scene.id, ()), known, options, notes) for scene in asked
    ]
    present, left = _left_to_do(known, asked, options, notes, refused)
    if known is not None:
        known.memory.save()
    plans = []
    for fitted in (scene.fitted(options) for scene in left):
        with refused.leaving_out(fitted.probe.paths, fitted.id):
            _check_memory(fitted, options)
            plans.append(fitted)
    has_chips = any(len(plan.chips) or plan.present for plan in packed.plans)
    if refused and (options.strict or not (plans or present or has_chips)):
        raise refused.error()
    plan = IngestPlan(
        store=root,
        scenes=tuple(plans),
        present=tuple(present),
        options=options,
        notes=tuple(notes),
        refused=refused,
        collections=packed.plans,
    )
    return logged(log, plan)


def _surveyed(paths: Iterable[str | Path], options: IngestOptions) -> Survey:
    return survey_files(
        paths,
        scene_id=options.id,
        quantity=options.quantity,
        representation=options.representation,
        polarizations=options.polarizations,
        nodata=options.nodata,
        full_hash=options.full_hash,
        calibrate=options.calibration,
    )


def _asked(survey: Survey, known: Store | None, options: IngestOptions) -> list[ScenePlan]:
    """Return the plans of scenes as they are asked for, whatever the store holds of them."""
    asked = []
    for probed in survey.scenes:
        with survey.refused.leaving_out(probed.paths, probed.id):
            scene = calibrated_as_stored(known, probed, options)
            planned = ScenePlan(
                probe=scene,
                encoding=options.encoding,
                bounds=_stored_ranges(scene, known, options),
                replaces=known_hash(known, scene.id) is not None,
                border=options.border or 0,
                onto=onto_grid(scene, known, options),
            )
            asked.append(replace(planned, layers=annotated_layers(scene, planned.grid, options.annotation)))
    return asked


def _with_layers(
    asked: Sequence[ScenePlan], options: IngestOptions, notes: list[str], refused: Refusals
) -> list[ScenePlan]:
    """Return the plans of scenes with their layers; notes what is left over, and refuses where it cannot be told."""
    files = probe_layers(options.layers, refused)
    layers, more = match_layers(files, [(s.probe, s.grid) for s in asked], refused, exact=options.exact)
    notes += more
    return [replace(s, layers=(*s.layers, *layers[s.id])) for s in asked if s.id in layers]


def _with_companions(
    scene: ScenePlan,
    companions: Sequence[Companion],
    store: Store | None,
    options: IngestOptions,
    notes: list[str],
) -> ScenePlan:
    """Return the plan of a scene with the rasters delivered beside it as its layers; notes what cannot be one.

    A layer of that name that the store has from another file stays, unless it is to be replaced.
    """
    if not companions:
        return scene
    layers = list(scene.layers)
    for companion in companions:
        content, name = companion.content, companion.path.name
        if options.companions == "skip":
            notes.append(f"{name} is left out, since it is {content.companion}.")
            continue
        if any(layer.name == content.layer for layer in layers):
            continue
        layer = Layer(
            name=str(content.layer),
            path=str(companion.path),
            kind=content.kind,
            factor=content.factor,
            units=content.units,
            nodata=companion.nodata,
            static=True,
        )
        failed = Refusals()
        with failed.leaving_out([companion.path]):
            found, _ = match_layers(
                probe_layers([layer], failed), [(scene.probe, scene.grid)], failed, exact=options.exact
            )
            own = found.get(scene.id, ())
            if not options.replace and any(has_another(store, scene.id, one) for one in own):
                notes.append(
                    f"{name} is left out, since {scene.id!r} has another layer {content.layer!r}. Pass --replace to "
                    "write it anew."
                )
                continue
            layers += own
        notes += [f"{name} is left out: {refusal.reason}" for refusal in failed]
    return replace(scene, layers=tuple(layers))


def _left_to_do(
    store: Store | None,
    asked: Iterable[ScenePlan],
    options: IngestOptions,
    notes: list[str],
    refused: Refusals,
) -> tuple[list[str], list[ScenePlan]]:
    """Return ids of scenes that are stored as asked, and plans of the others; notes what is kept or lost."""
    present: list[str] = []
    left: list[ScenePlan] = []
    kept: dict[str, list[str]] = {}
    for planned in asked:
        if store is None or not planned.replaces:
            left.append(planned)
            continue
        with refused.leaving_out(planned.probe.paths, planned.id):
            rest = left_to_do(store, planned, options)
            otherwise = stored_otherwise(store, planned, options)
            if otherwise and (rest is None or rest.only_layers):
                kept.setdefault(", ".join(otherwise), []).append(planned.id)
            if rest is None:
                present.append(planned.id)
                continue
            left.append(rest)
            if not rest.only_layers and (damage := damage_of(store, rest.id)):
                notes.append(f"{rest.id!r} is damaged, and written anew: {damage}")
            if not rest.only_layers and (changed := changed_unasked(store, rest, options)):
                said = ", ".join(changed)
                notes.append(
                    f"{rest.id!r} was stored with {said}, which nothing says now: say it again to keep it."
                )
            lost = sorted(set(store.layers(rest.id)) - {layer.name for layer in rest.layers})
            if lost and not rest.only_layers:
                notes.append(f"{rest.id!r} loses its layers {', '.join(lost)}: give them again to keep them.")
    for how, ids in kept.items():
        verb = "is" if len(ids) == 1 else "are"
        notes.append(f"{listed(ids, most=3)} {verb} kept as stored: {how}. Pass --replace to change it.")
    return present, left


def _stored_ranges(
    scene: SceneProbe, store: Store | None, options: IngestOptions
) -> dict[str, tuple[float, float]]:
    """Return the stored range of each array: its group's if the store has one, else what is asked for.

    Ranges that are still to be found from the pixels are the whole range until they are.
    """
    out = {}
    for array in scene.arrays:
        key = group_of(scene, array)
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
    peak = scene.peak_memory(options.threads)
    if peak > options.memory:
        read: list[ArrayProbe | LayerPlan] = [*scene.probe.arrays, *scene.layers]
        giant = max(read, key=lambda a: a.block_bytes)
        raise UnsupportedRasterError(
            f"{scene.id}: a worker within {size_text(options.memory)} was expected, got a projected "
            f"{size_text(peak)}: a block of {giant.path.name} is {giant.block_shape[0]} x {giant.block_shape[1]} "
            f"pixels, {size_text(giant.block_bytes)} decoded. Pass --memory {math.ceil(peak / 1e9 * 10) / 10:g}GB"
            + (" or a smaller --shard," if scene.encoding.shard > cv.SHARD else ",")
            + " or rewrite the file in tiles: gdal_translate -co TILED=YES."
        )
