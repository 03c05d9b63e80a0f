"""What the commands print: sizes, what is in a store, and how far the work is."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from sarzarr import conventions as cv
from sarzarr.text import counted, size_text

if TYPE_CHECKING:
    import numpy as np

    from sarzarr.patches.selection import Query
    from sarzarr.store.documents import Document
    from sarzarr.store.store import Store
    from sarzarr.tasks import Progress

SHOWN: Final = 12
"""Scenes, sets or versions that are listed, at most."""


def taken_by_default(store: "Store", index: str) -> "np.ndarray[Any, Any]":
    """Return (patches,) bool: what readers take of an index where nothing is said."""
    from sarzarr.patches.selection import passing

    return passing(store, _default_query(index))


def asked_by_default() -> str:
    """Return what readers ask of a patch where nothing is said."""
    query = _default_query(cv.DEFAULT_INDEX)
    return f"min_valid={query.min_valid:g} and min_unsaturated={query.min_unsaturated:g}"


def _default_query(index: str) -> "Query":
    from sarzarr.reader.options import ReadOptions

    return ReadOptions().query(index)


def summary(store: "Store") -> str:
    """Return what is in a store, in one screen of text."""
    catalog, bounds = store.catalog, store.bounds
    on_disk = sum(p.stat().st_size for p in store.root.rglob("*") if p.is_file())
    held = f"{counted(len(store.scenes), 'scene')}, {counted(catalog.sizes['array'], 'array')}"
    lines = [f"{store.root.name}: {held}, {size_text(on_disk)}"]
    keys = catalog["bounds_key"].values
    for key in sorted(set(keys.tolist())):
        rows = [i for i, k in enumerate(keys) if k == key]
        pixels = sum(int(catalog["height"].values[i]) * int(catalog["width"].values[i]) for i in rows)
        written = {f"{catalog['dtype'].values[i]}, codec {catalog['codec'].values[i]}" for i in rows}
        entry = bounds[key]
        lines.append(
            f"  {key:<16} {counted(len(rows), 'array'):>12}, {pixels / 1e6:9.2f} Mpx, "
            f"{' and '.join(sorted(written))}, "
            f"clip {entry.clip_vmin:.2f} to {entry.clip_vmax:.2f} dB ({entry.clip_method})"
        )
    for index in store.patch_indices:
        table = store.patch_columns(index)
        taken = taken_by_default(store, index)
        whole = (table["valid_fraction"].values == 1).sum()
        cut = f"{table.attrs['size']} px, stride {table.attrs['stride']}, edge {table.attrs['edge']}"
        ragged = f"{table.attrs['dropped']} ragged ones at right and bottom edges left out"
        lines += [
            f"  patches/{index}: {table.sizes['patch']} ({cut}); {ragged}",
            f"    {whole} valid in every pixel; readers take {taken.sum()} by default ({asked_by_default()})",
        ]
    lines += _other_contents(store)
    shown = list(store.scenes[:SHOWN])
    for scene in shown:
        row = store.rows(scene).isel(array=0)
        facts = [
            str(row[c].values) for c in ("time", "platform", "mode", "orbit_state") if str(row[c].values)
        ]
        names = "+".join(store.rows(scene)["name"].values.tolist())
        place = str(row["geolocation"].values).replace("_", " ")
        lines.append(
            f"  {scene}: {names}, {int(row['height'])} x {int(row['width'])}, {place} {' '.join(facts)}".rstrip()
        )
        if layers := store.layers(scene):
            lines.append(f"    layers: {', '.join(_layer_text(store, scene, name) for name in layers)}")
    if len(store.scenes) > len(shown):
        lines.append(f"  ... and {len(store.scenes) - len(shown)} more scenes")
    return "\n".join(lines)


def _other_contents(store: "Store") -> Iterator[str]:
    """Yield a line for each thing in a store that is neither a scene nor a patch index."""
    from sarzarr.patches.stacks.find import find_stacks
    from sarzarr.store.samples import sample_sets

    layers = Counter(layer for scene in store.scenes for layer in store.layers(scene))
    if layers:
        yield "  layers: " + ", ".join(
            f"{name} of {counted(n, 'scene')}" for name, n in sorted(layers.items())
        )
    sets = sample_sets(store)
    for name in sets:
        image = _document(store.root / cv.SAMPLES / name / "image")
        count, height, width = image["shape"]
        boxes = store.root / cv.BOXES / name
        drawn = f", {_boxes_text(boxes)}" if (boxes / "zarr.json").is_file() else ""
        yield f"  samples/{name}: {count} chips of {height} x {width} at most, {image['data_type']}{drawn}"
        if numbers := _versions(store.root / cv.SPLITS / cv.SAMPLES / name):
            yield f"    split: {_said(numbers)}"
    for name in _children(store.root / cv.BOXES):
        if name not in sets:
            yield f"  boxes/{name}: {_boxes_text(store.root / cv.BOXES / name)}"
    if store.scenes and (stacks := find_stacks(store)):
        yield f"  stacks: {len(stacks)}, of {sum(map(len, stacks))} scenes (`sarzarr stacks` lists them)"
    if numbers := _versions(store.root / cv.SPLITS):
        counts = _document(store.root / cv.SPLITS / f"v{numbers[-1]}")["attributes"]["counts"]
        cells = ", ".join(f"{n} {side.replace('_', ' ')}" for side, n in counts.items() if n)
        yield f"  splits: {_said(numbers)}; cells of v{numbers[-1]}: {cells}"


def _boxes_text(folder: Path) -> str:
    owners = _document(folder)["attributes"]["on"]
    count, classes = (_document(folder / column)["shape"][0] for column in ("owner", "class_name"))
    said = f"{counted(count, 'box')} in {counted(classes, 'class')}"
    if owners != cv.SCENES:
        return said
    return f"{said} on {counted(_document(folder / 'owner_scene')['shape'][0], 'scene')}"


def _children(folder: Path) -> list[str]:
    return sorted(p.parent.name for p in folder.glob("[!.]*/zarr.json"))


def _versions(folder: Path) -> list[int]:
    return sorted(int(name[1:]) for name in _children(folder) if name[0] == "v" and name[1:].isdecimal())


def _said(numbers: list[int]) -> str:
    more = "..., " if len(numbers) > SHOWN else ""
    return more + ", ".join(f"v{n}" for n in numbers[-SHOWN:])


def _document(folder: Path) -> "Document":
    from sarzarr.store.documents import read_json

    return read_json(folder / "zarr.json")


def _layer_text(store: "Store", scene: str, layer: str) -> str:
    said = store.layer_attrs(scene, layer)
    facts = [said[cv.LAYER_KIND], said.get(cv.RESAMPLING)]
    facts += [f"nodata {said[cv.NODATA]:g}"] if cv.NODATA in said else []
    return f"{layer} ({', '.join(fact for fact in facts if fact)})"


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Callable[["Progress"], None] | None]:
    """Show a bar on a terminal, a line every tenth elsewhere, nothing if quiet."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        yield _log_lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    # No refreshing thread: a process with a second thread does not fork workers.
    with Bar(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("ingest", total=None)

        def report(progress: "Progress") -> None:
            bar.update(task, completed=progress.done, total=progress.total, description=progress.scene[-40:])
            bar.refresh()

        yield report


def _log_lines() -> Callable[["Progress"], None]:
    state: dict[str, Any] = {"tenth": 0, "began": time.perf_counter()}

    def report(progress: "Progress") -> None:
        tenth = 10 * progress.done // max(progress.total, 1)
        if tenth > state["tenth"]:
            state["tenth"] = tenth
            rate = progress.done / max(time.perf_counter() - state["began"], 1e-9)
            typer.echo(f"{10 * tenth} % of {size_text(progress.total)}, {size_text(rate)}/s", err=True)

    return report
