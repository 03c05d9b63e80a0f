"""A stack: scenes of one grid and one viewing geometry, in the order of their times."""

from dataclasses import asdict, astuple, dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

import numpy as np

from sarzarr.errors import InvalidInputError
from sarzarr.grids.grid import Grid

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
    look_side: str = ""
    """The side of the track that the antenna looks to: ``left`` or ``right``."""

    def contradicts(self, other: "View") -> bool:
        """Whether something is known of both and differs."""
        return any(a and b and a != b for a, b in zip(astuple(self), astuple(other), strict=True))

    def common(self, other: "View") -> "View":
        """Return the view of what is known of both, and equal."""
        return View(**dict(asdict(self).items() & asdict(other).items()))

    def __str__(self) -> str:
        orbit = f"orbit {self.relative_orbit}" if self.relative_orbit else ""
        side = "looking left" if self.look_side == "left" else ""
        return (
            " ".join(filter(None, (self.mission, self.mode, orbit, self.orbit_state, side)))
            or "orbit unknown"
        )


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
    is_one_view: bool = True
    """False where scenes tell neither track nor time of day, so that nothing speaks against one view, and nothing for."""

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def is_certain(self) -> bool:
        """Whether its scenes are known to be of one grid and one view; else it is delivered only where it is named."""
        return self.is_placed and self.is_one_view

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
        """Mean days, float64, from one date to the next; NaN of a single date."""
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
            f"{'+'.join(self.arrays)}"
            + ("" if self.is_placed else ", no CRS: one grid by shape alone")
            + ("" if self.is_one_view else ", no track and no time of day: one view by guess")
        )
