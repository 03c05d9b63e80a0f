"""Commands that write a store's samples and patches in older formats."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option, echo

import sarzarr as sz
from sarzarr.cli.app import StoreArgument

export_app = typer.Typer(help="Write samples and patches in older formats.", no_args_is_help=True)


@export_app.callback()
def _formats() -> None:
    """Write samples and patches in older formats."""


@export_app.command("npz")
def export_spectrograms(
    store: StoreArgument,
    samples: Annotated[str, Argument(help="Name of the set.", show_default=False)],
    output: Annotated[
        Path, Option("--output", "-o", help="The folder to make: signals/NAME.", show_default=False)
    ],
) -> None:
    """Write spectrograms as .npz and .json, with the versions of their split."""
    echo(f"wrote {sz.export_npz(store, samples, output)}")


@export_app.command("npy")
def npy_files(
    store: StoreArgument,
    samples: Annotated[str, Argument(help="Name of the set.", show_default=False)],
    output: Annotated[Path, Option("--output", "-o", help="The folder to make.", show_default=False)],
) -> None:
    """Write patches as .npy files and their metadata.npy, as `import npy` takes them in."""
    echo(f"wrote {sz.export_npy(store, samples, output)}")
