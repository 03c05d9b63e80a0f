"""Scenes as stacks see them: grid, view, arrays and time of each, and which of them belong together."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.footprint import Placement
from sarzarr.georeference import is_same_crs
from sarzarr.grid import WHOLE_PIXEL, Grid
from sarzarr.split_record import placements
from sarzarr.stacks import View

_VIEW_COLUMNS: Final = tuple(
    cv.CATALOG_COLUMNS[key] for key in (cv.PLATFORM, cv.INSTRUMENT_MODE, cv.ORBIT_STATE, cv.RELATIVE_ORBIT)
)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One scene, as far as stacks are concerned."""

    scene: str
    """Its id."""
    stamp: str
    """As `Stack.stamps`; empty where its time is not known."""
    view: View
    """From where it was seen."""
    keys: tuple[tuple[str, str], ...]
    """(name, bounds key) of each array that is asked for."""
    grid: Grid
    """Its grid."""
    points: str
    """What tells its ground control points from others; empty where an affine places it, or nothing."""

    @property
    def is_placed(self) -> bool:
        """Whether its pixels are tied to the ground."""
        return self.grid.is_georeferenced or bool(self.points)

    def shares_grid(self, other: "Member") -> bool:
        """Whether each pixel of one is the same pixel of the other: by shape alone where neither is placed."""
        if (self.grid.shape, self.points) != (other.grid.shape, other.points):
            return False
        if not (self.grid.is_georeferenced or other.grid.is_georeferenced):
            return True
        return is_same_crs(self.grid.crs_wkt, other.grid.crs_wkt) and (
            self.grid.whole_pixel_offset(other.grid) == (0, 0)
        )


def members_of(
    root: Path,
    catalog: xr.Dataset,
    *,
    scenes: Sequence[str] | None = None,
    polarizations: Sequence[str] | None = None,
) -> tuple[Member, ...]:
    """Return the scenes of a store's catalog, or those of ``scenes``, that have all the polarizations; by id."""
    known = placements(root, catalog)
    columns = ("scene", "name", "polarization", "bounds_key", cv.CATALOG_COLUMNS[cv.DATETIME], *_VIEW_COLUMNS)
    rows = zip(*(catalog[c].values.tolist() for c in columns), strict=True)
    out = []
    for scene, group in groupby(rows, key=lambda row: str(row[0])):
        arrays = list(group)
        keys = _keys(arrays, polarizations)
        if keys and (scenes is None or scene in scenes):
            place, (*_, time, platform, mode, state, orbit) = known[scene], arrays[0]
            out.append(
                Member(
                    scene=scene,
                    stamp=str(time).removesuffix("Z"),
                    view=_view(str(platform), str(mode), str(state), float(orbit)),
                    keys=keys,
                    grid=_grid(place),
                    points=place.fingerprint if place.is_located and not place.crs_wkt else "",
                )
            )
    return tuple(out)


def _keys(
    arrays: Iterable[tuple[Any, ...]], polarizations: Sequence[str] | None
) -> tuple[tuple[str, str], ...]:
    """Return (name, bounds key) of what is asked of one scene, in that order; empty if it lacks any."""
    named = {str(name): (str(polarization).lower(), str(key)) for _, name, polarization, key, *_ in arrays}
    if polarizations is None:
        return tuple(sorted((name, key) for name, (_, key) in named.items()))
    out = []
    for word in (p.lower() for p in polarizations):
        found = [n for n in named if n.lower() == word] or [n for n, (p, _) in named.items() if p == word]
        if len(found) != 1:
            return ()
        out.append((found[0], named[found[0]][1]))
    return tuple(out)


def _grid(place: Placement) -> Grid:
    a, b, c, d, e, f = place.transform
    return Grid(
        height=place.height,
        width=place.width,
        transform=(a, b, c, d, e, f),
        crs_wkt=place.crs_wkt or None,
    )


def _view(platform: str, mode: str, orbit_state: str, relative_orbit: float) -> View:
    return View(
        mission=re.sub(r"(?<=-\d)[a-d]$", "", platform),
        mode=mode,
        orbit_state=orbit_state,
        relative_orbit=0 if math.isnan(relative_orbit) else int(relative_orbit),
    )


def groups_of(members: Sequence[Member]) -> Iterable[list[Member]]:
    """Yield the members of one view, one set of arrays and one grid."""
    alike: dict[Any, list[Member]] = {}
    for member in members:
        key = (member.view, member.keys, member.grid.shape, member.points, member.grid.is_georeferenced)
        alike.setdefault(key, []).append(member)
    for some in alike.values():
        yield from _on_one_grid(some)


def _on_one_grid(members: Sequence[Member]) -> list[list[Member]]:
    """Return members of equal shape by their grids: each is compared with those whose origin is near its own."""
    groups: list[list[Member]] = []
    origins = np.empty((len(members), 2))
    for member in members:
        origin = np.array([member.grid.transform[2], member.grid.transform[5]])
        near = np.abs(origins[: len(groups)] - origin) <= 4 * WHOLE_PIXEL * max(member.grid.pixel_size)
        at = np.flatnonzero(near.all(1) | (not member.grid.is_georeferenced))
        home = next((groups[i] for i in at.tolist() if groups[i][0].shares_grid(member)), None)
        if home is None:
            origins[len(groups)] = origin
            groups.append([member])
        else:
            home.append(member)
    return groups
