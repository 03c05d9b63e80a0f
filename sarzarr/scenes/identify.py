"""Identification of a raster's numbers: found from what is declared first, else from a sample of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from sarzarr.conventions import Quantity, Representation
from sarzarr.errors import InvalidInputError
from sarzarr.scenes.words import not_backscatter_in, quantity_in, representation_in
from sarzarr.text import counted

DN_MEDIAN: Final = 10**0.8
"""A positive median above this (8 dB) is no calibrated backscatter: it is a digital number."""
DB_MEDIAN: Final = -1.0
"""A median below this with negatives beside it is a dB value."""
SMOOTH: Final = 3e-3
"""Median step between neighbours, relative to the median, below which there is no speckle."""
GENTLE: Final = 3e-2
"""The same, below which there is none either where the steps go on as they began, as a slope does."""
FLAT: Final = 1e-2
"""Step between neighbours, and its change, relative to the median, below which whole numbers are those of a field."""
BENT: Final = 0.7
"""Change of a step from one pixel to the next, relative to the step: 1.7 for speckle, far less for a slope."""
BOUNDED: Final = 2.0
"""99th percentile relative to the median: 2.3 for speckle of 4.4 looks, 1.8 for 10, without any texture."""
BOUND: Final = 1.5
"""Largest value relative to the 99th percentile: 1.7 for speckle that passes `BOUNDED`, less for coherences."""
MANY: Final = 16384
"""Sampled pixels from which that is told."""
APART: Final = 100
"""Power relative to that of the bands beside it above which a band is none: polarizations differ by less."""
DARK: Final = 4
"""Digital numbers up to which neighbours are equal by chance, in 8-bit pictures of water."""
COUNTED: Final = 2.0
"""Variance over mean up to which neighbours may differ by counting alone, of which it is 1 (Poisson) or less."""
LEVELS: Final = 256
"""Distinct values from which it is none either: so many counts differ by less than `CONTRAST`, or unevenly."""
CONTRAST: Final = (0.04, 0.6)
"""Median of |a - b| / (a + b) of the powers a and b of neighbours in speckle: 0.5 of one look, 0.05 of 100."""
EVEN: Final = 1.2
"""That of brighter neighbours relative to that of darker ones, or the other way round, at most: speckle is
multiplicative, and |a - b| / (a + b) of two gamma variates does not depend on a + b (Lukacs 1955,
doi:10.1214/aoms/1177728549)."""
CHI2_MEDIAN: Final = 0.4549
"""Median of the chi-squared distribution of one degree of freedom: that of (a - b)^2 / (a + b) of counts a and b."""
FEW: Final = 16
"""Distinct integers up to which a raster is a label, not a measurement."""
_ENOUGH: Final = 2**14
"""Values whose median is that of many more, to a hundredth of their spread."""
INPUTS: Final = tuple(r for r in Representation if r is not Representation.NORMALIZED)
_REMEDY: Final = (
    "Say what they are with --quantity and --representation, or store the raster as it is with "
    "--layer NAME=FILE."
)
_LAYER: Final = "Store the raster as it is with --layer NAME=FILE."


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Statistics of the sampled pixels of all bands: finite, not zero, not nodata."""

    count: int
    """Pixels that were counted."""
    median: float
    """Their median; NaN where there is none."""
    negative: float
    """Fraction below zero."""
    distinct: int
    """Distinct values, counted up to `FEW` + 1, that of all pixels that are zero or nodata among them."""
    step: float
    """Median absolute step between neighbours that differ; NaN where all are equal."""
    slope: float
    """Median absolute step between neighbours, equal ones too, along the axis where it is larger."""
    bend: float
    """Median absolute change of that step, likewise along that axis."""
    high: float
    """Their 99th percentile."""
    most: float
    """The largest one."""
    absence: str = "no pixel in the sample that is finite, nonzero and not nodata"
    """What to say where ``count`` is 0."""


@dataclass(frozen=True, kw_only=True)
class NeighbourNoise:
    """Statistics of neighbouring pixels a and b that were sampled, finite and not zero; NaN without any."""

    levels: int
    """Distinct values of the pixels."""
    dispersion: float
    """Variance between neighbours relative to their mean, by the median of (a - b)^2 / (a + b)."""
    contrast: float
    """Median of |a - b| / (a + b) of the squares of neighbours."""
    evenness: float
    """That of the brighter neighbours relative to that of the darker ones."""

    @property
    def is_speckle(self) -> bool:
        """Whether neighbours differ as multiplicative noise does: by as much of a dark mean as of a bright one."""
        is_counted = self.dispersion <= COUNTED and self.levels < LEVELS
        is_even = 1 / EVEN < self.evenness < EVEN
        return CONTRAST[0] < self.contrast < CONTRAST[1] and is_even and not is_counted


@np.errstate(invalid="ignore", over="ignore")  # of NaN that signals, and of numbers near the largest
def sample_statistics(windows: Iterable[np.ndarray[Any, Any]]) -> Sample:
    """Return the statistics of sampled windows, (rows, columns) each, real, NaN where a pixel was not measured."""
    kept, steps, has_others = [np.empty(0)], [np.empty(0)], False
    slopes: tuple[list[Any], list[Any]] = ([np.empty(0)], [np.empty(0)])
    bends: tuple[list[Any], list[Any]] = ([np.empty(0)], [np.empty(0)])
    for window in windows:
        pixels = np.asarray(window, np.float64)
        usable = np.isfinite(pixels) & (pixels != 0)
        kept.append(pixels[usable])
        has_others |= not usable.all()
        marked = np.where(usable, pixels, np.nan)
        for axis in (0, 1):
            change = np.diff(marked, axis=axis)
            turn = np.diff(change, axis=axis)
            slopes[axis].append(np.abs(change[np.isfinite(change)]))
            bends[axis].append(np.abs(turn[np.isfinite(turn)]))
        steps += [part[-1][part[-1] > 0] for part in slopes]
    values, step = np.concatenate(kept), np.concatenate(steps)
    along = [
        (_typical(np.concatenate(s)), _typical(np.concatenate(b))) for s, b in zip(slopes, bends, strict=True)
    ]
    slope, bend = max(along, key=lambda pair: -1 if np.isnan(pair[0]) else pair[0])
    return Sample(
        count=values.size,
        median=_median(values),
        negative=float(np.mean(values < 0)) if values.size else 0.0,
        distinct=min(np.unique(values).size + has_others, FEW + 1),
        step=_typical(step),
        slope=slope,
        bend=bend,
        high=float(np.percentile(values, 99)) if values.size else float("nan"),
        most=float(values.max()) if values.size else float("nan"),
    )


@np.errstate(
    invalid="ignore", over="ignore", divide="ignore"
)  # of NaN that signals, of the largest numbers, of none
def neighbour_noise(windows: Iterable[np.ndarray[Any, Any]]) -> NeighbourNoise:
    """Return the statistics of neighbours in sampled windows, as of `sample_statistics`."""
    seen, ones, others = [np.empty(0)], [np.empty(0)], [np.empty(0)]
    for window in windows:
        pixels = np.asarray(window, np.float64)
        marked = np.where(np.isfinite(pixels) & (pixels != 0), pixels, np.nan)
        seen.append(np.unique(marked[np.isfinite(marked)]))
        for turned in (marked, marked.T):
            is_known = np.isfinite(turned[:-1] + turned[1:])
            ones.append(turned[:-1][is_known])
            others.append(turned[1:][is_known])
    one, other = np.concatenate(ones), np.concatenate(others)
    total, excess = one**2 + other**2, (one - other) ** 2 / (one + other)
    ratio, is_bright = np.abs(one**2 - other**2) / total, total >= _typical(total)
    return NeighbourNoise(
        levels=np.unique(np.concatenate(seen)).size,
        dispersion=_typical(excess) / CHI2_MEDIAN,
        contrast=_typical(ratio),
        evenness=float(np.divide(_typical(ratio[is_bright]), _typical(ratio[~is_bright]))),
    )


def _typical(values: np.ndarray[Any, Any]) -> float:
    """Return the median of every n-th value, of `_ENOUGH` or more."""
    return _median(values[:: max(1, values.size // _ENOUGH)])


def _median(values: np.ndarray[Any, Any]) -> float:
    return float(np.median(values)) if values.size else float("nan")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One source that may declare what the numbers are, the most specific source first."""

    text: str
    """What it says: a band's name, a tag's value, a file's name."""
    source: str
    """Where it stands, for the reader: ``band 1 is named 'Sigma0_VV'``."""
    is_certain: bool = False
    """Whether it outweighs the caller: a unit of radians does, a file's name does not."""
    quantity: str | None = None
    """`conventions.Quantity` that it declares outright; None: the words of ``text`` tell."""
    representation: str | None = None
    """`conventions.Representation` that it declares outright, likewise."""

    @property
    def says(self) -> tuple[str | None, str | None]:
        """The quantity and the representation that it declares, outright or in words."""
        return self.quantity or quantity_in(self.text), self.representation or representation_in(self.text)

    @property
    def foreign(self) -> str | None:
        """The raster that it declares, which is no backscatter; None where it declares none."""
        return None if self.quantity or self.representation else not_backscatter_in(self.text)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Quantity and representation (power, amplitude, dB, ...) of a raster, or the reason why they cannot be told."""

    quantity: str | None = None
    """`conventions.Quantity`; None where refused."""
    representation: str | None = None
    """`conventions.Representation`; None where refused."""
    reason: str
    """One sentence: how it was found, or why it was not."""
    refusal: str | None = None
    """Expected, got, remedy; None where it is backscatter."""
    foreign: str | None = None
    """What a name or a unit declares it to be instead: ``an angle``."""


def check_said(quantity: str | None, representation: str | None) -> None:
    """Raise `InvalidInputError` where a caller names no quantity, or no representation (dB, power, ...) of a file."""
    told = (("quantity", quantity, tuple(Quantity)), ("representation", representation, INPUTS))
    for name, value, known in told:
        if value is not None and value not in known:
            choices = ", ".join(known)
            raise InvalidInputError(f"expected a {name} of {choices}, got {value!r}. Choose one of them.")


def refused(what: str, *, is_certain: bool = False) -> Identity:
    """Return the identity of pixels that are not, or not known to be, backscatter."""
    remedy = _LAYER if is_certain else _REMEDY
    return Identity(reason=what, refusal=f"expected backscatter, got {what}. {remedy}")


def identify(
    *,
    dtype: np.dtype[Any],
    is_integer: bool,
    claims: Sequence[Claim],
    sample: Sample,
    quantity: str | None = None,
    representation: str | None = None,
    noise: Callable[[], NeighbourNoise] | None = None,
) -> Identity:
    """Return what numbers are: what the caller says, else what is declared, else what they look like.

    ``dtype`` is what reading gives: integers in the file, ``is_integer``, that are complex are read as complex64.
    ``claims`` are declarations, the most specific first, ``sample`` is of all bands together. ``quantity`` and
    ``representation`` are the caller's, and outweigh everything but a certain claim; `InvalidInputError` where one
    does not exist. ``noise`` gives the statistics of neighbours where no name, tag or product says that a radar made
    them: integers must then look like speckle.
    """
    check_said(quantity, representation)
    for claim in claims:
        if claim.is_certain and (what := claim.foreign):
            return replace(refused(f"{what} ({claim.source})", is_certain=True), foreign=what)
    telling = next((claim for claim in claims if claim.foreign or any(claim.says)), None)
    if telling is not None and telling.foreign and representation is None:
        return replace(refused(f"{telling.foreign} ({telling.source})"), foreign=telling.foreign)
    declared = _first(claims, 1)
    if representation is not None:
        found = Identity(representation=representation, reason="given by the caller")
    elif dtype.kind == "c":
        found = Identity(representation=Representation.COMPLEX, reason=f"by type: {dtype} pixels")
    elif declared:
        found = _checked(Identity(representation=str(declared[0]), reason=declared[1]), sample, is_integer)
    elif is_integer:
        found = _by_integers(sample, noise if quantity is None else None)
    else:
        found = _by_value(sample, _first(claims, 0))
    if found.refusal or found.representation is None:
        return found
    if (dtype.kind == "c") != (found.representation == Representation.COMPLEX):
        return refused(f"{dtype} pixels called {found.representation}")
    return _with_quantity(found, is_integer=is_integer, claims=claims, sample=sample, quantity=quantity)


def _first(claims: Sequence[Claim], which: int) -> tuple[str, str] | None:
    """Return the first quantity (0) or representation (1) that is declared, and where it stands."""
    return next(((said, claim.source) for claim in claims if (said := claim.says[which])), None)


def _checked(found: Identity, sample: Sample, is_integer: bool) -> Identity:
    """Return a declared representation, unless the pixels contradict it."""
    is_db = found.representation == Representation.DB
    if sample.count and (abs(sample.median) > 100 if is_db else sample.median < 0):
        return refused(f"pixels with a median of {sample.median:.4g}, although {found.reason}")
    if sample.count and is_integer and is_db and sample.negative == 0:
        return refused(f"integers of which none is negative, like a picture's, although {found.reason}")
    is_power = found.representation == Representation.POWER
    if sample.count > 256 and is_integer and is_power and 1 < sample.distinct <= FEW:
        return _by_integers(sample, None)
    return found


def _by_integers(sample: Sample, noise: Callable[[], NeighbourNoise] | None) -> Identity:
    if sample.negative > 0:
        like = ", like dB times 100" if -6000 < sample.median < -100 else ""
        return refused(f"integers, {sample.negative:.1%} of them negative{like}")
    if sample.count > 256 and 1 < sample.distinct <= FEW:
        return refused(f"integers of {counted(sample.distinct, 'distinct value')}, which look like labels")
    if _is_smooth(sample):
        return refused(f"{_said(sample)} and no speckle between neighbours, like an angle or an elevation")
    if noise is not None and not (sample.bend > BENT * sample.slope and noise().is_speckle):
        what = f"integers, {_said(sample)}, that no name or tag says a radar made and no speckle shows"
        return refused(f"{what}, like counts or classes")
    return Identity(representation=Representation.AMPLITUDE, reason="by type: integers are DN amplitude")


def _said(sample: Sample) -> str:
    return f"{sample.count} sampled pixels with a median of {sample.median:.4g}"


def _is_smooth(sample: Sample) -> bool:
    """Whether neighbours differ as on a slope, and not as speckle does."""
    if sample.distinct == 1:
        return False
    size = abs(sample.median)
    if sample.step < SMOOTH * size or (sample.slope < GENTLE * size and sample.bend < BENT * sample.slope):
        return True
    is_flat = (
        max(sample.slope, sample.bend) < FLAT * size
    )  # most neighbours are equal, and so is the next step
    return sample.count > 256 and is_flat and (size > DARK or sample.step < GENTLE * size)


def unlike_speckle(sample: Sample, *, is_integer: bool) -> str | None:
    """Return what shows that a band beside others is no backscatter, to end a sentence; None where nothing does."""
    if sample.count > 256 and 1 < sample.distinct <= FEW and (sample.slope == 0 or not is_integer):
        return f"{counted(sample.distinct, 'distinct value')} alone, which look like labels"
    if sample.count > 256 and _is_smooth(sample) and (sample.distinct > FEW or not is_integer):
        return f"a median of {sample.median:.4g} and no speckle between neighbours, like an angle or an elevation"
    return None


def unlike(sample: Sample, together: Sample, others: float) -> str | None:
    """Return what shows that a band's numbers are written otherwise than those of it and its neighbours together.

    Bands of dB of which one has no negative, or of power of which one is `APART` times as bright as the
    others, are not of one raster.
    """
    if sample.count <= 256:
        return None
    is_db = together.negative > 0 and together.median < DB_MEDIAN
    if is_db and sample.negative == 0:
        return f"no negative pixel, beside {together.negative:.0%} of dB"
    is_power = together.negative == 0 and together.median <= DN_MEDIAN
    if is_power and sample.median > max(DN_MEDIAN, APART * others):
        return f"a median of {sample.median:.4g}, beside power of {others:.4g}"
    return None


def _by_value(sample: Sample, declared: tuple[str, str] | None) -> Identity:
    said = _said(sample)
    if sample.count == 0:
        return refused(sample.absence)
    if sample.count > 256 and 1 < sample.distinct <= FEW:
        return refused(f"{counted(sample.distinct, 'distinct value')} alone, which look like labels")
    if _is_smooth(sample):
        return refused(f"{said} and no speckle between neighbours, like an angle or an elevation")
    if sample.negative == 0:
        is_dn = sample.median > DN_MEDIAN
        if is_dn and declared and declared[0] != Quantity.DN:
            return refused(f"{said}, too bright for {declared[0]}, although {declared[1]}")
        if (
            sample.most <= 1
            and sample.median > 0.2
            and (
                sample.high < BOUNDED * sample.median
                or (sample.count > MANY and sample.most < BOUND * sample.high)
            )
            and not declared
        ):
            return refused(
                f"{said}, none above 1 and none far from it, like a coherence, an index or an amplitude"
            )
        kind = Representation.AMPLITUDE if is_dn else Representation.POWER
        why = "above 8 dB: DN amplitude" if is_dn else "all positive: power"
        return Identity(representation=kind, reason=f"by value: {said}, {why}")
    if sample.median < DB_MEDIAN:
        why = f"{sample.negative:.0%} negative: dB"
        return Identity(representation=Representation.DB, reason=f"by value: {said}, {why}")
    return refused(f"{said}, {sample.negative:.1%} of them negative, which is neither power nor dB for sure")


def _with_quantity(
    found: Identity, *, is_integer: bool, claims: Sequence[Claim], sample: Sample, quantity: str | None
) -> Identity:
    """Return an identity with its quantity: said, declared, or as bright as a digital number."""
    median, is_db = sample.median, found.representation == Representation.DB
    power = median * median if found.representation == Representation.AMPLITUDE else median
    is_bright = median > 8 if is_db else power > DN_MEDIAN  # above 8 dB, which no calibrated scene reaches
    if quantity is not None:
        name, why = quantity, "quantity given by the caller"
    elif declared := _first(claims, 0):
        name, why = str(declared[0]), declared[1]
        flattened = (claim.source for claim in claims if claim.says[0] == Quantity.GAMMA0_RTC)
        if name == Quantity.GAMMA0 and (more := next(flattened, None)):  # SNAP calls both so
            name, why = str(Quantity.GAMMA0_RTC), f"{why}; {more}"
        if (
            name != Quantity.DN
            and sample.count
            and is_bright
            and (is_integer or power > (20 if is_db else 100))
        ):
            said = "dB" if is_db else str(found.representation)
            return refused(f"{said} with a median of {median:.4g}, too bright for {name}, although {why}")
    else:
        name, why = Quantity.DN if is_bright or (is_integer and not is_db) else Quantity.POWER, ""
    reason = found.reason if not why or why == found.reason else f"{found.reason}; {why}"
    return Identity(quantity=str(name), representation=str(found.representation), reason=reason)
