"""The matching of layers' files to scenes: by the ground that they lie on, else by shape; by name, and by date."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.grids.crs import first_turn, is_same_crs
from sarzarr.grids.georeference import bbox_in, in_turn_of, locate, onto
from sarzarr.grids.grid import Grid
from sarzarr.grids.warp.plan import GDAL_TYPES, LAYER, WarpSource, plan_warp
from sarzarr.ingestion.layers.layer import Layer
from sarzarr.ingestion.layers.plan import LayerPlan
from sarzarr.rasters import FileStamp, Unmeasured, local_file
from sarzarr.scenes.acquisition import facts_from_fields, is_one_pass
from sarzarr.scenes.grammars import facts_from_name
from sarzarr.scenes.header import Header, read_header
from sarzarr.scenes.names import tells_scene
from sarzarr.scenes.refusals import Refusals
from sarzarr.scenes.scene import SceneProbe
from sarzarr.store.free_values import extreme
from sarzarr.text import listed, nodata_text

DTYPES: Final = (*GDAL_TYPES, "int64", "uint64")
"""Dtypes that a layer may be stored in."""
POINTS: Final = 33
"""Points along each side of the lattices by which two rasters are found to share ground."""
_WHOLE: Final = 0.9999
_SAMPLES: Final = (np.arange(POINTS) + 0.5) / POINTS


@dataclass(frozen=True, kw_only=True)
class LayerFile:
    """One file of a layer, its header read."""

    layer: Layer
    """The layer that it is a file of."""
    source: WarpSource
    """Its band, and where its pixels lie."""
    header: Header
    """Its header."""
    stamp: FileStamp
    """Its bytes, by which it is recognised."""
    datetime: str | None = None
    """The time that its tags or its name tell, ISO 8601 UTC; None where they tell none, or several."""

    @property
    def path(self) -> Path:
        """The file: a raster (rows, columns)."""
        return Path(self.source.path)

    @property
    def is_placed(self) -> bool:
        """Whether it says where on the ground its pixels lie."""
        return self.source.georeference.crs_wkt is not None

    def scenes_named(self, ids: Mapping[str, str]) -> frozenset[str]:
        """Return the ids, given by their lower case, that stand in its name as words, the longest alone."""
        stem = self.path.stem.lower()
        words = [match.span() for match in re.finditer(r"[^\W_]+", stem)]
        parts = {stem[start:end] for start, _ in words for _, end in words if start < end} & ids.keys()
        return frozenset(ids[part] for part in parts if len(part) == max(map(len, parts)))

    def is_of(self, scene: SceneProbe, named: Collection[str]) -> bool:
        """Return whether it may be put on a scene: its name is of that one, or of none and it tells no other date."""
        if self.layer.static:
            return True
        when = scene.acquisition.datetime
        if named or self.datetime is None or when is None:
            return not named or scene.id in named
        return is_one_pass(self.datetime, when)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """The position of a file on a scene."""

    file: LayerFile
    source: WarpSource
    """The file, placed: by itself, or as the scene whose shape it has."""
    rank: int
    """0: on the scene's own pixels. 1: all of the scene lies in it. 2: they share some ground."""
    covered: float
    """Share of the scene's grid that the file covers."""


_Named = Mapping[Path, Collection[str]]
"""The ids of the scenes that each file's name is of."""


@dataclass(eq=False)
class LayerFiles:
    """All files of all layers of a run, with their boxes as (files, 4) float64 by CRS."""

    files: Mapping[str, tuple[LayerFile, ...]]
    """By the layer's name."""
    _boxes: dict[tuple[str, str], Array] = field(default_factory=dict, init=False, repr=False)

    def near(self, name: str, grid: Grid) -> list[LayerFile]:
        """Return the files of a layer that may lie on a grid: bounding boxes (x_min, y_min, x_max, y_max) tell."""
        files = self.files[name]
        if grid.crs_wkt is None:
            return list(files)
        key = name, grid.crs_wkt
        if key not in self._boxes:
            self._boxes[key] = np.array([_box(file, grid.crs_wkt) for file in files])
        left, bottom, right, top = grid.bbox
        x_min, y_min, x_max, y_max = self._boxes[key].T
        _, touches = first_turn(grid.crs_wkt, x_min, x_max, left=left, right=right)
        touches &= (y_max > bottom) & (y_min < top)
        return [files[i] for i in np.flatnonzero(touches)]


def _box(file: LayerFile, crs: str) -> tuple[float, float, float, float]:
    """Return a file's bounding box in a CRS; everything, where it has none there or says no place."""
    try:
        if file.is_placed:
            return bbox_in(file.source.georeference, crs)
    except UnsupportedRasterError:
        pass
    return -np.inf, -np.inf, np.inf, np.inf


def probe_layers(layers: Iterable[Layer], refused: Refusals) -> LayerFiles:
    """Read the headers of the files of layers: shapes (rows, columns), dtypes and places.

    A file that cannot be kept as a layer is refused, and the others of it are taken. Raises the reason where there
    are none.
    """
    files: dict[str, tuple[LayerFile, ...]] = {}
    for layer in layers:
        own, before = [], len(refused)
        for path in layer.files():
            with refused.leaving_out([path]):
                own.append(_probe(layer, path))
        if not own:
            raise Refusals(refused[before:]).error()
        files[layer.name] = files.get(layer.name, ()) + tuple(own)
    return LayerFiles(files)


def _probe(layer: Layer, path: Path) -> LayerFile:
    file, _ = local_file(path)
    header = read_header(file)
    band = _band(layer, file, header)
    dtype = str(header.dtype)
    if dtype not in DTYPES:
        raise UnsupportedRasterError(
            f"expected a layer of {', '.join(DTYPES)}, got {dtype} in {file.name!r}. Write its real part, or "
            "its phase, to a file of its own."
        )
    if header.pages > 1:
        raise UnsupportedRasterError(
            f"expected one picture in the layer's file, got {header.pages} pages in {file.name!r}. "
            "Write each to its own file: gdal_translate GTIFF_DIR:1:IN.tif OUT.tif."
        )
    if (header.scales[band - 1], header.offsets[band - 1]) != (1.0, 0.0):
        raise UnsupportedRasterError(
            f"expected pixels that are the values, got scale {header.scales[band - 1]} and offset "
            f"{header.offsets[band - 1]} in {file.name!r}. Write the values: gdal_translate -unscale."
        )
    declared, mask = header.nodata if layer.nodata is None else layer.nodata, header.masks[band - 1]
    source = WarpSource(
        path=str(file),
        band=band,
        representation=LAYER,
        dtype=dtype,
        georeference=header.georeference,
        nodata=declared,
        unmeasured=Unmeasured(mask=mask) if mask is not None else None,
    )
    if source.nodata is not None and np.isnan(source.sentinel):  # a value that none of its pixels can have
        if layer.nodata is not None:
            raise InvalidInputError(
                f"expected a nodata value of layer {layer.name!r} that {source.dtype} can hold, got "
                f"{nodata_text(layer.nodata)}. Give another, or convert the raster."
            )
        source = replace(source, nodata=None)
    if mask is not None and source.nodata is None and header.is_integer:
        free = 2.0**63 if dtype == "uint64" else float(extreme(dtype))  # uint64's highest is no float
        source = replace(source, nodata=free, has_chosen_nodata=True)
    when = _datetime(file, header)
    return LayerFile(layer=layer, source=source, header=header, stamp=FileStamp.of(file), datetime=when)


def _datetime(file: Path, header: Header) -> str | None:
    """Return the time that a file's tags tell, or its name, or its folder's if that says numbers and dates alone."""
    names = (file.stem, "" if tells_scene(file.parent.name) else file.parent.name)
    told = (facts_from_fields(header.tags), *map(facts_from_name, names))
    return next((facts.datetime for facts in told if facts.datetime), None)


def _band(layer: Layer, file: Path, header: Header) -> int:
    if layer.band is None and header.bands > 1:
        named = ", ".join(f"{i} {n}" if n else str(i) for i, n in enumerate(header.names[:8], 1))
        raise InvalidInputError(
            f"expected one band in {file.name!r} for layer {layer.name!r}, got {header.bands}: {named}. "
            f"Say which: --layer {layer.name}:band1=FILE."
        )
    if (layer.band or 1) > header.bands:
        raise InvalidInputError(
            f"expected a band of layer {layer.name!r} of the {header.bands} in {file.name!r}, got {layer.band}. "
            "Count them from 1."
        )
    return layer.band or 1


def match_layers(
    files: LayerFiles, scenes: Sequence[tuple[SceneProbe, Grid]], refused: Refusals, *, exact: bool = False
) -> tuple[dict[str, tuple[LayerPlan, ...]], tuple[str, ...]]:
    """Return the layers of each scene by its id, and a sentence for whatever is left over.

    A scene takes the file that is on its own pixels, else the one that it lies in, else the one that it
    shares some ground with; where several are alike, the one that bears the scene's id in its name. A
    file that says no place is taken to lie as the scene whose shape it has. A file that bears the id of a scene is
    that scene's alone, and one that tells a date is put on scenes of that date alone, unless its layer is static.

    Each scene comes with the grid, (rows, columns), that is stored; ``exact`` is as of
    `sarzarr.grids.warp.plan.plan_warp`. A scene is refused, and not among those returned, where it cannot be told
    which file is its, a layer's name is that of one of its arrays, or its file cannot be brought onto its grid.

    Raises `InvalidInputError` where no scene takes a layer, or several could take one that says no place; says the
    remedy.
    """
    plans: dict[str, tuple[LayerPlan, ...]] = {scene.id: () for scene, _ in scenes}
    notes = []
    ids = {scene.id.strip("._-").lower(): scene.id for scene, _ in scenes}
    for name, own in files.files.items():
        named = {file.path: file.scenes_named(ids) for file in own}
        fits: dict[str, _Fit | None] = {}
        for scene, grid in scenes:
            with refused.leaving_out(scene.paths, scene.id):
                fits[scene.id] = _fitting(files, name, scene, grid, named)
        _check_unplaced(name, fits)
        _check_undated(name, fits, scenes, named)
        if fits and not any(fits.values()):
            raise _of_other_dates(own, scenes) or _nobody(own, *scenes[0])
        for scene, grid in scenes:
            if fit := fits.get(scene.id):
                with refused.leaving_out(scene.paths, scene.id):
                    plans[scene.id] += (_plan(fit, scene, grid, exact=exact),)
        if without := [scene for scene, fit in fits.items() if fit is None]:
            is_dated = any(file.datetime and not file.layer.static for file in own)
            why = f" or is of its date ({name}:static is for every date)" if is_dated else ""
            notes.append(f"no file of layer {name!r} lies on {listed(without)}{why}: stored without it.")
        taken = {fit.file.path for fit in fits.values() if fit is not None}
        if unused := [file.path.name for file in own if file.path not in taken]:
            notes.append(f"layer {name!r}: {listed(unused)} lie on no scene, or another file does better.")
    out = {refusal.scene for refusal in refused}
    return {scene: own for scene, own in plans.items() if scene not in out}, tuple(notes)


def _fitting(files: LayerFiles, name: str, scene: SceneProbe, grid: Grid, named: _Named) -> _Fit | None:
    """Return the one file of a layer that is a scene's, as `_choose`; `InvalidInputError` where the name is taken."""
    if name.lower() in (array.name.lower() for array in scene.arrays):
        raise InvalidInputError(
            f"expected a layer's name that no array of scene {scene.id!r} has, got {name!r}. Give it another name."
        )
    return _choose(files, name, scene, grid, named)


def _choose(files: LayerFiles, name: str, scene: SceneProbe, grid: Grid, named: _Named) -> _Fit | None:
    """Return the one file of a layer that is a scene's; None where there is none."""
    own = (file for file in files.near(name, grid) if file.is_of(scene, named[file.path]))
    fits = [fit for file in own if (fit := _fit(file, scene, grid)) is not None]
    best = [fit for fit in fits if fit.rank == min(f.rank for f in fits)]
    if len(best) > 1:
        best = [fit for fit in best if scene.id in named[fit.file.path]] or best
    if len(best) > 1:
        raise InvalidInputError(
            f"expected one file of layer {name!r} for scene {scene.id!r}, got {len(best)} that lie on it alike: "
            f"{listed(fit.file.path.name for fit in best)}. Leave all but one out, name each after its scene "
            f"({scene.id}_{name}.tif), or merge them into one raster."
        )
    return best[0] if best else None


def _fit(file: LayerFile, scene: SceneProbe, grid: Grid) -> _Fit | None:
    """Return the position of a file on a scene; None where it lies elsewhere."""
    own = file.source
    gcps = own.georeference.gcps
    is_unplaced = not own.grid.is_georeferenced and gcps in ((), scene.georeference.gcps)
    if is_unplaced and own.grid.shape == scene.grid.shape:
        placed = replace(own, georeference=scene.georeference)
        return _Fit(file=file, source=placed, rank=0, covered=1.0)
    if own.georeference.crs_wkt is None or not grid.is_georeferenced:
        return None
    points = locate(own.georeference, grid, *_lattice(grid))
    covered = float(np.mean(_inside(own.grid, *points, margin=1e-3)))
    if covered == 0:  # it may be too small to be met by the grid's own points
        points = onto(own.georeference, grid, *_lattice(own.grid))
        if not _inside(grid, *points).any():
            return None
    on_pixels = not own.georeference.uses_gcps and any(
        own.grid.shape == other.shape
        and is_same_crs(own.grid.crs_wkt, other.crs_wkt)
        and own.grid.whole_pixel_offset(in_turn_of(other, own.grid)) == (0, 0)
        for other in (grid, scene.grid)
    )
    return _Fit(file=file, source=own, rank=0 if on_pixels else 1 if covered > _WHOLE else 2, covered=covered)


def _lattice(grid: Grid) -> tuple[Array, Array]:
    """Return rows and columns (points,) of `POINTS` x `POINTS` pixels that are spread over a grid."""
    rows, cols = np.meshgrid(_SAMPLES * grid.height, _SAMPLES * grid.width)
    return rows.ravel(), cols.ravel()


def _inside(grid: Grid, rows: Array, cols: Array, *, margin: float = 0) -> Array:
    """Return (points,) bool: the pixels that lie in a grid, or within a margin of it."""
    inside: Array = (rows > -margin) & (cols > -margin)
    return inside & (rows < grid.height + margin) & (cols < grid.width + margin)


def _plan(fit: _Fit, scene: SceneProbe, grid: Grid, *, exact: bool) -> LayerPlan:
    layer, header = fit.file.layer, fit.file.header
    kind = layer.kind_of(fit.source.dtype)
    try:
        onto = plan_warp(fit.source, grid, method=layer.method, kind=kind, exact=exact)
    except (InvalidInputError, UnsupportedRasterError) as error:
        raise type(error)(f"layer {layer.name!r} of scene {scene.id!r}: {error}") from error
    return LayerPlan(
        name=layer.name,
        kind=kind,
        onto=onto,
        covered=fit.covered,
        block_shape=header.block_shape,
        block_bytes=header.block_bytes,
        file=fit.file.stamp,
        factor=layer.factor,
        units=layer.units or "",
    )


def _check_unplaced(name: str, fits: Mapping[str, _Fit | None]) -> None:
    """Raise `InvalidInputError` where a file that says no place would be taken by several scenes."""
    owners: dict[Path, list[str]] = {}
    for scene, fit in fits.items():
        if fit is not None and not fit.file.is_placed:
            owners.setdefault(fit.file.path, []).append(scene)
    for path, scenes in owners.items():
        if len(scenes) > 1:
            raise InvalidInputError(
                f"expected one scene with the shape of {path.name!r} (layer {name!r}), which says no place, got "
                f"{len(scenes)}: {listed(scenes)}. Ingest its scene alone, or name a file after each scene."
            )


def _check_undated(
    name: str, fits: Mapping[str, _Fit | None], scenes: Sequence[tuple[SceneProbe, Grid]], named: _Named
) -> None:
    """Raise `InvalidInputError` where several scenes take a file of one date, and some of them tell no date."""
    owners: dict[Path, list[SceneProbe]] = {}
    for scene, _ in scenes:
        fit = fits.get(scene.id)
        if fit and fit.file.datetime and not (fit.file.layer.static or named[fit.file.path]):
            owners.setdefault(fit.file.path, []).append(scene)
    for path, takers in owners.items():
        undated = [scene.id for scene in takers if scene.acquisition.datetime is None]
        if undated and len(takers) > 1:
            raise InvalidInputError(
                f"expected one scene for {path.name!r} (layer {name!r}), which is of one date, got {len(takers)}, "
                f"and {listed(undated)} without a date. Name the file after its scene ({undated[0]}_{name}.tif), or, "
                f"if it holds for every date, say --layer {name}:static=FILE."
            )


def _of_other_dates(
    files: Sequence[LayerFile], scenes: Sequence[tuple[SceneProbe, Grid]]
) -> InvalidInputError | None:
    """Return the error where files of a layer lie on scenes, but are of other dates; None elsewhere."""
    for file in files:
        for scene, grid in scenes:
            when, other = file.datetime, scene.acquisition.datetime
            is_other = when and other and not is_one_pass(when, other)
            if is_other and not file.is_of(scene, ()) and _fit(file, scene, grid) is not None:
                return InvalidInputError(
                    f"expected a file of layer {file.layer.name!r} of a scene's date, got none: "
                    f"{file.path.name!r} is of {when}, and {scene.id!r} of {other}. If it holds for every date, say "
                    f"--layer {file.layer.name}:static=FILE."
                )
    return None


def _nobody(files: Sequence[LayerFile], scene: SceneProbe, grid: Grid) -> InvalidInputError:
    file = files[0]
    others = f" and {len(files) - 1} more" if files[1:] else ""
    height, width = file.source.grid.shape
    if file.is_placed and grid.is_georeferenced:
        why = "shares no ground with"
        remedy = "Check the file and its CRS, or leave the layer out."
    elif file.is_placed:
        why = f"is {height} x {width} pixels with a CRS, which cannot be laid on the pixels without one of"
        remedy = "Pass --crs and --pixel-size, or give it in the scene's own shape."
    else:
        why = f"is {height} x {width} pixels without a CRS, and has another shape than"
        remedy = "Georeference it, or give it in the scene's own shape."
    return InvalidInputError(
        f"expected a file of layer {file.layer.name!r} on a scene, got none: {file.path.name!r}{others} {why} "
        f"{scene.id!r}, {scene.grid.height} x {scene.grid.width}. {remedy}"
    )
