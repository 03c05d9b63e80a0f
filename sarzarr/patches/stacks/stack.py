"""A stack: scenes of one grid and one viewing geometry, in the order of their times."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError
from sarzarr.grids.crs import is_same_crs
from sarzarr.grids.grid import WHOLE_PIXEL, Grid
from sarzarr.store.store import Store

_DAY_NS: Final = 86_400e9


@dataclass(frozen=True, kw_only=True)
class View:
    """The viewing geometry of a scene; empty or 0 is not known."""

    mission: str = ""
    """The platform without its unit: ``sentinel-1`` for ``sentinel-1a``."""
    mode: str = ""
    """Instrument mode: ``IW``."""
    orbit_state: str = ""
    """The pass: ``ascending`` or ``descending``."""
    relative_orbit: int = 0
    """The track."""

    def contradicts(self, other: "View") -> bool:
        """Whether something is known of both and differs."""
        return any(a and b and a != b for a, b in zip(astuple(self), astuple(other), strict=True))

    def common(self, other: "View") -> "View":
        """Return the view of what is known of both, and equal."""
        return View(**dict(asdict(self).items() & asdict(other).items()))

    def __str__(self) -> str:
        orbit = f"orbit {self.relative_orbit}" if self.relative_orbit else ""
        return " ".join(filter(None, (self.mission, self.mode, orbit, self.orbit_state))) or "orbit unknown"


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Scenes on one grid, by time. Holds names and numbers alone: it pickles, and two alike are equal."""

    scenes: tuple[str, ...]
    """Ids of scenes, by time."""
    stamps: tuple[str, ...]
    """The time of each: UTC, ISO 8601 without a zone."""
    arrays: tuple[str, ...]
    """Names of the arrays that every scene has, of one quantity each."""
    grid: Grid
    """The grid of its first scene."""
    view: View = field(default_factory=View)
    """The viewing geometry."""
    is_placed: bool = True
    """False where nothing ties pixels to the ground, so that equal shapes are all that speaks for one grid."""

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def id(self) -> str:
        """The id of its first scene; any scene of a stack names it."""
        return self.scenes[0]

    @cached_property
    def times(self) -> np.ndarray[Any, np.dtype[np.datetime64]]:
        """(dates,) datetime64[ns] UTC, ascending."""
        return np.array(self.stamps, "datetime64[ns]")

    @property
    def seconds(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(dates,) seconds since 1970, UTC."""
        return self.times.astype(np.int64) / 1e9

    @property
    def revisit_days(self) -> float:
        """Mean days from one date to the next; NaN of a single date."""
        span = float((self.times[-1] - self.times[0]).astype(np.int64)) / _DAY_NS
        return span / (len(self) - 1) if len(self) > 1 else float("nan")

    def window(self, first: int, length: int) -> "Stack":
        """Return the stack of (length,) dates in a row, from date number ``first`` on."""
        if first < 0 or length < 1 or first + length > len(self):
            raise InvalidInputError(
                f"a window within {len(self)} dates was expected, got {length} from number {first} on. "
                "Ask for fewer."
            )
        dates = slice(first, first + length)
        return replace(self, scenes=self.scenes[dates], stamps=self.stamps[dates])

    def check_times(self) -> None:
        """Raise `InvalidInputError` where two scenes are of one time: their order would be arbitrary."""
        for (one, time), (other, next_time) in pairwise(zip(self.scenes, self.stamps, strict=True)):
            if time == next_time:
                raise InvalidInputError(
                    f"one scene per time was expected, got {one!r} and {other!r} both at {time}. Leave one out with "
                    "scenes=, or give their times with make_stack(store, scenes, times=...)."
                )

    def __str__(self) -> str:
        return (
            f"{self.id}: {len(self)} scenes, {self.stamps[0]} to {self.stamps[-1]}, every "
            f"{self.revisit_days:.3g} days, {self.view}, {self.grid.height} x {self.grid.width}, "
            f"{'+'.join(self.arrays)}" + ("" if self.is_placed else ", no CRS: one grid by shape alone")
        )


_VIEW_COLUMNS: Final = tuple(
    cv.CATALOG_COLUMNS[key] for key in (cv.PLATFORM, cv.INSTRUMENT_MODE, cv.ORBIT_STATE, cv.RELATIVE_ORBIT)
)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One scene, as far as stacks are concerned."""

    scene: str
    """Its id."""
    stamp: str
    """Its time, as in `Stack.stamps`; empty where that is not known."""
    view: View
    """Its viewing geometry."""
    keys: tuple[tuple[str, str], ...]
    """(name, bounds key) of each array that is asked for."""
    grid: Grid
    """Its grid."""
    points: str
    """Fingerprint of its ground control points; empty where an affine places it, or nothing."""

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
        is_one_crs = is_same_crs(self.grid.crs_wkt, other.grid.crs_wkt)
        return is_one_crs and self.grid.whole_pixel_offset(other.grid) == (0, 0)


def members_of(
    store: Store,
    *,
    scenes: Sequence[str] | None = None,
    polarizations: Sequence[str] | None = None,
) -> tuple[Member, ...]:
    """Return the scenes of a store, or those of ``scenes``, that have all the polarizations; by id."""
    catalog, known = store.catalog, store.placements
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
                    view=View(
                        mission=re.sub(r"(?<=-\d)[a-d]$", "", platform),
                        mode=mode,
                        orbit_state=state,
                        relative_orbit=0 if math.isnan(orbit) else int(orbit),
                    ),
                    keys=keys,
                    grid=place.grid,
                    points=place.fingerprint if place.is_located and not place.grid.crs_wkt else "",
                )
            )
    return tuple(out)


def _keys(
    arrays: Iterable[tuple[Any, ...]], polarizations: Sequence[str] | None
) -> tuple[tuple[str, str], ...]:
    """Return (name, bounds key) of each polarization that is asked for, in that order; empty if a scene lacks any."""
    named = {str(name): (str(polarization).lower(), str(key)) for _, name, polarization, key, *_ in arrays}
    if polarizations is None:
        return tuple(sorted((name, key) for name, (_, key) in named.items()))
    out = []
    for word in (p.lower() for p in polarizations):
        names = [n for n in named if n.lower() == word] or [n for n, (p, _) in named.items() if p == word]
        if len(names) != 1:
            return ()
        out.append((names[0], named[names[0]][1]))
    return tuple(out)


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
        some = np.flatnonzero(near.all(1) | (not member.grid.is_georeferenced))
        home = next((groups[i] for i in some.tolist() if groups[i][0].shares_grid(member)), None)
        if home is None:
            origins[len(groups)] = origin
            groups.append([member])
        else:
            home.append(member)
    return groups
