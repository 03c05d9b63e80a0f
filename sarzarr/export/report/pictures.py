"""Pictures of a report: scenes in few bytes, and plots whose ink is that of the text around them."""

import io
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.export.pictures.maps import DPI, MAX_REGIONS, draw_region, draw_world, place_text
from sarzarr.export.pictures.panels import NODATA_COLOUR, new_figure
from sarzarr.export.pictures.regions import MapScene, find_regions
from sarzarr.export.pictures.small import small_db
from sarzarr.pixels.bounds import BIN_WIDTH_DB, Histogram
from sarzarr.store.split_table import Recipe
from sarzarr.store.store import BoundsEntry, Store
from sarzarr.text import counted

PICTURES: Final = 12_000_000
"""Bytes of the page that all pictures together have, as text, where there are `FEWEST` bytes for each."""
MOST: Final = 40_000
"""Bytes of one picture, at most, however few there are."""
FEWEST: Final = 1_500
"""Bytes that one picture may have, however many there are."""
SIDES: Final = (64, 448)
"""Pixels of a picture's longer side, at least and at most."""
QUALITIES: Final = (72, 55, 40, 25)
INK: Final = "#010203"
"""Stands for the colour of the page's text while a plot is drawn; nothing else has it."""
HISTOGRAM: Final = "#0072b2"
CLIP: Final = "#d55e00"
COLUMNS: Final = 220
"""Bars of a histogram."""


@dataclass(frozen=True)
class Picture:
    """A picture of an array of a scene."""

    source: str
    """A ``data:`` URL of a WebP."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""


def bytes_each(count: int) -> int:
    """Return the bytes that each of ``count`` pictures may have: 4 of the page's are 3 of a picture's."""
    return min(max(PICTURES * 3 // 4 // max(count, 1), FEWEST), MOST)


def side_of(limit: int) -> int:
    """Return the pixels of the longer side of a picture of ``limit`` bytes, at most."""
    return int(np.clip(np.sqrt(4 * limit), *SIDES))


def scene_picture(store: Store, scene: str, array: str, *, limit: int) -> Picture:
    """Return an array in dB over its group's clip, in ``limit`` bytes at most; pixels that are not valid are blue.

    Raises `CorruptStoreError` where stored bytes are damaged.
    """
    (key,) = store.rows(scene)["bounds_key"].values[store.rows(scene)["name"].values == array].tolist()
    bounds = store.bounds[key]
    db = small_db(store, scene, array, pixels=side_of(limit)).values
    with np.errstate(invalid="ignore"):
        grey = np.clip((db - bounds.clip_vmin) / (bounds.clip_vmax - bounds.clip_vmin), 0, 1)
    nodata = [int(NODATA_COLOUR[i : i + 2], 16) for i in (1, 3, 5)]
    rgb = np.where(np.isfinite(grey)[..., None], np.nan_to_num(255 * grey)[..., None], nodata)
    encoded = _webp(rgb.astype(np.uint8), limit)
    return Picture(f"data:image/webp;base64,{b64encode(encoded).decode()}", rgb.shape[1], rgb.shape[0])


def _webp(rgb: Array, limit: int) -> bytes:
    """Return an image (rows, columns, 3) uint8 as a WebP: of the best quality, then the most pixels, that fit."""
    from matplotlib.image import imsave

    while True:
        for quality in QUALITIES:
            out = io.BytesIO()
            imsave(out, rgb, format="webp", pil_kwargs={"quality": quality, "method": 4})
            if out.tell() <= limit:
                return out.getvalue()
        if max(rgb.shape[:2]) <= 8:
            return out.getvalue()
        rgb = rgb[::2, ::2]


# ------------------------------------------------------------------ plots
@contextmanager
def _inked() -> Iterator[None]:
    """Let what is drawn have the page's ink, and text stay text, without mathematics in names."""
    from matplotlib import rc_context

    inked = (
        "text.color",
        "axes.edgecolor",
        "axes.labelcolor",
        "xtick.color",
        "ytick.color",
        "axes.titlecolor",
    )
    others = {"svg.fonttype": "none", "text.parse_math": False, "axes.facecolor": "none", "font.size": 9}
    with rc_context({**dict.fromkeys(inked, INK), **others}):
        yield


def svg_of(figure: Any, title: str, number: int) -> str:
    """Return a figure as inline SVG of that title, whose ids are no other's on the page."""
    from html import escape

    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context({"svg.hashsalt": f"sarzarr {number}"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None}, dpi=DPI)
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    text = re.sub(r'(?<=<svg) [^>]*?(viewBox="[^"]*")[^>]*', r" \1", text, count=1)
    named = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(title)}"'
    text = text.replace("<svg", named, 1).replace("xlink:href", "href")
    text = re.sub(r'font: ([0-9.]+)px [^;"]*', r"font: \1px system-ui, sans-serif", text)
    return text.replace(INK, "currentColor")


def histogram_svg(histogram: Histogram, bounds: BoundsEntry, key: str, number: int) -> str:
    """Return the plot of a histogram in dB: of its pixels, with the clip; and below, of the whole stored range."""
    with _inked():
        figure = new_figure((4.6, 2.9), dpi=DPI)
        near, whole = figure.subplots(2, 1, height_ratios=(4, 1))
        low, high = _span(histogram, bounds)
        _draw_counts(near, histogram, low, high)
        _draw_counts(whole, histogram, bounds.vmin, bounds.vmax)
        for axis in (near, whole):
            axis.axvspan(bounds.clip_vmin, bounds.clip_vmax, color=CLIP, alpha=0.14, linewidth=0)
            for value in bounds.clip:
                axis.axvline(value, color=CLIP, linewidth=1.4, linestyle="--")
            axis.set(yticks=[])
            axis.spines[["top", "right", "left"]].set_visible(False)
        near.set(xlim=(low, high))
        near.set_title(f"clip {bounds.clip_vmin:.2f} to {bounds.clip_vmax:.2f} dB", fontsize=9, loc="left")
        whole.set(xlim=(bounds.vmin, bounds.vmax), xlabel="dB")
        whole.set_title(f"stored: vmin {bounds.vmin:g}, vmax {bounds.vmax:g} dB", fontsize=8, loc="left")
        for value in bounds.stored:
            whole.axvline(value, color=INK, linewidth=2)
        return svg_of(figure, f"Histogram of {key}, in dB, with its clip and the stored range", number)


def _span(histogram: Histogram, bounds: BoundsEntry) -> tuple[float, float]:
    values = [*bounds.clip]
    if histogram.n_valid:
        values += [histogram.percentile(0.1), histogram.percentile(99.9)]
    margin = max(0.06 * (max(values) - min(values)), 0.5)
    return max(min(values) - margin, bounds.vmin), min(max(values) + margin, bounds.vmax)


def _draw_counts(axis: Any, histogram: Histogram, low: float, high: float) -> None:
    first, last = (round((v - cv.DB_FLOOR) / BIN_WIDTH_DB) for v in (low, high))
    edges = np.unique(np.linspace(max(first, 0), min(last, cv.HISTOGRAM_BINS), COLUMNS + 1).astype(int))
    heights = np.add.reduceat(histogram.counts, edges[:-1]) / np.diff(edges)
    heights = heights / max(heights.max(), 1e-9)
    axis.stairs(heights, cv.DB_FLOOR + BIN_WIDTH_DB * edges, fill=True, color=HISTOGRAM, linewidth=0)
    axis.set(ylim=(0, 1.06))


def map_svgs(scenes: Sequence[MapScene], recipe: Recipe | None, number: int) -> tuple[list[str], str]:
    """Return the world and each region of scenes as SVG, and what is not shown; no more than `MAX_REGIONS`."""
    regions, lost = find_regions(scenes, most=MAX_REGIONS)
    shown, out = regions[:MAX_REGIONS], []
    with _inked():
        if shown:
            figure = new_figure((4.4, 2.5), dpi=DPI)
            draw_world(figure.subplots(), regions, len(shown))
            out.append(svg_of(figure, f"World map of {counted(len(regions), 'region')}, in degrees", number))
        for n, region in enumerate(shown, 1):
            figure = new_figure((4.0, 4.2), dpi=DPI)
            axis = figure.subplots()
            draw_region(axis, [scenes[i] for i in region.members], region, recipe)
            title = f"{n}: {place_text(region)}, {counted(len(region.members), 'scene')}"
            axis.set_title(title, fontsize=10)
            out.append(svg_of(figure, f"Region {title}", number + n))
    rest = sum(len(r.members) for r in regions[MAX_REGIONS:])
    more = counted(len(regions) - len(shown), "more region")
    said = [f"{more} with {counted(rest, 'scene')} are dots on the world map alone"] if rest else []
    said += [f"{counted(len(lost), 'scene')} without a place in the world"] if lost else []
    return out, "; ".join(said)
