"""The command line: commands that call one function and show what it returned; no logic."""

import logging
import sys

from sarzarr.cli import ingest, store  # noqa: F401  (their commands enter the application)
from sarzarr.cli.app import app, say, sentence
from sarzarr.cli.imports import import_app
from sarzarr.cli.splits import split_app
from sarzarr.errors import SarzarrError

log = logging.getLogger(__name__)
app.add_typer(split_app, name="split")
app.add_typer(import_app, name="import")


def main() -> None:
    """Run the command line; a mistake, or a file that cannot be written, ends in one line and exit code 1.

    With ``--verbose`` its traceback is logged before.
    """
    try:
        app()
    except (SarzarrError, OSError) as error:
        log.debug("where it happened:", exc_info=True)
        say(sentence(error))
        sys.exit(1)
