"""Plans of collections: which files are an archive of chips, and which is which chip's what.

Names and stamps of all files are looked at, and the headers and pixels of a few, spread over all: as a scene's are.
What every other file says is judged when its pixels are read: see `sarzarr.ingestion.collections.read`.
"""

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, RasterNotFoundError, SarzarrError, UnsupportedRasterError
from sarzarr.ingestion.collections.files import (
    Chips,
    File,
    bare_source,
    chips_of,
    families,
    files_of_layer,
    pattern_of,
    rasters_below,
)
from sarzarr.ingestion.collections.known import ChipsThere
from sarzarr.ingestion.collections.read import Understanding
from sarzarr.ingestion.collections.understand import Probes, layer_bands, ordered_arrays, spread, understood
from sarzarr.ingestion.layers.layer import Layer
from sarzarr.ingestion.options import IngestOptions
from sarzarr.scenes.header import read_header
from sarzarr.scenes.refusals import Refusals
from sarzarr.store.boxes import safe_name
from sarzarr.store.collections import (
    LONGEST,
    ChipLayer,
    Collection,
    Contents,
    Part,
    collection_names,
)
from sarzarr.store.store import Store
from sarzarr.text import counted, listed
from sarzarr.zips import SUFFIXES as ARCHIVES
from sarzarr.zips.zarrs import is_in_zarr

log = logging.getLogger(__name__)
ENOUGH: Final = 50
"""Small files of one kind that are packed without being asked for."""
_HEADERS: Final = 5
"""Headers of each kind of files that are read to see whether they are small."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CollectionPlan:
    """One collection that chips will go into."""

    name: str
    """Its name."""
    chips: Chips
    """The files of the chips that are to be written."""
    by_size: Mapping[tuple[int, int], Sequence[int]]
    """Numbers of the chips by (rows, columns), as far as that is known: the others turn up when they are read."""
    understanding: Understanding
    """What their numbers are."""
    patterns: Mapping[str, str]
    """Which file is which chip's what: patterns of names by array or layer."""
    present: int = 0
    """Chips that are in the store already, from the same files: skipped."""
    replaced: tuple[str, ...] = ()
    """Ids of chips in the store that are written anew."""
    sampled: int = 0
    """Chips whose pixels were looked at."""
    later: Chips = field(default_factory=lambda: Chips.of((), ()))
    """Chips in the store that get layers, or others in the place of those that they have: the files of these."""
    later_shards: tuple[int, int] = (0, 0)
    """Shards in which these are, and pixels of them."""

    def contents(self, known: Contents | None) -> Contents:
        """Return what the collection will hold beside what is ``known`` of it; parts and rows come with the chips.

        Raises `InvalidInputError` where an array or a layer of a name means something else there.
        """
        own = self.understanding
        arrays = {array.name: array for array in own.arrays}
        layers = {one.layer.name: one.layer for one in own.layers}
        about = {"patterns": dict(self.patterns)}
        about[cv.REASON] = {b.name: b.reason for kept in own.meanings.values() for b in kept}
        stamps = sorted({one.files for one in own.layers})
        if known is None:
            return Contents(
                arrays=ordered_arrays(arrays.values()),
                layers=_by_name(layers.values()),
                stamps=tuple(stamps),
                about=about,
            )
        there: list[Any] = [*known.arrays, *known.layers]
        for held in there:
            new = arrays.get(held.name) or layers.get(held.name)
            if new is not None and new != held:
                raise InvalidInputError(
                    f"expected {held.name!r} as collection {self.name!r} has it ({held}), got {new}. Name another "
                    "with --collection."
                )
        arrays |= {array.name: array for array in known.arrays}
        more = [layer for layer in layers.values() if layer not in known.layers]
        return replace(
            known,
            arrays=ordered_arrays(arrays.values()),
            layers=(*known.layers, *_by_name(more)),
            stamps=tuple(dict.fromkeys([*known.stamps, *stamps])),
            about={**known.about, "patterns": {**self.patterns, **known.about.get("patterns", {})}},
        )

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns) of most chips."""
        return max(self.by_size, key=lambda size: len(self.by_size[size]), default=(0, 0))

    @property
    def pixels(self) -> int:
        """Pixels of backscatter, as far as sizes are known."""
        chips = sum(math.prod(size) * len(rows) for size, rows in self.by_size.items())
        return chips * len(self.understanding.arrays)

    @property
    def tasks(self) -> int:
        """Units of work: shards of chips, (chips, rows, columns), as far as sizes are known."""
        per = {size: Part.of(*size).per_shard for size in self.by_size}
        return self.later_shards[0] + sum(-(-len(rows) // per[size]) for size, rows in self.by_size.items())

    @property
    def bytes_in(self) -> int:
        """Bytes of the decoded pixels."""
        bands = [np.dtype(kind[0]).itemsize for kind in self.understanding.meanings]
        layers = sum(np.dtype(one.layer.dtype).itemsize for one in self.understanding.layers)
        of_arrays = self.pixels * max(bands, default=4)
        of_chips = self.pixels // max(len(self.understanding.arrays), 1)
        return of_arrays + (of_chips + self.later_shards[1]) * layers

    @property
    def bytes_out(self) -> int:
        """Bytes of the stored pixels at the most; flags, which take next to nothing, not counted."""
        arrays = sum(np.dtype(array.dtype).itemsize for array in self.understanding.arrays)
        layers = sum(np.dtype(one.layer.dtype).itemsize for one in self.understanding.layers)
        return (
            self.pixels // max(len(self.understanding.arrays), 1) * (arrays + layers)
            + self.later_shards[1] * layers
        )

    def __str__(self) -> str:
        sizes = ", ".join(f"{len(rows):,} of {h} x {w}" for (h, w), rows in self.by_size.items())
        lines = [
            f"  collection {self.name}: {counted(len(self.chips), 'chip')} to write, {self.present:,} already there"
        ]
        if len(self.chips):
            lines[0] += f"; {sizes}, by {counted(self.sampled, 'file')} that were looked at"
        if self.replaced:
            lines.append(f"    {counted(len(self.replaced), 'chip')} written anew")
        kept = {b.name: b for meaning in self.understanding.meanings.values() for b in meaning}
        for array in self.understanding.arrays:
            how = kept[array.name]
            lines.append(
                f"    {array.name}: {how.quantity} as {how.representation} ({how.reason}): "
                f"{self.patterns[array.name]}"
            )
        for one in self.understanding.layers:
            layer = one.layer
            nodata = "no nodata" if layer.nodata is None else f"nodata {layer.nodata:g}"
            has, there = (sum(map(bool, c.layers.get(one.files, ()))) for c in (self.chips, self.later))
            of = [f"of {counted(has, 'chip')}"] if has or not there else []
            of += [f"of {counted(there, 'chip')} that {'is' if there == 1 else 'are'} there"] if there else []
            what = f"{layer.dtype} {layer.kind}, {nodata}, {' and '.join(of)}"
            lines.append(f"    layer {layer.name}: {what}: {self.patterns[layer.name]}")
        return "\n".join(lines)


def _by_name(layers: Iterable[ChipLayer]) -> tuple[ChipLayer, ...]:
    return tuple(sorted(layers, key=lambda layer: layer.name))


@dataclass(frozen=True, kw_only=True)
class Packed:
    """The archives among files, and what stays for scenes."""

    plans: tuple[CollectionPlan, ...] = ()
    """Collections to write."""
    rest: tuple[str | Path, ...] = ()
    """Files and folders that are scenes, or nothing that is known yet."""
    notes: tuple[str, ...] = ()
    """One sentence for each kind of files that is left out."""
    refused: Refusals = field(default_factory=Refusals)
    """Files that are left out, each with its reason."""
    layers: tuple[Layer, ...] = ()
    """Layers that are of scenes."""


def plan_collections(given: Sequence[str | Path], store: Store | None, options: IngestOptions) -> Packed:
    """Return which of the files, and of those in folders and archives, go into a collection.

    Those of a kind of which there are `ENOUGH` of at most `LONGEST` rows and columns do so by themselves, and those
    of Zarr archives; with ``options.collection`` all do, with ``options.scenes`` none.

    Raises `InvalidInputError` where a collection was asked for, and an option holds of scenes alone.
    """
    as_scenes = Packed(rest=tuple(given), layers=options.layers)
    if options.scenes or not (given or options.collection):
        return as_scenes
    if alone := _of_scenes_alone(options):
        if options.collection is None:
            return as_scenes
        raise InvalidInputError(
            f"options that chips know were expected with --collection, got {alone}. Leave it out, or ingest "
            "scenes with --scenes."
        )
    is_asked = options.collection is not None
    try:
        files = rasters_below(given)
    except UnsupportedRasterError:
        if is_asked:
            raise
        return as_scenes
    few = len(files) < ENOUGH and not any(is_in_zarr(file.path) for file in files)
    if not is_asked and (few or any(".SAFE/" in file.path.upper() for file in files)):
        return as_scenes
    if not files and not options.layers:
        raise RasterNotFoundError(
            f"TIFF files were expected below {listed(map(str, given))}, got none. Check the path."
        )
    return _packed(given, files, store, options)


def _of_scenes_alone(options: IngestOptions) -> str:
    """Return an option that is given and that chips do not know."""
    asked = {
        "a grid": options.has_grid,
        "border": bool(options.border) or options.border_noise,
        "annotation": bool(options.annotation),
        "a calibration": options.calibrate not in (None, "none") or options.denoise,
        "an id": options.id is not None,
        "no shards": options.shard == 0,
        f"bounds by {options.bounds}": options.bounds not in ("stored", "fixed"),
    }
    return ", ".join(name for name, is_given in asked.items() if is_given)


def _packed(
    given: Sequence[str | Path], files: list[File], store: Store | None, options: IngestOptions
) -> Packed:
    is_asked, refused, notes = options.collection is not None, Refusals(), list[str]()
    layers: dict[str, list[File]] = {}
    of_scenes: list[Layer] = []
    for layer in options.layers:
        if layer.name in layers:
            raise InvalidInputError(
                f"one --layer {layer.name} was expected, got another, {layer.path!r}. Give one pattern or folder "
                "that all of its files are in, or another name."
            )
        try:
            layers[layer.name] = files_of_layer(layer, files)
        except RasterNotFoundError:
            if is_asked:
                raise
            of_scenes.append(layer)
    taken = {file.path for own in layers.values() for file in own}
    files = [file for file in files if file.path not in taken]
    probes, kept = Probes(options), list[File]()
    rest: list[File] = []
    for own in families(files).values():
        if not is_asked and len(own) < ENOUGH and not is_in_zarr(own[0].path):
            rest += own
            continue
        fit, is_small = _look(own, probes, notes, is_asked=is_asked)
        (kept if fit else rest if not is_small else []).extend(own)
    name = safe_name(options.collection or _named_after(given))
    is_later = is_asked and any(layers.values()) and store is not None and name in collection_names(store)
    if not kept and not is_later:
        if is_asked:
            said = [
                *notes,
                f"Of at most {LONGEST} x {LONGEST} pixels: {len(files) - len(rest)} of {len(files)} files.",
            ]
            raise UnsupportedRasterError("chips of backscatter were expected, got none:\n" + "\n".join(said))
        return Packed(rest=tuple(given), layers=options.layers)
    plan = _plan(name, kept, layers, store, probes, notes, refused)
    if is_asked:
        for file in rest:
            why = f"expected a chip of at most {LONGEST} x {LONGEST} pixels. Ingest it as a scene: --scenes."
            refused.add([file.path], why)
        rest = []
    return Packed(
        plans=(plan,),
        rest=tuple(file.path for file in rest),
        notes=tuple(notes),
        refused=refused,
        layers=tuple(of_scenes) if not rest else options.layers,
    )


def _named_after(given: Sequence[str | Path]) -> str:
    """Return the name of a collection by the folder that was given, or that the first file is in."""
    first = Path(given[0]).absolute()
    name = first.name if first.is_dir() or first.suffix.lower() in ARCHIVES else first.parent.name
    stem = Path(name).stem if name.lower().endswith(ARCHIVES) else name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "chips"


def _look(files: Sequence[File], probes: Probes, notes: list[str], *, is_asked: bool) -> tuple[bool, bool]:
    """Return whether files of one kind are chips of backscatter, and whether they are small, by a few of them."""
    shapes: list[tuple[int, int]] = []
    failures: dict[str, File] = {}
    is_radar = False
    for file in spread(files, _HEADERS):
        try:
            header = read_header(Path(file.path))
        except (SarzarrError, OSError) as error:
            failures.setdefault(str(error), file)
            continue
        shapes.append(header.grid.shape)
        told = probes.teller.of(Path(file.path), header) if max(header.grid.shape) <= LONGEST else None
        if told is not None and told.refusal is not None:
            failures.setdefault(told.refusal, file)
        elif told is not None and not is_radar:
            probe = probes.of(Path(file.path))
            is_radar = probe.refusal is None
            if probe.refusal is not None:
                failures.setdefault(probe.refusal, file)
    if not shapes:
        if is_asked:
            notes.append(f"{counted(len(files), 'file')} left out: {next(iter(failures))}")
        return False, False
    is_small = (min if is_asked else max)(
        map(max, shapes)
    ) <= LONGEST  # a large one is refused when it is read
    usual = max(set(shapes), key=shapes.count)
    if not is_asked and not (is_small and 2 * shapes.count(usual) >= len(shapes)):
        return False, False
    if is_small and not is_radar:
        why, file = next(iter(failures.items()))
        notes.append(
            f"{counted(len(files), 'file')} {pattern_of([f.source for f in files])} left out: {why} If they "
            f"belong to the chips, keep them with --layer NAME={_kind_word(file)}."
        )
    return is_small and is_radar, is_small


def _kind_word(file: File) -> str:
    return re.split(r"[_\-. ]", file.stem.rpartition("/")[2])[-1] or "PATTERN"


def _plan(
    name: str,
    files: Sequence[File],
    layers: Mapping[str, Sequence[File]],
    store: Store | None,
    probes: Probes,
    notes: list[str],
    refused: Refusals,
) -> CollectionPlan:
    options = probes.options
    there = store is not None and name in collection_names(store)
    known = ChipsThere(Collection(store, name) if store is not None and there else None)
    known.take([*files, *(file for own in layers.values() for file in own)])
    seen = set(known.rows)
    sources = known.sources if layers else [{}]
    if options.replace:
        sources[0] = {row: source for row, source in sources[0].items() if row not in known.changed}
    else:
        seen |= {file.source for own in known.changed.values() for file in own}
    found = chips_of([file for file in files if file.source not in seen], layers, sources)
    chips, ids = found.chips, known.collection.ids if known.collection is not None else ()
    later = known.later(
        {row: own for row, own in found.known.items() if row not in known.changed}, replaces=options.replace
    )
    for own in [] if options.replace else [*known.changed.values(), *known.others.values()]:
        why = (
            f"it is in collection {name!r} with other pixels. Pass --replace to write it anew, or name another "
            "with --collection."
        )
        refused.add([file.path for file in own], why)
    for key, some in found.left.items():
        if some:
            notes.append(
                f"{counted(len(some), 'file')} of layer {key!r} left out: no chip has the words of its name: "
                f"{some[0].source}"
            )
    gone = {ids[row] for row in known.changed} if options.replace else set()
    old = {f.source: ids[row] for row, own in known.changed.items() for f in own} if options.replace else {}
    chips = _without_parts(chips, known, set(old.values()), refused)
    chips = _with_ids_of_their_own(chips, set(ids), old)
    if known.collection is not None:
        _check_said(known.collection.contents, layers, options)
    if lost := [
        name for name in known.layers_of(known.changed if options.replace else ()) if name not in layers
    ]:
        notes.append(
            f"{counted(len(gone), 'chip')} written anew without layer {', '.join(lost)}, which the files that are "
            "given do not have. Keep it with --layer NAME=PATTERN."
        )
    used = {key: own for key, own in layers.items() if len(chips) or key in later.layers}
    understanding, by_size, sampled = understood(chips, used, store, probes)
    return CollectionPlan(
        name=name,
        chips=chips,
        by_size=by_size,
        understanding=understanding,
        patterns=_patterns([*chips.sources, *later.sources], understanding),
        present=len(known.present),
        replaced=tuple(sorted(gone)),
        sampled=sampled,
        later=later,
        later_shards=known.shards_of(later.ids),
    )


def _without_parts(chips: Chips, known: ChipsThere, replaced: set[str], refused: Refusals) -> Chips:
    """Return chips without those that are another polarization of a chip that is there: they are refused."""
    made = known.collection
    if made is None:
        return chips
    kept = list[int]()
    for number, (name, source) in enumerate(zip(chips.ids, chips.sources, strict=True)):
        row = made.numbers.get(name)
        own = None if row is None else str(made.table["source"].values[row])
        if own is None or name in replaced or bare_source(own) != bare_source(source):
            kept.append(number)
            continue
        why = (
            f"it belongs to chip {name!r}, which is in collection {made.name!r} with other files. Ingest all files "
            "of the archive into another one, with --collection."
        )
        refused.add(map(Path, chips.paths[number].split("\n")), why, scene=name)
    return chips if len(kept) == len(chips) else chips.part(np.array(kept, np.int64))


def _check_said(known: Contents, files: Mapping[str, Sequence[File]], options: IngestOptions) -> None:
    """Raise `InvalidInputError` where the caller says another nodata or kind of a layer than the collection has.

    So it does where a layer's name is that of a band of another one.
    """
    by_name = {layer.name: layer for layer in known.layers}
    for layer in options.layers:
        if layer.name in by_name and known.stamps and layer.name not in known.stamps and layer.name in files:
            raise InvalidInputError(
                f"expected another name than {layer.name!r}, which is a band of a layer of the collection. Name it "
                "otherwise."
            )
        is_said = layer.name in files and (layer.nodata is not None or layer.kind)
        for one in layer_bands(layer, files) if is_said else ():
            own, there = one.layer, by_name.get(one.layer.name)
            if there is not None and (own.nodata, own.kind) != (there.nodata, there.kind):
                raise InvalidInputError(
                    f"expected layer {own.name!r} as the collection has it ({there.kind}, nodata {there.nodata}), "
                    f"got {own.kind}, nodata {own.nodata}. Give it another name, or remove the collection and ingest "
                    "it again."
                )


def _with_ids_of_their_own(chips: Chips, taken: set[str], old: Mapping[str, str]) -> Chips:
    """Return chips whose ids are not ``taken``: one that is gets its folders' names, too.

    One that is written anew keeps its id, which ``old`` has by its files: boxes, labels and splits know it by that.
    """
    ids, used = list[str](), set[str]()
    for name, source in zip(chips.ids, chips.sources, strict=True):
        kept = next((old[line] for line in source.split("\n") if line in old), None)
        if kept is not None and kept not in used:
            name = kept
        else:
            if name in taken or name in used:
                name = source.split("\n")[0].rpartition(".")[0].replace("/", "_")
            while name in taken or name in used:
                name += "_"
        ids.append(name)
        used.add(name)
    return replace(chips, ids=tuple(ids))


def _patterns(sources: Sequence[str], understanding: Understanding) -> dict[str, str]:
    """Return the pattern of the names of the files of each array and layer, from those of chips, a line each."""
    out: dict[str, str] = {}
    lines = [source.split("\n") for source in sources]
    several = any(sum("\t" not in line for line in own) > 1 for own in lines)
    for array in understanding.arrays:
        word = re.compile(rf"(?<![A-Za-z0-9]){array.name}(?![A-Za-z0-9])", re.IGNORECASE)
        names = [line for own in lines for line in own if "\t" not in line]
        own = [name for name in names if word.search(name)] if several else names
        out[array.name] = pattern_of(own or names)
    for one in understanding.layers:
        begin = f"{one.files}\t"
        out[one.layer.name] = pattern_of(
            [line.removeprefix(begin) for own in lines for line in own if line.startswith(begin)]
        )
    return out
