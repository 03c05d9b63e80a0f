"""The command line: commands that call one function and show what it returned; no logic."""

import logging
import sys

from sarzarr.cli import ingest, patches, pictures, predict, store, verify  # noqa: F401  (their commands enter the application)
from sarzarr.cli.app import EXIT_CODES, app, say
from sarzarr.cli.exports import export_app
from sarzarr.cli.imports import import_app
from sarzarr.cli.splits import split_app
from sarzarr.errors import SarzarrError, exit_code
from sarzarr.text import error_text

log = logging.getLogger(__name__)
app.add_typer(split_app, name="split")
app.add_typer(import_app, name="import")
app.add_typer(export_app, name="export")
for group in (app, split_app, import_app, export_app):
    for registered in group.registered_commands:
        registered.epilog = EXIT_CODES


def main() -> None:
    """Run the command line; a mistake, or a file that cannot be written, ends in one line and its `exit_code`.

    With ``--verbose`` its traceback is logged before.
    """
    try:
        app()
    except (SarzarrError, OSError) as error:
        log.debug("where it happened:", exc_info=True)
        say(error_text(error))
        sys.exit(exit_code(error))
