"""Which pixels of a file were measured: by its tags and masks, and by values that stand for nothing in a sample."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.pixels.kernels import STANDS_FOR_NOTHING, float_dtype, is_sentinel, power_kernel
from sarzarr.rasters import Unmeasured, measured, read_window
from sarzarr.scenes.header import Header, SampleWindow, further_places, sample_places
from sarzarr.text import nodata_text

SATURATED: Final = 65535.0
"""The highest uint16, which stands for nothing where it is repeated; DN as bright as that are rare."""
SHARE: Final = 1e-3
"""Share of the sampled pixels that a value must have to stand for nothing, at the least."""
TIMES: Final = 50
"""How often a value must be there for once of those next to it: what is quantised repeats all of its values."""
ENOUGH: Final = 1024
"""Measured pixels of a sample below which more windows are looked at."""
LOWEST: Final = -3e38
"""Values below this are float32's lowest, however they are rounded."""
_SPECKLE: Final = 256
"""Distinct values below which a raster has no speckle, and none of its values stands out."""
_MOST: Final = 4
"""Values up to which what stands out stands for nothing; more are a raster of another kind."""


@dataclass(frozen=True, kw_only=True)
class UndeclaredFill:
    """A value that no tag declares, and that stands for pixels that nobody measured."""

    value: float
    """The value, as the pixels have it."""
    count: int
    """Sampled pixels that have it."""
    of: int
    """Pixels that were sampled."""

    def __str__(self) -> str:
        return f"{nodata_text(self.value)} ({self.count:,} of {self.of:,} sampled pixels)"


@dataclass(frozen=True, kw_only=True)
class BandSample:
    """The sampled pixels of one band, and what tells which of them were measured."""

    windows: tuple[Array, ...]
    """(rows, columns) each: NaN where a pixel was not measured, if the file is of floats or some were not."""
    nodata: float | None
    """The sentinel that the file or the caller declares."""
    rule: Unmeasured
    """The band's mask."""
    is_told: bool
    """Whether the caller says the sentinel, or a store wrote it: nothing else but the mask tells of others then."""
    fills: tuple[UndeclaredFill, ...]
    """Values that stand for nothing, though no tag says so; 0 among them is one of a dB raster alone."""

    def unmeasured(self, representation: str) -> Unmeasured | None:
        """Return what tells which pixels nobody measured, beside the tag, once it is known how numbers are written.

        Zeros without a tag or mask are fill in dB: 0 dB to the last bit is no speckle.
        """
        values = {f.value for f in self.fills if f.value not in STANDS_FOR_NOTHING and f.value > LOWEST}
        is_db = representation == cv.Representation.DB
        is_untagged = (
            not self.is_told and self.rule.mask is None and (self.nodata is None or np.isnan(self.nodata))
        )
        if is_db and is_untagged:
            values.add(0.0)
        elif not is_db:
            values.discard(0.0)
        rule = Unmeasured(mask=self.rule.mask, values=tuple(sorted(values)))
        return rule or None

    def said(self, representation: str) -> tuple[str, ...]:
        """Return a clause for each way in which pixels are told as not measured, but for the tag."""
        masked = ("its mask tells which pixels were measured",) if self.rule.mask is not None else ()
        return (*masked, *self.found(representation))

    def found(self, representation: str) -> tuple[str, ...]:
        """Return a clause for each value that stands for nothing though no tag declares it."""
        is_db = representation == cv.Representation.DB
        found = (fill for fill in self.fills if is_db or fill.value)
        return tuple(f"pixels of {fill}, which no tag declares, were not measured" for fill in found)


def sample_band(path: Path, header: Header, band: int, *, nodata: float | None, is_told: bool) -> BandSample:
    """Return the sample of one band; more windows are read where the first have next to no measured pixel.

    Of a complex one there are no windows. Where the caller says ``nodata`` (``is_told``), no other value is looked
    for.

    Raises `UnsupportedRasterError` where the pixels cannot be decoded.
    """
    rule = Unmeasured(mask=header.masks[band - 1])
    if header.dtype.kind == "c":
        return BandSample(windows=(), nodata=nodata, rule=rule, is_told=is_told, fills=())
    windows = list(_read(path, band, sample_places(header), rule, nodata))
    usable = sum(map(_usable, windows))
    if usable < min(ENOUGH, sum(w.size for w in windows)):
        for window in _read(path, band, further_places(path, header), rule, nodata):
            windows.append(window)
            usable += _usable(window)
            if usable >= ENOUGH:
                break
    fills = () if is_told else fills_of(windows, is_float=header.dtype.kind == "f")
    if fills:
        values = Unmeasured(values=tuple(f.value for f in fills))
        windows = [measured(window, values, row=0, col=0) for window in windows]
    return BandSample(windows=tuple(windows), nodata=nodata, rule=rule, is_told=is_told, fills=fills)


def _read(
    path: Path, band: int, places: Iterable[SampleWindow], rule: Unmeasured, nodata: float | None
) -> Iterator[Array]:
    for place in places:
        raw = read_window(path, band=band, **asdict(place))
        missing = is_sentinel(raw, nodata)
        window = measured(raw, rule, row=place.row, col=place.col)
        if missing.any():
            window = window.astype(float_dtype(window.dtype), copy=False)
            window[missing] = np.nan
        yield window


def _usable(window: Array) -> int:
    return int(np.count_nonzero(np.isfinite(window) & (window != 0)))


def fills_of(windows: Sequence[Array], *, is_float: bool) -> tuple[UndeclaredFill, ...]:
    """Return the values of sampled windows that stand for nothing, lowest first.

    They are `sarzarr.pixels.kernels.STANDS_FOR_NOTHING` and float32's lowest; `SATURATED`, and of floats any other
    value, where it is repeated: in more than `SHARE` of the pixels, and `TIMES` as often as those next to it among
    the distinct values. Zeros count as such a value, too: of power and amplitude they are judged elsewhere.
    """
    if not windows:
        return ()
    pixels = np.concatenate([window.ravel() for window in windows])
    values, counts = np.unique(pixels[np.isfinite(pixels)], return_counts=True)
    total = int(counts.sum())
    is_listed = np.isin(values, STANDS_FOR_NOTHING) | (values <= LOWEST)
    stands_out = is_repeated(values, counts)
    is_speckle = is_float and np.count_nonzero(~is_listed) >= _SPECKLE
    if not is_speckle or np.count_nonzero(stands_out) > _MOST:
        stands_out &= values == SATURATED
    found = is_listed | stands_out
    return tuple(
        UndeclaredFill(value=float(value), count=int(count), of=total)
        for value, count in zip(values[found], counts[found], strict=True)
    )


def is_repeated(values: Array, counts: Array) -> Array:
    """Return (values,) bool: which of sorted distinct values stand out by how often they are there."""
    if values.size < 2:
        return np.zeros(values.shape, bool)
    beside = np.zeros(values.size, np.int64)
    beside[1:] = counts[:-1]
    np.maximum(beside[:-1], counts[1:], out=beside[:-1])
    return np.asarray((counts > SHARE * counts.sum()) & (counts >= TIMES * beside))


def out_of_range(sample: BandSample, representation: str, *, factor: float = 1.0) -> str | None:
    """Return why a band's pixels cannot be in the representation that is claimed; None where they can.

    So it is where fewer than half lie within the stored range, as of dB times 100 called dB. Power at or below zero
    is at the floor for a reason, and does not count where some is above. ``factor`` is that of a calibration, which
    would be done twice where the pixels were calibrated before.
    """
    if not sample.windows:
        return None
    low, high = (10 ** (end / 10) for end in cv.STORED_RANGE)
    pixels = np.concatenate([w[np.isfinite(w) & (w != 0)] for w in sample.windows])
    power = power_kernel(pixels, representation) * factor
    inside, positive = (int(np.count_nonzero(p)) for p in ((power > low) & (power < high), power > 0))
    count = positive if representation == cv.Representation.POWER and positive else pixels.size
    if inside >= count / 2:
        return None
    ends = "{:g} to {:g} dB".format(*cv.STORED_RANGE)
    return (
        f"expected {representation} of {ends}, got {inside:,} of {count:,} sampled pixels within, and a median of "
        f"{float(np.median(pixels)):.6g}: the others would lie at an end of the stored range. "
        "Say what they are with --representation, or write them as power or dB."
    )


def declared_scale(tags: Iterable[Mapping[str, str]]) -> str | None:
    """Return why tags of a file or its bands keep it from being taken: they declare a scale; None where none does.

    A reader cannot know whether ``scale_factor=100`` multiplies, as CF has it, or divides, as of dB times 100.
    """
    for tag, value, nothing in (
        (tag, value, "1" if tag.lower() == cv.SCALE_FACTOR else "0")
        for held in tags
        for tag, value in held.items()
        if tag.lower() in (cv.SCALE_FACTOR, cv.ADD_OFFSET)
    ):
        try:
            is_plain = float(value) == float(nothing)
        except ValueError:
            is_plain = False
        if not is_plain:
            return (
                f"expected pixels that are the values, got tag {tag} {value[:40]!r}. "
                "Write the values themselves, without the tag."
            )
    return None
