"""The sources of a scene that is in a store: recognised among files, and planned as they were when it was stored."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, RasterNotFoundError, UnsupportedRasterError
from sarzarr.grids.polygon_files import SUFFIXES
from sarzarr.grids.warp.plan import WarpPlan
from sarzarr.ingestion.again import calibrated_as_stored
from sarzarr.ingestion.layers.alone import bare_scene
from sarzarr.ingestion.layers.annotated import annotated_layers
from sarzarr.ingestion.layers.burnt import PolygonLayer
from sarzarr.ingestion.layers.layer import Layer
from sarzarr.ingestion.layers.match import match_layers, probe_layers
from sarzarr.ingestion.layers.plan import LayerPlan
from sarzarr.ingestion.layers.polygon_classes import read_polygons
from sarzarr.ingestion.onto_grid import onto_grid
from sarzarr.ingestion.options import IngestOptions
from sarzarr.ingestion.scene_plan import ScenePlan
from sarzarr.rasters import FileStamp, source_hash
from sarzarr.scenes.calibrate import CalibrationChoice
from sarzarr.scenes.companions import Companion
from sarzarr.scenes.products.family import FIELDS
from sarzarr.scenes.refusals import Refusals
from sarzarr.scenes.scene import SceneProbe, scene_hash
from sarzarr.scenes.survey import Survey, survey_files
from sarzarr.store.catalog import catalog_rows, encoding_of
from sarzarr.store.chunks import read_layout
from sarzarr.store.store import Store
from sarzarr.text import listed
from sarzarr.zips.listing import raster_files

MOST: Final = 64
"""Choices of files of the same names that are tried."""
Files = Mapping[str, Sequence[Path]]
"""Files by name: there may be several of one name in as many folders."""


def files_by_name(paths: Iterable[str | Path]) -> dict[str, list[Path]]:
    """Return files, and those of folders and archives, by their names.

    Raises `RasterNotFoundError` where a path is not there.
    """
    out: dict[str, list[Path]] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise RasterNotFoundError(
                f"a file or a folder of sources was expected, got {str(path)!r}. Check the path."
            )
        drawn = [file for file in path.iterdir() if file.suffix.lower() in SUFFIXES] if path.is_dir() else []
        with suppress(RasterNotFoundError):  # a folder of pictures alone
            drawn += raster_files([path])
        for file in drawn:
            out.setdefault(file.name, []).append(file)
    return out


def scene_as_stored(store: Store, scene: str, files: Files, layers: Sequence[str]) -> ScenePlan:
    """Return the plan that a stored scene was written by: its arrays (rows, columns), and some of its layers.

    Raises `InvalidInputError` where its sources are not among the files, or do not plan as they did.
    """
    rows, about = store.facts(scene), store.node_attrs(scene)
    if not store.arrays(scene):
        probe, encoding = bare_scene(scene, store.placements[scene]), encoding_of(rows[0])
        plan = ScenePlan(probe=probe, encoding=encoding, bounds={}, replaces=True)
        made = tuple(_layer(store, plan, name, files, ()) for name in layers)
        return replace(plan, layers=made).fitted(IngestOptions())
    paths = _recognised(about[cv.SOURCE_FILES], str(rows[0]["source_hash"]), files)
    survey, probe = _surveyed(store, scene, paths, layers, files)
    grid, options = store.grid(scene), IngestOptions()
    if grid != probe.grid:
        told = store.node_attrs(scene, str(rows[0]["name"]))
        exact = told.get(cv.RESAMPLING_TOLERANCE) == 0
        options = options.changed(like=scene, resampling=told.get(cv.RESAMPLING), exact=exact)
    onto = onto_grid(probe, store, options)
    if onto and isinstance(onto[0], WarpPlan) and options.exact and onto[0].attrs != _warped(told):
        onto = onto_grid(probe, store, options.changed(exact=False))
    plan = ScenePlan(
        probe=probe,
        encoding=encoding_of(rows[0]),
        bounds={str(row["name"]): (float(row["vmin"]), float(row["vmax"])) for row in rows},
        replaces=True,
        border=int(about.get(cv.BORDER, 0)),
        onto=onto,
    )
    companions = survey.companions.get(scene, ())
    made = tuple(_layer(store, plan, name, files, companions) for name in layers)
    return replace(plan, layers=made).fitted(options)


def _warped(told: Mapping[str, Any]) -> dict[str, Any]:
    keys = (cv.RESAMPLING, cv.RESAMPLING_TOLERANCE, cv.GEOLOCATION, cv.RESAMPLING_LOOKS)
    return {key: told[key] for key in keys if key in told}


def _recognised(names: Sequence[str], known: str, files: Files) -> list[Path]:
    """Return the files of those names whose hash, sampled or of every byte, is the ``known`` one."""
    if missing := [name for name in names if name not in files]:
        raise InvalidInputError(
            f"{listed(names)} were expected among the files given with --from, got no {missing[0]}."
        )
    is_full = known.startswith("sha256:")
    for choice in islice(product(*(files[name] for name in names)), MOST):
        if scene_hash(source_hash(path, full=is_full) for path in choice) == known:
            return list(choice)
    raise InvalidInputError(
        f"{listed(names)} as they were when they were stored were expected, got others of these names."
    )


def _surveyed(
    store: Store, scene: str, paths: Sequence[Path], layers: Sequence[str], files: Files
) -> tuple[Survey, SceneProbe]:
    """Return the survey of a scene's files, and the scene as it was understood when it was stored.

    What the files do not say themselves was said then, and stands in the store.
    """
    held = {
        str(row["name"]): store.node_attrs(scene, str(row["name"])) for row in catalog_rows(store.rows(scene))
    }
    beside = (store.layer_attrs(scene, layer)[cv.SOURCE_FILES][0] for layer in layers)
    companions = [path for name in beside for path in files.get(name, ()) if path not in paths]
    first = next(iter(held.values()))
    said: dict[str, Any] = {}
    if cv.CALIBRATED_BY not in first and first[cv.QUANTITY] == cv.Quantity.DN:
        said["calibrate"] = CalibrationChoice(calibrate="none")
    for _ in range(3):
        survey = survey_files([*paths, *companions], scene_id=scene, **said)
        probe = next((one for one in survey.scenes if one.id == scene), None)
        if probe is not None:
            probe = calibrated_as_stored(store, probe, IngestOptions())
            wanted = _otherwise(probe, held)
            if not wanted:
                return survey, replace(probe, arrays=tuple(a for a in probe.arrays if a.name in held))
        else:
            wanted = {"quantity": first[cv.QUANTITY], "representation": first[cv.SOURCE_REPRESENTATION]}
        if wanted.items() <= said.items():
            break
        said |= wanted
        companions = []  # what is said is said of the scene's files alone
    reason = "; ".join(survey.refused.lines()) or "other arrays, quantities or nodata"
    raise InvalidInputError(f"its files as they were understood were expected, got {reason}.")


def _otherwise(probe: SceneProbe, held: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what must be said of files for their arrays to be those that are stored; nothing where they are."""
    names = [array.name for array in probe.arrays]
    if not set(held) <= set(names):
        return {"polarizations": sorted(held, key=lambda name: (name not in cv.POLARIZATIONS, name))}
    out: dict[str, Any] = {}
    for array in (array for array in probe.arrays if array.name in held):
        about = held[array.name]
        nodata = about.get(cv.SOURCE_NODATA)
        told = (
            None if array.nodata is None else array.nodata if np.isfinite(array.nodata) else str(array.nodata)
        )
        if nodata is not None and told != nodata:
            out["nodata"] = float(nodata)
        if cv.CALIBRATED_BY in about:
            continue
        if str(array.quantity) != about[cv.QUANTITY]:
            out["quantity"] = about[cv.QUANTITY]
        if str(array.representation) != about[cv.SOURCE_REPRESENTATION]:
            out["representation"] = about[cv.SOURCE_REPRESENTATION]
    return out


def _layer(
    store: Store, plan: ScenePlan, name: str, files: Files, companions: Sequence[Companion]
) -> LayerPlan:
    """Return the plan that a stored layer was written by: of the same file, grid and fill."""
    about = store.layer_attrs(plan.id, name)
    (file,), known = about[cv.SOURCE_FILES], str(about[cv.SOURCE_HASH])
    field = next((field for field in FIELDS if name == field or name.startswith(f"{field}_")), None)
    if field and not file.lower().endswith((".tif", ".tiff")):
        layer = next(one for one in annotated_layers(plan.probe, plan.grid, [field]) if one.name == name)
    elif cv.CLASSES in about:
        layer = _of_polygons(store, plan.id, name, about, _recognised([file], known, files)[0])
    else:
        (path,) = _recognised([file], known, files)
        content = next((one for one in companions if one.path == path), None)
        asked = Layer(
            name=name,
            path=str(path),
            kind=about[cv.LAYER_KIND],
            method=about.get(cv.RESAMPLING),
            band=about[cv.SOURCE_BAND],
            nodata=content.nodata if content else about.get(cv.NODATA),
            factor=content.content.factor if content else 1.0,
            units=about.get(cv.UNITS),
            static=True,
        )
        refused = Refusals()
        exact = about.get(cv.RESAMPLING_TOLERANCE) == 0
        found, _ = match_layers(
            probe_layers([asked], refused), [(plan.probe, plan.grid)], refused, exact=exact
        )
        if not found.get(plan.id):
            raise InvalidInputError(
                "; ".join(refused.lines()) or f"a layer in {file} was expected, got none."
            )
        (layer,) = found[plan.id]
    if layer.nodata is None:
        layout = read_layout(store.place, f"{cv.SCENES}/{plan.id}/{name}")
        layer = replace(layer, free=(layout.dtype, int(layout.fill)))
    if any(about.get(key) != value for key, value in layer.attrs.items()):
        raise UnsupportedRasterError(
            f"the layer {name} as it was stored was expected, got another from {file}."
        )
    return layer


def _of_polygons(store: Store, scene: str, name: str, about: Mapping[str, Any], path: Path) -> LayerPlan:
    """Return the plan of a layer of polygons with the attributes ``about``, from its file."""
    column, table = about.get(cv.SOURCE_COLUMN), about.get(cv.SOURCE_TABLE)
    classes = {int(value): str(word) for value, word in about[cv.CLASSES].items() if value != "0"}
    return PolygonLayer(
        name=name,
        file=FileStamp.of(path, full=True),
        polygons=read_polygons(path, column=column, table=table),
        classes=classes,
        column=column,
        table=table,
        all_touched=bool(about[cv.ALL_TOUCHED]),
    ).on(scene, store.placements[scene])
