"""The ground lattice: blocks of the world, alike at every latitude, whose side a seed decides.

The world is cut into bands of latitude ``block`` metres high, and each band into equal columns as near to
``block`` metres wide as the band allows (the integerized sinusoidal grid of Rossow and Garder 1984,
doi:10.1175/1520-0450(1984)023<0341:SOSIDF>2.0.CO;2). A block is a number, and a hash of it and a seed is
its side: no scene needs to know of another. Arithmetic on degrees alone; nothing here projects.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Self

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError

EARTH_RADIUS: Final = 6_371_007.181
"""Metres: the sphere of the Earth's area. It is the lattice's unit, and no measure of a place."""
METRES_PER_DEGREE: Final = math.pi * EARTH_RADIUS / 180
MAX_TOUCHED: Final = 16
"""Blocks along an axis that a cell may touch and still be judged; one that touches more is held back."""
_LENGTH: Final = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*(km|m)?\s*")


def parse_length(text: str | float) -> float:
    """Return a length in metres.

    >>> parse_length("10km"), parse_length("250 m"), parse_length(40)
    (10000.0, 250.0, 40.0)

    Raises `InvalidInputError` where it is not a number, perhaps with ``m`` or ``km`` behind.
    """
    match = _LENGTH.fullmatch(str(text))
    if match is None or not math.isfinite(float(match[1])):
        raise InvalidInputError(f"a length such as '10km' or '500m' was expected, got {text!r}.")
    return float(match[1]) * (1000 if match[2] == "km" else 1)


def mix(values: Array) -> Array:
    """Return a bijection of uint64 values that spreads them evenly.

    The finalizer of splitmix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195).
    """
    mixed = values.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    return mixed


def key_of(text: str) -> np.uint64:
    """Return a uint64 that stands for a text, the same everywhere."""
    return np.uint64(int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little"))


def unit_ids(place: str, row: Array, col: Array) -> Array:
    """Return the uint64 of each unit that is decided as one: (row, col) of the lattice of a place."""
    packed = (np.asarray(row).astype(np.uint64) << np.uint64(32)) ^ np.asarray(col).astype(np.uint64)
    return mix(packed ^ key_of(place))


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The side of each unit: a uniform float64 from its hash and the seed, cut at the fractions."""

    seed: int
    """Another seed is another lottery over the same units."""
    val_fraction: float
    """Share of the units that are validation."""
    test_fraction: float = 0.0
    """Share of the units that are test; changing it changes no unit of validation. Of folds they come first."""
    fold: tuple[int, int] | None = None
    """The fold that is validation, from 0, and how many the units that are not test are cut into; None: no folds."""

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1 or not 0 <= self.test_fraction < 1 - self.val_fraction:
            raise InvalidInputError(
                "fractions of validation above 0, of test from 0, and of both below 1 were expected, "
                f"got {self.val_fraction} and {self.test_fraction}."
            )

    def __call__(self, ids: Array) -> Array:
        """Return the `sarzarr.conventions.Membership` (uint8) of each unit; never held back."""
        bits = mix(ids ^ key_of(f"seed/{self.seed}"))
        uniform = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        codes = np.full(ids.shape, cv.Membership.TRAIN, np.uint8)
        if self.fold is not None:
            mine, folds = self.fold
            rest = (uniform - self.test_fraction) / (1 - self.test_fraction)
            codes[np.minimum(np.floor(rest * folds), folds - 1) == mine] = cv.Membership.VAL
            codes[uniform < self.test_fraction] = cv.Membership.TEST
            return codes
        codes[uniform < self.val_fraction + self.test_fraction] = cv.Membership.TEST
        codes[uniform < self.val_fraction] = cv.Membership.VAL
        return codes


@dataclass(frozen=True, eq=False, kw_only=True)
class Extents:
    """Extents of things in the world: boxes of latitude and longitude, (n,) float64 degrees each."""

    south: Array
    """Least latitude; NaN where a thing has no known place."""
    north: Array
    """Greatest latitude."""
    west: Array
    """Least longitude; any turn of the world, at most ``east``."""
    east: Array
    """Greatest longitude; may pass 180."""

    def __len__(self) -> int:
        return len(self.south)

    def __getitem__(self, rows: Any) -> Self:
        """Return the extents at ``rows`` (a slice, a mask or indices)."""
        return type(self)(**{name: degrees[rows] for name, degrees in vars(self).items()})

    @property
    def is_placed(self) -> Array:
        """(n,) bool: whether each has a place that a box can tell: finite, and not about a pole."""
        with np.errstate(invalid="ignore"):
            return (self.north < 90) & (self.south > -90) & (self.east - self.west < 180)

    def grown(self, metres: float) -> Self:
        """Return the extents with a margin of ``metres`` all round."""
        high = metres / METRES_PER_DEGREE
        south, north = self.south - high, self.north + high
        far = np.minimum(np.maximum(np.abs(south), np.abs(north)), 89.999)
        wide = high / np.cos(np.radians(far))
        return type(self)(south=south, north=north, west=self.west - wide, east=self.east + wide)


@dataclass(frozen=True, kw_only=True)
class WorldLattice:
    """Blocks of about ``block`` by ``block`` metres, at every latitude."""

    block: float
    """Metres."""

    def __post_init__(self) -> None:
        if not 1 <= self.block <= 5e6:
            raise InvalidInputError(f"a block of 1 m to 5000 km was expected, got {self.block:g} m.")

    @property
    def name(self) -> str:
        """Its name, with the metres of a block's side: ground blocks are hashed with it."""
        return f"world/{self.block!r}"

    @property
    def bands(self) -> int:
        """Bands from pole to pole, each ``block`` metres high."""
        return math.ceil(180 * METRES_PER_DEGREE / self.block)

    def band_of(self, lat: Array) -> Array:
        """Return the band (int64) of latitudes in degrees, counted from the south pole."""
        raw = np.floor((np.asarray(lat) + 90) * (METRES_PER_DEGREE / self.block))
        return np.clip(raw, 0, self.bands - 1).astype(np.int64)

    def columns(self, band: Array) -> Array:
        """Return how many columns (int64) a band is cut into."""
        middle = (np.asarray(band) + 0.5) * (self.block / METRES_PER_DEGREE) - 90
        around = 360 * METRES_PER_DEGREE * np.cos(np.radians(np.clip(middle, -90, 90)))
        return np.maximum(np.rint(around / self.block), 1).astype(np.int64)

    def block_of(self, lon: Array, lat: Array) -> tuple[Array, Array]:
        """Return (band, column) of the block that holds each position in degrees.

        >>> WorldLattice(block=10_000).block_of(np.array([15.0, 375.0]), np.array([48.0, 48.0]))
        (array([1534, 1534]), array([1451, 1451]))
        """
        band = self.band_of(lat)
        columns = self.columns(band)
        return band, np.floor((np.asarray(lon) + 180) / 360 * columns).astype(np.int64) % columns

    def bounds_of(self, band: Array, column: Array) -> Extents:
        """Return the extents of blocks in degrees; the inverse of `block_of`."""
        high = self.block / METRES_PER_DEGREE
        wide = 360 / self.columns(band)
        south, west = band * high - 90, column * wide - 180
        return Extents(south=south, north=np.minimum(south + high, 90.0), west=west, east=west + wide)

    def ids(self, band: Array, column: Array) -> Array:
        """Return the uint64 of blocks."""
        return unit_ids(self.name, band, column)

    def touched(self, extents: Extents) -> Iterator[tuple[Array, Array]]:
        """Yield (indices, uint64 ids) until every block that each extent touches has come.

        Extents without a place, or that touch more than `MAX_TOUCHED` blocks along an axis, do not come.
        """
        judged = np.flatnonzero(self._is_judged(extents))
        placed = extents[judged]
        first, last = self.band_of(placed.south), self.band_of(placed.north)
        for step in range(int((last - first).max(initial=-1)) + 1):
            inside = np.flatnonzero(first + step <= last)
            band = first[inside] + step
            columns = self.columns(band)
            west, east = (self._column(v[inside], columns) for v in (placed.west, placed.east))
            for across in range(int((east - west).max(initial=-1)) + 1):
                some = np.flatnonzero(west + across <= east)
                column = (west[some] + across) % columns[some]
                yield judged[inside[some]], self.ids(band[some], column)

    @staticmethod
    def _column(lon: Array, columns: Array) -> Array:
        return np.floor((lon + 180) / 360 * columns).astype(np.int64)

    def _is_judged(self, extents: Extents) -> Array:
        with np.errstate(invalid="ignore"):
            high = (extents.north - extents.south) * METRES_PER_DEGREE
            far = np.minimum(np.maximum(np.abs(extents.south), np.abs(extents.north)), 90)
            wide = (extents.east - extents.west) * METRES_PER_DEGREE * np.cos(np.radians(far))
            judged: Array = extents.is_placed & (np.maximum(high, wide) < (MAX_TOUCHED - 1) * self.block)
        return judged


def judge(extents: Extents, lattice: WorldLattice, decide: Callable[[Array], Array]) -> Array:
    """Return the membership (n,) uint8 of each extent: that of all the blocks it touches, else held back.

    Each extent has the margin that it needs; one without a place is held back. ``decide`` gives the membership of
    block ids, as a `Draw` does.
    """
    codes = np.full(len(extents), cv.Membership.HELD_BACK, np.uint8)
    seen, mixed = np.zeros((2, len(extents)), bool)
    for some, ids in lattice.touched(extents):
        sides = decide(ids)
        mixed[some] |= seen[some] & (codes[some] != sides)
        codes[some] = sides
        seen[some] = True
    codes[mixed] = cv.Membership.HELD_BACK
    return codes


def touched_ids(extents: Extents, lattice: WorldLattice) -> Array:
    """Return the uint64 ids of all blocks that any extent touches, ascending."""
    parts = [ids for _, ids in lattice.touched(extents)]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)
