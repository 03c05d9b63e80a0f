"""Commands that begin with files: identify, ingest, demo."""

import re
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from typer import Option, echo

import sarzarr as sz
from sarzarr.cli import app as shared
from sarzarr.cli.app import app
from sarzarr.cli.output import progress_bar, summary
from sarzarr.errors import Exit, InvalidInputError
from sarzarr.text import counted, listed, parse_bytes

if TYPE_CHECKING:
    from sarzarr.scenes.probe import RasterProbe

SCENES_HELP: Final = "GeoTIFFs, or folders of them, .SAFE too; none, for a scene of layers alone (--layer)."
BANDS_HELP: Final = "Names of the bands of a file, in order, whatever it says: VV,VH."
BOUNDS_HELP: Final = "stored: keep everything. The others make a classic store, clipped at ingest."
RESAMPLING_HELP: Final = "nearest, average, bilinear, cubic, lanczos or rms; what suits if left out."
LAYER_HELP: Final = (
    "Keep a raster as it is beside the scenes: mask=FILE; mask:nodata-1=labels/*.tif; dem:cubic=FILE. "
    "May be repeated."
)
COMPANIONS_HELP: Final = "What rasters become that a product has beside its backscatter: layers, or nothing."
NODATA_HELP: Final = "Value of pixels that were not measured, where no tag says it: 0."
WORKERS_HELP: Final = "A Dask cluster of that many processes on this machine, on loopback only."
REPLACE_HELP: Final = "Write scenes anew that are there with other pixels, or otherwise stored."
OVERVIEWS_HELP: Final = "Make overviews of the scenes, too, as `sarzarr overview` does."
STRICT_HELP: Final = "Write nothing where a file or a scene is refused; else the others go in."
SPACE_HELP: Final = "Begin though less space is free than what would be written at the most."
HASH_HELP: Final = "What a known file is recognised by: samples of it, or every byte."
COLLECTION_HELP: Final = "Pack all files, as chips, into the collection of that name."
AS_SCENES_HELP: Final = "Make a scene of each file, however small and many they are."
ID_HELP = "The id of the one scene the files make; of each scene, with {folder} or {name} in it."
CALIBRATE_HELP: Final = (
    "What DN become by their product's calibration; sigma0 of Sentinel-1 SAFE; none keeps them."
)
BORDER_HELP: Final = (
    "Pixels around nodata to flag as border: 0; or noise, at edges of Sentinel-1 before 2018."
)
ANNOTATION_HELP: Final = "Keep what a product's annotation says of pixels as layers: incidence_angle,nesz."
DENOISE_HELP: Final = "Subtract thermal noise by the product's annotation."
Companions = StrEnum("Companions", ["layer", "skip"])
"""Choices for angles, masks and elevations (rows, columns) beside a product's backscatter."""
Calibrate = StrEnum("Calibrate", ["sigma0", "beta0", "gamma0", "none"])
"""Quantities, linear power, that digital numbers become."""
Range = StrEnum("Range", ["stored", "percentile", "fixed", "sigma"])
"""Ranges that pixels are stored in: all there is, or one that is found or given, in dB."""
Hash = StrEnum("Hash", ["sampled", "full"])
"""Bytes of a file that it is recognised by."""


@app.command("identify")
def identify_files(
    files: shared.FilesArgument,
    quantity: Annotated[str | None, Option(help="Say what the numbers are.")] = None,
    representation: Annotated[str | None, Option(help="Say how they are written down.")] = None,
    calibrate: Annotated[Calibrate | None, Option(help=CALIBRATE_HELP)] = None,
) -> None:
    """Say what each file is, its quantity and representation, and why. Nothing is written."""
    from sarzarr.scenes.survey import survey_files

    survey = survey_files(
        files,
        quantity=quantity,
        representation=representation,
        calibrate=None if calibrate is None else str(calibrate),
    )
    for probe in survey.probes:
        refusal = " ".join(one.reason for one in survey.refused if probe.path in one.files)
        layers = [id_ for id_, own in survey.companions.items() if probe.path in (one.path for one in own)]
        _show(probe, refusal, layers)
    opened = {probe.path for probe in survey.probes}
    for unread in survey.refused:
        if opened.isdisjoint(unread.files):
            shared.say(str(unread))
    if survey.refused:
        raise typer.Exit(Exit.PARTLY if survey.scenes else Exit.NOTHING)


def _show(probe: "RasterProbe", refusal: str, scenes: list[str]) -> None:
    """Print what a probe found, why an ingest would refuse it, and of which scenes it is a layer."""
    grid = probe.grid
    gcps = f"{counted(len(probe.georeference.gcps), 'GCP')}, no affine"
    place = probe.geolocation
    other = probe.georeference.unplaced or place.replace("_", " ")
    placed = {"affine": "georeferenced", "gcps": gcps}.get(place, other)
    typer.secho(probe.path.name, bold=True)
    echo(f"  {grid.height} x {grid.width}, blocks {probe.block_shape[0]} x {probe.block_shape[1]}, {placed}")
    if refusal:
        typer.secho(f"  refused: {refusal}", fg=typer.colors.YELLOW)
    if probe.arrays:
        names = ", ".join(a.name for a in probe.arrays)
        typer.secho(f"  {names}: {probe.quantity} as {probe.representation}", fg=typer.colors.GREEN)
        echo(f"  because {probe.reason}")
    elif probe.companion and not refusal:
        layer = f"layer {probe.companion.layer} of {listed(scenes)}" if scenes else "left out"
        typer.secho(f"  {probe.companion.companion} beside backscatter: {layer}", fg=typer.colors.GREEN)
    for note in probe.left_out:
        echo(f"  {note}")
    if facts := probe.acquisition.attrs():
        echo("  " + ", ".join(f"{k.split(':')[-1]} {v}" for k, v in facts.items()))


@app.command("ingest", cls=shared.CodecCommand)
def ingest_scenes(
    store: shared.OutputOption,
    scenes: Annotated[list[Path] | None, typer.Argument(help=SCENES_HELP, show_default=False)] = None,
    quantity: Annotated[str | None, Option(help="sigma0, beta0, gamma0, gamma0_rtc, dn or power.")] = None,
    representation: Annotated[str | None, Option(help="power, amplitude, db or complex.")] = None,
    polarizations: Annotated[str | None, Option(help=BANDS_HELP)] = None,
    calibrate: Annotated[Calibrate | None, Option(help=CALIBRATE_HELP)] = None,
    denoise: Annotated[bool, Option("--denoise", help=DENOISE_HELP)] = False,
    id_: Annotated[str | None, Option("--id", help=ID_HELP)] = None,
    bounds: Annotated[Range, Option(help=BOUNDS_HELP)] = Range.stored,
    low: shared.LowOption = None,
    high: shared.HighOption = None,
    vmin: shared.VminOption = None,
    vmax: shared.VmaxOption = None,
    k: shared.KOption = None,
    crs: Annotated[str | None, Option(help="Bring scenes onto this CRS: EPSG:32633.")] = None,
    pixel_size: Annotated[float | None, Option(help="Pixel size there, in units of the CRS.")] = None,
    grid: Annotated[str | None, Option(help="like:SCENE, the grid of a scene in the store.")] = None,
    resampling: Annotated[str | None, Option(help=RESAMPLING_HELP)] = None,
    exact: Annotated[bool, Option("--exact", help="Compute each position between two CRSs.")] = False,
    layer: Annotated[list[str] | None, Option(help=LAYER_HELP)] = None,
    companions: Annotated[Companions, Option(help=COMPANIONS_HELP)] = Companions.layer,
    annotation: Annotated[str | None, Option(help=ANNOTATION_HELP)] = None,
    nodata: Annotated[float | None, Option(help=NODATA_HELP)] = None,
    border: Annotated[str | None, Option(help=BORDER_HELP)] = None,
    dtype: Annotated[shared.Dtype | None, Option(help="What pixels are stored as: uint16.")] = None,
    codec: Annotated[str | None, Option(help="{codecs}; the best for the dtype if left out.")] = None,
    shard: Annotated[int | None, Option(help="Rows and columns of a shard: 2048.")] = None,
    no_shards: shared.NoShardsOption = False,
    scheduler: Annotated[str | None, Option(help="A running Dask scheduler: tcp://host:8786.")] = None,
    workers: Annotated[int, Option(min=0, help=WORKERS_HELP)] = 0,
    memory: Annotated[str, Option(help="What a worker process may use.")] = "1GB",
    overviews: Annotated[bool, Option("--overviews", help=OVERVIEWS_HELP)] = False,
    replace: Annotated[bool, Option("--replace", help=REPLACE_HELP)] = False,
    strict: Annotated[bool, Option("--strict", help=STRICT_HELP)] = False,
    ignore_space: Annotated[bool, Option("--ignore-space", help=SPACE_HELP)] = False,
    collection: Annotated[str | None, Option(help=COLLECTION_HELP)] = None,
    as_scenes: Annotated[bool, Option("--scenes", help=AS_SCENES_HELP)] = False,
    hash_: Annotated[Hash, Option("--hash", help=HASH_HELP)] = Hash.sampled,
    dry_run: Annotated[bool, Option("--dry-run", help="Show the plan and stop.")] = False,
    quiet: shared.QuietOption = False,
) -> None:
    """Read GeoTIFFs, normalise them, and write them into one store in chunks of 256x256 pixels."""
    from sarzarr.ingestion.layers.layer import layers_of
    from sarzarr.tasks import cluster

    options = sz.IngestOptions(
        quantity=quantity,
        representation=representation,
        polarizations=tuple(p.strip() for p in polarizations.split(",")) if polarizations else None,
        calibrate=None if calibrate is None else str(calibrate),
        denoise=denoise,
        id=id_,
        bounds=str(bounds),
        **shared.method_options("--bounds", str(bounds), low=low, high=high, vmin=vmin, vmax=vmax, k=k),
        crs=crs,
        pixel_size=pixel_size,
        like=_like(grid),
        resampling=resampling,
        exact=exact,
        layers=layers_of(layer or ()),
        companions=str(companions),
        annotation=tuple(name.strip() for name in annotation.split(",")) if annotation else (),
        nodata=nodata,
        border=_pixels_of(border),
        border_noise=border == "noise",
        dtype=None if dtype is None else str(dtype),
        codec=codec,
        shard=0 if no_shards else shard,
        memory=parse_bytes(memory),
        overviews=overviews,
        replace=replace,
        strict=strict,
        ignore_space=ignore_space,
        full_hash=hash_ is Hash.full,
        collection=collection,
        scenes=as_scenes,
    )
    plan = sz.plan_ingest(scenes or [], store, options=options)
    if not quiet or dry_run:
        echo(str(plan))
    if not dry_run:
        workers_of = cluster(scheduler=scheduler, workers=workers, memory=options.memory)
        with workers_of, progress_bar(quiet=quiet) as report:
            made = sz.ingest(plan, progress=report)
        if not quiet:
            echo(summary(made))
    if plan.refused:
        if not dry_run:
            count = counted(sum(len(one.files) for one in plan.refused), "file")
            shared.say(f"{count} refused, the others are in {store.name}:")
            for line in plan.refused.lines():
                echo(f"  {line}", err=True)
        raise typer.Exit(Exit.PARTLY)


@app.command()
def demo(
    folder: Annotated[Path, Option(help="Where scenes, store and picture go.")] = Path("stores"),
    size: Annotated[int, Option(min=256, help="Rows and columns of a scene.")] = 1024,
) -> None:
    """Do the whole job once: make scenes, ingest them, load a batch, write a picture."""
    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    typer.secho("1. Scenes: speckled GeoTIFFs of one coast on three dates, VV and VH", bold=True)
    files = sz.write_synthetic_scenes(folder / "demo-scenes", count=3, shape=(size, size))
    echo(f"   {counted(len(files), 'file')} in {folder / 'demo-scenes'}: {files[0].name}, ...")
    typer.secho("2. Ingest: read, normalise, write whole shards", bold=True)
    plan = sz.plan_ingest(files, folder / "demo.zarr", replace=True)
    echo("   " + str(plan).replace("\n", "\n   "))
    with progress_bar(quiet=False) as report:
        store = sz.ingest(plan, progress=report)
    typer.secho("3. The store", bold=True)
    echo("   " + summary(store).replace("\n", "\n   "))
    typer.secho("4. A batch, read straight from its chunks", bold=True)
    valid = 0.5  # not 1, so that small scenes, which are all edge, have patches too
    reader = sz.PatchReader(store, polarizations=["vv", "vh"], shuffle=True, seed=42, min_valid=valid)
    batch = next(iter(reader))
    echo(f"   {batch.shape} {batch.dtype}, {batch.min():.2f} to {batch.max():.2f}, mean {batch.mean():.2f}")
    typer.secho("5. A picture", bold=True)
    echo(f"   {sz.write_quicklook(store, folder / 'demo-quicklook.png')}")
    echo(f"Done in {time.perf_counter() - began:.1f} s. Try next:")
    echo(f"   sarzarr info {folder / 'demo.zarr'}")
    echo("   sarzarr identify YOUR_FILES.tif")
    echo("   sarzarr ingest YOUR_FILES.tif -o stores/yours.zarr")
    tree = f"xr.open_datatree('{folder / 'demo.zarr'}', engine='zarr')"
    echo(f'   python -c "import xarray as xr; print({tree})"')


def _pixels_of(border: str | None) -> int | None:
    """Return the number of pixels that ``--border`` says; None where it says none, or ``noise``."""
    if border is None or border == "noise":
        return None
    if not re.fullmatch(r"-?\d+", border):
        raise InvalidInputError(
            f"expected a number of pixels or noise, got --border {border!r}. Give one of them."
        )
    return int(border)


def _like(grid: str | None) -> str | None:
    """Return the scene that ``like:SCENE`` names."""
    kind, _, scene = (grid or "").partition(":")
    if grid is not None and (kind != "like" or not scene):
        raise InvalidInputError(
            f"a grid such as like:SCENE was expected, got {grid!r}. Name a scene of the store."
        )
    return scene or None
