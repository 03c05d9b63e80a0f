"""Sheets of stacks: a panel per date, the mean of all in power, and their coefficient of variation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.export.pictures.panels import HATCH, Sheet
from sarzarr.export.pictures.scene_panels import (
    PANEL_PIXELS,
    SceneFrame,
    band_name,
    bounds_keys,
    colour_bar,
    grey,
    minute,
    not_valid,
    step_of,
)
from sarzarr.export.pictures.small import small_db
from sarzarr.export.pictures.upright import draw_scale
from sarzarr.patches.stacks.find import named_stacks
from sarzarr.patches.stacks.stack import Stack
from sarzarr.pixels.radiometry import from_db, to_db
from sarzarr.store.store import Store
from sarzarr.text import listed

MOST_DATES: Final = 60
"""Dates that are read, at most: of more, as many evenly apart."""
MOST_PANELS: Final = 24
"""Panels of one picture, at most."""


def one_stack(store: Store, stack: Stack | str | bool, scenes: Sequence[str] | None) -> Stack:
    """Return the stack that is named: a `Stack`, the id of a scene of one, or True, the only one of the store.

    Raises `InvalidInputError` where there are several, or as of `sarzarr.open_stack`.
    """
    one, *others = named_stacks(store, stack, scenes=scenes)
    if others:
        ids = listed(repr(s.id) for s in (one, *others))
        raise InvalidInputError(f"one stack was expected, got {1 + len(others)}. Name a scene of one: {ids}.")
    return one


def evenly(count: int, most: int) -> list[int]:
    """Return the numbers of at most ``most`` of ``count`` things, evenly apart, the first and the last among them.

    >>> evenly(4, 9), evenly(100, 5)
    ([0, 1, 2, 3], [0, 25, 50, 74, 99])
    """
    numbers: list[int] = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()
    return numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class StackOverTime:
    """One array of a stack, decimated; its statistics are of `MOST_DATES` dates at the most."""

    store: Store
    """The store."""
    stack: Stack
    """Scenes on one grid."""
    array: str
    """The array's name."""

    @property
    def dates(self) -> list[int]:
        """Numbers of the dates that are read."""
        return evenly(len(self.stack), MOST_DATES)

    def small(self, date: int) -> Any:
        """Return a date in dB (rows, columns) float32, averaged in power."""
        return small_db(self.store, self.stack.scenes[date], self.array, pixels=PANEL_PIXELS)

    @cached_property
    def moments(self) -> tuple[Array, Array]:
        """Mean in dB and coefficient of variation over time (rows, columns) float64, both of linear power.

        Standard deviation by mean, of the dates where a pixel is valid, with n in the denominator. NaN in the mean of
        pixels without a valid date, and in the other of those with fewer than two, or of no power. One date is held
        at a time (Welford's method).
        """
        count = mean = squares = np.zeros((1, 1))
        for date in self.dates:
            power = from_db(self.small(date).values.astype(np.float64))
            is_valid = np.isfinite(power)
            if count.shape != power.shape:
                count, mean, squares = np.zeros((3, *power.shape))
            count += is_valid
            off = np.where(is_valid, power - mean, 0)
            mean += off / np.maximum(count, 1)
            squares += off * np.where(is_valid, power - mean, 0)
        mean = np.where(count > 0, mean, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            varies = np.sqrt(squares / count) / mean
        return np.asarray(to_db(mean)), np.where((count > 1) & (mean > 0), varies, np.nan)


def stack_sheet(store: Store, stack: Stack) -> Sheet:
    """Return the sheet of a stack: of each array some dates evenly apart, then mean and variation over time.

    Dates and mean are drawn over the clip of the array's group in dB; the variation from 0 to its 99th percentile.
    """
    from matplotlib.patches import Patch

    frame = SceneFrame.of(store, stack.id)
    room = max(MOST_PANELS // len(stack.arrays) - 2, 1)
    panels, shown = [], 0
    for name in stack.arrays:
        over_time = StackOverTime(store=store, stack=stack, array=name)
        dates = evenly(len(over_time.dates), room)
        shown = len(dates)
        panels += [
            partial(_draw_date, over_time=over_time, frame=frame, date=over_time.dates[i]) for i in dates
        ]
        panels += [partial(draw, over_time=over_time, frame=frame) for draw in (_draw_mean, _draw_variation)]
    read = len(evenly(len(stack), MOST_DATES))
    size = " x ".join(map(str, stack.grid.shape))
    step = -(-max(stack.grid.shape) // PANEL_PIXELS)
    averaged = f"pixels of {step} x {step} averaged in power before; " if step > 1 else ""
    drawn = (
        "all dates are shown"
        if shown == len(stack)
        else f"{shown} of {len(stack)} dates are shown, evenly apart"
    )
    counted = "all dates" if read == len(stack) else f"{read} dates, evenly apart"
    lies = f"; {frame.lies.words}" if frame.lies.words else ""
    return Sheet(
        panels=panels,
        title=f"{store.place.name}: stack {stack.id}, {len(stack)} dates, {minute(stack.stamps[0])} to "
        f"{minute(stack.stamps[-1])}, {stack.view}, {size}",
        notes=f"{drawn}; mean (in power, shown in dB) and coefficient of variation (standard deviation / mean of "
        f"power; 1/sqrt(L) of steady speckle of L looks) are of {counted}; {averaged}dates and mean over the clip of "
        f"their group{lies}",
        legend=[not_valid(), Patch(**HATCH, label="valid on fewer than 2 dates")],
        tall=frame.tall,
        across=shown + 2 if len(stack.arrays) > 1 and shown <= 4 else 4,
    )


def _draw_date(axis: Any, *, over_time: StackOverTime, frame: SceneFrame, date: int) -> None:
    name = f"{band_name(over_time.array)} {minute(over_time.stack.stamps[date])}"
    small = over_time.small(date)
    _draw_db(axis, over_time, frame, small.values, name)


def _draw_mean(axis: Any, *, over_time: StackOverTime, frame: SceneFrame) -> None:
    _draw_db(axis, over_time, frame, over_time.moments[0], f"{band_name(over_time.array)} mean over time")


def _draw_db(axis: Any, over_time: StackOverTime, frame: SceneFrame, values: Array, name: str) -> None:
    clip = over_time.store.bounds[bounds_keys(over_time.store, over_time.stack.id)[over_time.array]].clip
    _draw(axis, frame, values, name, {"cmap": grey(), "vmin": clip.vmin, "vmax": clip.vmax, "label": "dB"})


def _draw_variation(axis: Any, *, over_time: StackOverTime, frame: SceneFrame) -> None:
    from matplotlib import colormaps

    values = over_time.moments[1]
    most = float(np.nanpercentile(values, 99)) if np.isfinite(values).any() else 1.0
    axis.patch.set(**HATCH)
    name = f"{band_name(over_time.array)} coefficient of variation"
    _draw(
        axis,
        frame,
        values,
        name,
        {"cmap": colormaps["cividis"], "vmin": 0, "vmax": most or 1.0, "label": "std / mean"},
    )


def _draw(axis: Any, frame: SceneFrame, values: Array, name: str, style: dict[str, Any]) -> None:
    label = style.pop("label")
    extent = frame.extent(values.shape, step_of(values.shape, frame.shape))
    seen = np.ma.masked_invalid(frame.turned(values))
    drawn = axis.imshow(seen, extent=extent, interpolation="nearest", aspect=frame.lies.aspect, **style)
    axis.set_title(name, fontsize=8)
    draw_scale(axis, frame.lies, frame.drawn_shape[1], frame.drawn_shape[0])
    colour_bar(axis, drawn, label)
