"""Maps of footprints: a panel for each region, north up and true to scale, and where in the world each of them is.

There are no coastlines: nothing is loaded from a network, and none are carried along. The world is told by its
graticule and its named latitudes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.export.pictures.panels import new_figure
from sarzarr.export.pictures.regions import EARTH_KM, MapRegion, MapScene, find_regions
from sarzarr.export.pictures.upright import length_text, round_length
from sarzarr.grids.footprint import positions_of
from sarzarr.store.split_table import Recipe
from sarzarr.text import counted

UNSPLIT: Final = 4
"""The code of cells that no split knows."""
COLOURS: Final[Mapping[int, str]] = {
    cv.Membership.HELD_BACK: "#b4b9c1",
    cv.Membership.TRAIN: "#0072b2",
    cv.Membership.VAL: "#e69f00",
    cv.Membership.TEST: "#cc79a7",
    UNSPLIT: "#56b4e9",
}
"""Of cells, in the colours of Okabe and Ito (2008), which colour-blind people tell apart; blocks are paler."""
NAMES: Final[dict[int, str]] = {
    **{int(m): m.name.lower().replace("_", " ") for m in cv.Membership},
    UNSPLIT: "in no split",
}
MAX_REGIONS: Final = 9
"""Regions of one picture, at most."""
PANEL: Final = 4.0
"""Inches of a panel's sides."""
LOCATOR: Final = 2.7
"""Inches of the world's height."""
DPI: Final = 120
FINEST: Final = 1.5
"""Dots of a cell's side below which cells are thinned out."""
MAX_CELLS: Final = 60_000
"""Cells that a panel draws, at most; of more, every n-th of a row and a column."""
EDGED: Final = 8.0
"""Dots of a cell's side from which on a white edge is drawn about it."""
SEEN_BLOCK: Final = 14.0
"""Dots of a block's side from which on blocks are drawn: finer ones are noise."""
GRID_COLOUR: Final = "#8b929c"
BAR_COLOUR: Final = "#1b2430"
LATITUDES: Final = {
    66.56: "Arctic Circle",
    23.44: "Tropic of Cancer",
    0.0: "Equator",
    -23.44: "Tropic of Capricorn",
    -66.56: "Antarctic Circle",
}
STEPS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
"""Degrees between the lines of a graticule."""


def draw_map(
    scenes: Sequence[MapScene], *, recipe: Recipe | None = None, extra: int = 0, legend: float = 0.5
) -> tuple[Any, list[Any], str]:
    """Return a figure with a world and a panel for each region, ``extra`` empty axes, and what it does not show.

    Regions are numbered, those of most scenes first; `MAX_REGIONS` at the most. ``recipe`` is of the split whose
    blocks of ground are drawn behind the cells. Below are ``legend`` inches for a legend. The text is empty where
    every scene is shown. `MissingExtraError` where matplotlib is not installed.
    """
    regions, lost = find_regions(scenes, most=MAX_REGIONS)
    shown = regions[:MAX_REGIONS]
    panels = len(shown) + extra
    columns = 1 if panels <= 1 else 2 if panels in (2, 4) else 3
    rows = math.ceil(max(panels, 1) / columns)
    width = max(PANEL * columns, 6.6)
    top = LOCATOR if shown else 0.0
    figure = new_figure((width, top + (PANEL + 0.4) * rows + legend), dpi=DPI)
    free = legend / figure.get_figheight()
    figure.get_layout_engine().set(rect=(0, free, 1, 1 - free), hspace=0.03)
    heights = [top, *[PANEL] * rows] if shown else [PANEL] * rows
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    if shown:
        draw_world(figure.add_subplot(grid[0, :]), regions, len(shown))
    first = int(bool(shown))
    axes = [figure.add_subplot(grid[first + n // columns, n % columns]) for n in range(panels)]
    for number, (axis, region) in enumerate(zip(axes, shown, strict=False), 1):
        draw_region(axis, [scenes[i] for i in region.members], region, recipe)
        axis.set_title(f"{number}: {place_text(region)}, {counted(len(region.members), 'scene')}", fontsize=9)
    return figure, axes[len(shown) :], _left_out(regions, len(lost))


def _left_out(regions: Sequence[MapRegion], lost: int) -> str:
    rest = regions[MAX_REGIONS:]
    scenes = sum(len(r.members) for r in rest)
    said = f"{counted(len(rest), 'more region')} with {counted(scenes, 'scene')} not shown" if rest else ""
    nowhere = f"{counted(lost, 'scene')} without a place in the world" if lost else ""
    return "; ".join(filter(None, (said, nowhere)))


def add_legend(figure: Any, counts: Mapping[int, int]) -> None:
    """Add a legend below the maps of a figure: cells of each code, in one row or two; those of none are left out."""
    handles = map_legend(counts)
    across = len(handles) if figure.get_figwidth() > 10 else 3
    figure.legend(handles=handles, loc="lower center", ncols=across, frameon=False, fontsize=9)


def map_legend(counts: Mapping[int, int]) -> list[Any]:
    """Return the handles of a legend: colours with cells of each code; those of no cells are left out."""
    from matplotlib.patches import Patch

    return [
        Patch(color=colour, label=f"{NAMES[code]}: {counted(counts[code], 'cell')}")
        for code, colour in COLOURS.items()
        if counts.get(code)
    ]


def place_text(region: MapRegion) -> str:
    """Return the middle of a region in degrees, for people: ``48.7° N 15.0° E``."""
    lat, lon = round(region.lat, 1), round(region.lon, 1)
    return f"{abs(lat):.1f}° {'NS'[lat < 0]} {abs(lon):.1f}° {'EW'[lon < 0]}"


# ------------------------------------------------------------------ a region
def draw_region(axis: Any, scenes: Sequence[MapScene], region: MapRegion, recipe: Recipe | None) -> None:
    """Draw the cells of scenes in kilometres about a region's middle: equal-area, north up there."""
    half = max(region.radius * 1.06, 0.05)
    axis.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    dots = PANEL * DPI / (2 * half)
    if recipe is not None and recipe.by == "ground" and recipe.block / 1000 * dots >= SEEN_BLOCK:
        _draw_blocks(axis, region, recipe)
    own = list({(s.placement.fingerprint, s.codes.tobytes()): s for s in scenes}.values())
    for code, (quads, wide) in sorted(_quads(own, region, dots).items()):  # what is rare stays on top
        edge, width = ("white", 0.4) if wide * dots >= EDGED else (COLOURS[code], 0.6)
        _fill(axis, quads, facecolors=COLOURS[code], edgecolors=edge, linewidths=width, zorder=2)
    _draw_graticule(axis, region, half)
    _draw_scale(axis, half)


def _quads(scenes: Sequence[MapScene], region: MapRegion, dots: float) -> dict[int, tuple[Array, float]]:
    """Return the corners (n, 4, 2) in km of the cells of each code, and the median km of their sides."""
    total = sum(s.codes.size for s in scenes)
    least = math.ceil(math.sqrt(total / MAX_CELLS))
    parts: dict[int, list[Array]] = {}
    for s in scenes:
        lines = [
            np.minimum(np.arange(n + 1) * cv.CELL, size)
            for n, size in zip(s.codes.shape, s.placement.grid.shape, strict=True)
        ]
        step = max(least, 1)
        for _ in range(2):  # as they are, and where they are finer than dots once more, thinned out
            kept = [np.append(line[:-1:step], line[-1]).astype(float) for line in lines]
            lon, lat, _ = positions_of(s.placement, *np.meshgrid(*kept, indexing="ij"))
            x, y = to_map(lon, lat, region)
            corners = np.stack([x, y], axis=-1)
            around = np.stack(
                [corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]], axis=2
            )
            side = float(np.nanmedian(np.linalg.norm(around[:, :, 1] - around[:, :, 0], axis=-1)) * dots)
            if not 0 < side < FINEST or step > least:
                break
            step = math.ceil(step * FINEST / side)
        middle = [np.minimum(np.arange(0, n, step) + step // 2, n - 1) for n in s.codes.shape]
        codes = s.codes[np.ix_(*middle)].reshape(-1)
        around = around.reshape(-1, 4, 2)
        is_known = np.isfinite(around).all(axis=(1, 2)) & (
            np.ptp(around, axis=1).max(axis=-1) < 4 * region.radius
        )
        for code in np.unique(codes[is_known]).tolist():
            parts.setdefault(code, []).append(around[is_known & (codes == code)])
    joined = {code: np.concatenate(some) for code, some in parts.items()}
    return {
        code: (q, float(np.median(np.linalg.norm(q[:, 1] - q[:, 0], axis=-1)))) for code, q in joined.items()
    }


def to_map(lon: Array, lat: Array, region: MapRegion) -> tuple[Array, Array]:
    """Return (x, y) in km of degrees about a region's middle: Lambert's azimuthal equal-area projection.

    Of Snyder (1987), equations 24-2 to 24-4, doi:10.3133/pp1395, on the sphere; NaN where a degree is not finite, and
    at the antipode.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        lam, phi = np.radians(np.asarray(lon) - region.lon), np.radians(lat)
        sin0, cos0 = math.sin(math.radians(region.lat)), math.cos(math.radians(region.lat))
        near = sin0 * np.sin(phi) + cos0 * np.cos(phi) * np.cos(lam)
        scale = EARTH_KM * np.sqrt(2 / np.where(near > -1 + 1e-9, 1 + near, np.nan))
        x = scale * np.cos(phi) * np.sin(lam)
        y = scale * (cos0 * np.sin(phi) - sin0 * np.cos(phi) * np.cos(lam))
    return x, y


def _fill(axis: Any, quads: Array, **style: Any) -> None:
    from matplotlib.collections import PolyCollection

    axis.add_collection(PolyCollection([*quads], rasterized=True, **style), autolim=False)


def _draw_blocks(axis: Any, region: MapRegion, recipe: Recipe) -> None:
    """Draw the blocks of ground that a split drew, paler than cells; none where they are finer than dots."""
    lattice, (lat, wide) = recipe.lattice, _reach(region)
    lowest, highest = lattice.band_of(
        np.clip(np.array([region.lat - lat, region.lat + lat]), -90, 90)
    ).tolist()
    bands = np.arange(lowest, highest + 1)
    each = 360 / lattice.columns(bands)
    first = np.floor((region.lon - wide + 180) / each).astype(int)
    last = np.minimum(
        np.floor((region.lon + wide + 180) / each).astype(int), first + lattice.columns(bands) - 1
    )
    band = np.repeat(bands, last - first + 1)
    column = np.concatenate([np.arange(a, b + 1) for a, b in zip(first, last, strict=True)])
    codes = recipe.draw(lattice.ids(band, column % lattice.columns(band)))
    e = lattice.bounds_of(band, column)
    ring = ((e.west, e.south), (e.east, e.south), (e.east, e.north), (e.west, e.north))
    quads = np.stack([np.stack(to_map(*corner, region), axis=-1) for corner in ring], axis=1)
    known = np.isfinite(quads).all(axis=(1, 2))
    colours = [COLOURS[int(c)] for c in codes[known]]
    _fill(axis, quads[known], facecolors=colours, edgecolors="white", linewidths=0.8, alpha=0.22, zorder=1)


def _reach(region: MapRegion) -> tuple[float, float]:
    """Return the degrees of latitude, and of longitude, that a panel reaches from a region's middle."""
    high = math.degrees(min(region.radius * 1.5 / EARTH_KM, math.pi))
    if abs(region.lat) + high >= 89.5:
        return high, 180.0
    wide = math.sin(math.radians(min(high, 89))) / math.cos(math.radians(region.lat))
    return high, math.degrees(math.asin(min(wide, 1.0))) if high < 60 else 180.0


def _draw_graticule(axis: Any, region: MapRegion, half: float) -> None:
    """Draw meridians and parallels, and name those that come to the left and lower edges."""
    lat, wide = _reach(region)
    down = _step(lat)
    across = 30.0 if wide >= 180 else _step(wide)
    marks: tuple[list[tuple[float, str]], list[tuple[float, str]]] = [], []
    about = np.linspace(-wide, wide, 361) + region.lon
    for value in _multiples(max(region.lat - lat, -89.99), min(region.lat + lat, 89.99), down):
        x, y = to_map(about, np.full(361, value), region)
        axis.plot(x, y, color=GRID_COLOUR, linewidth=0.5, alpha=0.6, zorder=3)
        marks[1].extend((at, _degrees(value, "NS", down)) for at in _crossings(x, y, -half, half))
    along = np.linspace(max(region.lat - lat, -90), min(region.lat + lat, 90), 361)
    for value in _multiples(region.lon - wide, region.lon + wide - 1e-6, across):
        x, y = to_map(np.full(361, value), along, region)
        axis.plot(x, y, color=GRID_COLOUR, linewidth=0.5, alpha=0.6, zorder=3)
        turned = (value + 180) % 360 - 180
        marks[0].extend((at, _degrees(turned, "EW", across)) for at in _crossings(y, x, -half, half))
    for name, some in zip("xy", marks, strict=True):
        axis.set(**{f"{name}ticks": [at for at, _ in some], f"{name}ticklabels": [text for _, text in some]})
    axis.tick_params(labelsize=7, length=2)


def _step(reach: float) -> float:
    return next((s for s in STEPS if 2 * reach / s <= 6), STEPS[-1])


def _multiples(low: float, high: float, step: float) -> Iterator[float]:
    yield from (n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1))


def _degrees(value: float, signs: str, step: float) -> str:
    text = f"{abs(value):.{0 if step >= 1 else 1 if step >= 0.1 else 2}f}°"
    return text if value in (0, 180, -180) else f"{text} {signs[value < 0]}"


def _crossings(across: Array, along: Array, edge: float, half: float) -> list[float]:
    """Return the places, along an edge, at which a line crosses it within a panel."""
    before, after = across[:-1] - edge, across[1:] - edge
    hit = np.flatnonzero((before * after <= 0) & (before != after))
    share = before[hit] / (before[hit] - after[hit])
    places = along[hit] + share * (along[hit + 1] - along[hit])
    return [float(p) for p in places if abs(p) <= half]


def _draw_scale(axis: Any, half: float) -> None:
    """Draw a bar of a round number of kilometres, about a quarter of a panel, in its lower left."""
    metres = round_length(half * 500)
    length = metres / 1000
    left, low = -0.94 * half, -0.93 * half
    axis.fill_between(
        [left - 0.02 * half, left + length + 0.02 * half], low - 0.04 * half, low + 0.12 * half,
        color="white", alpha=0.85, linewidth=0, zorder=5,
    )  # fmt: skip
    axis.plot(
        [left, left + length], [low, low], color=BAR_COLOUR, linewidth=2, zorder=6, solid_capstyle="butt"
    )
    style = {"ha": "center", "va": "bottom", "fontsize": 8, "color": BAR_COLOUR, "zorder": 6}
    axis.text(left + length / 2, low + 0.02 * half, length_text(metres), **style)


# ------------------------------------------------------------------ the world
def draw_world(axis: Any, regions: Sequence[MapRegion], shown: int) -> None:
    """Draw the graticule of the world, in degrees, with a numbered box about each region that has a panel.

    Others are dots. Where all lie within a quarter of the world, that part alone is drawn, larger.
    """
    from matplotlib.patches import Rectangle

    west, east, south, north = _window(regions)
    step = next(s for s in (10, 20, 30, 60) if (east - west) / s <= 6)
    for lat, name in LATITUDES.items():
        if south < lat < north:
            axis.axhline(lat, color=GRID_COLOUR, linewidth=0.7, linestyle=(0, (5, 4)), zorder=1)
            axis.text(west, lat, f" {name}", fontsize=7, va="bottom", alpha=0.8, zorder=1)
    for ticks, low, high, signs in (("x", west, east, "EW"), ("y", south, north, "NS")):
        values = list(_multiples(low, high, step))
        turned = [(v + 180) % 360 - 180 for v in values] if ticks == "x" else values
        axis.set(
            **{f"{ticks}ticks": values, f"{ticks}ticklabels": [_degrees(v, signs, step) for v in turned]}
        )
    axis.set(xlim=(west, east), ylim=(south, north), aspect="equal")
    axis.grid(color=GRID_COLOUR, linewidth=0.4, alpha=0.4)
    axis.tick_params(labelsize=7, length=2)
    least = (east - west) / 110
    boxes = [_box(r, least, west) for r in regions]
    if rest := boxes[shown:]:
        middles = [((w + e) / 2, (s + n) / 2) for w, e, s, n in rest]
        axis.scatter(*zip(*middles, strict=True), s=4, color=COLOURS[UNSPLIT], linewidths=0, zorder=2)
    taken: list[tuple[float, float]] = []
    for number, (w, e, s, n) in enumerate(boxes[:shown], 1):
        for turn in (-360, 0, 360):
            if w + turn < east and e + turn > west:
                axis.add_patch(
                    Rectangle(
                        (w + turn, s),
                        e - w,
                        n - s,
                        facecolor="#d55e0033",
                        edgecolor="#d55e00",
                        linewidth=1.2,
                        zorder=3,
                    )
                )
        _number(axis, number, (w, e, s, n), taken)


def _window(regions: Sequence[MapRegion]) -> tuple[float, float, float, float]:
    """Return (west, east, south, north) in degrees: the world, or the part that holds all regions; 2 wide, 1 high."""
    lons = np.sort(np.array([r.lon for r in regions]) % 360)
    gaps = np.diff(lons, append=lons[0] + 360)
    widest = int(gaps.argmax())
    first, span = float(lons[(widest + 1) % len(lons)]), 360 - float(gaps[widest])
    pad = [max(2 * math.degrees(r.radius / EARTH_KM), 4) for r in regions]
    low = min(r.lat - p for r, p in zip(regions, pad, strict=True))
    high = max(r.lat + p for r, p in zip(regions, pad, strict=True))
    about = math.cos(math.radians(min(max(abs(low), abs(high)), 75)))
    width = max(span + 2 * max(pad) / about, 2 * (high - low), 60)
    if len(regions) < 2 or width > 180:
        return -180, 180, -90, 90
    middle = (first + span / 2 + 180) % 360 - 180
    level = min(max((low + high) / 2, -90 + width / 4), 90 - width / 4)
    return middle - width / 2, middle + width / 2, level - width / 4, level + width / 4


def _box(region: MapRegion, least: float, west: float) -> tuple[float, float, float, float]:
    """Return (west, east, south, north) of a region, no smaller than can be seen, its middle east of ``west``."""
    high = max(math.degrees(region.radius / EARTH_KM), least)
    wide = 180.0 if abs(region.lat) + high >= 90 else min(high / math.cos(math.radians(region.lat)), 180.0)
    lon = west + (region.lon - west) % 360
    if wide >= 180:
        lon = west + 180
    return lon - wide, lon + wide, max(region.lat - high, -90), min(region.lat + high, 90)


def _number(
    axis: Any, number: int, box: tuple[float, float, float, float], taken: list[tuple[float, float]]
) -> None:
    """Write a region's number beside its box, where no other number is."""
    (west, east), (south, north) = axis.get_xlim(), axis.get_ylim()
    size = (east - west) / 42
    w, e, s, n = max(box[0], west), min(box[1], east), box[2], box[3]
    x, y = (w + e) / 2, (s + n) / 2
    right, up = (e - w) / 2 + size * 0.6, (n - s) / 2 + size * 0.7
    tries = [(x, y)] if min(e - w, n - s) > 1.6 * size else []
    tries += [(x + a * (right + k * size), y + b * (up + k * size)) for k in range(4) for a, b in
             ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))]  # fmt: skip
    inside = [t for t in tries if west + size < t[0] < east - size and south + size < t[1] < north - size]
    free = (t for t in inside if all(max(abs(t[0] - u[0]), abs(t[1] - u[1])) > size for u in taken))
    at = next(free, (inside or tries)[0])
    taken.append(at)
    if math.dist(at, (x, y)) > right + up + size:
        axis.plot([x, at[0]], [y, at[1]], color="#d55e00", linewidth=0.6, zorder=3)
    badge = {"boxstyle": "circle,pad=0.2", "facecolor": "#d55e00", "edgecolor": "none"}
    axis.text(*at, str(number), ha="center", va="center", fontsize=7, color="white", bbox=badge, zorder=4)
