"""Words in names: polarizations, quantities, representations, and what is no backscatter."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from sarzarr.conventions import POLARIZATIONS, Quantity, Representation

T = TypeVar("T")

_HYP3: Final = re.compile(r"_RTC\d*_[A-Z]_([gs])([pda])[um][nf][ed][dm]?(?:_|$)")
"""ASF HyP3: gamma0 or sigma0; power, decibel or amplitude."""
_QUANTITIES: Final = {
    Quantity.SIGMA0: r"sigma0?|sig0|sigma(nought|naught|zero)",
    Quantity.BETA0: r"beta0?|beta(nought|naught|zero)",
    Quantity.GAMMA0: r"gamma0?|gam0|gamma(nought|naught|zero)",
    Quantity.DN: r"dn|digitalnumbers?",
}
_REPRESENTATIONS: Final = {
    Representation.DB: r"db|decibels?",
    Representation.AMPLITUDE: r"amp|amplitude|magnitude",
    Representation.POWER: r"power|intensity|linear|lin",
}
_NOT_BACKSCATTER: Final = {
    "an interferometric phase": r"phase|ifg|ifgs|interferograms?|igram|unw|unwrapped|wrapped|radians?",
    "a coherence": r"coh|coherence",
    "an angle": r"angle|theta|inc|lia|incidence|\w*incidenceangle\w*|deg|degrees?",
    "an elevation": r"dem|dsm|dtm|elevation|height|hgt",
    "a mask or a label": (
        r"\w*mask|label\w*|class|classes|classification|landcover|groundtruth|layover|shadow|qa"
    ),
    "a displacement": r"displacement|disp|velocity",
    "a picture": r"rgb|quicklook|browse|preview|thumbnail",
    "an index of bands": r"ratio|rvi|rfdi|ndpi|entropy|anisotropy|alpha",
    "an element of a covariance or coherency matrix": r"[ct][1-4][1-4]|covariance|coherency",
    "one part of a complex number": r"real|imag|imaginary",
}
PARTS: Final = ("an element of a covariance or coherency matrix", "one part of a complex number")
"""What means nothing without the bands beside it, so that none of them is taken as backscatter."""


def tokens(text: str) -> tuple[str, ...]:
    """Return the words of a name in lower case.

    >>> tokens("S1A_IW-GRD_Amplitude.VV")
    ('s1a', 'iw', 'grd', 'amplitude', 'vv')
    """
    return tuple(word for word in re.split(r"[^a-z0-9]+", text.lower()) if word)


def polarizations_in(text: str) -> tuple[str, ...]:
    """Return the polarizations that a name holds as words of their own, in its order.

    >>> polarizations_in("S1_IW_GRD_amp_VV_VH"), polarizations_in("overview")
    (('vv', 'vh'), ())
    """
    return tuple(dict.fromkeys(word for word in tokens(text) if word in POLARIZATIONS))


def quantity_in(text: str) -> Quantity | None:
    """Return the quantity that a name declares; ``rtc`` declares terrain-corrected gamma0.

    >>> str(quantity_in("Sigma0_VH")), str(quantity_in("iw-vv.rtc")), quantity_in("scene_vv")
    ('sigma0', 'gamma0_rtc', None)
    """
    words = tokens(text)
    if hyp3 := _HYP3.search(text):
        return Quantity.GAMMA0_RTC if hyp3[1] == "g" else Quantity.SIGMA0
    named = _first_named(_QUANTITIES, words)
    return Quantity.GAMMA0_RTC if named in (None, Quantity.GAMMA0) and "rtc" in words else named


def representation_in(text: str) -> Representation | None:
    """Return the representation, such as dB or power, that a name declares.

    >>> str(representation_in("Sigma0_VV_db")), str(representation_in("Amplitude_VV"))
    ('db', 'amplitude')
    """
    if hyp3 := _HYP3.search(text):
        return {"p": Representation.POWER, "d": Representation.DB, "a": Representation.AMPLITUDE}[hyp3[2]]
    return _first_named(_REPRESENTATIONS, tokens(text))


def not_backscatter_in(text: str) -> str | None:
    """Return what a name declares that is not backscatter, as ``an angle``.

    >>> not_backscatter_in("Spain_LabelHand"), not_backscatter_in("sar_masked")
    ('a mask or a label', None)
    """
    words = tokens(text)
    if len(words) > 1 and words[0] in ("i", "q"):
        return PARTS[1]
    return _first_named(_NOT_BACKSCATTER, words)


def is_diagonal(name: str) -> bool:
    """Return whether a name is of a covariance or coherency matrix's diagonal, which is a power.

    >>> is_diagonal("C11"), is_diagonal("C12_real")
    (True, False)
    """
    return re.fullmatch(r"[ct]([1-4])\1", name.lower()) is not None


def telling_name(stem: str, folder: str) -> str:
    """Return the name that tells of a file: its folder's where the file is named by polarizations alone.

    >>> telling_name("scene_VV", "raw"), telling_name("VV", "baltic_db")
    ('scene_VV', 'baltic_db')
    """
    return stem if without_polarizations(stem) else folder


def _first_named(patterns: Mapping[T, str], words: Sequence[str]) -> T | None:
    """Return the first key whose pattern any of the words is."""
    return next((key for key, p in patterns.items() if any(re.fullmatch(p, word) for word in words)), None)


def without_polarizations(stem: str) -> str:
    """Return a stem less its polarization words, each with the separator before it."""
    words = "|".join(POLARIZATIONS)
    rest = re.sub(rf"(?:^|[^a-z0-9])(?:{words})(?![a-z0-9])", "", stem, flags=re.IGNORECASE)
    return rest.strip("._- ")
