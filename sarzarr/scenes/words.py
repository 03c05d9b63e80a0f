"""Words in names: polarizations, quantities, representations, and what is no backscatter."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from sarzarr.conventions import POLARIZATIONS, Quantity, Representation

T = TypeVar("T")

_HYP3: Final = re.compile(r"_RTC\d*_[A-Z]_([gs])([pda])[uwm][nf][ecd][dm]?(?:_|$)")
"""ASF HyP3: gamma0 or sigma0; power, decibel or amplitude."""
_NORMALISED: Final = re.compile(r"_use_(?:projected_)?(?:local_)?inci_angle_from_\w+", re.IGNORECASE)
"""What SNAP adds to the name of a backscatter that was normalised by an angle."""
_NEGATED: Final = re.compile(
    r"(?<![a-z0-9])(?:(?:no|non|not|without)[ _-]+[a-z0-9]+|(?:no|un)mask[a-z]*"
    r"|(?:terrain|topo|topographic|geo|geometric|rad|radiometric|orb|orbit|atm)[ _-]+corr?(?![a-z0-9]))",
    re.IGNORECASE,
)
COMPACT: Final = ("rr", "rl", "lr", "ll", "rh", "rv", "ch", "cv")
"""Polarizations of which one way or both are circular: words in free names that mean other things, too."""
_QUANTITIES: Final = {
    Quantity.SIGMA0: r"sigma0?|sig0|sigma(nought|naught|zero)",
    Quantity.BETA0: r"beta0?|beta(nought|naught|zero)",
    Quantity.GAMMA0: r"gamma0?|gam0|gamma(nought|naught|zero)",
    Quantity.DN: r"dn|digitalnumbers?",
}
_REPRESENTATIONS: Final = {
    Representation.DB: r"db|decibels?",
    Representation.AMPLITUDE: r"amp|amplitude|magnitude|abs",
    Representation.POWER: r"power|intensity|linear|lin",
}
_NOT_BACKSCATTER: Final = {
    "an interferometric phase": r"phase|ifg|ifgs|interferograms?|igram|unw|unwrapped|wrapped|radians?",
    "a coherence": r"coh\d*|coherence|cc|corr?",
    "an angle": r"angles?|theta|phi|psi|inc|linci|lia|gim|stdgim|incidence|\w*incidenceangle\w*|deg|degrees?",
    "a coordinate": r"lat|lon|latitudes?|longitudes?",
    "an elevation": r"dem|dsm|dtm|elevation|height|hgt",
    "a slope": r"slope|aspect|hillshade",
    "a bathymetry": r"bathymetry",
    "a wind": r"owi\w*|wind\w*",
    "a date": r"epoch|doy",
    "a layover and shadow map": r"layover\w*|shadow\w*|lsm|lsmap",
    "a scattering area": r"scatteringarea|pix",
    "a simulated image": r"sim|simulated",
    "a texture": r"contrast|dissimilarity|homogeneity|asm|glcm\w*",
    "a spread or a count": r"stdev|stddev|variance|nobs",
    "a mask or a label": (
        r"\w*mask|\w*label\w*|class|classes|classification|landcover|worldcover|groundtruth|qa|treecover\d*|lossyear"
    ),
    "a displacement": r"displacement|disp|velocity",
    "a noise power": r"noise|nesz|neq0",
    "a factor between backscatter conventions": r"factor|anf",
    "a picture": r"rgb|quicklook|browse|preview|thumbnail|qlk",
    "an optical image": r"optical|multispectral|rgbnir|rgbn",
    "an index of bands": (
        r"\w*ratio|(?:vv|vh|hh|hv)(?:minus|plus|div|over|by|sub)(?:vv|vh|hh|hv)|rvi|rfdi|ndpi|ndvi|ndwi|mndwi|ndmi|ndsi|nbr"
        r"|evi|savi|entropy|anisotropy|alpha"
    ),
    "an element of a covariance or coherency matrix": (
        r"[ct][1-4][1-4]|covariance|coherency|(?!([hv]{2})\1)[hv]{4}"
    ),
    "one part of a complex number": r"real|imag|imaginary",
}
_LAST: Final = {"a spread or a count": r"std|var|counts?", "an index of bands": "cr", "a picture": "ql"}
"""What the last word alone declares: elsewhere it means other things, too."""
_AREA: Final = re.compile(r"s1[a-d]?|rtc\d*|gamma0|sigma0")
"""Words before ``area`` of which it is a scattering area; that of interest, or of a study, is another thing."""
_RADAR: Final = (
    r"i?sar|radar|backscatter|slc|grd[hmf]?|asar|palsar\d?|rtc\d*|s1[a-d]?|sentinel1[a-d]?|ers\d?|envisat"
)
"""Words of names that a radar alone has."""
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

    A matrix's diagonal by channel, ``HHHH``, is of its polarization.

    >>> polarizations_in("S1_IW_GRD_amp_VV_VH"), polarizations_in("overview"), polarizations_in("HVHV")
    (('vv', 'vh'), (), ('hv',))
    """
    words = (word[:2] if word[:2] == word[2:] else word for word in tokens(text))
    return tuple(dict.fromkeys(word for word in words if word in POLARIZATIONS))


def own_polarization(text: str) -> str | None:
    """Return the one polarization that a band's own name, tag or token tells, compact ones too; None otherwise.

    >>> own_polarization("RH"), own_polarization("H/V"), own_polarization("VV_VH")
    ('rh', 'hv', None)
    """
    bare = text.lower().replace("/", "").strip()
    if bare in COMPACT:
        return bare
    words = polarizations_in(bare if len(bare) == 2 else text)
    return words[0] if len(words) == 1 else None


def file_polarization(stem: str) -> str | None:
    """Return the polarization of a file of one band by its name; None where it lists several, or none.

    Where a name lists all of a product's and then the file's own, the last one stands twice.

    >>> file_polarization("RCM1_20200506_HH_HV_GRD_HV"), file_polarization("scene_VV_VH")
    ('hv', None)
    """
    words = [word for word in tokens(stem) if word in POLARIZATIONS]
    return words[-1] if words and (len(set(words)) == 1 or words[-1] in words[:-1]) else None


def quantity_in(text: str) -> Quantity | None:
    """Return the quantity that a name declares; ``rtc`` declares terrain-corrected gamma0.

    >>> str(quantity_in("Sigma0_VH")), str(quantity_in("iw-vv.rtc")), quantity_in("scene_vv")
    ('sigma0', 'gamma0_rtc', None)
    """
    words = tokens(text)
    if hyp3 := _HYP3.search(text):
        return Quantity.GAMMA0_RTC if hyp3[1] == "g" else Quantity.SIGMA0
    named = _first_named(_QUANTITIES, words)
    is_flattened = "rtc" in words or {"cal", "tf"} <= set(
        words
    )  # SNAP's chain: calibration, terrain flattening
    return Quantity.GAMMA0_RTC if named in (None, Quantity.GAMMA0) and is_flattened else named


def representation_in(text: str) -> Representation | None:
    """Return the representation, such as dB or power, that a name declares.

    >>> str(representation_in("Sigma0_VV_db")), str(representation_in("Amplitude_VV"))
    ('db', 'amplitude')
    """
    if hyp3 := _HYP3.search(text):
        coded = {"p": Representation.POWER, "d": Representation.DB, "a": Representation.AMPLITUDE}[hyp3[2]]
        return (
            _first_named(_REPRESENTATIONS, tokens(text[hyp3.end() :])) or coded
        )  # of a file derived from it
    return _first_named(_REPRESENTATIONS, tokens(text))


def not_backscatter_in(text: str) -> str | None:
    """Return what a name declares that is not backscatter, as ``an angle``.

    >>> not_backscatter_in("Spain_LabelHand"), not_backscatter_in("sar_masked")
    ('a mask or a label', None)
    """
    words = tokens(_NEGATED.sub("", _NORMALISED.sub("", text)))
    if len(words) > 1 and (
        words[0] in ("i", "q") or (re.fullmatch("[hv]{4}", words[0]) and words[-1] in ("re", "im"))
    ):
        return PARTS[1]
    *before, last = tokens(text) or ("",)
    if last == "area" and (any(map(_AREA.fullmatch, before)) or text.lower() == "area"):
        return "a scattering area"
    return _first_named(_NOT_BACKSCATTER, words) or _first_named(_LAST, words[-1:])


def is_combined(name: str) -> bool:
    """Return whether the name of one band lists several polarizations, as that of their ratio does.

    >>> is_combined("VV/VH"), is_combined("scene_VV_VH_VV"), is_combined("Sigma0_VV")
    (True, False, False)
    """
    return len(polarizations_in(name)) > 1 and file_polarization(name) is None


def is_diagonal(name: str) -> bool:
    """Return whether a name is of a covariance or coherency matrix's diagonal, which is a power.

    >>> is_diagonal("C11"), is_diagonal("C12_real")
    (True, False)
    """
    return re.fullmatch(r"[ct]([1-4])\1|([hv]{2})\2", name.lower()) is not None


def is_optical(bands: Sequence[str]) -> bool:
    """Return whether bands are named as those of an optical sensor: B2, B03, B8A, SR_B4, red, nir, ...

    >>> is_optical(["B2", "B3", "B4", "B8A"]), is_optical(["VV", "VH", "angle"])
    (True, False)
    """
    named = [
        re.fullmatch(r"(?:sr_)?b\d{1,2}a?|red|green|blue|nir\d*|swir\d*", name.lower()) for name in bands
    ]
    return len(named) >= 3 and all(named)


def is_of_radar(name: str) -> bool:
    """Return whether a name says that a radar made what it names, whatever else it says.

    >>> is_of_radar("ship_SAR_1"), is_of_radar("Samsara"), is_of_radar("species_richness")
    (True, False, False)
    """
    return any(re.fullmatch(_RADAR, word) for word in tokens(name))


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
