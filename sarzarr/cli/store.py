"""Commands on a store: info, bounds, copy, remove, clean, stacks, index, bench."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

from typer import Argument, Option, echo

import sarzarr as sz
from sarzarr.cli import app as shared
from sarzarr.cli.app import app
from sarzarr.cli.output import progress_bar, summary
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.text import counted, size_text

GROUP_HELP: Final = "Only this group (vv/sigma0), to show or to set; may be repeated."
SPLIT_HELP: Final = "From the ground of this split alone: train, or v2:train."
LAYER_HELP: Final = (
    "Find the share of each patch that this layer, and each of its classes, has; may be repeated."
)
Edge = StrEnum("Edge", ["drop", "shift", "pad"])
"""Treatments of the remainders of a scene that is cut into patches."""
_EDGES: Final[dict[Edge, Literal["drop", "shift", "pad"]]] = {
    Edge.drop: "drop",
    Edge.shift: "shift",
    Edge.pad: "pad",
}
Method = StrEnum("Method", ["percentile", "fixed", "sigma"])
"""Methods of finding clip bounds, in dB."""


@app.command()
def remove(
    store: shared.StoreArgument,
    scenes: Annotated[list[str] | None, Argument(help="Scene ids.", show_default=False)] = None,
    collection: Annotated[str | None, Option(help="A collection of chips to take out.")] = None,
) -> None:
    """Take scenes, or a collection of chips, out of a store; nothing else is touched."""
    if not scenes and collection is None:
        raise InvalidInputError("scenes or a collection to remove were expected, got none. Name them.")
    if collection is not None:
        sz.remove_collection(store, collection)
    if scenes:
        sz.remove_scene(store, scenes)
    echo(summary(sz.open_store(store)))


@app.command("clean")
def clean_up(
    store: shared.StoreArgument,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be removed, and stop.")] = False,
) -> None:
    """Remove what interrupted runs left beside a store and in it; never what a living process writes."""
    done = sz.clean(store, dry_run=dry_run)
    for path, size in done.removed:
        echo(f"  {os.path.relpath(path, store.resolve().parent)}: {size_text(size)}")
    for line in done.kept:
        echo(f"  kept: {line}")
    verb = "would be removed" if dry_run else "removed"
    echo(f"{store.name}: {counted(len(done.removed), 'leftover')}, {size_text(done.size)} {verb}")


@app.command(cls=shared.CodecCommand)
def copy(
    store: shared.StoreArgument,
    new: Annotated[Path, Argument(help="The .zarr store to make.", show_default=False)],
    dtype: Annotated[shared.Dtype | None, Option(help="What pixels are stored as.")] = None,
    codec: Annotated[str | None, Option(help="{codecs}.")] = None,
    shard: Annotated[int | None, Option(help="Rows and columns of a shard.")] = None,
    no_shards: shared.NoShardsOption = False,
    quiet: shared.QuietOption = False,
) -> None:
    """Write a store, or one of schema 1, anew with another dtype, codec or shard size; every byte is checked."""
    kind, rows = None if dtype is None else str(dtype), 0 if no_shards else shard
    with progress_bar(quiet=quiet) as report:
        made = sz.copy_store(store, new, dtype=kind, codec=codec, shard=rows, progress=report)
    if not quiet:
        echo(summary(made))


@app.command()
def info(store: shared.StoreArgument) -> None:
    """Show what is in a store, in one screen."""
    from sarzarr.ingestion.waiting import waiting

    opened = sz.open_store(store)
    echo(summary(opened))
    if waits := waiting(opened):
        echo(f"  {waits.text(opened.place.name)}")


@app.command()
def stacks(store: shared.StoreArgument) -> None:
    """List the stacks of a store: scenes of one grid, orbit and pass, that open as one cube (time, y, x)."""
    from sarzarr.patches.stacks.find import describe_stacks

    echo(describe_stacks(sz.open_store(store)))


@app.command()
def bounds(
    store: shared.StoreArgument,
    method: Annotated[Method | None, Option(help="Set the clip by this method.")] = None,
    low: shared.LowOption = None,
    high: shared.HighOption = None,
    vmin: shared.VminOption = None,
    vmax: shared.VmaxOption = None,
    k: shared.KOption = None,
    group: Annotated[list[str] | None, Option(help=GROUP_HELP)] = None,
    from_split: Annotated[str | None, Option(help=SPLIT_HELP)] = None,
) -> None:
    """Show the clip that batches are made with; with --method or --from-split, set it. No pixel is touched."""
    chosen = method or (Method.percentile if from_split is not None else None)
    given = shared.method_options(
        "--method", str(chosen or "none"), low=low, high=high, vmin=vmin, vmax=vmax, k=k
    )
    opened = sz.open_store(store)
    shown = {key: entry for key, entry in opened.bounds.items() if group is None or key in group}
    if unknown := set(group or ()) - set(shown):
        raise NotInStoreError(
            f"groups among {', '.join(sorted(opened.bounds))} were expected, got {', '.join(sorted(unknown))}. "
            "`sarzarr bounds STORE` lists them."
        )
    if chosen is not None:
        opened = sz.set_clip(
            opened,
            group,
            split=from_split,
            method=str(chosen),
            **{shared.PERCENTS.get(name, name): value for name, value in given.items()},
        )
    advised = sz.recommend_clips(opened, set(shown))
    echo(f"{'group':<18}{'stored dB':>18}{'clip dB':>20}{'percentiles 1, 99':>20}  method")
    for key in sorted(shown):
        entry = opened.bounds[key]
        clips = (f"{e.clip_vmin:.2f} to {e.clip_vmax:.2f}" for e in (entry, advised[key]))
        stored = f"{entry.vmin:g} to {entry.vmax:g}"
        echo(f"{key:<18}{stored:>18}" + "".join(f"{clip:>20}" for clip in clips) + f"  {entry.clip_method}")


@app.command()
def index(
    store: shared.StoreArgument,
    size: Annotated[int | None, Option(min=1, help="Rows and columns of a patch, pixels: 256.")] = None,
    stride: Annotated[int | None, Option(min=1, help="Pixels from one patch to the next: the size.")] = None,
    edge: Annotated[Edge | None, Option(help="Remainders at right and bottom: drop.")] = None,
    name: Annotated[str | None, Option(help="Of the index; made of the cut if left out.")] = None,
    layer: Annotated[list[str] | None, Option(help=LAYER_HELP)] = None,
) -> None:
    """Index the patches of a store, and find the shares of layers in them."""
    from sarzarr.reader.options import ReadOptions

    opened = sz.open_store(store)
    cut = ReadOptions(patch_size=size, stride=stride, edge=_EDGES[edge] if edge else None, index=name)
    known = cut.index_in(opened)
    made = sz.index_layers(opened, layer, index=known) if layer else opened.patches(known)
    columns = ", ".join(str(column) for column in made.data_vars)
    echo(f"{store.name}, patches/{known}: {counted(made.sizes['patch'], 'patch')}; columns {columns}")


@app.command("table")
def write_parquet(
    store: shared.StoreArgument,
    output: Annotated[Path, Option("--output", "-o", help="The table: x.parquet.", show_default=False)],
    scenes: Annotated[list[str] | None, Argument(help="Scene ids; all if left out.")] = None,
    db: Annotated[bool, Option("--db", help="Backscatter in dB, not linear power.")] = False,
    quiet: shared.QuietOption = False,
) -> None:
    """Write scenes of one grid, with their layers, as a Parquet table: a row a pixel, a column an array or layer."""
    with progress_bar(quiet=quiet) as report:
        echo(f"wrote {sz.export_table(store, output, scenes or None, db=db, progress=report)}")


@app.command()
def bench(
    store: shared.StoreArgument,
    seconds: Annotated[float, Option(help="How long to measure.")] = 5.0,
    polarizations: Annotated[str | None, Option(help="Only these: VV, or VV,VH as channels.")] = None,
    batch_size: Annotated[int, Option(help="Patches of a batch.")] = 64,
    crops: Annotated[bool, Option("--crops", help="Random crops, in the place of patches of a cut.")] = False,
) -> None:
    """Measure the MB/s that this machine delivers from a store, beside a memory copy of the same batches."""
    names = [p.strip().lower() for p in polarizations.split(",")] if polarizations else None
    kind: Literal["random"] | None = "random" if crops else None
    rate = sz.measure_delivery(store, seconds=seconds, batch_size=batch_size, polarizations=names, crops=kind)
    echo(str(rate))
