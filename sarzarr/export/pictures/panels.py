"""Figures of matplotlib: panels in rows, and the files that they are written to."""

import io
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from sarzarr.errors import InvalidInputError, MissingExtraError

NODATA_COLOUR: Final = "#3b6fb6"
"""Of pixels that are not valid, in pictures from black to white."""
HATCH: Final[dict[str, Any]] = {"facecolor": "white", "edgecolor": "#9a9a9a", "hatch": "////", "linewidth": 0}
"""Of pixels that are not valid, in pictures in colour: no colour is left to tell them."""
INCHES: Final = {1: 7.0, 4: 5.0, 6: 4.4}
"""Width of a panel by the greatest number of panels that have it."""
NARROWEST: Final = 3.4
"""Width of a panel of a picture of more."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A picture in panels, before it is drawn."""

    panels: Sequence[Callable[[Any], None]]
    """The drawing of each panel, into an axis."""
    title: str
    """What it shows, in a line or two."""
    notes: str = ""
    """What must be known to read it."""
    legend: Sequence[Any] = ()
    """matplotlib's handles of a legend below."""
    tall: float = 1.0
    """Height of a panel's picture by its width, of those that are shown."""
    across: int = 4
    """Panels in a row, at most; 4 are fewer where there are few panels."""
    drawn: float = 0.86
    """Share of a panel's width that its picture has; a scale has the rest."""
    text: float = 0.62
    """Inches of a panel's height that its texts have."""
    inches: float | None = None
    """Width of a panel, where it does not follow from their number."""


def check_picture(figure: Any, place: Path) -> None:
    """Raise `InvalidInputError` where matplotlib writes no such picture, or its folder is not there."""
    formats = figure.canvas.get_supported_filetypes()
    if place.suffix.removeprefix(".").lower() not in formats:
        raise InvalidInputError(
            f"a picture such as NAME.png was expected, got {str(place)!r}. End its name in one of: "
            f"{', '.join(sorted(formats))}."
        )
    if not place.parent.is_dir():
        raise InvalidInputError(
            f"a folder for the picture was expected, got {str(place.parent)!r}, which is not there. Make it first."
        )


@cache
def figure_class() -> type[Any]:
    """Return matplotlib's Figure as notebooks show it inline, whether pyplot was imported or not.

    `MissingExtraError` where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(
            "matplotlib was expected, got none. Install it: pip install 'sarzarr[plot]'."
        ) from None

    class Picture(Figure):
        """A figure that a notebook shows as a PNG."""

        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png")
            return stream.getvalue()

    return Picture


def new_figure(inches: tuple[float, float], *, dpi: int) -> Any:
    """Return an empty matplotlib figure, ``inches`` wide and high; `MissingExtraError` without matplotlib."""
    return figure_class()(figsize=inches, layout="constrained", dpi=dpi)


def empty_panels(
    count: int, *, across: int, inches: tuple[float, float], legend: float = 0, dpi: int
) -> tuple[Any, Any]:
    """Return a matplotlib figure and the axes (panels,) of its panels, ``inches`` wide and high, in rows.

    Below them ``legend`` inches are left free. `MissingExtraError` where matplotlib is not installed.
    """
    columns = min(max(count, 1), across)
    rows = math.ceil(max(count, 1) / columns)
    size = inches[0] * columns, inches[1] * rows + legend
    figure = new_figure(size, dpi=dpi)
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def draw_sheet(sheet: Sheet) -> Any:
    """Return the figure of a sheet: its title above, its legend and notes below, wrapped to its width."""
    count = len(sheet.panels)
    wide = sheet.inches or next((inches for most, inches in INCHES.items() if count <= most), NARROWEST)
    across = {1: 1, 2: 2, 3: 3, 4: 2}.get(count, sheet.across) if sheet.across == 4 else sheet.across
    columns = min(count, across)
    title = textwrap.fill(sheet.title, _letters(wide * columns, 11))
    notes = textwrap.fill(sheet.notes, _letters(wide * columns, 8))
    longest = max((len(str(handle.get_label())) for handle in sheet.legend), default=0) + 8
    side_by_side = max(min(_letters(wide * columns, 8) // longest, len(sheet.legend)), 1)
    lines = math.ceil(len(sheet.legend) / side_by_side) + notes.count("\n") + 1
    figure, axes = empty_panels(
        count,
        across=across,
        inches=(wide, wide * sheet.drawn * min(max(sheet.tall, 0.3), 1.6) + sheet.text),
        legend=0.17 * lines + 0.2 * (title.count("\n") + 2),
        dpi=110,
    )
    for axis, draw in zip(axes, sheet.panels, strict=True):
        draw(axis)
    figure.suptitle(title, fontsize=11)
    if sheet.legend:
        figure.legend(
            handles=list(sheet.legend),
            loc="outside lower center",
            ncols=side_by_side,
            fontsize=8,
            frameon=False,
            title=notes or None,
            title_fontsize=8,
        )
    elif notes:
        figure.supxlabel(notes, fontsize=8)
    return figure


def _letters(inches: float, points: float) -> int:
    """Return how many letters of a size fit into a width."""
    return max(int(inches * 72 / (0.56 * points)), 20)
