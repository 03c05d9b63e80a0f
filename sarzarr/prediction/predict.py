"""Predictions as layers of a store: what is there already, what is begun, and how it enters."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Unpack, cast
from uuid import uuid4

from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError, InvalidInputError, SarzarrError, SceneExistsError
from sarzarr.files import Lock
from sarzarr.keywords import shows_options
from sarzarr.prediction.inputs import SceneInput, scene_input
from sarzarr.prediction.layers import ArrayRows, ModelOutput, StagedLayers, nodata_attributes
from sarzarr.prediction.models import Model, Run, model_of
from sarzarr.prediction.options import PredictKeywords, PredictOptions
from sarzarr.prediction.over_scene import WindowCounts, predict_rows
from sarzarr.prediction.windows import WindowGrid
from sarzarr.scenes.names import check_layer_name
from sarzarr.scenes.refusals import Refusals
from sarzarr.store.catalog import encoding_of
from sarzarr.store.commit import changed_once, commit_layers
from sarzarr.store.journal import NO_ROOM, beside_store, writing
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.tasks import Progress, active_client, compute, workplace

STAGED: Final = ".predictions"
"""The folder beside a store where layers of predictions are made."""


@dataclass(frozen=True, kw_only=True)
class ScenePrediction:
    """The outcome of a prediction of one scene."""

    scene: str
    """The scene's id."""
    layers: tuple[str, ...]
    """Names of the layers; none where an array was filled."""
    patches: int
    """Windows that the model was given; 0 where the same prediction was there already."""
    skipped: int
    """Windows without a valid pixel, which it was not."""
    seconds: float
    """Seconds that it took."""
    is_present: bool = False
    """Whether the same prediction was there already."""

    def __str__(self) -> str:
        what = ", ".join(self.layers) or "an array"
        if self.is_present:
            return f"{self.scene}: {what}, there already"
        rate = self.patches / max(self.seconds, 1e-9)
        left = f", {self.skipped} without a valid pixel left out" if self.skipped else ""
        return f"{self.scene}: {what}, {self.patches} patches in {self.seconds:.1f} s ({rate:.1f}/s){left}"


@dataclass(frozen=True, kw_only=True)
class PredictionReport:
    """The outcome of a prediction of several scenes."""

    scenes: tuple[ScenePrediction, ...]
    """Those that have it now, in the order in which they were done."""
    refused: Refusals
    """Those that are left out, each with its reason."""


@dataclass(frozen=True)
class _Job:
    """One scene to be predicted: addresses, and nothing open."""

    model: Model
    store: Store
    scene: str
    options: PredictOptions
    folder: Path
    identity: str | None
    target: Store

    def staged(self, given: SceneInput) -> StagedLayers:
        row = self.target.facts(self.scene)[0]
        return StagedLayers(
            folder=self.folder,
            fingerprint=_fingerprint(given, self.options, self.identity) or uuid4().hex,
            shape=given.grid.shape,
            beside=encoding_of(row),
            options=self.options,
            check=partial(_check_name, self),
        )


@shows_options(PredictOptions, PredictKeywords)
def predict_scene(
    model: Any,
    store: AnyStore,
    scene: str,
    *,
    progress: Callable[[Progress], None] | None = None,
    **options: Unpack[PredictKeywords],
) -> ScenePrediction:
    """Run a model over all of a scene, and keep what it returns as layers of that scene.

    The model is given windows (n, C, patch_size, patch_size) float32 as training batches have them: in [0, 1] of the
    clip, 0 where not measured and beyond the edges. It returns (n, K, patch_size, patch_size). Windows overlap and
    are blended, with weights that sum to 1; those without a measured pixel are left out. Pixels that were not
    measured in every channel are nodata in the layers. Memory is a row of windows, whatever the height. An
    interrupted prediction is simply run again, and goes on after the last row of shards that was whole, if it can
    tell that the model is the same (see ``model_name``). The layers enter the store at once, when they are whole.

    Parameters
    ----------
    model
        A torch module (put in evaluation, on the device of its weights, and as it was afterwards); a NumPy function;
        `sarzarr.torch.on_tensors` of a function of tensors; the path of an ONNX file; or ``"module:function"`` of
        your own code: the model itself, or a function without parameters that returns it. Pickles are refused.
    store
        A `Store`, or its path.
    scene
        The scene's id.
    progress
        Told the windows that are done, and all there are.
    **options
        The fields of `PredictOptions`.

    Raises `InvalidInputError` where the model, its output or an option is not as expected; `SceneExistsError` where
    the scene has another layer of that name; `NotInStoreError` where there is no such scene or array;
    `MissingExtraError` where onnxruntime is not installed.
    """
    asked = PredictOptions(**options)
    if asked.out is not None and not isinstance(asked.out, Store | str | Path):
        return _into_array(model_of(model), open_store(store), scene, asked, progress)
    report = _predict(model, store, [scene], asked, progress, raises=True)
    return report.scenes[0]


@shows_options(PredictOptions, PredictKeywords)
def predict_scenes(
    model: Any,
    store: AnyStore,
    scenes: Sequence[str] | str | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    **options: Unpack[PredictKeywords],
) -> PredictionReport:
    """Run a model over scenes, all if left out, as `predict_scene` does, (n, C, rows, columns) a batch.

    Inside ``with Client(...)`` each scene is a task of that cluster, and workers open the model themselves:
    ``module:function`` and ONNX files by their names, other callables as Dask sends them. A scene that fails, or
    lacks an array or a layer that is asked for, does not keep the others out.

    Parameters
    ----------
    model
        As of `predict_scene`.
    store
        A `Store`, or its path.
    scenes
        Ids of scenes; all with backscatter if left out.
    progress
        Told the windows that are done; of a cluster after each scene.
    **options
        The fields of `PredictOptions`.

    Raises as `predict_scene` where no scene is left.
    """
    asked, opened = PredictOptions(**options), open_store(store)
    if asked.out is not None and not isinstance(asked.out, Store | str | Path):
        raise InvalidInputError(
            "a store was expected as out= of several scenes, got an array. Call predict_scene for each."
        )
    if scenes is None:
        chosen = list(dict.fromkeys(opened.catalog["scene"].values.tolist()))
    else:
        chosen = list(dict.fromkeys([scenes] if isinstance(scenes, str) else scenes))
    for scene in chosen:
        opened.facts(scene)  # raises, and says which there are
    if not chosen:
        raise InvalidInputError(f"a scene of {opened.place.name} was expected, got none. Ingest one.")
    return _predict(model, store, chosen, asked, progress)


def _into_array(
    model: Model,
    store: Store,
    scene: str,
    options: PredictOptions,
    progress: Callable[[Progress], None] | None,
) -> ScenePrediction:
    given = scene_input(store, scene, options)

    def tell(done: int) -> None:
        if progress is not None:
            progress(Progress(done, len(given.grid), scene))

    with model.running() as run:
        counts = predict_rows(run, given, options, ArrayRows(options.out, given.grid.shape), tell)
    return _told(scene, (), counts)


def _told(scene: str, layers: tuple[str, ...], counts: WindowCounts) -> ScenePrediction:
    return ScenePrediction(
        scene=scene, layers=layers, patches=counts.predicted, skipped=counts.skipped, seconds=counts.seconds
    )


def _predict(
    given: Any,
    store: AnyStore,
    scenes: Sequence[str],
    options: PredictOptions,
    progress: Callable[[Progress], None] | None,
    *,
    raises: bool = False,
) -> PredictionReport:
    model = model_of(given)
    identity = options.model_name if model.identity is None else model.identity
    source = open_store(store)
    root = (source if options.out is None else open_store(options.out)).root
    done, refused = list[ScenePrediction](), Refusals()
    staging = beside_store(root)
    first_name = options.names if isinstance(options.names, str) else options.names[0]
    with writing(root) as lock, workplace(staging):
        source = source.anew()
        target = source if options.out is None else open_store(options.out)
        jobs = list[_Job]()
        for scene in scenes:
            folder = staging / STAGED / scene / first_name
            job = _Job(model, source, scene, replace(options, out=None), folder, identity, target)
            with _leaving_out(refused, scene, raises=raises):
                if (present := _present(job)) is not None:
                    done.append(present)
                else:
                    jobs.append(job)
        run = _Run(jobs, target, lock, progress, refused, raises)
        run.go()
        for folder in (*(staging / STAGED).glob("*"), staging / STAGED):
            with suppress(OSError):  # not empty: what is begun waits there
                folder.rmdir()
    if refused and not (done or run.done):
        raise refused.error()
    return PredictionReport(scenes=(*done, *run.done), refused=refused)


@contextmanager
def _leaving_out(refused: Refusals, scene: str, *, raises: bool) -> Iterator[None]:
    """Note an error that a scene can be left out for; one of the disk is raised, and any where ``raises``."""
    if raises:
        yield
        return
    full: OSError | None = None
    with refused.leaving_out([], scene):
        try:
            yield
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            full = error
    if full is not None:
        raise full


@dataclass
class _Run:
    """Scenes on their way: one after the other here, or as tasks of a cluster."""

    jobs: Sequence[_Job]
    target: Store
    lock: Lock
    progress: Callable[[Progress], None] | None
    refused: Refusals
    raises: bool

    def __post_init__(self) -> None:
        self.done = list[ScenePrediction]()
        self.behind = 0
        self.total = sum(_windows(job) for job in self.jobs)

    def go(self) -> None:
        if not self.jobs:
            return
        if active_client() is not None and not self.raises:
            compute([(_on_worker, (job,)) for job in self.jobs], self._take)
            return
        with self.jobs[0].model.running() as run:
            for job in self.jobs:
                with _leaving_out(self.refused, job.scene, raises=self.raises):
                    made = _made(job, run, self._teller(job.scene))
                    self._enter(job, *made)
                self.behind += _windows(job)

    def _take(self, result: tuple[_Job, Any]) -> None:
        job, made = result
        with _leaving_out(self.refused, job.scene, raises=False):
            if isinstance(made, Exception):
                raise made
            self._enter(job, *made)
        self.behind += _windows(job)
        self._teller(job.scene)(0)

    def _teller(self, scene: str) -> Callable[[int], None]:
        def tell(windows: int) -> None:
            self.lock.show_life()
            if self.progress is not None:
                self.progress(Progress(self.behind + windows, self.total, scene))

        return tell

    def _enter(self, job: _Job, staged: StagedLayers, counts: WindowCounts) -> None:
        """Let whole layers of a scene into the store, in one step."""
        with changed_once(self.target.anew(), leaves=[job.folder]) as draft:
            commit_layers(draft, job.scene, staged.group, staged.names)
        self.done.append(_told(job.scene, staged.names, counts))


def _windows(job: _Job) -> int:
    shape, o = job.store.grid(job.scene).shape, job.options
    return len(WindowGrid(shape=shape, size=o.patch_size, overlap=o.overlap, blend=o.blend))


def _on_worker(job: _Job) -> tuple[_Job, Any]:
    """Predict a scene on a worker; an error that a scene may be left out for comes back as a value."""
    try:
        with job.model.running() as run:
            return job, _made(job, run, lambda _: None)
    except (SarzarrError, OSError) as error:
        return job, error


def _made(job: _Job, run: Run, tell: Callable[[int], None]) -> tuple[StagedLayers, WindowCounts]:
    """Predict what is left of a scene, and write the documents of its layers beside the store."""
    given = scene_input(job.store, job.scene, job.options)
    staged, counts = job.staged(given), WindowCounts()
    try:
        if not staged.is_whole:
            counts = predict_rows(run, given, job.options, staged, tell)
    finally:
        staged.abort()
    staged.write_documents(job.scene, _attributes(job, given, staged))
    return staged, counts


def _check_name(job: _Job, name: str) -> None:
    """Raise unless a name is free in the scene, or a prediction that may be replaced has it."""
    target, scene = job.target, job.scene
    check_layer_name(name)
    taken = {array.lower() for array in target.arrays(scene)}
    if name.lower() in taken or name in job.options.layers:
        raise InvalidInputError(
            f"a layer's name that no channel of {scene!r} has was expected, got {name!r}. Give another one with "
            "names=."
        )
    if name not in target.layers(scene):
        return
    if cv.MODEL not in (held := target.layer_attrs(scene, name)):
        raise SceneExistsError(
            f"a new layer was expected, got {name!r} of {scene!r}, which was not predicted. Give another name "
            "(names=)."
        )
    if not job.options.overwrite:
        raise SceneExistsError(
            f"a new layer was expected, got {name!r} of {scene!r}, which {held[cv.MODEL]} predicted, or made with "
            "other options. Pass overwrite=True (--overwrite) to replace it, or another name."
        )


def _present(job: _Job) -> ScenePrediction | None:
    """Return what is there already of the same prediction; None where it is to be made.

    Raises as `_check_name` of a layer that is in the way, and where a scene of the target lies elsewhere.
    """
    given = scene_input(job.store, job.scene, job.options)  # raises where it cannot be read
    if job.target.root != job.store.root and job.target.grids.get(job.scene) != job.store.grids[job.scene]:
        raise InvalidInputError(
            f"scene {job.scene!r} on the same grid was expected in {job.target.place.name}, got none. Copy it there "
            "first (sarzarr.copy_store), or leave out= out."
        )
    names, held = job.options.names, job.target.layers(job.scene)
    if isinstance(names, str):
        mine = [name for name in held if name == names or re.fullmatch(rf"{names}_\d+", name)]
    else:
        mine = [name for name in names if name in held]
    wanted = _fingerprint(given, job.options, job.identity)
    same = [name for name in mine if job.target.layer_attrs(job.scene, name).get(cv.PREDICTED_AS) == wanted]
    if wanted is not None and same and not (job.options.overwrite and _is_damaged(job, same)):
        return ScenePrediction(
            scene=job.scene, layers=tuple(same), patches=0, skipped=0, seconds=0, is_present=True
        )
    for name in mine:
        _check_name(job, name)
    return None


def _is_damaged(job: _Job, names: Sequence[str]) -> bool:
    """Whether a chunk of these layers fails its checksum; they are read, a row of files at a time."""
    try:
        for name in names:
            pixels = job.target.pixels(job.scene, name)
            height, width = pixels.shape
            step = pixels.encoding.file_size
            for row in range(0, height, step):
                pixels.read((slice(row, min(row + step, height)), slice(0, width)))
    except CorruptStoreError:
        return True
    return False


def _fingerprint(given: SceneInput, options: PredictOptions, identity: str | None) -> str | None:
    """Return the checksum of all that decides the layers; None where nothing tells the model from others."""
    if identity is None:
        return None
    o = options
    classes = sorted(cast("dict[int, str]", o.classes).items()) if o.classes else None
    decides = [
        identity,
        given.arrays,
        given.layers,
        given.clips,
        given.stamps,
        o.patch_size,
        o.overlap,
        o.blend,
    ]
    return sha256(json.dumps([*decides, o.kind, classes, o.units, o.names]).encode()).hexdigest()


def _attributes(job: _Job, given: SceneInput, staged: StagedLayers) -> list[dict[str, Any]]:
    """Return the attributes of each layer: what its numbers are, where they lie, and what made them."""
    output, options = cast("ModelOutput", staged.output), job.options
    model = options.model_name or job.model.name
    common: dict[str, Any] = {
        cv.LAYER_KIND: "classes" if output.kind == "classes" else "continuous",
        cv.MODEL: model,
        cv.MODEL_INPUTS: [*given.arrays, *given.layers],
        cv.MODEL_CLIPS: [float(end) for clip in given.clips for end in clip],
        cv.PREDICTED_BY: f"sarzarr {version('sarzarr')}, windows of {options.patch_size} pixels, overlap "
        f"{options.overlap}, {output.blended(given.grid).blend}",
        **nodata_attributes(output),
    }
    if job.identity is not None:
        common[cv.MODEL_IDENTITY] = job.identity
        common[cv.PREDICTED_AS] = staged.fingerprint
    if job.target.grid(job.scene).is_georeferenced:
        common |= {cv.GRID_MAPPING: cv.SPATIAL_REF, cv.COORDINATES: cv.SPATIAL_REF}
    if options.units:
        common[cv.UNITS] = options.units
    if options.classes:
        common[cv.CLASSES] = {str(k): v for k, v in cast("dict[int, str]", options.classes).items()}
    out = []
    for i, name in enumerate(staged.names):
        about = {cv.LONG_NAME: f"{name}, predicted by {model}", **common}
        if output.kind == "normalized":
            vmin, vmax = given.clips[i]
            known = job.store.node_attrs(job.scene, given.arrays[i])
            about |= {cv.VMIN: float(vmin), cv.VMAX: float(vmax), cv.UNITS: "1"}
            about[cv.REPRESENTATION] = str(cv.Representation.NORMALIZED)
            about |= {k: known[k] for k in (cv.QUANTITY, cv.SAR_POLARIZATIONS) if k in known}
        out.append(about)
    return out
