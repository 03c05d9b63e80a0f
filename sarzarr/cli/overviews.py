"""The command that makes overviews of scenes."""

from typing import Annotated

from typer import Argument, Option, echo

import sarzarr as sz
from sarzarr.cli.app import QuietOption, StoreArgument, app
from sarzarr.cli.output import progress_bar, summary
from sarzarr.text import parse_bytes

SCENES_HELP = "Scene ids; all if left out."
WORKERS_HELP = "A Dask cluster of that many processes on this machine, on loopback only."


@app.command("overview")
def make_levels(
    store: StoreArgument,
    scenes: Annotated[list[str] | None, Argument(help=SCENES_HELP, show_default=False)] = None,
    scheduler: Annotated[str | None, Option(help="A running Dask scheduler: tcp://host:8786.")] = None,
    workers: Annotated[int, Option(min=0, help=WORKERS_HELP)] = 0,
    memory: Annotated[str, Option(help="What a worker process may use.")] = "1GB",
    quiet: QuietOption = False,
) -> None:
    """Make scenes at half their rows and columns, and half of that, down to 512 pixels, averaged in power."""
    from sarzarr.tasks import cluster

    workers_of = cluster(scheduler=scheduler, workers=workers, memory=parse_bytes(memory))
    with workers_of, progress_bar(quiet=quiet) as report:
        made = sz.make_overviews(store, scenes or None, progress=report)
    if not quiet:
        echo(summary(made))
