"""Collections of chips for tests, written by the store's own writers from pixels that the tests know."""

from dataclasses import replace

import numpy as np
from pyproj import CRS, Transformer

from sarzarr.pixels.bounds import Histogram, clip_bounds_from_histogram
from sarzarr.store.collection_files import ShardOfChips, write_collection
from sarzarr.store.collections import (
    NO_TIME,
    ChipArray,
    ChipLayer,
    Contents,
    Part,
    chip_table,
    open_collection,
)
from sarzarr.store.commit import changing, write_bounds
from sarzarr.store.store import BoundsEntry, create_store

CRSS = ("EPSG:32632", "EPSG:32633", "EPSG:4326")
MASK = ChipLayer(name="mask", kind="classes", dtype="int16", nodata=-1, fill=-1)
VV = ChipArray(name="vv", polarization="VV", quantity="sigma0", bounds_key="vv/sigma0")
VH = ChipArray(name="vh", polarization="VH", quantity="sigma0", bounds_key="vh/sigma0")


def codes_of(chip, array, shape, holes=True):
    """Return the codes (rows, columns) uint16 of a chip's array; one corner is not measured."""
    rng = np.random.default_rng((chip, array))
    codes = rng.integers(14000, 30000, shape).astype(np.uint16)
    if holes and chip % 3 == 0:
        codes[: max(shape[0] // 8, 1), : max(shape[1] // 8, 1)] = 0
    return codes


def flags_of(codes):
    """Return the flags of codes: nodata where nothing was measured."""
    return np.where(codes == 0, 2, 0).astype(np.uint8)


def mask_of(chip, shape):
    """Return the mask (rows, columns) int16 of a chip: classes 0 and 1, and -1 where there is no label."""
    mask = np.random.default_rng((chip, 99)).integers(0, 2, shape).astype(np.int16)
    mask[-1, :3] = -1
    return mask


def ids_of(count):
    """Return the ids of chips."""
    return [f"site{i % 7}_{i:05d}_S1" for i in range(count)]


def make_chips(
    folder, *, sizes=((16, 16),) * 12, places=None, name="floods", arrays=(VV, VH), masks=True, per=5
):
    """Write a store with a collection of chips of these (rows, columns); return the store.

    ``places`` are (CRS number in `CRSS`, transform) by chip; left out, chips are 1 km apart in UTM 32N. Chips without
    a number that 7 divides have the mask.
    """
    store = create_store(folder)
    shapes = list(dict.fromkeys(sizes))
    parts = [replace(Part.of(*shape), per_shard=per, count=sizes.count(shape)) for shape in shapes]
    wkts = tuple(CRS.from_user_input(c).to_wkt() for c in CRSS)
    layers = (MASK,) if masks else ()
    facts = ({"platform": "S1A", "pass": "ascending"}, {"platform": "S1B", "pass": "descending"})
    contents = Contents(arrays=tuple(arrays), layers=layers, parts=tuple(parts), crs=wkts, facts=facts)
    rows, histograms, entries = [], {}, {}
    seen = dict.fromkeys(shapes, 0)
    pixels = {}
    for i, (chip, shape) in enumerate(zip(ids_of(len(sizes)), sizes, strict=True)):
        crs, transform = places[i] if places else (0, (10.0, 0, 400_000 + 1000.0 * i, 0, -10.0, 5_200_000.0))
        stored = {}
        for k, array in enumerate(arrays):
            stored[array.name] = codes_of(i, k, shape)
            stored[array.flags] = flags_of(stored[array.name])
        has_mask = masks and i % 7 != 0
        if has_mask:
            stored["mask"] = mask_of(i, shape)
        pixels[i] = stored
        day = np.datetime64("2026-01-01", "ns") + np.timedelta64(i, "D")
        rows.append(
            {"id": chip, "source": f"{chip}.tif", "transform": transform, "part": shapes.index(shape),
             "row": seen[shape], "crs": crs, "facts": i % 2, "time": NO_TIME if i == 1 else int(day.astype(np.int64)),
             "bytes": 1, "modified": 1, "layers": int(has_mask)}
            | {f"valid_{a.name}": int((stored[a.name] > 0).sum()) for a in arrays}
        )  # fmt: skip
        seen[shape] += 1
    found, hashes = {}, np.zeros((len(rows), 2, 32), np.uint8)
    for number, part in enumerate(parts):
        mine = [i for i, row in enumerate(rows) if row["part"] == number]
        staged, records = folder.with_name(f"{folder.name}.staged") / part.name, []
        for shard in range(part.shards):
            with ShardOfChips(staged, contents, part, shard) as writer:
                for at, i in enumerate(mine[shard * per : (shard + 1) * per]):
                    hashes[i, 0] = np.frombuffer(writer.append(at, pixels[i]), np.uint8)
                records.append(writer.close())
        found[part.name] = staged, records
    for array in arrays:
        codes = np.concatenate([one[array.name].ravel() for one in pixels.values()])
        db = np.where(codes > 0, (codes - 1.0) / 65534 * 160 - 60, np.nan)
        histograms[array.name] = Histogram.from_db(db)
        clip = clip_bounds_from_histogram(histograms[array.name])
        entries[array.bounds_key] = BoundsEntry(
            vmin=-60.0, vmax=100.0, clip_vmin=clip.vmin, clip_vmax=clip.vmax
        )
    with changing(store) as draft:
        write_collection(draft, name, contents, _table(contents, rows, hashes), histograms, found)
        write_bounds(draft, entries)
    return store.anew()


def _table(contents, rows, hashes):
    numbers = np.array([[row[name] for name in contents.numbers] for row in rows], np.int64)
    texts = ([row[name] for row in rows] for name in ("id", "source"))
    affine = np.array([row["transform"] for row in rows], np.float64)
    return chip_table(*texts, affine, numbers, hashes)


def crowd(count, *, seed=0, spread=(0.8, 0.5), size=16):
    """Return places of chips that overlap at random about 12 E 47 N, in three CRSs."""
    rng = np.random.default_rng(seed)
    lon, lat = 12 + rng.normal(0, spread[0], count), 47 + rng.normal(0, spread[1], count)
    number = rng.integers(0, 3, count)
    pixel = np.where(number < 2, 160.0, 0.0016) * 16 / size
    x, y = np.empty(count), np.empty(count)
    for crs, name in enumerate(CRSS):
        mine = number == crs
        x[mine], y[mine] = Transformer.from_crs("EPSG:4326", name, always_xy=True).transform(
            lon[mine], lat[mine]
        )
    affine = np.stack([pixel, 0 * x, x, 0 * x, -pixel, y], axis=1).tolist()
    return list(zip(number.tolist(), map(tuple, affine), strict=True))


def chips_of(store, name="floods"):
    """Return the collection that `make_chips` wrote."""
    return open_collection(store, name)
