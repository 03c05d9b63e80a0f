"""Figures of matplotlib: panels in rows, and the files that they are written to."""

import math
from pathlib import Path
from typing import Any

from sarzarr.errors import InvalidInputError, MissingExtraError


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


def new_figure(inches: tuple[float, float], *, dpi: int) -> Any:
    """Return an empty matplotlib figure, ``inches`` wide and high; `MissingExtraError` without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(
            "matplotlib was expected, got none. Install it: pip install 'sarzarr[plot]'."
        ) from None
    return Figure(figsize=inches, layout="constrained", dpi=dpi)


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
