"""Sheets of patches: a batch exactly as readers deliver it, a panel per channel of a patch."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.export.pictures.overlays import Outlines, Overlay
from sarzarr.export.pictures.panels import Sheet
from sarzarr.export.pictures.scene_panels import band_name, grey, not_valid
from sarzarr.pixels.rotated import corners_of_boxes, corners_of_rotated
from sarzarr.reader.reader import PatchReader
from sarzarr.reader.targets import table_asked
from sarzarr.store.boxes import ROTATED, Boxes, read_boxes
from sarzarr.store.store import Store
from sarzarr.text import shortened

MOST: Final = 64
"""Patches of one picture, at most."""
_INCHES: Final = 2.2
"""Width of a panel."""


def patch_sheet(
    store: Store, scenes: Sequence[str] | None, count: int, *,
    split: str | None, seed: int, layer: str | None, boxes: bool | str,
) -> Sheet:  # fmt: skip
    """Return the sheet of the first batch of ``count`` patches that a `PatchReader` of a store delivers, shuffled.

    Images are drawn from 0, black, to 1, white. Raises what the reader raises; `InvalidInputError` where ``count`` is
    not from 1 to 64.
    """
    check_sheet_count(count)
    reader = PatchReader(
        store,
        scenes=scenes,
        split=split,
        seed=seed,
        shuffle=True,
        batch_size=count,
        with_meta=True,  # which takes patches that are partly valid, unless it is said that they are not wanted
        min_valid=1.0,
        layers=[layer] if layer else [],
        boxes=as_drawn(boxes, partial(read_boxes, store)),
    )
    batch = next(iter(reader))
    images = batch["image"]
    over = None
    if layer:
        attrs = next(
            (store.layer_attrs(s, layer) for s in dict.fromkeys(batch["scene"]) if layer in store.layers(s)),
            {},
        )
        over = Overlay.of(layer, {str(i): plane[0] for i, plane in enumerate(batch["layers"][layer])}, attrs)
    outlines = Outlines(classes=reader.targets.classes) if reader.targets is not None else None
    panels = [
        partial(_draw, batch=batch, patch=i, channel=c, over=over, outlines=outlines)
        for i in range(len(images))
        for c in range(images.shape[1])
    ]
    legend = [*(over.legend() if over else ()), *(outlines.legend() if outlines else ())]
    legend += [not_valid()] if (batch["flags"] >= cv.Flag.NODATA).any() else []
    side = f"of {split} " if split else ""
    size = " x ".join(map(str, images.shape[-2:]))
    return Sheet(
        panels=panels,
        title=f"{store.place.name}: {len(images)} of {len(reader.selection)} patches {side}as readers deliver them",
        notes=f"{size} pixels, 0 (black) to 1 (white) over the clip of each group, pixels as stored, not turned; "
        f"seed {seed}. Below each: row and column in its scene.",
        legend=legend,
        across=4 if len(panels) <= 16 else 8,
        inches=_INCHES if len(panels) > 2 else 2 * _INCHES,
        drawn=1.0,
        text=0.42,
    )


def as_drawn(boxes: bool | str, read: Callable[[str], Boxes]) -> bool | str:
    """Return the option that delivers boxes as they were drawn, (n, 5) those of a table that has rotated ones."""
    name, is_rotated = table_asked(boxes) if boxes else ("", True)
    return boxes if is_rotated or read(name).corners is None else f"{ROTATED}:{name}"


def check_sheet_count(count: int) -> None:
    """Refuse a picture of other than 1 to 64 patches: `InvalidInputError`."""
    if not 1 <= count <= MOST:
        raise InvalidInputError(
            f"1 to {MOST} patches of a picture were expected, got {count}. Ask for fewer."
        )


def _draw(
    axis: Any,
    *,
    batch: dict[str, Any],
    patch: int,
    channel: int,
    over: Overlay | None,
    outlines: Outlines | None,
) -> None:
    """Draw a channel of a patch, and what lies over it."""
    image: Array = batch["image"][patch, channel]
    is_none = batch["flags"][patch, channel] >= cv.Flag.NODATA
    rows, cols = image.shape
    axis.imshow(
        np.ma.masked_array(image, is_none), cmap=grey(), vmin=0, vmax=1, interpolation="nearest",
        extent=(0, cols, rows, 0),
    )  # fmt: skip
    axis.set(xticks=[], yticks=[])
    axis.set_title(f"{shortened(str(batch['scene'][patch]), 30)}", fontsize=7, pad=3)
    name = band_name(str(batch["array"][patch][channel]))
    axis.set_xlabel(f"{name}  {int(batch['row'][patch])}, {int(batch['col'][patch])}", fontsize=7, labelpad=2)
    if over is not None:
        over.draw(axis, str(patch))
    if outlines is not None:
        target = batch["target"][patch]
        outlines.draw(axis, delivered_corners(target["boxes"]), np.asarray(target["labels"]))


def delivered_corners(boxes: Array) -> Array:
    """Return the corners (n, 4, 2) of boxes as readers deliver them, upright (n, 4) or rotated (n, 5)."""
    return corners_of_rotated(boxes) if boxes.shape[1] == 5 else corners_of_boxes(boxes)
