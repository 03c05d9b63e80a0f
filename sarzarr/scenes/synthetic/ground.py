"""Invented ground: what lies at each pixel, free of speckle, as a function of a seed alone."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from sarzarr.arrays import Array

LOOKS: Final = 4.4
"""Equivalent looks of the speckle: those of Sentinel-1 IW GRDH (product specification, S1-RS-MDA-52-7441)."""
_CROSS: Final = frozenset({"VH", "HV"})
_TOWNS: Final = (
    (0.62, 0.66, 1.0),
    (0.20, 0.80, 0.4),
    (0.88, 0.86, 0.22),
    (0.36, 0.52, 0.16),
    (0.08, 0.45, 0.14),
)
"""(down, across, size) of towns, as shares of the scene and of the first town."""
_LATTICE: Final = 128
"""Nodes after which a noise field repeats."""


def speckle(shape: tuple[int, ...], rng: np.random.Generator, *, looks: float = LOOKS) -> Array:
    """Return multiplicative speckle of intensity: float32, gamma distributed, mean 1, variance 1/looks."""
    out: Array = rng.standard_gamma(looks, shape, dtype=np.float32)
    out *= np.float32(1.0 / looks)
    return out


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A coast with fields, forest, towns, a river, roads and ships; sizes are those of pixels of 10 metres."""

    height: int
    """Rows."""
    width: int
    """Columns."""
    seed: int = 0
    """Decides everything."""

    def levels_db(
        self, rows: Array, *, date: int = 0, polarization: str = "VV", columns: Array | None = None
    ) -> Array:
        """Return sigma0 in dB without speckle or ships: float32, shape (len(rows), len(columns))."""
        r = np.asarray(rows, np.float32)
        q = np.arange(self.width, dtype=np.float32) if columns is None else np.asarray(columns, np.float32)
        cross = polarization in _CROSS
        inland = self.inland(r, q)
        land = self._fields(r, q, date, cross)
        self._forest(land, r, q, cross)
        self._roads(land, r, q, cross)
        self._towns(land, r, q, cross)
        self._river(land, r, q, cross)
        sea = self._sea(r, q, date, cross)
        surf = np.exp(-(((inland + 0.05) / 0.05) ** 2)) * (5 + 3 * self._noise(r, q, 9, 71))
        return np.where(inland > 0, land, sea + np.maximum(surf, 0)).astype(np.float32)

    def inland(self, r: Array, q: Array) -> Array:
        """Return how far a pixel is from the coast, about 1 in 60 pixels: positive on land."""
        line = self.width * (0.22 + 0.22 * r / self.height)
        rough = 1.1 * self._noise(r, q, 190, 1) + 0.35 * self._noise(r, q, 70, 2)
        return (q[None] - line[:, None]) / 60 + (rough + 0.07 * self._noise(r, q, 20, 3))

    def add_ships(self, power: Array, rows: Array, *, date: int, polarization: str) -> None:
        """Add the ships of one date to rows of linear power, in place: bright hulls with sidelobes."""
        rng = np.random.default_rng([self.seed, 3, date])
        number = max(3, self.height * self.width // 40_000)
        spots = rng.random((number, 2)) * (self.height, self.width)
        hulls = rng.random((number, 3))
        gain = 0.06 if polarization in _CROSS else 1.0
        for (row, col), (turn, length, bright) in zip(spots, hulls, strict=True):
            near = (rows > row - 24) & (rows < row + 24)
            if not near.any() or self.inland(*np.array([[row], [col]], np.float32))[0, 0] > -0.4:
                continue
            left = max(0, int(col) - 24)
            dr, dq = rows[near][:, None] - row, np.arange(left, min(self.width, int(col) + 25))[None] - col
            along = dr * math.cos(math.pi * turn) + dq * math.sin(math.pi * turn)
            aside = dq * math.cos(math.pi * turn) - dr * math.sin(math.pi * turn)
            hull = np.exp(-((along / (1.2 + 3.5 * length)) ** 4) - (aside / 1.1) ** 2)
            down, across = (np.sinc(v / 1.7) ** 2 * np.exp(-(w**2)) for v, w in ((dr, dq), (dq, dr)))
            ship = gain * 10 ** (0.3 + 1.4 * bright) * (hull + 0.08 * (down + across))
            power[near, left : left + dq.size] += ship.astype(np.float32)

    def _sea(self, r: Array, q: Array, date: int, cross: bool) -> Array:
        rng = np.random.default_rng([self.seed, 4, date])
        wind, phase, tilt = rng.normal(0, 0.8), rng.uniform(0, 6), rng.uniform(0.2, 0.5)
        gusts = 1.1 * self._noise(r / 2.2, q, 60, 10 + date % 7)
        gusts += 0.5 * self._noise(r, q / 1.5, 17, 20 + date % 7)
        turn = r[:, None] * tilt + q[None] * math.sqrt(1 - tilt**2)
        swell = np.sin(turn * (2 * math.pi / 13) + phase + 2.2 * self._noise(r, q, 90, 30))
        swell *= np.clip(0.6 + 0.6 * self._noise(r, q, 140, 31), 0, 1)
        slick = 1 / (1 + np.exp(-6 * (self._noise(r / 1.7, q / 0.8, 110, 40 + date % 7) - 1.1)))
        if cross:
            return -28 + wind + 0.4 * gusts + 0.2 * swell - 1.0 * slick
        return -22 + 2 * wind + gusts + 0.9 * swell - 4.5 * slick

    def _fields(self, r: Array, q: Array, date: int, cross: bool) -> Array:
        """Return strips of parcels, each at a level of its own, hedges between some of them."""
        bend = 14 * self._noise(r, q, 260, 50)
        turn = math.radians(24)
        u = r[:, None] * math.cos(turn) + q[None] * math.sin(turn) + bend
        v = q[None] * math.cos(turn) - r[:, None] * math.sin(turn) + 1.4 * bend
        u /= 58
        strip = np.floor(u).astype(np.int32)
        v = v / (18 + 34 * self._drawn(strip, 51)) + 7 * self._drawn(strip, 52)
        parcel = np.floor(v).astype(np.int32) * 7919 + strip * 104_729
        level = -12.2 + 5.2 * (self._drawn(parcel, 53) + self._drawn(parcel, 54) - 1)
        level += 2.4 * (self._drawn(parcel, 60 + date) - 0.5)
        if cross:
            level += -6 + 3.0 * (self._drawn(parcel, 55) - 0.5)
        edge = np.minimum(np.minimum(u - strip, strip + 1 - u) * 58, (v - np.floor(v)) * 30)
        hedged = self._drawn(parcel, 56) < 0.35
        level[(edge < 1.1) & hedged] += 2.5
        level[(edge < 1.0) & ~hedged] -= 2.5
        level += 0.3 * self._noise(r, q, 11, 57)
        return level

    def _forest(self, land: Array, r: Array, q: Array, cross: bool) -> None:
        cover = self._noise(r, q, 150, 80) + 0.5 * self._noise(r, q, 45, 81)
        cover += 0.25 * self._noise(r, q, 14, 82)
        canopy = (-13.6 if cross else -8.6) + 0.7 * self._noise(r, q, 4, 83)
        np.copyto(land, canopy, where=cover > 0.75)

    def _towns(self, land: Array, r: Array, q: Array, cross: bool) -> None:
        """Draw towns and villages where they lie in ``land``."""
        reach = 0.105 * math.hypot(self.height, self.width)
        for k, (down, across, size) in enumerate(_TOWNS):
            from_row, from_col = r - down * self.height, 0.85 * (q - across * self.width)
            rows, cols = (np.flatnonzero(np.abs(away) < 1.6 * reach * size) for away in (from_row, from_col))
            if rows.size and cols.size:
                near = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
                away = np.hypot(from_row[near[0], None], from_col[None, near[1]]) / (reach * size)
                self._town(land[near], r[near[0]], q[near[1]], away, cross, turn=math.radians(12 + 31 * k))

    def _town(self, land: Array, r: Array, q: Array, away: Array, cross: bool, *, turn: float) -> None:
        """Draw houses with a tail of double bounces, sparser outwards, and the streets between them."""
        rough = 1 + 0.35 * self._noise(r, q, 48, 90) + 0.3 * self._noise(r, q, 16, 91)
        u = r[:, None] * math.cos(turn) + q[None] * math.sin(turn)
        v = q[None] * math.cos(turn) - r[:, None] * math.sin(turn)
        house = np.floor(u / 3.4).astype(np.int32) * 7919 + np.floor(v / 2.6).astype(np.int32) * 104_729
        built = self._drawn(house, 98) * 0.5 + 0.22 < np.exp(-(away**2)) * rough
        level = -8.0 + 4.2 * -np.log(1 - 0.996 * self._drawn(house, 92)) - (6.0 if cross else 0.0)
        street = (np.mod(u, 13) < 1.2) | (np.mod(v, 27) < 1.4)
        level[street] = -17.0 if cross else -11.5
        np.copyto(land, level, where=built)

    def _roads(self, land: Array, r: Array, q: Array, cross: bool) -> None:
        for k, (slope, start) in enumerate(((0.42, 0.30), (-0.9, 1.25), (2.6, -1.3))):
            bends = self._noise(np.full(1, k, np.float32), q, 170, 95)[0]
            line = start * self.height + slope * q + 22 * bends
            away = np.abs(r[:, None] - line[None]) / math.hypot(1, slope)
            np.copyto(land, -24.0 if cross else -18.0, where=away < 1.4)

    def _river(self, land: Array, r: Array, q: Array, cross: bool) -> None:
        top = np.zeros(1, np.float32)
        bends = 60 * self._noise(top, q, 160, 96)[0] + 22 * self._noise(top, q, 52, 97)[0]
        line = 0.42 * self.height + bends
        away = np.abs(r[:, None] - line[None]) / np.hypot(1, np.gradient(line) if q.size > 1 else 0)[None]
        wide = 2.2 + 4 * np.exp(-3 * q / self.width)
        np.copyto(land, -27.0 if cross else -21.0, where=away < wide[None])
        land += 4.0 * np.exp(-((away - wide[None] - 1.5) ** 2))

    def _noise(self, r: Array, q: Array, period: float, salt: int) -> Array:
        """Return smooth noise, of deviation 1 at nodes ``period`` pixels apart: (len(r), len(q)) float32."""
        rng = np.random.default_rng([self.seed, 5, salt])
        nodes = rng.standard_normal((_LATTICE, _LATTICE), dtype=np.float32)
        down, across = _weights(r / period), _weights(q / period)
        strips = nodes[down[0]] * (1 - down[2])[:, None] + nodes[down[1]] * down[2][:, None]
        out: Array = strips[:, across[0]] * (1 - across[2])
        out += strips[:, across[1]] * across[2]
        return out

    def _drawn(self, key: Array, salt: int) -> Array:
        """Return a uniform number in [0, 1) for each integer key, the same for the same key: float32."""
        table = np.random.default_rng([self.seed, 6, salt]).random(8191, dtype=np.float32)
        return table[np.mod(key, 8191)]


def _weights(at: Array) -> tuple[Array, Array, Array]:
    """Return the two lattice nodes about each position, and the smooth weight of the second."""
    low = np.floor(at)
    t = (at - low).astype(np.float32)
    node = low.astype(np.int64)
    return node % _LATTICE, (node + 1) % _LATTICE, t * t * (3 - 2 * t)
