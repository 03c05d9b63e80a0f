"""The typer application, and the options that commands share."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer import Argument, Option, echo
from typer.core import TyperCommand, TyperGroup

from sarzarr.errors import InvalidInputError

QUIETER: Final = {
    "asyncio": logging.CRITICAL,
    "distributed": logging.WARNING,
    "rasterio": logging.ERROR,
    "sarzarr.scenes.refusals": logging.CRITICAL,  # commands list them at their end
    "tornado": logging.CRITICAL,
}
"""From which level on a library's log lines are shown: what it says of its own affairs is noise here."""


EXIT_CODES: Final = (
    "Exit codes: 0 done; 1 nothing done; 2 usage, nothing done; 3 partly, the rest is listed with reasons; "
    "4 damage of the store."
)


class _Commands(TyperGroup):
    """The commands; Ctrl-C is answered here, since typer ends the process without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            text = "sarzarr: interrupted. Run the same command again: what is done is not redone."
            typer.secho(text, err=True)
            raise typer.Exit(130) from None


class CodecCommand(TyperCommand):
    """A command whose help names every codec after ``--codec``; they are loaded when it is asked for."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        from sarzarr.store.codecs import CODECS

        *others, last = CODECS
        option: Any = next(p for p in self.params if p.name == "codec")
        option.help = option.help.format(codecs=f"{', '.join(others)} or {last}")
        super().format_help(ctx, formatter)


app = typer.Typer(
    cls=_Commands,
    help="SAR GeoTIFFs to one chunked Zarr store, and that store to training batches.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
QuietOption = Annotated[bool, Option("--quiet", "-q", help="Show errors only.")]
StoreArgument = Annotated[Path, Argument(help="The .zarr store.", show_default=False)]
LowOption = Annotated[float | None, Option(help="Percentile that becomes 0, for percentile: 1.")]
HighOption = Annotated[float | None, Option(help="Percentile that becomes 1, for percentile: 99.")]
VminOption = Annotated[float | None, Option(help="dB that becomes 0, for fixed: -25.")]
VmaxOption = Annotated[float | None, Option(help="dB that becomes 1, for fixed: 5.")]
KOption = Annotated[float | None, Option(help="Standard deviations around the mean, for sigma: 3.")]
FilesArgument = Annotated[
    list[Path], Argument(help="GeoTIFFs, or folders of them, .SAFE too.", show_default=False)
]
OutputOption = Annotated[
    Path, Option("--output", "-o", help="The .zarr store to make or to add to.", show_default=False)
]
NoShardsOption = Annotated[
    bool, Option("--no-shards", help="A file a chunk, zstd: for GDAL 3.11 and 3.12, which read no shards.")
]
Dtype = StrEnum("Dtype", ["uint16", "float32", "float16"])
"""Dtypes of stored pixels."""
OWN: Final = {"percentile": ("low", "high"), "fixed": ("vmin", "vmax"), "sigma": ("k",)}
"""The options of each method."""
PERCENTS: Final = {"low": "low_pct", "high": "high_pct"}
"""Options that the library calls otherwise."""


def say(message: str) -> None:
    """Print an error in one line."""
    typer.secho(f"sarzarr: {message}", fg=typer.colors.RED, err=True)


def _is_shown(record: logging.LogRecord) -> bool:
    return record.levelno >= QUIETER.get(record.name, QUIETER.get(record.name.split(".")[0], 0))


@app.callback(invoke_without_command=True)
def _options(
    verbose: Annotated[bool, Option("--verbose", "-v", help="Say more while working.")] = False,
    version: Annotated[bool, Option("--version", help="Show the version and stop.")] = False,
) -> None:
    others = [*logging.getLogger().handlers]
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    if verbose:
        logging.getLogger("sarzarr").setLevel(logging.DEBUG)  # of other libraries, every warning is shown
    elif not others:
        for handler in logging.getLogger().handlers:  # levels are set again where distributed is imported
            handler.addFilter(_is_shown)
    if version:
        from sarzarr import __version__

        echo(__version__)
        raise typer.Exit


def method_options(option: str, method: str, **given: float | None) -> dict[str, Any]:
    """Return the options of a method that were given, percentiles or dB; refuse those of another one."""
    options = {name: value for name, value in given.items() if value is not None}
    for name in options:
        owner = next(m for m, names in OWN.items() if name in names)
        if owner != method:
            raise InvalidInputError(
                f"{option} {owner} was expected beside --{name}, got {option} {method}. "
                f"Pass {option} {owner}, or leave --{name} out."
            )
    return options
