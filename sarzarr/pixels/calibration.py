"""Calibration: the law from digital numbers to backscatter, ``(|DN|^2 - noise) * gain``, over any window."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np

from sarzarr.arrays import Array
from sarzarr.conventions import Quantity
from sarzarr.errors import InvalidInputError, UnsupportedRasterError


@dataclass(frozen=True, kw_only=True)
class Knots:
    """A field that is known along some lines of a raster, at pixels of their own: linear between, held beyond."""

    lines: Array = field(compare=False)
    """(lines,) float64, ascending; a line may lie outside of the raster."""
    pixels: tuple[Array, ...] = field(compare=False)
    """Of each line (pixels,) float64, ascending; not of one length."""
    values: tuple[Array, ...] = field(compare=False)
    """Of each line (pixels,) float64."""
    digest: str = field(init=False)
    """A hash of all of it: two are equal, and hash alike, where their digests do."""

    def __post_init__(self) -> None:
        parts = (self.lines, *self.pixels, *self.values)
        data = b"".join(np.float64(len(part)).tobytes() + part.astype(np.float64).tobytes() for part in parts)
        object.__setattr__(self, "digest", sha256(data).hexdigest())

    @property
    def is_one_row(self) -> bool:
        """Whether it depends on the column alone: known along one line (1,), it holds for all."""
        return len(self.lines) == 1

    def window(self, *, row: int, col: int, height: int, width: int) -> Array:
        """Return the field over a window, float32: (1, width) where it `is_one_row`, else (height, width)."""
        columns = np.arange(col, col + width, dtype=np.float64)
        if self.is_one_row:
            return np.interp(columns, self.pixels[0], self.values[0]).astype(np.float32)[None]
        rows = np.arange(row, row + height, dtype=np.float64)
        above = np.clip(np.searchsorted(self.lines, rows, side="right") - 1, 0, len(self.lines) - 2)
        share = (rows - self.lines[above]) / (self.lines[above + 1] - self.lines[above])
        share = np.clip(share, 0.0, 1.0)[:, None]
        weights = (1 - share).astype(np.float32), share.astype(np.float32)
        out, more = np.empty((2, height, width), np.float32)
        for line in range(int(above[0]), int(above[-1]) + 1):
            top, bottom = np.searchsorted(above, [line, line + 1])
            part = slice(int(top), int(bottom))
            low, high = (
                np.interp(columns, self.pixels[i], self.values[i]).astype(np.float32)
                for i in (line, line + 1)
            )
            np.multiply(weights[0][part], low, out=out[part])  # both terms positive: nothing cancels
            np.multiply(weights[1][part], high, out=more[part])
        return np.add(out, more, out=out)


@dataclass(frozen=True, kw_only=True)
class AzimuthBlock:
    """A rectangle of a raster, ends included, in which noise is scaled line by line."""

    first_line: int
    """Its first row, in pixels."""
    last_line: int
    """Its last row."""
    first_pixel: int
    """Its first column, in pixels."""
    last_pixel: int
    """Its last column."""
    factors: Knots
    """Factors along azimuth, (lines,): one row, whose pixels are lines of the image."""

    def scale(self, values: Array, *, row: int, col: int) -> None:
        """Scale what of a window's ``values``, (rows, columns) float32, lies in it, in place."""
        height, width = values.shape
        top, bottom = max(self.first_line - row, 0), min(self.last_line + 1 - row, height)
        left, right = max(self.first_pixel - col, 0), min(self.last_pixel + 1 - col, width)
        if top < bottom and left < right:
            factors = self.factors.window(row=0, col=row + top, height=1, width=bottom - top)[0]
            values[top:bottom, left:right] *= factors[:, None]


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Thermal noise in units of DN^2: along range, times factors along azimuth."""

    source: str
    """The name of the file that it was read from; never a path."""
    across: Knots
    """Noise along range, at some lines."""
    along: tuple[AzimuthBlock, ...] = ()
    """Rectangles and their factors; 1 where there is none."""

    @property
    def identity(self) -> tuple[Any, ...]:
        """Everything that decides the bits: digests, and the pixels of each rectangle."""
        blocks = (
            (b.first_line, b.last_line, b.first_pixel, b.last_pixel, b.factors.digest) for b in self.along
        )
        return self.across.digest, *blocks

    def window(self, *, row: int, col: int, height: int, width: int) -> Array:
        """Return noise over a window, (height, width) float32, in DN^2."""
        eta = self.across.window(row=row, col=col, height=height, width=width)
        eta = eta if len(eta) == height else np.repeat(eta, height, axis=0)
        for block in self.along:
            block.scale(eta, row=row, col=col)
        return eta


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The way of one band's digital numbers to backscatter: ``(|DN|^2 - noise) * factor / table^2``, linear power."""

    quantity: str
    """`conventions.Quantity` of the result."""
    source: str
    """The names of the files or tags that it was read from; never a path."""
    factor: float = 1.0
    """Linear power per DN^2, for all pixels."""
    table: Knots | None = None
    """What DN are divided by, pixel by pixel; None: by nothing."""
    noise: Noise | None = None
    """What is subtracted from DN^2; None: nothing."""

    def __post_init__(self) -> None:
        if self.quantity not in tuple(Quantity):
            known = ", ".join(Quantity)
            raise InvalidInputError(
                f"expected a quantity of {known}, got {self.quantity!r}. Choose one of them."
            )
        numbers = (np.array([self.factor]), *(() if self.table is None else self.table.values))
        for some in numbers:
            if not (np.isfinite(some).all() and (some > 0).all()):
                wrong = float(some[~((some > 0) & np.isfinite(some))][0])
                raise UnsupportedRasterError(
                    f"expected positive calibration factors in {self.source}, got {wrong:g}. Fetch the product "
                    "again, or keep its digital numbers with --calibrate none."
                )

    @classmethod
    def constant(cls, factor: float | str, *, quantity: str, source: str) -> "Calibration":
        """Return the calibration ``|DN|^2 * factor``, linear power of a quantity, by one constant of a product.

        Raises `UnsupportedRasterError` where the factor is zero, negative, NaN, infinite or no number.

        >>> Calibration.constant(10**-8.3, quantity="gamma0_rtc", source="JAXA").is_plain
        True
        """
        try:
            value = float(factor)
        except ValueError:
            value = math.nan
        return cls(quantity=quantity, source=source, factor=value)

    def __str__(self) -> str:
        less = f", less the noise of {self.noise.source}" if self.noise else ""
        return f"{self.quantity} by {self.source}{less}"

    @property
    def is_plain(self) -> bool:
        """Whether it is one gain (1,) a column, without noise: what compiled loops take."""
        return self.noise is None and (self.table is None or self.table.is_one_row)

    @property
    def identity(self) -> tuple[Any, ...]:
        """Everything that decides the bits: the same of an equal calibration, in any process."""
        noise = None if self.noise is None else self.noise.identity
        return self.quantity, self.factor, None if self.table is None else self.table.digest, noise

    def gain(self, *, row: int, col: int, height: int, width: int) -> Array:
        """Return linear power per DN^2 over a window, float32: (1, 1), (1, width) or (height, width)."""
        if self.table is None:
            return np.full((1, 1), self.factor, np.float32)
        gain = self.table.window(row=row, col=col, height=height, width=width)
        np.multiply(gain, gain, out=gain)
        return np.asarray(np.divide(np.float32(self.factor), gain, out=gain))

    def apply(self, power: Array, *, row: int, col: int) -> Array:
        """Turn DN^2 of a window, (rows, columns) float, into linear power in place, and return it. NaN stays NaN.

        Power at or below zero, where noise was as strong as the signal, is kept: it was measured.
        """
        height, width = power.shape
        if self.noise is not None:
            np.subtract(power, self.noise.window(row=row, col=col, height=height, width=width), out=power)
        return np.multiply(power, self.gain(row=row, col=col, height=height, width=width), out=power)


@dataclass(frozen=True, kw_only=True)
class Field:
    """A smooth field over a raster that annotation tells: an angle, or the noise equivalent sigma0."""

    path: str
    """The file that it was read from."""
    units: str
    """``degree`` or ``dB``."""
    values: Knots | Calibration
    """What it is, or the calibration whose noise it is."""

    def window(self, *, row: int, col: int, height: int, width: int) -> Array:
        """Return the field over a window, (height, width) float32, to 1/1024 of its unit: so it shrinks well."""
        place = {"row": row, "col": col, "height": height, "width": width}
        if isinstance(self.values, Knots):
            found = self.values.window(**place)
        else:
            found = 10 * np.log10(
                self.values.apply(np.zeros((height, width), np.float32), row=row, col=col) * -1
            )
        rounded = np.rint(found * 1024) / np.float32(1024)
        return np.array(np.broadcast_to(rounded, (height, width)), order="C")


def knots(lines: Sequence[float], pixels: Sequence[Array], values: Sequence[Array]) -> Knots:
    """Return a field known along lines: rows, in any order, with pixels (n,) and values (n,) of each.

    A line that is told twice counts once, the first time; lines that are all alike are kept as one.

    Raises `UnsupportedRasterError` where there is no line, counts differ, or pixels do not ascend.
    """
    order = sorted(dict(reversed([(float(line), i) for i, line in enumerate(lines)])).items())
    some = [(np.asarray(pixels[i], np.float64), np.asarray(values[i], np.float64)) for _, i in order]
    for p, v in some:
        if p.shape != v.shape or p.ndim != 1 or not len(p) or not (np.diff(p) > 0).all():
            raise UnsupportedRasterError(
                f"expected as many values as pixels, ascending, got {p.size} pixels and {v.size} values. "
                "Fetch the product again, or keep its digital numbers with --calibrate none."
            )
    if not some:
        raise UnsupportedRasterError(
            "expected calibration along lines, got none. Fetch the product again, or keep its digital numbers with "
            "--calibrate none."
        )
    first = some[0]
    if all(np.array_equal(p, first[0]) and np.array_equal(v, first[1]) for p, v in some):
        order, some = order[:1], some[:1]
    at = np.array([line for line, _ in order])
    return Knots(lines=at, pixels=tuple(p for p, _ in some), values=tuple(v for _, v in some))
