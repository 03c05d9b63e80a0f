"""The command that holds a store against itself: verify, with repair and the seal on purposeful changes."""

import json
from pathlib import Path
from typing import Annotated, Final

import typer
from typer import Argument, Option, echo

import sarzarr as sz
from sarzarr.cli import app as shared
from sarzarr.cli.app import app
from sarzarr.cli.output import progress_bar
from sarzarr.errors import Exit, InvalidInputError

SCENES_HELP: Final = "Scenes whose pixels are read, or repaired; all if left out."
DEEP_HELP: Final = "Count histograms and the columns of patch tables again from the pixels."
REPAIR_HELP: Final = "Mend what is damaged; nothing that is intact is written."
FROM_HELP: Final = "A file, or a folder, of what damaged scenes were made of; may be repeated."
ACCEPT_HELP: Final = "Seal documents whose attributes were changed on purpose; pixels never."


@app.command("verify")
def verify_store(
    store: shared.StoreArgument,
    scenes: Annotated[list[str] | None, Argument(help=SCENES_HELP, show_default=False)] = None,
    deep: Annotated[bool, Option("--deep", help=DEEP_HELP)] = False,
    repair: Annotated[bool, Option("--repair", help=REPAIR_HELP)] = False,
    sources: Annotated[list[Path] | None, Option("--from", help=FROM_HELP, show_default=False)] = None,
    accept: Annotated[bool, Option("--accept", help=ACCEPT_HELP)] = False,
    as_json: Annotated[bool, Option("--json", help="Print what was found as JSON.")] = False,
    quiet: shared.QuietOption = False,
) -> None:
    """Hold every file of a store against what was written: bytes, places, documents and tables."""
    if accept and (deep or repair):
        raise InvalidInputError(
            "--accept alone was expected, got it beside --deep or --repair. Verify or repair after."
        )
    if sources and not repair:
        raise InvalidInputError(
            "a repair was expected beside --from, got none. Pass --repair, or leave --from out."
        )
    with progress_bar(quiet=quiet or as_json) as report:
        if accept:
            done = sz.accept_changes(store)
        elif repair:
            done = sz.repair(store, sources or (), scenes=scenes or None, deep=deep, progress=report)
        else:
            done = sz.verify(store, scenes=scenes or None, deep=deep, progress=report)
    if as_json:
        echo(json.dumps(done.document(), indent=1))
    elif done.findings or not quiet:
        verb = "sealed" if accept else "mended"
        for file in done.mended:
            echo(f"{verb} {file}")
        for line in done.left:
            echo(f"left: {line}")
        echo(done)
    if done.findings:
        raise typer.Exit(Exit.DAMAGE)
