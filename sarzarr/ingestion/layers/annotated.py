"""Layers that a product's annotation tells: the angle of incidence, and the noise equivalent sigma0."""

from collections.abc import Iterator, Sequence

from sarzarr.errors import UnsupportedRasterError
from sarzarr.grids.grid import Grid
from sarzarr.grids.warp.plan import LAYER, WarpSource, plan_warp
from sarzarr.ingestion.layers.plan import LayerPlan
from sarzarr.pixels.calibration import Field
from sarzarr.rasters import FileStamp
from sarzarr.scenes.probe import ArrayProbe
from sarzarr.scenes.products.table import read_product
from sarzarr.scenes.scene import SceneProbe


def annotated_layers(scene: SceneProbe, grid: Grid, names: Sequence[str]) -> tuple[LayerPlan, ...]:
    """Return the layers of a scene that its annotation tells, float32, on the grid (rows, columns) that is stored.

    Raises `UnsupportedRasterError` where there is no annotation, or it does not tell them.
    """
    layers = []
    for name in names:
        found = list(_fields(scene, name))
        if not found:
            raise UnsupportedRasterError(
                f"expected a product whose annotation says {name} of scene {scene.id!r}, got none around its files. "
                "Give the product whole, as it was downloaded, or leave out --annotation."
            )
        layers += [_plan(scene, grid, array, layer, field) for array, layer, field in found]
    return tuple(layers)


def _fields(scene: SceneProbe, name: str) -> Iterator[tuple[ArrayProbe, str, Field]]:
    """Yield the array whose file tells a field, the layer's name, and the field: of an angle the first one alone."""
    for array in scene.arrays:
        fields = read_product(array.path).fields
        if name in fields:
            is_angle = name == "incidence_angle"
            yield array, name if is_angle else f"{name}_{array.name}", fields[name](scene.grid.shape)
            if is_angle:
                return


def _plan(scene: SceneProbe, grid: Grid, array: ArrayProbe, name: str, field: Field) -> LayerPlan:
    source = WarpSource(
        path=field.path,
        band=1,
        representation=LAYER,
        dtype="float32",
        georeference=scene.georeference,
        field=field,
    )
    return LayerPlan(
        name=name,
        kind="continuous",
        onto=plan_warp(source, grid, kind="continuous"),
        covered=1.0,
        block_shape=array.block_shape,
        block_bytes=0,
        file=FileStamp.of(field.path),
        units=field.units,
    )
