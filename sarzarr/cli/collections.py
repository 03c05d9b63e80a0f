"""Texts about collections of chips: what `info` says of them, their splits and their labels."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from sarzarr.text import counted, listed

if TYPE_CHECKING:
    import sarzarr as sz
    from sarzarr.store.chip_labels import ChipLabels
    from sarzarr.store.chip_splits import ChipSplit
    from sarzarr.store.collections import ChipLayer, Collection

SHOWN: Final = 6
"""Sizes, CRSs or classes that are listed, at most."""


def labels_text(labels: "ChipLabels") -> str:
    """Return a set of labels for people: classes with their counts of chips."""
    kind = "of several each" if labels.is_multi else "of one each"
    counts = listed([f"{name} {n}" for name, n in labels.counts.items()], most=SHOWN)
    return f"{counted(len(labels.classes), 'class')} {kind} on {counted(int(labels.known.sum()), 'chip')}: {counts}"


def chip_split_text(collection: "Collection", split: "ChipSplit") -> str:
    """Return a version of a collection's split for people: counts of chips, and km² that are on two sides."""
    recipe, counts = dict(split.recipe), split.counts
    parent = f", extends v{split.parent}" if split.parent else ""
    sides = f"{counts['train']} train, {counts['val']} val, {counts['test']} test, {counts['held_back']} held back"
    lines = [
        f"{collection.store.place.name}, collections/{collection.name}, split {split.name}{parent}: {sides}"
    ]
    if recipe.pop("kind") == "lists":
        lines.append(f"  by lists: {listed(recipe['files'])}")
    else:
        block = recipe.pop("block", None)
        lines.append("  by ground that chips share: " + ", ".join(f"{k} {v}" for k, v in recipe.items()))
        if block:
            size = f"{block / 1000:.3g} km" if block >= 1000 else f"{block:.3g} m"
            lines.append(
                f"  large groups are cut along blocks of {size}; what trains and reaches over is held back"
            )
    return "\n".join([*lines, *(f"  {line}" for line in split.told)])


def collection_lines(store: "sz.Store") -> Iterator[str]:
    """Yield what `info` says of the collections of a store, a few lines for any number of chips."""
    from sarzarr.store.collections import collection_names, open_collection

    for name in collection_names(store):
        yield from _lines_of(open_collection(store, name))


def _lines_of(made: "Collection") -> Iterator[str]:
    import numpy as np

    from sarzarr.grids.crs import crs_name
    from sarzarr.store.chip_boxes import chip_box_tables, read_chip_boxes
    from sarzarr.store.chip_columns import chip_times
    from sarzarr.store.chip_labels import label_sets, read_labels
    from sarzarr.store.chip_splits import chip_split_versions, read_chip_split
    from sarzarr.store.collections import ABSENT

    table, contents = made.table, made.contents
    parts = np.bincount(table["part"].values, minlength=len(contents.parts)).tolist()
    sizes = [f"{n} of {p.height} x {p.width}" for p, n in zip(contents.parts, parts, strict=True) if n]
    yield f"  collections/{made.name}: {counted(len(made), 'chip')}; {listed(sizes, most=SHOWN)}"
    arrays = []
    for array in contents.arrays:
        held = int((table[f"valid_{array.name}"].values != ABSENT).sum())
        clip = made.store.bounds[array.bounds_key]
        of = "" if held == len(made) else f" of {counted(held, 'chip')}"
        arrays.append(
            f"{array.name}{of} ({array.quantity}, clip {clip.clip_vmin:.2f} to {clip.clip_vmax:.2f} dB)"
        )
    yield f"    {', '.join(arrays)}"
    numbers = Counter(table["crs"].values.tolist()).most_common()
    names = [f"{crs_name(None if i == ABSENT else contents.crs[i])} ({n})" for i, n in numbers]
    dated = table["time"].values[~np.isnat(table["time"].values)]
    span = chip_times(np.array([dated.min(), dated.max()])).tolist() if len(dated) else []
    when = f"{span[0][:10]} to {span[1][:10]}" if span else "no times"
    undated = f", {len(made) - len(dated)} without a time" if span and len(dated) < len(made) else ""
    yield f"    {listed(names, most=SHOWN)}; {when}{undated}"
    bits = table["layers"].values
    if layers := [_layer_text(one, int((bits >> i & 1).sum())) for i, one in enumerate(contents.layers)]:
        yield f"    layers: {listed(layers, most=SHOWN)}"
    if versions := chip_split_versions(made):
        newest = read_chip_split(made)
        counts = ", ".join(f"{n} {side.replace('_', ' ')}" for side, n in newest.counts.items() if n)
        yield f"    splits: {_versions(versions)}; chips of {newest.name}: {counts}"
        yield from (f"      {line}" for line in newest.told)
    for name in chip_box_tables(made)[:SHOWN]:
        boxes = read_chip_boxes(made, name)
        turned = f", {boxes.turned} rotated" if boxes.turned else ""
        kinds = counted(len(set(boxes.label.tolist())), "class")
        chips = counted(len(boxes.owners), "annotated chip")
        yield f"    boxes/{name}: {counted(len(boxes), 'box')} in {kinds}{turned} on {chips}"
    for name in label_sets(made)[:SHOWN]:
        yield f"    labels/{name}: {labels_text(read_labels(made, name))}"


def _layer_text(layer: "ChipLayer", count: int) -> str:
    nodata = "" if layer.nodata is None else f", nodata {layer.nodata:g}"
    return f"{layer.name} of {count} ({layer.dtype} {layer.kind}{nodata})"


def _versions(numbers: Sequence[int]) -> str:
    return listed([f"v{n}" for n in reversed(numbers)], most=SHOWN)
