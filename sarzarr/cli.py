"""The command line: each command calls one function of the library and shows what it returned.

Heavy imports stand inside the commands, so that ``sarzarr --help`` answers at once.
"""

import logging
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from sarzarr.cli_output import parse_bytes, progress_bar, summary
from sarzarr.cli_splits import import_app, split_app
from sarzarr.errors import InvalidInputError, NotInStoreError, SarzarrError

if TYPE_CHECKING:
    from sarzarr.probe import RasterProbe

log = logging.getLogger(__name__)
QUIETER: Final = {
    "asyncio": logging.CRITICAL,
    "distributed": logging.WARNING,
    "rasterio": logging.ERROR,
    "tornado": logging.CRITICAL,
}
"""From which level on a library's log lines are shown: what it says of its own affairs is noise here."""


class _Commands(TyperGroup):
    """The commands; Ctrl-C is answered here, since typer ends the process without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.secho(
                "sarzarr: interrupted. Run the same command again: what is done is not redone.", err=True
            )
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Commands,
    help="SAR GeoTIFFs to one chunked Zarr store, and that store to training batches.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(split_app, name="split")
app.add_typer(import_app, name="import")

QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only.")]
StoreArgument = Annotated[Path, typer.Argument(help="The .zarr store.", show_default=False)]
LowOption = Annotated[float | None, typer.Option(help="Percentile that becomes 0, for percentile: 1.")]
HighOption = Annotated[float | None, typer.Option(help="Percentile that becomes 1, for percentile: 99.")]
VminOption = Annotated[float | None, typer.Option(help="dB that becomes 0, for fixed: -25.")]
VmaxOption = Annotated[float | None, typer.Option(help="dB that becomes 1, for fixed: 5.")]
KOption = Annotated[float | None, typer.Option(help="Standard deviations around the mean, for sigma: 3.")]
FilesArgument = Annotated[
    list[Path], typer.Argument(help="GeoTIFFs, or folders of them, .SAFE too.", show_default=False)
]


OWN: Final = {"percentile": ("low", "high"), "fixed": ("vmin", "vmax"), "sigma": ("k",)}
"""The options of each method."""
PERCENTS: Final = {"low": "low_pct", "high": "high_pct"}
"""Options that the library calls otherwise."""


class Method(StrEnum):
    """How clip bounds are found."""

    percentile = "percentile"
    fixed = "fixed"
    sigma = "sigma"


class Range(StrEnum):
    """What is stored."""

    stored = "stored"
    percentile = "percentile"
    fixed = "fixed"
    sigma = "sigma"


class Hash(StrEnum):
    """What a file is recognised by."""

    sampled = "sampled"
    full = "full"


class Dtype(StrEnum):
    """What pixels are stored as."""

    uint16 = "uint16"
    float32 = "float32"
    float16 = "float16"


def main() -> None:
    """Run the command line; a mistake, or a file that cannot be written, ends in one line and exit code 1.

    With ``--verbose`` its traceback is logged before.
    """
    try:
        app()
    except (SarzarrError, OSError) as error:
        log.debug("where it happened:", exc_info=True)
        _say(_sentence(error))
        sys.exit(1)


def _sentence(error: Exception) -> str:
    """Return an error for people; the operating system's, with the place and what may help."""
    if isinstance(error, SarzarrError) or not isinstance(error, OSError):
        return str(error)
    places = [repr(str(place)) for place in (error.filename, error.filename2) if place is not None]
    return (
        f"a place that can be read and written was expected, got {' and '.join(places) or 'an error'}: "
        f"{error.strerror or error}. Check the path, its rights and the room on the disk."
    )


def _say(message: str) -> None:
    typer.secho(f"sarzarr: {message}", fg=typer.colors.RED, err=True)


def _is_shown(record: logging.LogRecord) -> bool:
    """Return whether a log line is for a user who did not ask for more."""
    return record.levelno >= QUIETER.get(record.name.split(".")[0], logging.NOTSET)


@app.callback(invoke_without_command=True)
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more while working.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    if verbose:
        logging.getLogger("sarzarr").setLevel(logging.DEBUG)  # of other libraries, every warning is shown
    else:
        for handler in logging.getLogger().handlers:
            handler.addFilter(_is_shown)  # levels are set again where distributed is imported
    if version:
        from sarzarr import __version__

        typer.echo(__version__)
        raise typer.Exit


# ------------------------------------------------------------------ commands
@app.command()
def identify(
    files: FilesArgument,
    quantity: Annotated[str | None, typer.Option(help="Say what the numbers are.")] = None,
    representation: Annotated[str | None, typer.Option(help="Say how they are written down.")] = None,
) -> None:
    """Say what each file is, its quantity and representation, and why. Nothing is written."""
    from sarzarr.identify import check_said
    from sarzarr.probe import probe_file
    from sarzarr.rasters import raster_files

    check_said(quantity, representation)
    probes: list[RasterProbe] = []
    unread = 0
    for given in files:
        try:
            paths = raster_files([given])
        except SarzarrError as error:
            paths, unread = [], unread + 1
            _say(str(error))
        for path in paths:
            try:
                probes.append(probe_file(path, quantity=quantity, representation=representation))
            except (SarzarrError, OSError) as error:
                unread += 1
                _say(_sentence(error))
                continue
            _show(probes[-1])
    if unread or all(probe.refusal for probe in probes):
        raise typer.Exit(1)


def _show(probe: "RasterProbe") -> None:
    """Print what a probe found."""
    grid = probe.grid
    where = {"affine": "georeferenced", "gcps": f"{len(probe.gcps)} GCPs, no affine"}.get(
        probe.geolocation, probe.geolocation.replace("_", " ")
    )
    typer.secho(probe.path.name, bold=True)
    typer.echo(
        f"  {grid.height} x {grid.width}, blocks {probe.block_shape[0]} x {probe.block_shape[1]}, {where}"
    )
    if probe.refusal:
        typer.secho(f"  refused: {probe.refusal}", fg=typer.colors.YELLOW)
    else:
        names = ", ".join(a.name for a in probe.arrays)
        typer.secho(f"  {names}: {probe.quantity} as {probe.representation}", fg=typer.colors.GREEN)
        typer.echo(f"  because {probe.reason}")
    for note in probe.left_out:
        typer.echo(f"  {note}")
    if facts := probe.acquisition.attrs():
        typer.echo("  " + ", ".join(f"{k.split(':')[-1]} {v}" for k, v in facts.items()))


@app.command()
def ingest(
    scenes: FilesArgument,
    store: Annotated[Path, typer.Option("--output", "-o", help="The .zarr store to make or to add to.")],
    quantity: Annotated[
        str | None, typer.Option(help="sigma0, beta0, gamma0, gamma0_rtc, dn or power.")
    ] = None,
    representation: Annotated[str | None, typer.Option(help="power, amplitude, db or complex.")] = None,
    polarizations: Annotated[
        str | None, typer.Option(help="Names of the bands of a file, in order, whatever it says: VV,VH.")
    ] = None,
    scene_id: Annotated[
        str | None, typer.Option("--id", help="The id of the one scene the files make.")
    ] = None,
    bounds: Annotated[
        Range,
        typer.Option(help="stored: keep everything. The others make a classic store, clipped at ingest."),
    ] = Range.stored,
    low: LowOption = None,
    high: HighOption = None,
    vmin: VminOption = None,
    vmax: VmaxOption = None,
    k: KOption = None,
    crs: Annotated[str | None, typer.Option(help="Bring scenes onto this CRS: EPSG:32633.")] = None,
    pixel_size: Annotated[float | None, typer.Option(help="Pixel size there, in units of the CRS.")] = None,
    grid: Annotated[str | None, typer.Option(help="like:SCENE, the grid of a scene in the store.")] = None,
    resampling: Annotated[
        str | None,
        typer.Option(help="nearest, average, bilinear, cubic, lanczos or rms; what suits if left out."),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compute each position between two CRSs.")] = False,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Keep a raster as it is beside the scenes: mask=FILE; mask:nodata-1=labels/*.tif; dem:cubic=FILE. "
            "May be repeated."
        ),
    ] = None,
    nodata: Annotated[
        float | None, typer.Option(help="Value of pixels that were not measured, where no tag says it: 0.")
    ] = None,
    border: Annotated[int | None, typer.Option(help="Pixels around nodata to flag as border: 0.")] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="What pixels are stored as: uint16.")] = None,
    codec: Annotated[
        str | None, typer.Option(help="none, blosc-lz4 or zstd; the best for the dtype if left out.")
    ] = None,
    shard: Annotated[int | None, typer.Option(help="Rows and columns of a shard: 2048.")] = None,
    no_shards: Annotated[
        bool, typer.Option("--no-shards", help="A file a chunk, for GDAL before 3.13.")
    ] = False,
    scheduler: Annotated[str | None, typer.Option(help="A running Dask scheduler: tcp://host:8786.")] = None,
    workers: Annotated[
        int,
        typer.Option(min=0, help="A Dask cluster of that many processes on this machine, on loopback only."),
    ] = 0,
    memory: Annotated[str, typer.Option(help="What a worker process may use.")] = "1GB",
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Write scenes anew that are there with other pixels, or otherwise stored."
        ),
    ] = False,
    skip_refused: Annotated[
        bool, typer.Option("--skip-refused", help="Leave refused scenes out, say why, and take the others.")
    ] = False,
    hash_: Annotated[
        Hash, typer.Option("--hash", help="What a known file is recognised by: samples of it, or every byte.")
    ] = Hash.sampled,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Read GeoTIFFs, normalise them, and write them into one store of 256x256 chunks."""
    from sarzarr.ingestion import ingest as run
    from sarzarr.layers import layers_of
    from sarzarr.options import IngestOptions
    from sarzarr.plan import plan_ingest
    from sarzarr.scheduling import cluster

    options = IngestOptions(
        quantity=quantity,
        representation=representation,
        polarizations=tuple(p.strip() for p in polarizations.split(",")) if polarizations else None,
        scene_id=scene_id,
        bounds=str(bounds),
        **_method_options("--bounds", str(bounds), low=low, high=high, vmin=vmin, vmax=vmax, k=k),
        crs=crs,
        pixel_size=pixel_size,
        like=_like(grid),
        resampling=resampling,
        exact=exact,
        layers=layers_of(layer or ()),
        nodata=nodata,
        border=border,
        dtype=None if dtype is None else str(dtype),
        codec=codec,
        shard=0 if no_shards else shard,
        memory=parse_bytes(memory),
        replace=replace,
        skip_refused=skip_refused,
        full_hash=hash_ is Hash.full,
    )
    plan = plan_ingest(scenes, store, options=options)
    if not quiet or dry_run:
        typer.echo(str(plan))
    else:
        for why in plan.refused:
            _say(f"refused, left out: {why}")
    if dry_run:
        return
    with (
        cluster(scheduler=scheduler, workers=workers, memory=options.memory),
        progress_bar(quiet=quiet) as report,
    ):
        made = run(plan, progress=report)
    if not quiet:
        typer.echo(summary(made))


@app.command()
def remove(
    store: StoreArgument,
    scenes: Annotated[list[str], typer.Argument(help="Scene ids.", show_default=False)],
) -> None:
    """Take scenes out of a store; no other scene is touched."""
    from sarzarr.ingestion import remove_scene
    from sarzarr.store import open_store

    opened = open_store(store)
    if unknown := [scene for scene in scenes if scene not in opened.scenes]:
        raise NotInStoreError(
            f"scenes of {store.name} were expected, got {', '.join(unknown)}, which it does not hold. "
            "Nothing was removed; `sarzarr info STORE` lists its scenes."
        )
    for scene in dict.fromkeys(scenes):
        opened = remove_scene(opened, scene)
    typer.echo(summary(opened))


@app.command()
def copy(
    store: StoreArgument,
    new: Annotated[Path, typer.Argument(help="The .zarr store to make.", show_default=False)],
    dtype: Annotated[Dtype | None, typer.Option(help="What pixels are stored as.")] = None,
    codec: Annotated[str | None, typer.Option(help="none, blosc-lz4 or zstd.")] = None,
    shard: Annotated[int | None, typer.Option(help="Rows and columns of a shard.")] = None,
    no_shards: Annotated[
        bool, typer.Option("--no-shards", help="A file a chunk, for GDAL before 3.13.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Write a store anew with another dtype, codec or shard size; every byte is checked on the way."""
    from sarzarr.copying import copy_store

    chosen = None if dtype is None else str(dtype)
    with progress_bar(quiet=quiet) as report:
        made = copy_store(
            store, new, dtype=chosen, codec=codec, shard=0 if no_shards else shard, progress=report
        )
    if not quiet:
        typer.echo(summary(made))


@app.command()
def info(store: StoreArgument) -> None:
    """Show what is in a store, in one screen."""
    from sarzarr.store import open_store

    typer.echo(summary(open_store(store)))


@app.command()
def stacks(store: StoreArgument) -> None:
    """List the stacks of a store: scenes of one grid, orbit and pass, that open as one cube over time."""
    from sarzarr.stacking import describe_stacks
    from sarzarr.store import open_store

    typer.echo(describe_stacks(open_store(store)))


@app.command()
def bounds(
    store: StoreArgument,
    method: Annotated[Method | None, typer.Option(help="Set the clip by this method.")] = None,
    low: LowOption = None,
    high: HighOption = None,
    vmin: VminOption = None,
    vmax: VmaxOption = None,
    k: KOption = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="Only this group (vv/sigma0), to show or to set; may be repeated."),
    ] = None,
    from_split: Annotated[
        str | None, typer.Option(help="From the ground of this split alone: train, or v2:train.")
    ] = None,
) -> None:
    """Show the clip that batches are made with; with --method or --from-split, set it. No pixel is touched."""
    from sarzarr.clips import recommend_clips, set_clip
    from sarzarr.store import open_store

    chosen = method or (Method.percentile if from_split is not None else None)
    given = _method_options("--method", str(chosen or "none"), low=low, high=high, vmin=vmin, vmax=vmax, k=k)
    opened = open_store(store)
    shown = {key: entry for key, entry in opened.bounds.items() if group is None or key in group}
    if unknown := set(group or ()) - set(shown):
        raise NotInStoreError(
            f"groups among {', '.join(sorted(opened.bounds))} were expected, got {', '.join(sorted(unknown))}. "
            "`sarzarr bounds STORE` lists them."
        )
    if chosen is not None:
        opened = set_clip(
            opened,
            group,
            split=from_split,
            method=str(chosen),
            **{PERCENTS.get(name, name): value for name, value in given.items()},
        )
    advised = recommend_clips(opened, set(shown))
    typer.echo(f"{'group':<18}{'stored dB':>18}{'clip dB':>20}{'percentiles 1, 99':>20}  method")
    for key, entry in sorted((key, opened.bounds[key]) for key in shown):
        stored = f"{entry.vmin:g} to {entry.vmax:g}"
        clip = f"{entry.clip_vmin:.2f} to {entry.clip_vmax:.2f}"
        advice = f"{advised[key].clip_vmin:.2f} to {advised[key].clip_vmax:.2f}"
        typer.echo(f"{key:<18}{stored:>18}{clip:>20}{advice:>20}  {entry.clip_method}")


@app.command()
def quicklook(
    store: StoreArgument,
    scenes: Annotated[
        list[str] | None, typer.Argument(help="Scene ids; all if left out, up to 24 arrays.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The picture.")] = None,
) -> None:
    """Draw the scenes of a store in dB into one picture."""
    from sarzarr.quicklook import MAX_PANELS, count_panels, write_quicklook
    from sarzarr.store import open_store

    opened = open_store(store)
    whole = store if store.stem else store.resolve()
    place = output or whole.with_name(f"{whole.stem}-quicklook.png")
    typer.echo(f"wrote {write_quicklook(opened, place, scenes=scenes or None)}")
    if (count := count_panels(opened, scenes or None)) > MAX_PANELS:
        typer.echo(f"It shows {MAX_PANELS} of {count} arrays. Name scenes to see the others.")


@app.command()
def bench(
    store: StoreArgument,
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 5.0,
    polarizations: Annotated[str | None, typer.Option(help="Only these: VV, or VV,VH as channels.")] = None,
    batch_size: Annotated[int, typer.Option(help="Patches of a batch.")] = 64,
) -> None:
    """Measure what this machine delivers from this store, beside a plain memory copy of the same batches."""
    from sarzarr.rate import measure_delivery

    options: dict[str, Any] = {"batch_size": batch_size}
    if polarizations:
        options["polarizations"] = [p.strip().lower() for p in polarizations.split(",")]
    typer.echo(str(measure_delivery(store, seconds=seconds, **options)))


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where scenes, store and picture go.")] = Path("stores"),
    size: Annotated[int, typer.Option(min=256, help="Rows and columns of a scene.")] = 1024,
) -> None:
    """Do the whole job once: make scenes, ingest them, load a batch, write a picture."""
    from sarzarr.ingestion import ingest as run
    from sarzarr.plan import plan_ingest
    from sarzarr.quicklook import write_quicklook
    from sarzarr.reader import PatchReader
    from sarzarr.synthetic import write_synthetic_scenes

    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    typer.secho("1. Scenes: speckled GeoTIFFs of one coast on three dates, VV and VH", bold=True)
    files = write_synthetic_scenes(folder / "demo-scenes", count=3, shape=(size, size))
    typer.echo(f"   {len(files)} files in {folder / 'demo-scenes'}: {files[0].name}, ...")
    typer.secho("2. Ingest: read, normalise, write whole shards", bold=True)
    plan = plan_ingest(files, folder / "demo.zarr", replace=True)
    typer.echo("   " + str(plan).replace("\n", "\n   "))
    with progress_bar(quiet=False) as report:
        store = run(plan, progress=report)
    typer.secho("3. The store", bold=True)
    typer.echo("   " + summary(store).replace("\n", "\n   "))
    typer.secho("4. A batch, read straight from its chunks", bold=True)
    reader = PatchReader(
        store, polarizations=["vv", "vh"], batch_size=8, shuffle=True, seed=42, min_valid=0.5
    )  # not 1, so that small scenes, which are all edge, have patches too
    batch = next(iter(reader))
    typer.echo(
        f"   {batch.shape} {batch.dtype}, {batch.min():.2f} to {batch.max():.2f}, mean {batch.mean():.2f}"
    )
    typer.secho("5. A picture", bold=True)
    picture = write_quicklook(store, folder / "demo-quicklook.png")
    typer.echo(f"   {picture}")
    typer.echo(f"Done in {time.perf_counter() - began:.1f} s. Try next:")
    for line in (
        f"sarzarr info {folder / 'demo.zarr'}",
        "sarzarr identify YOUR_FILES.tif",
        "sarzarr ingest YOUR_FILES.tif -o stores/yours.zarr",
        f"python -c \"import xarray as xr; print(xr.open_datatree('{folder / 'demo.zarr'}', engine='zarr'))\"",
    ):
        typer.echo(f"   {line}")


def _method_options(option: str, method: str, **given: float | None) -> dict[str, Any]:
    """Return the options of a method that were given; refuse those of another one."""
    said = {name: value for name, value in given.items() if value is not None}
    for name in said:
        owner = next(m for m, names in OWN.items() if name in names)
        if owner != method:
            raise InvalidInputError(
                f"{option} {owner} was expected beside --{name}, got {option} {method}. "
                f"Pass {option} {owner}, or leave --{name} out."
            )
    return said


def _like(grid: str | None) -> str | None:
    """Return the scene that ``like:SCENE`` names."""
    if grid is None:
        return None
    kind, _, scene = grid.partition(":")
    if kind != "like" or not scene:
        raise InvalidInputError(f"a grid such as like:SCENE was expected, got {grid!r}.")
    return scene
