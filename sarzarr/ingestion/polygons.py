"""Polygons that are drawn on the ground, on their way into a store as a layer of its scenes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, SceneExistsError
from sarzarr.grids.burn import BurntPolygons
from sarzarr.ingestion.again import has_another
from sarzarr.ingestion.layers.alone import bare_scene
from sarzarr.ingestion.layers.burnt import PolygonLayer
from sarzarr.ingestion.layers.layer import Layer
from sarzarr.ingestion.layers.polygon_classes import read_polygons
from sarzarr.ingestion.options import IngestOptions
from sarzarr.ingestion.plan import IngestPlan
from sarzarr.ingestion.run import ingest
from sarzarr.ingestion.scene_plan import ScenePlan
from sarzarr.keywords import shows_options
from sarzarr.rasters import FileStamp
from sarzarr.scenes.refusals import Refusals
from sarzarr.store.catalog import encoding_of
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.tasks import Progress


@dataclass(frozen=True, kw_only=True)
class PolygonOptions:
    """The keywords of `import_polygons`."""

    column: str | None = None
    """The property, or the column, that has the class of each feature: whole numbers are values themselves, texts are
    numbered from 1 in the order of the alphabet, after those that the store knows of this layer. All is 1 if left
    out."""
    table: str | None = None
    """The table of a file that has several."""
    scenes: Sequence[str] | str | None = None
    """Ids of scenes; all if left out."""
    all_touched: bool = False
    """Whether a pixel counts that a polygon touches; else one whose centre it covers."""
    replace: bool = False
    """Whether another layer of that name is written anew."""


class PolygonKeywords(TypedDict, total=False):
    """Fields of `PolygonOptions`."""

    column: str | None
    table: str | None
    scenes: Sequence[str] | str | None
    all_touched: bool
    replace: bool


@dataclass(frozen=True, kw_only=True)
class PolygonReport:
    """The outcome of an import of polygons."""

    layer: str
    """The layer's name."""
    polygons: int
    """Polygons in the file."""
    classes: dict[int, str]
    """The name of each value of the layer but 0."""
    written: tuple[str, ...]
    """Ids of the scenes that the layer was written for."""
    present: tuple[str, ...]
    """Ids of scenes that had it already."""
    empty: tuple[str, ...]
    """Ids of scenes that no polygon lies on: the layer is 0 throughout."""
    refused: Refusals
    """Scenes that are left out, each with its reason."""


@shows_options(PolygonOptions, PolygonKeywords)
def import_polygons(
    store: AnyStore,
    path: str | Path,
    *,
    layer: str,
    progress: Callable[[Progress], None] | None = None,
    **options: Unpack[PolygonKeywords],
) -> PolygonReport:
    """Burn the polygons of a file into a layer of scenes: 0 outside of all, else the class of the last one there.

    The layer is uint8 with nodata 255, which no pixel has (uint16 with 65535 where there are more classes); its
    attribute ``classes`` has the names of values. Work, resuming and errors on the way are as of `ingest`.

    Parameters
    ----------
    path
        GeoJSON, in longitude and latitude or the CRS that it names; GeoPackage, shapefile or FlatGeobuf.
    layer
        The layer's name.
    progress
        Told the bytes that are done.
    **options
        The fields of `PolygonOptions`.

    Raises as `sarzarr.ingestion.layers.polygon_classes.read_polygons`; `SceneExistsError` where a scene has another
    layer of that name, `InvalidInputError` where no polygon lies on a scene; what a scene is refused for, in image
    geometry say, where none is left.
    """
    opened, file, asked = open_store(store), Path(path), PolygonOptions(**options)
    made = _layer(opened, file, layer, asked)
    refused, plans, present, empty = Refusals(), list[ScenePlan](), list[str](), list[str]()
    given = opened.scenes if asked.scenes is None else asked.scenes
    for scene in dict.fromkeys([given] if isinstance(given, str) else given):
        opened.facts(scene)  # raises, and says which there are
        with refused.leaving_out([file], scene):
            plan = _planned(opened, scene, made, replace=asked.replace)
            burnt = plan.layers[0].onto.source.field
            if isinstance(burnt, BurntPolygons) and not burnt.rings:
                empty.append(scene)
            if layer in opened.layers(scene) and not has_another(opened, scene, plan.layers[0]):
                present.append(scene)
            else:
                plans.append(plan)
    if refused and not (plans or present):
        raise refused.error()
    count = len(made.polygons.polygons)
    if len(empty) == len(plans) + len(present):
        raise InvalidInputError(
            f"expected polygons on the ground of a scene, got none of {count} in {file.name!r}. Check its CRS, or "
            "name other scenes."
        )
    whole = IngestPlan(
        store=opened.root, scenes=tuple(plans), present=tuple(present), options=IngestOptions()
    )
    if plans:
        ingest(whole, progress=progress)
    refused.extend(whole.refused)
    failed = {refusal.scene for refusal in refused}
    return PolygonReport(
        layer=layer,
        polygons=count,
        classes=dict(made.classes),
        written=tuple(plan.id for plan in plans if plan.id not in failed),
        present=tuple(present),
        empty=tuple(empty),
        refused=refused,
    )


def _layer(store: Store, file: Path, name: str, asked: PolygonOptions) -> PolygonLayer:
    """Return the layer that a file makes of its polygons, with the classes that the store knows of it."""
    Layer(name=name, path=str(file))  # raises where the name is none
    read = read_polygons(file, column=asked.column, table=asked.table)
    return PolygonLayer(
        name=name,
        file=FileStamp.of(file, full=True),
        polygons=read,
        classes=read.classes(_known_classes(store, name)),
        column=asked.column,
        table=asked.table,
        all_touched=asked.all_touched,
    )


def _planned(store: Store, scene: str, made: PolygonLayer, *, replace: bool) -> ScenePlan:
    """Return the plan of a scene that is in the store, and gets the layer alone."""
    place, name = store.placements[scene], made.name
    if name.lower() in (array.lower() for array in store.arrays(scene)):
        raise InvalidInputError(
            f"expected a layer's name that no array of scene {scene!r} has, got {name!r}. Give it another name."
        )
    layer = made.on(scene, place)
    if has_another(store, scene, layer) and not replace:
        raise SceneExistsError(
            f"expected a new layer, got {name!r} of {scene!r}, which {store.place.name} holds from another file or "
            "in another way. Pass --replace to write the layer anew, or give it another name."
        )
    return ScenePlan(
        probe=bare_scene(scene, place),
        encoding=encoding_of(store.facts(scene)[0]),
        bounds={},
        replaces=True,
        layers=(layer,),
        only_layers=True,
    ).fitted(IngestOptions())


def _known_classes(store: Store, layer: str) -> dict[int, str]:
    """Return the names of values of a layer in all scenes that have it from polygons."""
    known: dict[int, str] = {}
    for scene in store.scenes_with(layer):
        table = store.layer_attrs(scene, layer).get(cv.CLASSES, {})
        known |= {int(value): str(name) for value, name in table.items() if value != "0"}
    return known
