"""Commands that draw what is in a store."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

import sarzarr as sz
from sarzarr.cli.app import StoreArgument, app
from sarzarr.text import counted


@app.command()
def quicklook(
    store: StoreArgument,
    scenes: Annotated[
        list[str] | None, Argument(help="Scene ids, or sets of samples; all if left out, up to 24 panels.")
    ] = None,
    output: Annotated[Path | None, Option("--output", "-o", help="The picture.")] = None,
) -> None:
    """Draw the scenes of a store in dB, or its samples, into one picture."""
    from sarzarr.export.pictures.quicklook import MAX_PANELS, count_panels

    opened = sz.open_store(store)
    whole = store if store.stem else store.resolve()
    place = output or whole.with_name(f"{whole.stem}-quicklook.png")
    echo(f"wrote {sz.write_quicklook(opened, place, scenes=scenes or None)}")
    if (count := count_panels(opened, scenes or None)) > MAX_PANELS:
        kind = "array" if opened.scenes else "sample"
        echo(f"It shows {MAX_PANELS} of {counted(count, kind)}. Name scenes to see the others.")
