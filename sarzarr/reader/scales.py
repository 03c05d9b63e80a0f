"""Patches of several scales: windows read as they are stored, and brought to the patches' size in linear power."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from sarzarr.arrays import Array
from sarzarr.pixels.compiled.when import scaling_for
from sarzarr.pixels.kernels import db_kernel, normalize_kernel
from sarzarr.pixels.radiometry import denormalize, from_db, to_codes
from sarzarr.pixels.scaling import Taps, powers_of_codes
from sarzarr.pixels.stretch import bits_of
from sarzarr.pixels.turns import apply
from sarzarr.reader.engine import BatchFiller
from sarzarr.reader.sources import Address
from sarzarr.reader.targets import PatchTargets

_TOGETHER: Final = 2**21
"""Bytes of windows that are read together: as much as a core's cache holds."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scaling:
    """The windows that patches are scaled from, and the laws of their arrays."""

    span: Array
    """(n,) int32: rows and columns of the window of each patch, pixels."""
    dtypes: tuple[str, ...]
    """The stored dtype of each array of the images."""
    stored: tuple[tuple[float, float], ...]
    """(vmin, vmax) in dB that each is stored on."""
    clip: tuple[tuple[float, float], ...]
    """(vmin, vmax) in dB that each is delivered on."""

    @property
    def unclipped(self) -> "Scaling":
        """The same, delivered on the stored range."""
        return replace(self, clip=self.stored)


@dataclass(frozen=True, eq=False, kw_only=True)
class ScaledPart:
    """One part of a batch, as planes of windows of several sizes."""

    scaling: Scaling
    """The laws of images."""
    kind: Literal["image", "flags", "layer"]
    """Images are scaled in power, flags to the lowest, layers by their dtype."""
    dtype: str
    """The dtype that is delivered, as of `sarzarr.reader.prefetch.PartRecipe`."""
    outside: float | int | None
    """The nodata value of a layer."""
    address: Address
    """The first pixels of windows, (planes,)."""
    span: Array
    """(planes,) their rows and columns."""
    turns: Array
    """(planes,) operations of `sarzarr.pixels.turns`."""

    def fill(self, filler: Callable[[int], BatchFiller], out: Array) -> None:
        """Write patches into ``out`` (planes, size, size); ``filler(span)`` reads windows of a size as stored.

        ``filler(0)`` reads those of the patches' own size as they are delivered: they are not scaled.
        """
        size, arrays = out.shape[-1], self.address.array
        dtypes = np.array(self.scaling.dtypes)[arrays] if self.kind == "image" else np.full(len(arrays), "")
        for span in np.unique(self.span).tolist():
            some = np.flatnonzero(self.span == span)
            if span == size:
                self._read(filler(0), some, out)
                continue
            taps = Taps.between(span, size)
            for dtype in np.unique(dtypes[some]).tolist():
                alike = some[dtypes[some] == dtype]
                kept = np.dtype(dtype or out.dtype)
                step = max(_TOGETHER // (span * span * kept.itemsize), 1)
                for first in range(0, len(alike), step):
                    self._scale(filler(span), alike[first : first + step], span, kept, taps, out)

    def _at(self, some: Array) -> Address:
        plane = self.address.plane
        return Address(
            array=self.address.array[some],
            row=self.address.row[some],
            col=self.address.col[some],
            plane=None if plane is None else plane[some],
        )

    def _read(self, filler: BatchFiller, some: Array, out: Array) -> None:
        """Read and turn windows of the patches' size."""
        whole = len(some) == len(out)
        place = (
            out if whole else filler.fetcher.scratch.take("kept", (len(some), *out.shape[1:]), out.dtype.str)
        )
        filler.fill(lambda: self._at(some), place, self.turns[some])
        if not whole:
            out[some] = place

    def _scale(
        self, filler: BatchFiller, some: Array, span: int, dtype: np.dtype[Any], taps: Taps, out: Array
    ) -> None:
        """Read windows of another size, scale and turn each."""
        scratch = filler.fetcher.scratch
        windows = scratch.take("unscaled", (len(some), span, span), dtype.str)
        filler.fill(lambda: self._at(some), windows)
        for window, plane in zip(windows, some.tolist(), strict=True):
            if self.kind == "image":
                patch = self._image(window, int(self.address.array[plane]), taps, filler)
            elif self.kind == "flags":
                patch = taps.lowest(window)
            elif dtype.kind == "f":
                patch = _mean_of_layer(window, self.outside, taps)
            else:
                patch = taps.of_nearest(window)
            np.copyto(out[plane], apply(int(self.turns[plane]), patch))

    def _image(self, window: Array, array: int, taps: Taps, filler: BatchFiller) -> Array:
        """Return the patch that stored values (span, span) make, as it is delivered; 0 where it is not valid."""
        stored, (n, size) = self.scaling.stored[array], (len(window), len(taps.first))
        work, scratch = filler.fetcher.work, filler.fetcher.scratch
        work.pixels += window.size
        if window.dtype == np.uint16 and (fast := scaling_for(work.pixels)) is not None:
            shapes = {"powers": (n, n), "counts": (size, size), "sums": (n,), "mean": (size, size)}
            *memory, power = (scratch.take(name, shape, "float32") for name, shape in shapes.items())
            fast.scaled_power(window, powers_of_codes(stored), taps, tuple(memory), power)
        elif window.dtype == np.uint16:
            power = taps.mean(powers_of_codes(stored)[window])
        else:
            power = taps.mean(from_db(denormalize(window.astype(np.float32), stored)))
        z = normalize_kernel(db_kernel(power), self.scaling.clip[array])
        if self.dtype == "uint16":
            return to_codes(z)
        np.fmax(z, np.float32(0), out=z)  # NaN becomes 0
        return bits_of(z, "bfloat16") if self.dtype == "bfloat16" else z.astype(self.dtype, copy=False)


def _mean_of_layer(window: Array, nodata: float | None, taps: Taps) -> Array:
    """Return the mean of a layer's floats where they are not nodata; where all are, that value, else NaN."""
    values = window.astype(np.float32)
    if nodata is not None:
        values[window == nodata] = np.nan
    mean = taps.mean(values)
    if nodata is not None and not math.isnan(nodata):
        mean[np.isnan(mean)] = nodata
    return mean.astype(window.dtype)


def scaled_targets(targets: PatchTargets, span: Array, shape: tuple[int, int]) -> PatchTargets:
    """Return targets in the pixels of patches of ``shape``, of those of their windows, ``span`` (n,) a side.

    The angles of rotated boxes stay.
    """
    own = np.repeat(shape[0] / span.astype(np.float64), np.diff(targets.boxes.first))
    given = targets.boxes.boxes.copy()
    given[:, :4] = given[:, :4] * own[:, None]
    boxes = replace(targets.boxes, boxes=given)
    return replace(targets, boxes=boxes, shape=shape)
