"""Commands that draw what is in a store."""

from pathlib import Path
from typing import Annotated, Final

from typer import Argument, Option, echo

import sarzarr as sz
from sarzarr.cli.app import StoreArgument, app
from sarzarr.text import counted

SCENES_HELP: Final = "Scene ids, or sets of samples; all if left out, 24 panels a page."
RGB_HELP: Final = "VV, VH (or HH, HV) and their ratio as red, green and blue."
PATCHES_HELP: Final = "So many patches, 1 to 64, as readers deliver them, in the place of scenes."
STACK_HELP: Final = "Dates of the stack that this scene is of, their mean and their coefficient of variation."
LAYER_HELP: Final = "Draw this layer over scenes or patches, half transparent."
BOXES_HELP: Final = "Draw this table of boxes over scenes or patches."
COLLECTION_HELP: Final = "Chips of this collection, 16 unless --patches says how many."


@app.command("quicklook")
def draw(
    store: StoreArgument,
    scenes: Annotated[list[str] | None, Argument(help=SCENES_HELP)] = None,
    output: Annotated[Path | None, Option("--output", "-o", help="The picture.")] = None,
    rgb: Annotated[bool, Option("--rgb", help=RGB_HELP)] = False,
    patches: Annotated[int | None, Option(help=PATCHES_HELP)] = None,
    split: Annotated[str | None, Option(help="The side that patches are of: train, val, v2:test.")] = None,
    seed: Annotated[int, Option(help="The seed by which patches are drawn.")] = 0,
    stack: Annotated[str | None, Option(help=STACK_HELP)] = None,
    layer: Annotated[str | None, Option(help=LAYER_HELP)] = None,
    boxes: Annotated[str | None, Option(help=BOXES_HELP)] = None,
    page: Annotated[int, Option(help="The page, where scenes make more than 24 panels.")] = 1,
    collection: Annotated[str | None, Option(help=COLLECTION_HELP)] = None,
) -> None:
    """Draw scenes of a store in dB, or its samples, patches of it, or a stack over time, into one picture."""
    from sarzarr.export.pictures.quicklook import MAX_PANELS, count_panels

    opened = sz.open_store(store)
    whole = store if store.stem else store.resolve()
    written = sz.write_quicklook(
        opened,
        output or whole.with_name(f"{whole.stem}-quicklook.png"),
        scenes=scenes or None,
        rgb=rgb,
        patches=patches,
        split=split,
        seed=seed,
        stack=stack or False,
        layer=layer,
        boxes=boxes or False,
        page=page,
        collection=collection,
    )
    echo(f"wrote {written}")
    count = 0 if patches or stack or collection else count_panels(opened, scenes or None, rgb=rgb)
    if count > MAX_PANELS:
        kind = ("scene" if rgb else "array") if opened.scenes else "sample"
        shown = min(MAX_PANELS, count - (page - 1) * MAX_PANELS)
        echo(f"It shows {shown} of {counted(count, kind)}. Name scenes, or the next page, to see the others.")
