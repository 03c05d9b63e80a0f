"""The command that puts a model over scenes: predict."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer
from typer import Argument, Option, echo

import sarzarr as sz
from sarzarr.cli.app import QuietOption, StoreArgument, app, say
from sarzarr.cli.output import progress_bar
from sarzarr.errors import Exit, InvalidInputError
from sarzarr.text import counted

MODEL_HELP: Final = (
    "FILE.onnx, or module:function of your own code: the model, or what returns it. Never a pickle."
)
KIND_HELP: Final = (
    "What the output is: continuous; normalized, as the channels, so that dB come of it; classes."
)
CLIP_HELP: Final = "dB that 0 and 1 stood for in training: -25,5. The store's own if left out."
NAMES_HELP: Final = "Name of the layer, or one for each channel of the output: clean_vv,clean_vh."
MODEL_NAME_HELP: Final = (
    "Name and version of the model, stored with the layer; by it a function's work goes on."
)
OUT_HELP: Final = "Another store with these scenes, to write into."
WORKERS_HELP: Final = "A Dask cluster of that many processes on this machine: a scene each."
Kind = StrEnum("Kind", ["continuous", "normalized", "classes"])
"""Kinds of a model's output (n, K, rows, columns)."""
Blend = StrEnum("Blend", ["cosine", "linear", "nearest"])
"""Ways in which windows of pixels are put together."""


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _clip_of(text: str | None) -> tuple[float, float] | None:
    """Return the dB of ``-25,5``."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise InvalidInputError(
            f"two numbers of dB were expected, got {text!r:.80}. Write --clip=-25,5."
        ) from None
    return low, high


@app.command("predict")
def predict_command(
    store: StoreArgument,
    model: Annotated[str, Option("--model", "-m", help=MODEL_HELP, show_default=False)],
    scenes: Annotated[list[str] | None, Argument(help="Scenes; all if left out.", show_default=False)] = None,
    polarizations: Annotated[str | None, Option(help="Channels in, in the model's order: vv,vh.")] = None,
    layers: Annotated[
        str | None, Option(help="Layers that are further channels: dem,incidence_angle.")
    ] = None,
    clip: Annotated[str | None, Option(help=CLIP_HELP)] = None,
    patch_size: Annotated[int, Option(help="Rows and columns of a window.")] = 256,
    overlap: Annotated[int, Option(help="Pixels that windows share.")] = 32,
    batch_size: Annotated[int | None, Option(help="Windows of a batch: 8, or what the file fixes.")] = None,
    blend: Annotated[Blend, Option(help="How windows that overlap are put together.")] = Blend.cosine,
    kind: Annotated[Kind | None, Option(help=KIND_HELP)] = None,
    classes: Annotated[str | None, Option(help="Names of classes, from 0: water,land.")] = None,
    units: Annotated[str | None, Option(help="Unit of continuous values: dB.")] = None,
    names: Annotated[str, Option(help=NAMES_HELP)] = "prediction",
    model_name: Annotated[str | None, Option(help=MODEL_NAME_HELP)] = None,
    out: Annotated[Path | None, Option(help=OUT_HELP)] = None,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace another prediction of that name.")
    ] = False,
    scheduler: Annotated[str | None, Option(help="A running Dask scheduler: tcp://host:8786.")] = None,
    workers: Annotated[int, Option(min=0, help=WORKERS_HELP)] = 0,
    quiet: QuietOption = False,
) -> None:
    """Run a model over scenes; what it returns becomes a layer of each, which `export` writes as a GeoTIFF."""
    from sarzarr.tasks import cluster

    named = _listed(names)
    with cluster(scheduler=scheduler, workers=workers), progress_bar(quiet=quiet, unit="patches") as report:
        done = sz.predict_scenes(
            model,
            store,
            scenes or None,
            progress=report,
            polarizations=_listed(polarizations) or None,
            layers=_listed(layers),
            clip=_clip_of(clip),
            patch_size=patch_size,
            overlap=overlap,
            batch_size=batch_size,
            blend=cast("Any", blend.value),
            kind=cast("Any", None if kind is None else kind.value),
            classes=_listed(classes) or None,
            units=units,
            names=named[0] if len(named) == 1 else named,
            model_name=model_name,
            out=out,
            overwrite=overwrite,
        )
    if not quiet:
        for scene in done.scenes:
            echo(str(scene))
    if done.refused:
        say(f"{counted(len(done.refused), 'scene')} left out:")
        for line in done.refused.lines():
            echo(f"  {line}", err=True)
        raise typer.Exit(Exit.PARTLY)
