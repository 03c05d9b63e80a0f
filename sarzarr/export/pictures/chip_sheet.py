"""Sheets of chips: some of a collection exactly as readers deliver them, with a layer over them."""

from functools import partial
from typing import Any

import numpy as np

from sarzarr import conventions as cv
from sarzarr.export.pictures.overlays import Outlines, Overlay
from sarzarr.export.pictures.panels import Sheet
from sarzarr.export.pictures.patch_sheet import as_drawn, check_sheet_count, delivered_corners
from sarzarr.export.pictures.scene_panels import band_name, grey, not_valid
from sarzarr.reader.collections import CollectionReader
from sarzarr.store.chip_boxes import read_chip_boxes
from sarzarr.store.collections import open_collection
from sarzarr.store.store import Store
from sarzarr.text import counted, shortened


def chip_sheet(
    store: Store,
    collection: str,
    count: int,
    *,
    split: str | None,
    seed: int,
    layer: str | None,
    boxes: bool | str = False,
) -> Sheet:
    """Return the sheet of ``count`` chips of a collection, drawn by ``seed``, from 0, black, to 1, white.

    Chips of several sizes are padded, and the padding is drawn as not valid. Raises what the reader raises;
    `InvalidInputError` where ``count`` is not from 1 to 64.
    """
    check_sheet_count(count)
    reader = CollectionReader(
        store,
        collection,
        split=split,
        seed=seed,
        shuffle=True,
        batch_size=count,
        with_meta=True,
        layers=[layer] if layer else [],
        boxes=as_drawn(boxes, partial(read_chip_boxes, open_collection(store, collection))),
        size="pad",
    )
    batch = next(iter(reader))
    images, over = batch["image"], None
    outlines = None if reader.targets is None else Outlines(classes=reader.targets.classes)
    if layer:
        about = reader.collection.layer(layer)
        attrs: dict[str, Any] = {cv.LAYER_KIND: about.kind}
        attrs |= {} if about.nodata is None else {cv.NODATA: about.nodata}
        over = Overlay.of(layer, {str(i): plane[0] for i, plane in enumerate(batch["layers"][layer])}, attrs)
    channels = [array.name for array in reader.arrays]
    panels = [
        partial(_draw, batch=batch, chip=i, channel=c, name=band_name(name), over=(over, outlines))
        for i in range(len(images))
        for c, name in enumerate(channels)
    ]
    legend = [*(over.legend() if over else ()), *(outlines.legend() if outlines else ())]
    legend += [not_valid()] if (batch["flags"] >= cv.Flag.NODATA).any() else []
    side = f"of {split} " if split else ""
    sizes = ", ".join(part.name for part in reader.collection.contents.parts)
    return Sheet(
        panels=panels,
        title=f"{store.place.name}, {collection}: {len(images)} of {counted(len(reader.selection), 'chip')} {side}as "
        "readers deliver them",
        notes=f"{sizes} pixels, 0 (black) to 1 (white) over the clip of each group, pixels as stored, not turned; "
        f"seed {seed}.",
        legend=legend,
        across=4 if len(panels) <= 16 else 8,
        inches=2.2 if len(panels) > 2 else 4.4,
        drawn=1.0,
        text=0.42,
    )


def _draw(
    axis: Any,
    *,
    batch: dict[str, Any],
    chip: int,
    channel: int,
    name: str,
    over: tuple[Overlay | None, Outlines | None],
) -> None:
    """Draw a channel of a chip, and the layer and the boxes over it."""
    image, flags = batch["image"][chip, channel], batch["flags"][chip, channel]
    rows, cols = image.shape
    axis.imshow(
        np.ma.masked_array(image, flags >= cv.Flag.NODATA), cmap=grey(), vmin=0, vmax=1, interpolation="nearest",
        extent=(0, cols, rows, 0),
    )  # fmt: skip
    axis.set(xticks=[], yticks=[])
    axis.set_title(shortened(str(batch["chip"][chip]), 30), fontsize=7, pad=3)
    axis.set_xlabel(f"{name}  {batch['time'][chip][:10]}".rstrip(), fontsize=7, labelpad=2)
    layer, outlines = over
    if layer is not None:
        layer.draw(axis, str(chip))
    if outlines is not None:
        target = batch["target"][chip]
        outlines.draw(axis, delivered_corners(target["boxes"]), target["labels"])
