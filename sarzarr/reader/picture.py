"""Pictures of batches: patches as they are delivered, with their flags, layers and boxes."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.conventions import Flag
from sarzarr.errors import InvalidInputError, MissingExtraError
from sarzarr.pixels.rotated import corners_of_boxes, corners_of_rotated
from sarzarr.text import shortened

_PIXELS: Final = ("image", "flags")
INCHES: Final = 2.2
"""Side of a panel."""
MOST_CLASSES: Final = 20
"""Whole numbers of a layer up to this many are drawn as classes."""


def batch_parts(batch: Any, names: Sequence[str], layers: Sequence[str]) -> dict[str, Any]:
    """Return the parts of a batch as a reader delivers it, by name: ``image`` (N, C, rows, columns), ``layers``, ...

    ``names`` are those of the parts before the layers. Raises `InvalidInputError` where it is no such batch.
    """
    if isinstance(batch, Mapping):
        parts = dict(batch)
        size = getattr(parts.get("image"), "shape", ())[-2:]
        others = {k: v for k, v in parts.items() if getattr(v, "shape", ())[-2:] == size and k not in _PIXELS}
        parts.setdefault("layers", others)  # under names of their own
    else:
        every = batch if isinstance(batch, list | tuple) else (batch,)
        parts = dict(zip(names, every, strict=False))
        parts |= {"layers": dict(zip(layers, every[len(names) :], strict=False))} if layers else {}
        parts = parts if len(every) == len(names) + len(layers) else {}
    if getattr(parts.get("image"), "ndim", 0) not in (4, 5) or not len(parts["image"]):
        raise InvalidInputError(
            f"a batch as this reader delivers it was expected, got {type(batch).__name__}. Pass what it gave."
        )
    return parts


def plot_parts(
    parts: Mapping[str, Any],
    *,
    nodata: Mapping[str, float | int | None],
    patches: int = 8,
    kinds: Sequence[str] = (),
) -> Any:
    """Return a `matplotlib.figure.Figure` of a batch by parts: columns are patches, rows channels, flags and layers.

    Parameters
    ----------
    parts
        ``image`` (N, C, rows, columns) or (N, T, C, rows, columns), as delivered; if any, ``flags`` of its shape,
        ``target``, a list of dicts with ``boxes``, ``layers`` by name, and what ``with_meta`` says.
    nodata
        The value of pixels that are no data, by layer.
    patches
        Most patches that are drawn.
    kinds
        Names of the classes of ``label``, by number.

    Images are drawn from 0, black, to 1, white (codes from the least to the greatest); flags by name; layers of few
    classes in colours, others from the least to the greatest; what is no data is left white. Raises
    `MissingExtraError` where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(
            "matplotlib was expected, got none. Install it: pip install 'sarzarr[plot]'."
        ) from None
    images = _planes(parts["image"], patches)
    rows = _rows(parts, images, nodata, patches)
    figure = Figure(
        figsize=(INCHES * len(images) + 1, INCHES * len(rows) + 0.4), layout="constrained", dpi=100
    )
    axes = figure.subplots(len(rows), len(images), squeeze=False)
    for panels, (name, values, classes, limits) in zip(axes, rows, strict=True):
        style = limits if classes is None else class_colours(classes)
        for axis, picture in zip(panels, values, strict=True):
            drawn = axis.imshow(picture, interpolation="nearest", **style)
            axis.set(xticks=[], yticks=[])
        panels[0].set_ylabel(name, fontsize=9)
        bar = figure.colorbar(drawn, ax=panels.tolist(), fraction=0.03, pad=0.01)
        bar.ax.tick_params(labelsize=7)
        if classes is not None:
            words = [flag.name.lower() for flag in Flag] if name == "flags" else list(map(str, classes))
            bar.set_ticks(classes, labels=words, minor=False)
            bar.ax.minorticks_off()
    _title(axes[0], parts, kinds)
    for panels in axes[: images.shape[1]]:
        for axis, target in zip(panels, parts.get("target", ()), strict=False):
            _outline(axis, np.asarray(target["boxes"]))
    return figure


def _planes(values: Any, patches: int) -> Array:
    """Return (N, planes, rows, columns) of a part of a batch, an array or a tensor; dates come before channels."""
    shown = values[:patches]
    if str(getattr(shown, "dtype", "")) == "torch.bfloat16":  # which NumPy does not have
        shown = shown.float()
    array = np.asarray(shown.detach().cpu() if hasattr(shown, "detach") else shown)
    return array.reshape(len(array), -1, *array.shape[-2:])


def _rows(
    parts: Mapping[str, Any], images: Array, nodata: Mapping[str, float | int | None], patches: int
) -> list[tuple[str, Array, list[int] | None, dict[str, Any]]]:
    """Return each row of panels: its name, (N, rows, columns), its classes if any, and how `imshow` draws others."""
    white = (
        {"vmin": 0, "vmax": 1} if images.dtype.kind == "f" else {"vmin": images.min(), "vmax": images.max()}
    )
    rows: list[tuple[str, Array, list[int] | None, dict[str, Any]]] = [
        (f"plane {i}" if images.shape[1] > 1 else "image", images[:, i], None, {"cmap": "gray", **white})
        for i in range(images.shape[1])
    ]
    names = parts.get("array")
    if names and len(set(map(tuple, names))) == 1 and len(names[0]) == images.shape[1]:
        rows = [(name, *row[1:]) for name, row in zip(names[0], rows, strict=True)]
    if "flags" in parts:
        flags = _planes(parts["flags"], patches).max(axis=1)
        rows.append(("flags", flags, [flag.value for flag in Flag], {}))
    for name, values in parts.get("layers", {}).items():
        planes = _planes(values, patches)
        outside = nodata.get(name)
        is_none = np.isnan(planes) if planes.dtype.kind == "f" else np.zeros(planes.shape, bool)
        shown = np.ma.masked_array(planes, is_none if outside is None else is_none | (planes == outside))
        found = np.unique(shown.compressed())
        few = planes.dtype.kind in "iub" and 0 < len(found) <= MOST_CLASSES
        classes = found.tolist() if few else None
        ends = {"vmin": shown.min(), "vmax": shown.max()} if len(found) else {}
        several = planes.shape[1] > 1
        rows += [
            (f"{name} {i}" if several else name, shown[:, i], classes, {"cmap": "viridis", **ends})
            for i in range(planes.shape[1])
        ]
    return rows


def class_colours(classes: Sequence[float], colours: Sequence[Any] | None = None) -> dict[str, Any]:
    """Return the keywords with which `imshow` draws classes, ascending: a colour each, ``colours`` or of tab20."""
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm, ListedColormap

    values = np.array(classes, np.float64)
    edges = np.concatenate([[values[0] - 0.5], (values[1:] + values[:-1]) / 2, [values[-1] + 0.5]])
    some = colours or [
        colormaps["tab20"](i * 2 % MOST_CLASSES + i * 2 // MOST_CLASSES) for i in range(len(classes))
    ]
    return {"cmap": ListedColormap(some), "norm": BoundaryNorm(edges, len(classes))}


def _title(axes: Sequence[Any], parts: Mapping[str, Any], kinds: Sequence[str]) -> None:
    """Say of each patch its scene, row and column, and of what window it was scaled; of a chip its class."""
    if "scene" not in parts:
        names = [shortened(str(chip), 24) for chip in parts.get("chip", ())] or [""] * len(axes)
        labels = [_kinds(np.asarray(one), kinds) for one in parts.get("label", ())] or [""] * len(axes)
        for axis, name, label in zip(axes, names, labels, strict=False):
            axis.set_title("\n".join(filter(None, (name, label))), fontsize=7)
        return
    spans = [f" ({int(span)} px)" for span in parts.get("span", ())] or [""] * len(axes)
    facts = zip(axes, parts["scene"], parts["row"], parts["col"], spans, strict=False)
    for axis, scene, row, col, span in facts:
        name = scene if isinstance(scene, str) else f"{scene[0]} ... {scene[-1]}"
        name = name if len(name) <= 24 else f"{name[:11]}...{name[-10:]}"
        axis.set_title(f"{name}\n{int(row)}, {int(col)}{span}", fontsize=7)


def _kinds(label: Array, kinds: Sequence[str]) -> str:
    """Return the names of a chip's classes: its number, or (classes,) 0 and 1."""
    numbers = np.flatnonzero(label) if label.ndim else label[None][label[None] >= 0]
    return shortened(", ".join(kinds[i] for i in numbers.tolist()), 24)


def _outline(axis: Any, boxes: Array) -> None:
    from matplotlib.patches import Polygon

    rings = corners_of_rotated(boxes) if boxes.shape[-1] == 5 else corners_of_boxes(boxes)
    for ring in rings - 0.5:  # pixels are counted from the middle of the first
        axis.add_patch(Polygon(ring, fill=False, edgecolor="#ffb000"))
