"""Small TIFFs of every kind, generated, their structures, and seeded mutations of them."""

import random
import struct

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from tiffs import speckle, write

SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""Bytes of a value of each of TIFF's types."""
NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    255,
    256,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 2,
    2**32 - 1,
    2**63,
    2**64 - 1,
)


def _tiles(side=32):
    return {"tiled": True, "blockxsize": side, "blockysize": side}


def make_seeds(folder):
    """Write TIFFs of a few kilobytes that are taken as backscatter; return their bytes by name."""
    float32, one = speckle((1, 70, 60)), {"tags": {"AREA_OR_POINT": "Area", "sar_note": "x" * 40}}
    uint16 = (float32 * 20000).astype("uint16")
    uint8 = (float32 * 800).clip(0, 255).astype("uint8")
    both = np.concatenate([float32, speckle((1, 70, 60), seed=1)])
    points = [GroundControlPoint(row=r, col=c, x=10 + c, y=50 - r, z=7) for r in (0, 69) for c in (0, 59)]
    polynomial = {name: [0.0, 1.0, *[0.0] * 18] for name in ("line_num_coeff", "samp_num_coeff")}
    polynomial |= {name: [1.0, *[0.0] * 19] for name in ("line_den_coeff", "samp_den_coeff")}
    ranges = {
        f"{k}_{what}": 1.0 for k in ("height", "lat", "line", "long", "samp") for what in ("off", "scale")
    }
    kinds = {
        "plain": (float32, one),
        "strips": (float32, {"compress": "deflate", "predictor": 3, "nodata": -9999.0, "blockysize": 8}),
        "lzw": (uint16, {"compress": "lzw", "predictor": 2, **_tiles()}),
        "zstd": (float32, {"compress": "zstd", "names": ["Sigma0_VV"], **_tiles()}),
        "lerc": (float32, {"compress": "lerc", **_tiles()}),
        "lerczstd": (float32, {"compress": "lerc_zstd", "max_z_error": 0.001, **_tiles()}),
        "packbits": (uint8, {"compress": "packbits"}),
        "jpeg": (uint8, {"compress": "jpeg", **_tiles()}),
        "lzma": (uint8, {"compress": "lzma"}),
        "webp": (np.repeat(uint8, 3, axis=0), {"compress": "webp", "photometric": "rgb", **_tiles()}),
        "bits": (uint16 // 32, {"nbits": 11, "compress": "deflate"}),
        "big": (float32, {"bigtiff": "yes", "compress": "deflate", **_tiles(), **one}),
        "bigendian": (uint16, {"endianness": "big", **one}),
        "planes": (
            both,
            {"interleave": "band", "names": ["VV", "VH"], "band_tags": [{"p": "VV"}, {"p": "VH"}]},
        ),
        "pixels": (both, {"interleave": "pixel", "compress": "deflate", "names": ["VV", "VH"]}),
        "complex": (both[:1] + 1j * both[1:], {"compress": "deflate"}),
        "gcps": (uint16, {"crs": "EPSG:4326", "transform": None, "gcps": points}),
        "rpcs": (uint16, {"crs": None, "transform": None, "rpcs": RPC(**polynomial, **ranges)}),
        "turned": (uint16, {"transform": rasterio.Affine(8, -6, 5e5, -6, -8, 5e6)}),
    }
    seeds = {}
    for name, (pixels, options) in kinds.items():
        path = write(folder / f"{name}.tif", pixels.astype(pixels.dtype), **options)
        seeds[name] = path.read_bytes()
    path = write(folder / "levels.tif", uint16, compress="deflate", **_tiles())
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(uint16[0] > 300)
    seeds["levels"] = path.read_bytes()
    seeds["snap"] = with_tag(
        seeds["plain"], 65000, b"<Dimap_Document><Spectral_Band_Info/></Dimap_Document>\0"
    )
    return seeds


def layout(data):
    """Return (order, is_big, entries, links): the places of each entry of each directory, and of each link to one."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return "<", False, [], []
    is_big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    word, counter, size = ("Q", "Q", 20) if is_big else ("I", "H", 12)
    link = 8 if is_big else 4
    entries, links, seen = [], [], set()
    while True:
        links.append(link)
        (at,) = struct.unpack_from(f"{order}{word}", data, link)
        if not at or at in seen or at + 8 > len(data):
            return order, is_big, entries, links
        seen.add(at)
        (count,) = struct.unpack_from(f"{order}{counter}", data, at)
        first = at + struct.calcsize(counter)
        link = first + count * size
        if link + struct.calcsize(word) > len(data):
            return order, is_big, entries, links
        entries += range(first, link, size)


def structures(data):
    """Return the sorted offsets at which something begins or ends: fields, directories, values, TIFF blocks."""
    order, is_big, entries, links = layout(data)
    word, inline = ("Q", 8) if is_big else ("I", 4)
    places = {0, 2, 4, 8, len(data), *links}
    blocks = {}
    for at in entries:
        tag, kind, count = struct.unpack_from(f"{order}HH{word}", data, at)
        value = at + 4 + inline
        places |= {at, at + 2, at + 4, value, value + inline}
        size = SIZES.get(kind, 1) * count
        if size > inline:
            (value,) = struct.unpack_from(f"{order}{word}", data, value)
            places |= {value, value + size // 2, value + size}
        form = {3: "H", 4: "I", 16: "Q"}.get(kind)
        if tag in (273, 279, 324, 325) and form and value + size <= len(data):
            blocks.setdefault(tag, struct.unpack_from(f"{order}{count}{form}", data, value))
    for offsets, sizes in ((273, 279), (324, 325)):
        for at, size in zip(blocks.get(offsets, ()), blocks.get(sizes, ()), strict=False):
            places |= {at, at + size // 2, at + size}
    return sorted(place for place in places if 0 <= place <= len(data))


def with_tag(data, tag, text, *, keys=None, doubles=None):
    """Return a little-endian classic TIFF with one more tag, of text, 16-bit keys or doubles, at its end."""
    kind, size, value = 2, 1, text
    if keys is not None:
        kind, size, value = 3, 2, struct.pack(f"<{len(keys)}H", *keys)
    if doubles is not None:
        kind, size, value = 12, 8, struct.pack(f"<{len(doubles)}d", *doubles)
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    entries = [data[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]
    entries.append(struct.pack("<HHII", tag, kind, len(value) // size, len(data)))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry)[0])
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + data[at + 2 + 12 * count :][:4]
    return data[:4] + struct.pack("<I", len(data) + len(value)) + data[8:] + value + directory


def set_tag(data, tag, *, kind=None, count=None, value=None):
    """Return a TIFF with fields of an entry of its first directory changed."""
    order, is_big, entries, _ = layout(data)
    word, inline = ("Q", 8) if is_big else ("I", 4)
    out = bytearray(data)
    at = next(e for e in entries if struct.unpack_from(f"{order}H", data, e)[0] == tag)
    if kind is not None:
        struct.pack_into(f"{order}H", out, at + 2, kind)
    if count is not None:
        struct.pack_into(f"{order}{word}", out, at + 4, count)
    if value is not None:
        form = {1: "B", 3: "H"}.get(struct.unpack_from(f"{order}H", out, at + 2)[0], word)
        struct.pack_into(f"{order}{form}", out, at + 4 + inline, value)
    return bytes(out)


# ------------------------------------------------------------------ mutations
def _field(data, rng):
    """A field of a directory, or a link to one, gets a number that tends to hurt."""
    order, is_big, entries, links = layout(data)
    if not entries:
        return data
    word, inline = ("Q", 8) if is_big else ("I", 4)
    out, at = bytearray(data), rng.choice(entries)
    place, form = rng.choice(
        [
            (at, "H"),
            (at + 2, "H"),
            (at + 4, word),
            (at + 4 + inline, word),
            (at + 4 + inline, "H"),
            (rng.choice(links), word),
        ]
    )
    near = (
        len(data),
        len(data) - 1,
        at,
        rng.randrange(len(data)),
        struct.unpack_from(f"{order}{form}", data, place)[0] + 1,
    )
    number = rng.choice((*NUMBERS, *near)) % 2 ** (8 * struct.calcsize(form))
    struct.pack_into(f"{order}{form}", out, place, number)
    return bytes(out)


def _entries(data, rng):
    """Two entries change places, or one takes the place of another."""
    _, is_big, entries, _ = layout(data)
    if len(entries) < 2:
        return data
    size, out = (20 if is_big else 12), bytearray(data)
    one, other = rng.sample(entries, 2)
    out[one : one + size] = data[other : other + size]
    if rng.random() < 0.5:
        out[other : other + size] = data[one : one + size]
    return bytes(out)


def _flipped(data, rng):
    """A few bits flip, half of the time near a structure."""
    out = bytearray(data)
    places = structures(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.choice(places) + rng.randrange(-4, 12) if rng.random() < 0.5 else rng.randrange(len(data))
        if 0 <= at < len(out):
            out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


def _overwritten(data, rng):
    """A run of bytes at a structure, such as a block's first bytes, is noise, or all ones, or zeros."""
    at, size = rng.choice(structures(data)), rng.choice((1, 2, 4, 8, 40))
    noise = rng.choice((rng.randbytes(size), b"\xff" * size, bytes(size)))
    return (data[:at] + noise + data[at + size :])[: len(data)]


def _cut(data, rng):
    """All that follows a structure is missing."""
    return data[: max(0, rng.choice(structures(data)) + rng.choice((-1, 0, 0, 1)))]


def _moved(data, rng):
    """Bytes are missing, or there twice, so that all offsets behind them are wrong."""
    at, size = rng.choice(structures(data)), rng.choice((1, 2, 12, 20, 256))
    return data[:at] + (data[at + size :] if rng.random() < 0.5 else data[max(0, at - size) :])


MUTATIONS = (_field, _field, _field, _entries, _flipped, _flipped, _overwritten, _overwritten, _cut, _moved)


def mutated(seeds, seed, number):
    """Return (name of its seed, bytes) of a mutated TIFF: the same for the same seed and number."""
    rng = random.Random(f"{seed}/{number}")
    name = rng.choice(sorted(seeds))
    data = seeds[name]
    for _ in range(rng.choice((1, 1, 2, 4))):
        if len(data) > 16:
            data = rng.choice(MUTATIONS)(data, rng)
    return name, data


# ------------------------------------------------------------------ made by hand
def made_by_hand(seeds):
    """Yield (name, bytes, whether it is a scene) of TIFFs that lie about counts, sizes, places and themselves."""
    plain, strips, lzw = seeds["plain"], seeds["strips"], seeds["lzw"]
    for size in (0, 10**6, 2**31 - 1, 2**31, 2**32 - 1):
        for tag, name in ((256, "columns"), (257, "rows")):
            yield f"{size} {name}", set_tag(plain, tag, kind=4, count=1, value=size), False
        both = (
            set_tag(set_tag(data, 256, kind=4, value=size), 257, kind=4, value=size) for data in (plain, lzw)
        )
        yield f"{size} columns and rows, in strips", next(both), False
        yield f"{size} columns and rows, in tiles", next(both), False
    yield "no band", set_tag(plain, 277, value=0), False
    for bands in (2, 64, 65535):
        yield f"{bands} bands", set_tag(plain, 277, value=bands), False
    for bits in (0, 7, 64, 65535):
        yield f"{bits} bits", set_tag(plain, 258, value=bits), False
    yield "24 bits of a float", set_tag(plain, 258, value=24), True
    for rows in (0, 1, 2**32 - 1):
        yield f"{rows} rows of a strip", set_tag(strips, 278, kind=4, value=rows), False
    for side in (0, 65520, 2**31 - 16, 2**32 - 16):
        yield (
            f"tiles of {side}",
            set_tag(set_tag(lzw, 322, kind=4, value=side), 323, kind=4, value=side),
            False,
        )
    for compression in (0, 2, 3, 4, 6, 7, 32773, 34712, 34887, 34925, 50000, 50001, 50002, 65535):
        yield f"compression {compression}", set_tag(strips, 259, value=compression), False
    order, _, _, links = layout(plain)
    first = struct.unpack_from(f"{order}I", plain, 4)[0]
    yield (
        "a directory that is its own next",
        plain[: links[-1]] + struct.pack("<I", first) + plain[links[-1] + 4 :],
        None,
    )
    yield "a directory behind the end", plain[:4] + struct.pack("<I", len(plain) + 10) + plain[8:], False
    yield "a directory of 65535 entries", plain[:first] + b"\xff\xff" + plain[first + 2 :], False
    yield "no directory", plain[:8], False
    yield "nothing", b"", False
    yield "text", b"II*\0" + b"GDAL" * 100, False
    for name, text in {
        "metadata of 200,000 levels": b"<GDALMetadata>" + b'<Item name="a">' * 200_000,
        "metadata of 50,000 items": b"<GDALMetadata>"
        + b"".join(b'<Item name="a%d">x</Item>' % i for i in range(50_000)),
        "metadata with entities": b'<!DOCTYPE x [<!ENTITY a "ha">]><GDALMetadata><Item name="a">&a;</Item>'
        b"</GDALMetadata>",
    }.items():
        yield name, with_tag(plain, 42112, text + b"\0"), True
    yield "JSON of a million levels", with_tag(plain, 270, b"[" * 10**6 + b"\0"), True
    yield "a description of megabytes", with_tag(plain, 270, b"20200101_VV " * 300_000 + b"\0"), True
    yield "a product of a million levels", with_tag(plain, 65000, b"<a>" * 10**6 + b"\0"), True
    yield (
        "a product of 100,000 bands",
        with_tag(plain, 65000, b"<a>" + b"<Spectral_Band_Info/>" * 100_000 + b"</a>\0"),
        True,
    )
    for text in (b"inf", b"1e999", b"nan(7)", b"9" * 100_000, b"\xff\xfe"):
        yield f"nodata {text[:10]!r}", with_tag(plain, 42113, text + b"\0"), True
    for name, value in {"NaN": float("nan"), "infinite": float("inf"), "1e308": 1e308, "0": 0.0}.items():
        yield f"pixels of {name}", placed(plain, scale=(value, value, 0.0)), True
        yield f"an origin of {name}", placed(plain, tie=(0.0, 0.0, 0.0, value, value, 0.0)), True
    for code in (0, 1, 32767, 65535, 9999):
        yield (
            f"CRS {code}",
            with_tag(without_tag(plain, 34735), 34735, None, keys=(1, 1, 0, 1, 3072, 0, 1, code)),
            True,
        )


def placed(data, *, scale=(10.0, 10.0, 0.0), tie=(0.0, 0.0, 0.0, 5e5, 5e6, 0.0)):
    """Return a TIFF with another pixel scale and tie point."""
    for tag, values in ((33550, scale), (33922, tie)):
        data = with_tag(without_tag(data, tag), tag, None, doubles=values)
    return data


def without_tag(data, tag):
    """Return a little-endian classic TIFF whose first directory does not have a tag."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    entries = [data[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]
    kept = [entry for entry in entries if struct.unpack_from("<H", entry)[0] != tag]
    following = data[at + 2 + 12 * count :][:4]
    directory = struct.pack("<H", len(kept)) + b"".join(kept) + following
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory
