"""The command that writes a page about a store."""

from pathlib import Path
from typing import Annotated, Final

import typer
from typer import Option, echo

import sarzarr as sz
from sarzarr.cli import app as shared
from sarzarr.cli.app import app
from sarzarr.cli.output import progress_bar
from sarzarr.errors import Exit

OUTPUT_HELP: Final = "The page: STORE-report.html beside the store if left out."
VERIFY_HELP: Final = "Read every byte of the store first, as `sarzarr verify` does, and show what it found."


@app.command("report")
def write_page(
    store: shared.StoreArgument,
    output: Annotated[Path | None, Option("--output", "-o", help=OUTPUT_HELP, show_default=False)] = None,
    verify: Annotated[bool, Option("--verify", help=VERIFY_HELP)] = False,
    quiet: shared.QuietOption = False,
) -> None:
    """Write what is in a store, with pictures of every scene, as one HTML file that needs no network."""
    whole = store if store.stem else store.resolve()
    place = output or whole.with_name(f"{whole.stem}-report.html")
    found = None
    if verify:
        with progress_bar(quiet=quiet) as progress:
            found = sz.verify(store, progress=progress)
    with progress_bar(quiet=quiet, unit="scenes") as progress:
        made = sz.write_report(store, place, verification=found, progress=progress)
    if made.damage or not quiet:
        echo(made)
    if made.damage or (found is not None and found.findings):
        raise typer.Exit(Exit.DAMAGE)
