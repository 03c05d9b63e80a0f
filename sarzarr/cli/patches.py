"""The command that tells what a selection of patches delivers."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from typer import Argument, Option, echo

import sarzarr as sz
from sarzarr.cli.app import app
from sarzarr.errors import InvalidInputError
from sarzarr.text import counted

SPLIT_HELP: Final = "Only this side: train, val, test, or v2:train."
WHERE_HELP: Final = "A condition on columns of index and catalog: 'incidence < 40 and mean_db > -20'."
BOUNDS_HELP: Final = "Only ground that meets LEFT,BOTTOM,RIGHT,TOP, in longitude and latitude."
POLYGON_HELP: Final = (
    "Only ground that meets the polygons of a file: GeoJSON, GeoPackage, shapefile, FlatGeobuf."
)
TIME_HELP: Final = "Only what was acquired then, UTC: 2026-03, or FIRST,LAST; one may be left out."
PICTURE_HELP: Final = "A picture to draw the first batch into."
CROPS_HELP: Final = (
    "Windows anywhere on the chosen ground, or patches that are moved, in the place of a cut's."
)
AREA_HELP: Final = "What random crops are uniform over: pixels, or square metres of ground."
SCALE_HELP: Final = "Least and most scale of random crops: 0.5,2."
Crops = StrEnum("Crops", ["random", "jitter"])
"""Kinds of crops."""
_CROPS: Final[dict[Crops, Literal["random", "jitter"]]] = {Crops.random: "random", Crops.jitter: "jitter"}
Area = StrEnum("Area", ["pixels", "ground"])
"""What crops are uniform over."""
AREAS: Final[dict[Area, Literal["pixels", "ground"]]] = {Area.pixels: "pixels", Area.ground: "ground"}


@app.command("patches")
def show_patches(
    stores: Annotated[list[Path], Argument(help=".zarr stores, read as one.", show_default=False)],
    split: Annotated[str | None, Option(help=SPLIT_HELP)] = None,
    where: Annotated[str | None, Option(help=WHERE_HELP)] = None,
    bounds: Annotated[str | None, Option(help=BOUNDS_HELP)] = None,
    bounds_crs: Annotated[str | None, Option(help="The CRS of --bounds: EPSG:32633.")] = None,
    polygon: Annotated[Path | None, Option(help=POLYGON_HELP)] = None,
    within: Annotated[
        bool, Option("--within", help="Ground that lies wholly within, not what meets it.")
    ] = False,
    time: Annotated[str | None, Option(help=TIME_HELP)] = None,
    polarizations: Annotated[str | None, Option(help="Only these: VV, or VV,VH as channels.")] = None,
    patch_size: Annotated[int | None, Option(help="Rows and columns of a patch: 256.")] = None,
    min_valid: Annotated[float | None, Option(help="Least share of valid pixels: 1.")] = None,
    min_unsaturated: Annotated[
        float, Option(help="Least share of them within 1 % and 99 % of the clip.")
    ] = 0.9,
    crops: Annotated[Crops | None, Option(help=CROPS_HELP)] = None,
    per_epoch: Annotated[int | None, Option(help="Random crops of an epoch.")] = None,
    area: Annotated[Area, Option(help=AREA_HELP)] = Area.pixels,
    scale: Annotated[str | None, Option(help=SCALE_HELP)] = None,
    output: Annotated[Path | None, Option("--output", "-o", help=PICTURE_HELP)] = None,
) -> None:
    """Say which patches a choice delivers, with their mean and standard deviation; no pixel is read without -o."""
    reader = sz.PatchReader(
        list(stores) if stores[1:] else stores[0],
        split=split,
        where=where,
        bounds=bounds_of(bounds, bounds_crs),
        polygon=polygon,
        predicate="within" if within else "intersects",
        time=_period(time),
        polarizations=polarizations.split(",") if polarizations else None,
        patch_size=patch_size,
        min_valid=min_valid,
        min_unsaturated=min_unsaturated,
        crops=None if crops is None else _CROPS[crops],
        per_epoch=per_epoch,
        area=AREAS[area],
        scale=scale_of(scale),
    )
    found = reader.statistics()
    rows, cols = reader.selection.shape
    held = counted(len(reader.table()[["scene"]].drop_duplicates()), "scene")
    names = ", ".join(store.name for store in stores)
    echo(f"{names}: {len(reader.selection)} patches of {rows} x {cols} pixels of {held}")
    echo(str(found))
    if output is not None:
        from sarzarr.export.pictures.panels import check_picture

        figure = reader.plot(next(iter(reader)))
        check_picture(figure, output)
        figure.savefig(output)
        echo(f"wrote {output}")


def bounds_of(text: str | None, crs: str | None) -> Any:
    """Return the bounds that a text says, in degrees or with their CRS."""
    if text is None:
        if crs is not None:
            raise InvalidInputError("--bounds-crs needs --bounds, got none. Pass both.")
        return None
    box = tuple(text.split(","))
    return box if crs is None else (box, crs)


def scale_of(text: str | None) -> Any:
    """Return the scales that a text says: two numbers with a comma between."""
    return None if text is None else tuple(text.split(","))


def _period(text: str | None) -> Any:
    """Return the period that a text says: one time, or two with a comma between, one of which may be missing."""
    if text is None or "," not in text:
        return text
    return tuple(end or None for end in text.split(","))
