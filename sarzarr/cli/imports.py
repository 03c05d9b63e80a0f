"""Commands that take chips and boxes into a store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import_app = typer.Typer(help="Take older formats, chips and boxes into a store.", no_args_is_help=True)


class Policy(StrEnum):
    """What is done about boxes that are not inside their picture."""

    repair = "repair"
    refuse = "refuse"


class Annotations(StrEnum):
    """How boxes are written down."""

    auto = "auto"
    voc = "voc"
    coco = "coco"
    yolo = "yolo"
    none = "none"


# ------------------------------------------------------------------ import
@import_app.command()
def chips(
    folder: Annotated[
        Path, typer.Argument(help="PNG, JPEG or TIFF files, at any depth.", show_default=False)
    ],
    store: Annotated[Path, typer.Option("--output", "-o", help="The .zarr store to make or to add to.")],
    name: Annotated[str | None, typer.Option(help="Of the set; the folder's name if left out.")] = None,
    annotations: Annotated[Annotations, typer.Option(help="How boxes are written down.")] = Annotations.auto,
    policy: Annotated[
        Policy, typer.Option(help="About boxes that are not inside their picture.")
    ] = Policy.repair,
    one_based: Annotated[
        bool, typer.Option("--one-based", help="VOC coordinates count from 1 and name the last pixel.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the set in the place of one of that name.")
    ] = False,
) -> None:
    """Pack pictures that came alone, with their boxes, into a store."""
    from sarzarr.ingestion.chips.find import ChipOptions
    from sarzarr.ingestion.chips.pack import import_chips

    options = ChipOptions(
        name=name, annotations=str(annotations), policy=policy.value, one_based=one_based, replace=replace
    )
    with _progress() as report:
        made, said = import_chips(folder, store, options=options, progress=report)
    b, most = said.boxes, f"{made.layout.height} x {made.layout.width}"
    typer.echo(
        f"{store.name}, samples/{made.name}: {said.samples} chips of {most} at most, {said.annotated} annotated"
    )
    typer.echo(
        f"  {b['kept']} boxes of {b['given']}, {b['repaired']} repaired, {b['left_out']} without area inside their "
        f"picture left out; classes: {', '.join(made.boxes.classes) or 'none'}"
    )
    if said.coloured:
        typer.echo(f"  {said.coloured} chips in colour became the middle one of their channels")
    if said.unmatched:
        shown = ", ".join(said.unmatched[:5])
        typer.echo(f"  {len(said.unmatched)} annotations of pictures that are not there: {shown}")


@import_app.command()
def boxes(
    file: Annotated[Path, typer.Argument(help="GeoJSON, or CSV scene,x_min,y_min,x_max,y_max[,label].")],
    store: Annotated[Path, typer.Option("--output", "-o", help="The .zarr store that holds the scenes.")],
    name: Annotated[str, typer.Option(help="Of the table.")] = "default",
    scene: Annotated[str | None, typer.Option(help="Of features that name none.")] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="The property of a feature, or the column, that is the label; 'label' if left out.",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        Policy, typer.Option(help="About boxes that are not inside their scene.")
    ] = Policy.repair,
) -> None:
    """Put boxes onto the scenes of a store, from map coordinates or pixels."""
    from sarzarr.ingestion.boxes import import_boxes, why_left_out
    from sarzarr.store.store import open_store

    made = import_boxes(open_store(store), file, name=name, scene=scene, label_key=label, policy=policy.value)
    c = made.counts
    typer.echo(
        f"{store.name}, boxes/{name}: {c['kept']} boxes of {c['given']} put on, {c['repaired']} repaired, "
        f"{c['left_out']} left out{why_left_out(c)}; {len(made)} in all on {len(made.owners)} scenes"
    )


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, and nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not Console(stderr=True).is_terminal) as bar:
        task = bar.add_task("chips", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
