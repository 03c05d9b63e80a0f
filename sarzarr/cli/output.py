"""Text that commands print: the contents of a store, and the progress of work."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from typer import echo

from sarzarr import conventions as cv
from sarzarr.text import counted, size_text

if TYPE_CHECKING:
    import sarzarr as sz
    from sarzarr.arrays import Array

SHOWN: Final = 12
"""Scenes, sets or versions that are listed, at most."""


def taken_by_default(store: "sz.Store", index: str) -> tuple["Array", str]:
    """Return the patches (patches,) bool that readers take where nothing is said, and their limits as a text."""
    from sarzarr.patches.selection import passing
    from sarzarr.reader.options import ReadOptions

    query = ReadOptions().query(index)
    limits = f"min_valid={query.min_valid:g} and min_unsaturated={query.min_unsaturated:g}"
    return passing(store, query), limits


def summary(store: "sz.Store") -> str:
    """Return the contents of a store in one screen of text: pixels in Mpx, clips in dB, sizes in bytes."""
    catalog, bounds = store.catalog, store.bounds
    on_disk = sum(p.stat().st_size for p in store.root.rglob("*") if p.is_file())
    held = f"{counted(len(store.scenes), 'scene')}, {counted(catalog.sizes['array'], 'array')}"
    lines = [f"{store.place.name}: {held}, {size_text(on_disk)}"]
    keys = catalog["bounds_key"].values
    for key in sorted(set(keys.tolist())):
        rows = [i for i, k in enumerate(keys) if k == key]
        pixels = sum(int(catalog["height"].values[i]) * int(catalog["width"].values[i]) for i in rows)
        written = {f"{catalog['dtype'].values[i]}, codec {catalog['codec'].values[i]}" for i in rows}
        entry, kinds = bounds[key], " and ".join(sorted(written))
        lines.append(
            f"  {key:<16} {counted(len(rows), 'array'):>12}, {pixels / 1e6:9.2f} Mpx, {kinds}, "
            f"clip {entry.clip_vmin:.2f} to {entry.clip_vmax:.2f} dB ({entry.clip_method})"
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
    lines += _other_contents(store)
    for scene in store.scenes[:SHOWN]:
        arrays = store.entries(scene)
        row = {name: column.values[0] for name, column in arrays.items()}
        names = "+".join(store.arrays(scene)) or "layers alone"
        facts = " ".join(filter(None, (str(row[c]) for c in ("time", "platform", "mode", "orbit_state"))))
        place = f"{row['height']} x {row['width']}, {row['geolocation'].replace('_', ' ')}"
        lines.append(f"  {scene}: {names}, {place} {facts}".rstrip())
        if layers := store.layers(scene):
            lines.append(f"    layers: {', '.join(_layer_text(store, scene, name) for name in layers)}")
    if len(store.scenes) > SHOWN:
        lines.append(f"  ... and {counted(len(store.scenes) - SHOWN, 'more scene')}")
    return "\n".join(lines)


def _other_contents(store: "sz.Store") -> Iterator[str]:
    """Yield a line for each thing in a store that is neither a scene nor a patch index."""
    from sarzarr.cli.collections import collection_lines
    from sarzarr.patches.stacks.find import find_stacks
    from sarzarr.splits.samples.manager import SplitManager
    from sarzarr.store.boxes import box_tables
    from sarzarr.store.documents import named, read_node
    from sarzarr.store.overviews.levels import overview_bytes
    from sarzarr.store.samples import open_samples, sample_sets
    from sarzarr.store.split_table import versions

    if layers := Counter(layer for scene in store.scenes for layer in store.layers(scene)):
        held = (f"{name} of {counted(n, 'scene')}" for name, n in sorted(layers.items()))
        yield f"  layers: {', '.join(held)}"
    if levels := {scene: n for scene in store.scenes if (n := store.levels(scene)[-1])}:
        taken = size_text(sum(overview_bytes(store.place, scene) for scene in levels))
        of = "all scenes" if len(levels) == len(store.scenes) else counted(len(levels), "scene")
        yield f"  overviews: of {of}, down to level {max(levels.values())}, {taken}"
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
    if store.catalog.sizes["array"] and (stacks := find_stacks(store)):
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
