"""The rows of a store's catalog, found by scene."""

from typing import Any

import xarray as xr

from sarzarr import conventions as cv
from sarzarr.errors import NotInStoreError
from sarzarr.grids.grid import Grid


class RowsOfScenes:
    """The rows of each scene in a catalog, found once for all of them: what is asked of one does not take the others.

    A row is of one array, or of no name of a scene of layers alone.
    """

    def __init__(self, listing: xr.Dataset) -> None:
        self._columns = {name: listing[name].values for name in cv.CATALOG_SCHEMA}
        names = listing["scene"].values.tolist()
        self._rows: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            self._rows.setdefault(name, []).append(row)
        self.scenes = tuple(self._rows)
        self._last: tuple[str, list[dict[str, Any]]] = ("", [])

    def __getitem__(self, scene: str) -> slice | list[int]:
        """Return the numbers of a scene's rows, one at least; `NotInStoreError` where there is none."""
        rows = self._rows.get(scene)
        if rows is None:
            near = ", ".join(self.scenes[:5]) + (", ..." if len(self.scenes) > 5 else "")
            raise NotInStoreError(f"scene must be one of {len(self.scenes)} ({near}), got {scene!r}.")
        follow = rows[-1] - rows[0] == len(rows) - 1
        return slice(rows[0], rows[-1] + 1) if follow else rows  # a slice costs xarray a tenth

    def __contains__(self, scene: object) -> bool:
        return scene in self._rows

    def dicts(self, scene: str) -> list[dict[str, Any]]:
        """Return a scene's rows as `sarzarr.store.catalog.catalog_rows` does; errors are those of ``[]``."""
        last, found = self._last
        if last != scene or not found:
            _, rows = self[scene], self._rows[scene]
            found = [{name: column[row] for name, column in self._columns.items()} for row in rows]
            self._last = scene, found  # one at a time is asked for, again and again
        return [{**row} for row in found]

    def grid(self, scene: str) -> Grid:
        """Return the grid of a scene: (rows, columns), transform, CRS; errors are those of ``[]``."""
        row = self.dicts(scene)[0]
        a, b, c, d, e, f = (float(v) for v in row["transform"])
        height, width, crs_wkt = int(row["height"]), int(row["width"]), str(row["crs_wkt"]) or None
        return Grid(height=height, width=width, transform=(a, b, c, d, e, f), crs_wkt=crs_wkt)
