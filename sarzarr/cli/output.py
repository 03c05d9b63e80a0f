"""Text that commands print: the contents of a store, and the progress of work."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from typer import echo

from sarzarr import conventions as cv
from sarzarr.text import counted, size_text

if TYPE_CHECKING:
    import sarzarr as sz
    from sarzarr.arrays import Array

SHOWN: Final = 12
"""Scenes, sets or versions that are listed, at most."""
LOOKED_INTO: Final = 200
"""Scenes whose files are looked at, at most; of a store of more, some of them, spread over all."""
MANY: Final = 1000
"""Scenes among which stacks are looked for, at most."""
CLASSES: Final = 30
"""Classes that are listed, at most."""


def taken_by_default(store: "sz.Store", index: str) -> tuple["Array", str]:
    """Return the patches (patches,) bool that readers take where nothing is said, and their limits as a text."""
    from sarzarr.patches.selection import passing
    from sarzarr.reader.options import ReadOptions

    query = ReadOptions().query(index)
    limits = f"min_valid={query.min_valid:g} and min_unsaturated={query.min_unsaturated:g}"
    return passing(store, query), limits


def summary(store: "sz.Store") -> str:
    """Return the contents of a store in one screen of text: pixels in Mpx, clips in dB, sizes in bytes.

    What tables tell is of all scenes; sizes, layers and overviews, which stand in the scenes, are of `LOOKED_INTO`
    scenes where there are more, and said to be.
    """
    catalog, bounds = store.catalog, store.bounds
    some = _looked_into(store.scenes)
    held = f"{counted(len(store.scenes), 'scene')}, {counted(catalog.sizes['array'], 'array')}"
    lines = [f"{store.place.name}: {held}, {_size_on_disk(store, some)}"]
    keys, pixels = catalog["bounds_key"].values, catalog["height"].values * catalog["width"].values
    for key in sorted(set(keys.tolist())):
        mine = keys == key
        written = set(zip(*(catalog[k].values[mine].tolist() for k in ("dtype", "codec")), strict=True))
        entry = bounds[key]
        kinds = " and ".join(sorted(f"{dtype}, codec {codec}" for dtype, codec in written))
        lines.append(
            f"  {key:<16} {counted(int(mine.sum()), 'array'):>12}, {int(pixels[mine].sum()) / 1e6:9.2f} Mpx, "
            f"{kinds}, clip {entry.clip_vmin:.2f} to {entry.clip_vmax:.2f} dB ({entry.clip_method})"
        )
    for index in store.patch_indices:
        table = store.patch_columns(index)
        taken, limits = taken_by_default(store, index)
        whole = (table["valid_fraction"].values == 1).sum()
        cut = f"{table.attrs['size']} px, stride {table.attrs['stride']}, edge {table.attrs['edge']}"
        ragged = f"{counted(table.attrs['dropped'], 'ragged one')} at right and bottom edges left out"
        lines += [
            f"  patches/{index}: {table.sizes['patch']} ({cut}); {ragged}",
            f"    {whole} valid in every pixel; readers take {taken.sum()} by default ({limits})",
        ]
    lines += _other_contents(store, some)
    for scene in store.scenes[:SHOWN]:
        row = store.facts(scene)[0]
        names = "+".join(store.arrays(scene)) or "layers alone"
        facts = " ".join(filter(None, (str(row[c]) for c in ("time", "platform", "mode", "orbit_state"))))
        place = f"{row['height']} x {row['width']}, {row['geolocation'].replace('_', ' ')}"
        lines.append(f"  {scene}: {names}, {place} {facts}".rstrip())
        if layers := store.layers(scene):
            lines.append(f"    layers: {', '.join(_layer_text(store, scene, name) for name in layers)}")
    if len(store.scenes) > SHOWN:
        lines.append(f"  ... and {counted(len(store.scenes) - SHOWN, 'more scene')}")
    return "\n".join(lines)


def _looked_into(scenes: Sequence[str]) -> Sequence[str]:
    """Return the scenes that are looked into: all, or `LOOKED_INTO` of them, spread over all."""
    if len(scenes) <= LOOKED_INTO:
        return scenes
    return [scenes[i * len(scenes) // LOOKED_INTO] for i in range(LOOKED_INTO)]


def _size_on_disk(store: "sz.Store", some: Sequence[str]) -> str:
    """Return the bytes of a store's files; where ``some`` scenes are not all, as if the others were like them."""
    in_scenes = (cv.SCENES, cv.HISTOGRAMS)
    if len(some) == len(store.scenes):
        return size_text(_bytes_below(store.root))
    of_some = sum(_bytes_below(store.root / group / scene) for group in in_scenes for scene in some)
    beside = (path for path in store.root.iterdir() if path.name not in (*in_scenes, cv.OVERVIEWS))
    whole = of_some * len(store.scenes) / len(some) + sum(map(_bytes_below, beside))
    return f"about {size_text(int(whole))} (by {len(some)} of its scenes)"


def _bytes_below(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; 0 where there is none."""
    if not path.is_dir():
        return path.stat().st_size if path.is_file() else 0
    with os.scandir(path) as entries:
        return sum(_bytes_below(Path(e.path)) if e.is_dir() else e.stat().st_size for e in entries)


def _other_contents(store: "sz.Store", some: Sequence[str]) -> Iterator[str]:
    """Yield a line for each thing in a store that is neither a scene nor a patch index."""
    from sarzarr.cli.collections import collection_lines
    from sarzarr.patches.stacks.find import find_stacks
    from sarzarr.splits.samples.manager import SplitManager
    from sarzarr.store.boxes import box_tables
    from sarzarr.store.classes import read_classes
    from sarzarr.store.documents import named, read_node
    from sarzarr.store.overviews.levels import overview_bytes
    from sarzarr.store.samples import open_samples, sample_sets
    from sarzarr.store.split_table import versions

    of_some = "" if len(some) == len(store.scenes) else f" (of {len(some)} that were looked into)"
    if layers := Counter(layer for scene in some for layer in store.layers(scene)):
        held = (f"{name} of {counted(n, 'scene')}" for name, n in sorted(layers.items()))
        yield f"  layers: {', '.join(held)}{of_some}"
    shown = {name.rstrip("/") for name in store.place.children(cv.OVERVIEWS)}
    if levels := {scene: n for scene in some if scene in shown and (n := store.levels(scene)[-1])}:
        taken = size_text(sum(overview_bytes(store.place, scene) for scene in levels))
        of = "all scenes" if len(levels) == len(store.scenes) else counted(len(levels), "scene")
        yield f"  overviews: of {of}{of_some}, down to level {max(levels.values())}, {taken}"
    sets, tables = sample_sets(store), box_tables(store)
    for name in sets:
        cut = open_samples(store, name).layout
        drawn = f", {_boxes_text(store, name)}" if name in tables else ""
        size = f"{cut.height} x {cut.width} at most, {cut.stored}"
        yield f"  samples/{name}: {counted(cut.count, 'sample')} of {size}{drawn}"
        if known := SplitManager(store).get_versions(name):
            yield f"    split: {_versions_text(known)}"
    yield from collection_lines(store)
    for name in tables:
        if name not in sets:
            yield f"  boxes/{name}: {_boxes_text(store, name)}"
    if classes := read_classes(store.place).names:
        more = f", and {len(classes) - CLASSES} more" if len(classes) > CLASSES else ""
        yield f"  classes: {', '.join(f'{n} {name}' for n, name in enumerate(classes[:CLASSES], 1))}{more}"
    if len(store.scenes) > MANY:
        yield "  stacks: `sarzarr stacks` looks for them"
    elif store.catalog.sizes["array"] and (stacks := find_stacks(store)):
        scenes = counted(sum(map(len, stacks)), "scene")
        yield f"  stacks: {len(stacks)}, of {scenes} (`sarzarr stacks` lists them)"
    if numbers := versions(store.place):
        key = f"{cv.SPLITS}/v{numbers[-1]}"
        about = read_node(store.place, key)["attributes"]
        with named(store.place, f"{key}/zarr.json"):
            cells = ", ".join(f"{n} {side.replace('_', ' ')}" for side, n in about["counts"].items() if n)
        yield f"  splits: {_versions_text(numbers)}; cells of v{numbers[-1]}: {cells}"


def _boxes_text(store: "sz.Store", name: str) -> str:
    from sarzarr.store.boxes import read_boxes

    boxes = read_boxes(store, name)
    text = f"{counted(len(boxes), 'box')} in {counted(len(set(boxes.label.tolist())), 'class')}"
    text += f", {boxes.turned} rotated" if boxes.turned else ""
    return text if boxes.on != cv.SCENES else f"{text} on {counted(len(boxes.owners), 'scene')}"


def _versions_text(numbers: Sequence[int]) -> str:
    more = "..., " if len(numbers) > SHOWN else ""
    return more + ", ".join(f"v{n}" for n in numbers[-SHOWN:])


def _layer_text(store: "sz.Store", scene: str, layer: str) -> str:
    attrs = store.layer_attrs(scene, layer)
    facts = [attrs[cv.LAYER_KIND], attrs.get(cv.RESAMPLING)]
    facts += [f"nodata {attrs[cv.NODATA]:g}"] if cv.NODATA in attrs else []
    return f"{layer} ({', '.join(fact for fact in facts if fact)})"


@contextmanager
def progress_bar(*, quiet: bool, unit: str = "bytes") -> Iterator[Callable[["sz.Progress"], None] | None]:
    """Show a bar on a terminal, in bytes or another unit; a line every tenth elsewhere; nothing if quiet."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        yield _Tenths(unit)
        return
    from rich import progress as rich
    from rich.console import Console
    from rich.text import Text

    sizes = [rich.DownloadColumn(), rich.TransferSpeedColumn()]

    class Rate(rich.ProgressColumn):
        def render(self, task: rich.Task) -> Text:
            return Text(f"{task.speed or 0:,.1f}/s")

    counts = sizes if unit == "bytes" else [rich.MofNCompleteColumn(), Rate()]
    columns = rich.TextColumn("{task.description}"), rich.BarColumn(), *counts, rich.TimeRemainingColumn()
    # No refreshing thread: a process with a second thread does not fork workers.
    with rich.Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task(unit, total=None)

        def report(done: "sz.Progress") -> None:
            bar.update(task, completed=done.done, total=done.total, description=done.scene[-40:])
            bar.refresh()

        yield report


class _Tenths:
    """A line for every tenth of the work, with its rate since the beginning, in bytes or another unit."""

    def __init__(self, unit: str = "bytes") -> None:
        self.tenth, self.began = 0, time.perf_counter()
        self.text = (
            size_text if unit == "bytes" else lambda n: f"{n:,.0f} {unit}" if n >= 10 else f"{n:.2g} {unit}"
        )

    def __call__(self, progress: "sz.Progress") -> None:
        tenth = 10 * progress.done // max(progress.total, 1)
        if tenth > self.tenth:
            self.tenth = tenth
            rate = progress.done / max(time.perf_counter() - self.began, 1e-9)
            echo(f"{10 * tenth} % of {self.text(progress.total)}, {self.text(rate)}/s", err=True)
