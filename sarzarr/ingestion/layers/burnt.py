"""Layers of polygons: burnt onto a scene's grid, block by block, from what was read of their file."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sarzarr import conventions as cv
from sarzarr.grids.burn import burn
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.warp.plan import LAYER, WarpSource, plan_warp
from sarzarr.ingestion.layers.plan import LayerPlan
from sarzarr.ingestion.layers.polygon_classes import PolygonFile
from sarzarr.rasters import FileStamp

BACKGROUND = "background"
"""The name of value 0, which no polygon covers."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PolygonLayer:
    """A layer of polygons, the same for every scene."""

    name: str
    """The array's name in its scene group."""
    file: FileStamp
    """The file, by all of its bytes."""
    polygons: PolygonFile
    """The polygons in it."""
    classes: Mapping[int, str]
    """The name of each value but 0."""
    column: str | None = None
    """The property, or the column, that has the class of a feature."""
    table: str | None = None
    """The table of a file that has several."""
    all_touched: bool = False
    """Whether a pixel counts that a polygon touches; else one whose centre it covers."""

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes that say what its values are, and how they were made."""
        names = {"0": BACKGROUND} | {str(value): name for value, name in sorted(self.classes.items())}
        told = {cv.SOURCE_COLUMN: self.column, cv.SOURCE_TABLE: self.table}
        told = {key: value for key, value in told.items() if value is not None}
        return {cv.CLASSES: names, cv.ALL_TOUCHED: self.all_touched, **told}

    def on(self, scene: str, place: Georeference) -> LayerPlan:
        """Return the layer of a scene, on its own grid (rows, columns); raises as `sarzarr.grids.burn.burn`.

        Values are uint8 with nodata 255, uint16 with 65535 where there are classes above 254: no pixel has it, so
        that patches can be padded.
        """
        dtype, nodata = ("uint8", 255) if max(self.classes) < 255 else ("uint16", 65535)
        polygons, values = self.polygons, self.polygons.values(self.classes)
        burnt = burn(
            polygons.polygons,
            values,
            polygons.crs,
            replace(place, name=scene),
            dtype=dtype,
            all_touched=self.all_touched,
        )
        source = WarpSource(
            path=self.file.path,
            band=1,
            representation=LAYER,
            dtype=dtype,
            georeference=place,
            nodata=nodata,
            field=burnt,
        )
        return LayerPlan(
            name=self.name,
            kind="classes",
            onto=plan_warp(source, place.grid, kind="classes"),
            covered=1.0,
            block_shape=(cv.CHUNK, cv.CHUNK),
            block_bytes=0,
            file=self.file,
            more=self.attrs,
        )
