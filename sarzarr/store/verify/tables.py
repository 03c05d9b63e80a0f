"""The tables of a store held against one another and against its documents."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import SarzarrError
from sarzarr.grids.crs import crs_wkt, is_same_crs
from sarzarr.store.boxes import ON_SCENES, box_tables, read_boxes
from sarzarr.store.catalog import catalog_rows
from sarzarr.store.chunks import described_layout
from sarzarr.store.classes import stored_classes
from sarzarr.store.samples import IMAGE, SampleSet, sample_sets
from sarzarr.store.split_table import LAST, last_version, read_split, versions
from sarzarr.store.store import Store, bounds_key
from sarzarr.store.tables import read_table
from sarzarr.store.verify.findings import ROOT, Findings, derived
from sarzarr.store.verify.tree import Tree, add_absent


def check_tables(tree: Tree, found: Findings) -> bool:
    """Hold tables and bounds against documents and one another; return whether the catalog can be read.

    What is damaged itself is added first, so that the files that it disagrees with are not blamed.
    """
    store = Store(tree.place)
    for table in tree.tables:
        with _telling(table, found):
            if not found.touches(table):
                read_table(tree.place, table)
    if found.touches(cv.CATALOG):
        return False
    rows = catalog_rows(store.catalog)
    if wrong := _unsafe_names(rows):
        found.add(f"{cv.CATALOG}/scene", f"it names {wrong!r}, which no scene or array can be")
        return False
    _check_scenes(tree, rows, {*store.scenes}, found)
    for row in catalog_rows(store.listing):
        _check_row(tree, row, found)
    for row in rows:
        _check_histogram(store, row, found)
    if "" in tree.documents:
        _check_bounds(tree, rows, found)
    with _telling(cv.SPLITS, found):
        _check_splits(store, found)
    with _telling(cv.SAMPLES, found):
        for name in sample_sets(store):
            _check_samples(tree, SampleSet(store, name), found)
    with _telling(cv.CLASS_TABLE, found):
        if not found.touches(cv.CLASS_TABLE):
            stored_classes(tree.place)
    with _telling(cv.BOXES, found):
        for name in box_tables(store):
            key = f"{cv.BOXES}/{name}"
            if not found.touches(key) and not found.touches(str(tree.attributes(key).get("on"))):
                _check_boxes(store, name, found)
    return True


@contextmanager
def _telling(key: str, found: Findings) -> Iterator[None]:
    """Turn an error of what is read into a finding of a file, unless it, or one beside it, has one."""
    try:
        yield
    except (SarzarrError, OSError) as error:
        if not found.touches(key):
            found.add(key, str(error).partition(". ")[0])


def _unsafe_names(rows: list[dict[str, Any]]) -> str:
    """Return a name in the catalog that would lead elsewhere as part of a key; empty where there is none."""
    names = (str(row[k]) for row in rows for k in ("scene", "name", "flags"))
    return next((name for name in names if not name or name.startswith(".") or {*"/\\"} & {*name}), "")


def _check_scenes(tree: Tree, rows: list[dict[str, Any]], listed: set[str], found: Findings) -> None:
    """Hold the folders of scenes and of histograms against the catalog, both ways."""
    for group in (cv.SCENES, cv.HISTOGRAMS):
        there = {node.split("/")[1] for node in tree.documents if node.startswith(f"{group}/")}
        for scene in sorted(there - listed):
            again = f"Remove it: `sarzarr clean {found.store}`, or ingest its files again."
            found.add(f"{group}/{scene}", "the catalog does not list it", again)
    wanted = [f"{group}/{scene}" for scene in sorted(listed) for group in (cv.SCENES, cv.HISTOGRAMS)]
    for row in rows:
        scene, names = row["scene"], (str(row["name"]), str(row["flags"]))
        wanted += [f"{cv.SCENES}/{scene}/{name}" for name in names]
        wanted += [f"{cv.HISTOGRAMS}/{scene}/{names[0]}"]
    for node in wanted:
        if node not in tree.documents:
            add_absent(tree, f"{node}/{ROOT}", found)
    known = {f"{cv.SCENES}/{row['scene']}/{row[k]}" for row in rows for k in ("name", "flags")}
    for array in tree.arrays:
        scene, _, name = array.removeprefix(f"{cv.SCENES}/").partition("/")
        layers = tree.attributes(f"{cv.SCENES}/{scene}").get(cv.LAYERS, ())
        if (
            array.startswith(f"{cv.SCENES}/")
            and scene in listed
            and array not in known
            and name not in layers
        ):
            found.add(array, "neither the catalog nor its scene lists it")


def told_row(tree: Tree, scene: str, name: str, groups: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the row of the catalog that documents tell of an array; None where one of them is lost.

    That of a scene of layers alone, of no ``name``, is told by its group and the first of its layers. ``groups`` are
    the keys of the root's bounds. Of the affine (6 numbers, CRS units) and the CRS there is nothing where no document
    has them.
    """
    group = f"{cv.SCENES}/{scene}"
    facts = tree.attributes(group)
    array = f"{group}/{name or min(facts.get(cv.LAYERS, ()), default='')}"
    if group not in tree.documents or not tree.is_array(array):
        return None
    about = tree.attributes(array) if name else {}
    layout = described_layout(array, tree.documents[array])
    row = {
        "scene": scene,
        "name": name,
        "flags": name and name + cv.FLAGS_SUFFIX,
        "polarization": "".join(about.get(cv.SAR_POLARIZATIONS, ())),
        "quantity": about.get(cv.QUANTITY),
        "source_representation": about.get(cv.SOURCE_REPRESENTATION),
        "dtype": layout.dtype if name else cv.NO_DTYPE,
        "codec": layout.codec,
        "chunk": layout.chunk[0],
        "shard": layout.shard[0] if layout.shard else 0,
        "height": layout.shape[0],
        "width": layout.shape[1],
        "vmin": about.get(cv.VMIN),
        "vmax": about.get(cv.VMAX),
        "bounds_key": _group_told(name, str(about.get(cv.QUANTITY)), groups) if name else "",
        "geolocation": facts.get(cv.GEOLOCATION),
        "source_hash": facts.get(cv.SOURCE_HASH),
        **{column: facts.get(key) for key, column in cv.CATALOG_COLUMNS.items()},
    }
    if about.get(cv.RESAMPLING_LOOKS) == "unknown":
        row["looks"] = None
    if cv.SPATIAL_TRANSFORM in facts:
        row["transform"] = tuple(facts[cv.SPATIAL_TRANSFORM])
        told = tree.attributes(f"{group}/{cv.SPATIAL_REF}").get("crs_wkt")
        row["crs_wkt"] = facts.get(cv.PROJ_WKT2) or (told and crs_wkt(told))
    return row


def _group_told(name: str, quantity: str, groups: Mapping[str, Any]) -> str | None:
    """Return the group of an array, ``vv/sigma0``; None of digital numbers of which there are several."""
    if quantity != cv.Quantity.DN:
        return bounds_key(name, quantity)
    fitting = [key for key in groups if key.startswith(bounds_key(name, quantity))]
    return fitting[0] if len(fitting) == 1 else None


def _check_row(tree: Tree, row: Mapping[str, Any], found: Findings) -> None:
    """Hold a row of the catalog against the documents of its array and its scene."""
    told = told_row(tree, str(row["scene"]), str(row["name"]), tree.attributes("").get(cv.BOUNDS, {}))
    if told is None:
        return
    for column, value in told.items():
        if column == "bounds_key" and value is None:
            continue
        if column == "crs_wkt" and value is not None and is_same_crs(row[column] or None, value):
            continue
        if not _same(row[column], value):
            what = f"its {column} of {row['scene']}/{row['name']} is another than its documents say"
            found.add(f"{cv.CATALOG}/{column}", what)


def _same(stored: Any, told: Any) -> bool:
    """Return whether a value of the catalog is what a document says; unknown text is empty, an unknown number NaN."""
    if isinstance(stored, str):
        return stored == ("" if told is None else str(told))
    return bool(
        np.array_equal(np.asarray(stored, "f8"), np.asarray(np.nan if told is None else told, "f8"), True)
    )


def _check_bounds(tree: Tree, rows: list[dict[str, Any]], found: Findings) -> None:
    """Hold the clips and ranges of the root against those on arrays."""
    again = f"Set the clip again: `sarzarr bounds {found.store} --method percentile`, or another method."
    bounds = tree.attributes("").get(cv.BOUNDS, {})
    ranges = {(entry.get(cv.VMIN), entry.get(cv.VMAX)) for entry in bounds.values()}
    whole = ranges.pop() if len(ranges) == 1 else (None, None)
    if whole != tuple(tree.attributes("").get(key) for key in (cv.VMIN, cv.VMAX)):
        found.add(ROOT, "its vmin and vmax are not those of its bounds", again)
    for row in rows:
        array = f"{cv.SCENES}/{row['scene']}/{row['name']}"
        entry, about = bounds.get(row["bounds_key"]), tree.attributes(array)
        if entry is None:
            found.add(ROOT, f"its bounds have no group {row['bounds_key']}", again)
        elif about and not found.touches(f"{array}/{ROOT}"):
            for key in (cv.VMIN, cv.VMAX, cv.CLIP_VMIN, cv.CLIP_VMAX, cv.CLIP_METHOD):
                if about.get(key) != entry.get(key):
                    what = f"its {key} is not that of {row['bounds_key']} in the root"
                    found.add(f"{array}/{ROOT}", what, derived(found.store))


def _check_histogram(store: Store, row: Mapping[str, Any], found: Findings) -> None:
    """Hold the number of pixels of a histogram against its array's."""
    node = f"{cv.HISTOGRAMS}/{row['scene']}/{row['name']}"
    if found.touches(node):
        return
    with _telling(node, found):
        histogram = store.histogram(str(row["scene"]), str(row["name"]))
        counted = int(histogram.counts.sum()) + histogram.nonpositive + histogram.nodata
        if counted != row["height"] * row["width"]:
            found.add(node, f"it counts {counted} pixels, not {row['height'] * row['width']}")


def _check_splits(store: Store, found: Findings) -> None:
    """Read every version of the split; hold its cells against the scenes that are where it knows them."""
    place, known = store.place, versions(store.place)
    if last_version(place) > max(known, default=0) and not found.touches(
        f"{cv.SPLITS}/v{last_version(place)}"
    ):
        found.add(f"{cv.SPLITS}/v{last_version(place)}", f"it is absent, and {LAST} of splits tells of it")
    shapes = {s: placed.grid.shape for s, placed in store.placements.items()}
    for version in known:
        key = f"{cv.SPLITS}/v{version}"
        if found.touches(key):
            continue
        with _telling(key, found):
            for cells in read_split(place, version).scenes:
                is_here = store.grids.get(cells.scene) == cells.grid
                wanted = tuple(-(-n // cv.CELL) for n in shapes.get(cells.scene, ()))
                if is_here and cells.codes.shape != wanted:
                    what = f"it has {cells.codes.shape} cells of {cells.scene}, which has {wanted}"
                    found.add(key, what)


def _check_boxes(store: Store, name: str, found: Findings) -> None:
    """Hold a table of boxes against its owners: numbers, classes, and the pixels that they lie in."""
    key = f"{cv.BOXES}/{name}"
    with _telling(key, found):
        boxes = read_boxes(store, name, as_stored=True)
        if boxes.on not in (ON_SCENES, f"{cv.SAMPLES}/{name}"):
            found.add(key, f"it is on {boxes.on}, whose boxes have another name")
            return
        sizes = _owner_sizes(store, boxes.on, boxes.owners, boxes.grids)
        if (np.diff(boxes.owner) < 0).any():
            found.add(key, "its owners are not ascending")
        limits = np.array([sizes(i) for i in range(len(boxes.owners))], "f8").reshape(-1, 2)[boxes.owner]
        if not (boxes.boxes[:, 2:] <= limits[:, ::-1]).all():
            found.add(key, "its boxes do not lie in the pixels of their owners")


def _owner_sizes(
    store: Store, on: str, owners: tuple[str, ...], grids: tuple[str, ...]
) -> Callable[[int], tuple[float, float]]:
    """Return the function from an owner's number to its (rows, columns); endless where it is not there as it was."""
    if on != ON_SCENES:
        table = read_table(store.place, on)
        return lambda i: (float(table["height"].values[i]), float(table["width"].values[i]))
    placed = store.placements

    def of_scene(i: int) -> tuple[float, float]:
        scene, grid = owners[i], grids[i] if grids else ""
        if scene not in placed or store.grids[scene] != grid:
            return float("inf"), float("inf")
        height, width = placed[scene].grid.shape
        return float(height), float(width)

    return of_scene


def _check_samples(tree: Tree, samples: SampleSet, found: Findings) -> None:
    """Hold a set of samples against its columns, its flags and its boxes."""
    if found.touches(samples.key):
        return
    with _telling(samples.key, found):
        layout = samples.layout
        flags = tree.documents[f"{samples.key}/{IMAGE}{cv.FLAGS_SUFFIX}"]["shape"]
        if flags != [layout.count, layout.height, layout.width]:
            found.add(samples.key, "its flags are not of the shape of its pictures")
    boxes = f"{cv.BOXES}/{samples.name}"
    if boxes not in tree.documents:
        add_absent(tree, f"{boxes}/{ROOT}", found)
    elif tree.attributes(boxes).get("on") != samples.key:
        found.add(boxes, f"it is not on {samples.key}")
