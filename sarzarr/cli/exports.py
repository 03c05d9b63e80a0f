"""Commands that write scenes as GeoTIFFs, detections as vectors, and samples and patches in older formats."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer import Argument, Option, echo
from typer.core import TyperGroup

import sarzarr as sz
from sarzarr.cli.app import QuietOption, StoreArgument
from sarzarr.cli.output import progress_bar
from sarzarr.cli.patches import bounds_of
from sarzarr.errors import InvalidInputError

DEFAULT: Final = "geotiff"
"""The command that is meant where the first word is none of the commands."""


class _Formats(TyperGroup):
    """The commands, of which that of GeoTIFFs need not be named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name before what is its own."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line."""
        return ["STORE SCENE OUT.tif [OPTIONS]", "|", "COMMAND [ARGS]..."]


FORMATS_HELP: Final = (
    "Write a scene as a GeoTIFF: [bold]sarzarr export STORE SCENE OUT.tif[/bold] (its options: sarzarr export "
    "geotiff --help). Or one of the other formats below."
)
export_app = typer.Typer(cls=_Formats, help=FORMATS_HELP, no_args_is_help=True)
SamplesArgument = Annotated[str, Argument(help="Name of the set.", show_default=False)]
REPRESENTATION_HELP: Final = "What numbers are written: db, power, amplitude or normalized."
ARRAYS_HELP: Final = "Arrays and layers, the bands: vv,vh or mask. All backscatter if left out."
WINDOW_HELP: Final = "Pixels ROW,COL,HEIGHT,WIDTH of the scene; all if left out."
BOUNDS_HELP: Final = "The pixels that LEFT,BOTTOM,RIGHT,TOP touch, in longitude and latitude."
COLLECTION_HELP: Final = "The collection that SCENE is a chip of: its id, as in its files' names."
LOOKS_HELP: Final = "Layers are means in dB of speckle of so many looks: write the dB of the mean power."


@export_app.callback()
def _formats() -> None:
    pass


@export_app.command(DEFAULT)
def geotiff(
    store: StoreArgument,
    scene: Annotated[str, Argument(help="Id of the scene.", show_default=False)],
    output: Annotated[Path, Argument(help="The GeoTIFF.", show_default=False, metavar="OUT.tif")],
    representation: Annotated[str, Option(help=REPRESENTATION_HELP)] = "db",
    arrays: Annotated[str | None, Option(help=ARRAYS_HELP)] = None,
    window: Annotated[str | None, Option(help=WINDOW_HELP)] = None,
    bounds: Annotated[str | None, Option(help=BOUNDS_HELP)] = None,
    bounds_crs: Annotated[str | None, Option(help="The CRS of --bounds: EPSG:32633.")] = None,
    clip: Annotated[
        str | None, Option(help="VMIN,VMAX in dB of 0 and 1, for normalized: the clip's.")
    ] = None,
    looks: Annotated[float | None, Option(help=LOOKS_HELP)] = None,
    compress: Annotated[str, Option(help="deflate, zstd, lzw or none.")] = "deflate",
    collection: Annotated[str | None, Option(help=COLLECTION_HELP, show_default=False)] = None,
    quiet: QuietOption = False,
) -> None:
    """Write a scene, or a chip, as a cloud-optimized GeoTIFF: CRS or GCPs, nodata, facts in tags, overviews."""
    if collection is not None:
        if window or bounds or bounds_crs or looks or compress != "deflate":
            raise InvalidInputError(
                "--representation, --arrays and --clip were expected with --collection, got others. Leave them out."
            )
        path = sz.export_chip(
            store,
            collection,
            scene,
            output,
            representation=representation,
            arrays=arrays.split(",") if arrays is not None else None,
            clip=None if clip is None else _numbers("clip", "VMIN,VMAX", clip),
        )
        echo(f"wrote {path}")
        return
    with progress_bar(quiet=quiet) as report:
        path = sz.export_geotiff(
            store,
            scene,
            output,
            representation=representation,
            arrays=arrays.split(",") if arrays is not None else None,
            window=None if window is None else _numbers("window", "ROW,COL,HEIGHT,WIDTH", window),
            bounds=bounds_of(bounds, bounds_crs),
            clip=None if clip is None else _numbers("clip", "VMIN,VMAX", clip),
            looks=looks,
            compress=compress,
            progress=report,
        )
    echo(f"wrote {path}")


def _numbers(name: str, words: str, text: str) -> Any:
    """Return the numbers of an option's text, one for each of the words."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != words.count(",") + 1:
        raise InvalidInputError(
            f"{words} was expected of {name}, got {text!r}. Give numbers with commas between."
        )
    return numbers


@export_app.command("detections")
def detections_file(
    store: StoreArgument,
    detections: Annotated[
        Path, Argument(help="JSON: scene, row, col, boxes, scores, labels.", show_default=False)
    ],
    output: Annotated[Path, Option("--output", "-o", help="A .geojson or .gpkg.", show_default=False)],
    classes: Annotated[str | None, Option(help="Names of labels 0, 1, ...: water,ship.")] = None,
    iou: Annotated[float, Option(help="Intersection over union from which boxes of a class are one.")] = 0.5,
    min_score: Annotated[float, Option(help="Lowest score that is written.")] = 0.0,
) -> None:
    """Write boxes that were found on patches as polygons in map coordinates, merged over overlaps."""
    from sarzarr.export.detections import read_detections

    found, table = read_detections(detections)
    names = None if classes is None else classes.split(",")
    path = sz.export_detections(
        found, table, output, store=store, classes=names, iou=iou, min_score=min_score
    )
    echo(f"wrote {path}")


@export_app.command("npz")
def export_spectrograms(
    store: StoreArgument,
    samples: SamplesArgument,
    output: Annotated[
        Path, Option("--output", "-o", help="The folder to make: signals/NAME.", show_default=False)
    ],
) -> None:
    """Write spectrograms as .npz and .json, with the versions of their split."""
    echo(f"wrote {sz.export_npz(store, samples, output)}")


@export_app.command("npy")
def npy_files(
    store: StoreArgument,
    samples: SamplesArgument,
    output: Annotated[Path, Option("--output", "-o", help="The folder to make.", show_default=False)],
) -> None:
    """Write patches as .npy files and their metadata.npy, as `import npy` takes them in."""
    echo(f"wrote {sz.export_npy(store, samples, output)}")
