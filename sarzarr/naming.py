"""What names say: polarizations, quantities, what is not backscatter; and names that a store can hold."""

import re
from collections.abc import Sequence
from typing import Final

from sarzarr.conventions import POLARIZATIONS, Quantity, Representation
from sarzarr.errors import InvalidInputError, SceneIdError

_ID: Final = re.compile(r"[A-Za-z0-9-][A-Za-z0-9._-]{0,127}")
_RESERVED: Final = frozenset({"zarr.json", "c"})
_MEASUREMENT: Final = re.compile(
    r"(s1[a-d]-\w+-\w+)-(?:vv|vh|hh|hv)-(\d{8}t\d{6}-\d{8}t\d{6}-\d{6}-[0-9a-f]{6})-\d{3}", re.IGNORECASE
)
"""ESA's measurement files: the last number counts polarizations, so it is no part of the scene's name."""
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
    hyp3 = _HYP3.search(text)
    if hyp3:
        return Quantity.GAMMA0_RTC if hyp3[1] == "g" else Quantity.SIGMA0
    found = next((q for q, pattern in _QUANTITIES.items() if _any_word(pattern, words)), None)
    if found in (None, Quantity.GAMMA0) and "rtc" in words:
        return Quantity.GAMMA0_RTC
    return found


def representation_in(text: str) -> Representation | None:
    """Return the representation that a name declares.

    >>> str(representation_in("Sigma0_VV_db")), str(representation_in("Amplitude_VV"))
    ('db', 'amplitude')
    """
    hyp3 = _HYP3.search(text)
    if hyp3:
        spelled = {"p": Representation.POWER, "d": Representation.DB, "a": Representation.AMPLITUDE}
        return spelled[hyp3[2]]
    words = tokens(text)
    return next((r for r, pattern in _REPRESENTATIONS.items() if _any_word(pattern, words)), None)


def not_backscatter_in(text: str) -> str | None:
    """Return what a name declares that is not backscatter, as ``an angle``.

    >>> not_backscatter_in("Spain_LabelHand"), not_backscatter_in("sar_masked")
    ('a mask or a label', None)
    """
    words = tokens(text)
    if len(words) > 1 and words[0] in ("i", "q"):
        return PARTS[1]
    return next((what for what, pattern in _NOT_BACKSCATTER.items() if _any_word(pattern, words)), None)


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
    return stem if _without_polarizations(stem) else folder


def _any_word(pattern: str, words: Sequence[str]) -> bool:
    return any(re.fullmatch(pattern, word) for word in words)


def array_names(own: Sequence[str | None], polarizations: Sequence[str | None]) -> tuple[str, ...]:
    """Return the array names of a file's bands.

    A polarization in lower case where no other band has it, else the band's own name made safe
    where no other band has that, else ``band_1``, ``band_2``, ...

    >>> array_names(("Sigma0_VV", "Gamma0_VV"), ("VV", "VV"))
    ('sigma0_vv', 'gamma0_vv')
    >>> array_names(("bands", "bands"), (None, None))
    ('band_1', 'band_2')
    """
    lower = [p.lower() if p else None for p in polarizations]
    safe = [_safe_array_name(name) for name in own]
    names = []
    for number, (polarization, name) in enumerate(zip(lower, safe, strict=True), 1):
        if polarization and lower.count(polarization) == 1:
            names.append(polarization)
        elif name and safe.count(name) == 1:
            names.append(name)
        else:
            names.append(f"band_{number}")
    return tuple(names)


def _safe_array_name(name: str | None) -> str | None:
    """Return a band's own name as a Python and Zarr name; None where nothing is left of it."""
    safe = re.sub(r"\W+", "_", name or "", flags=re.ASCII).strip("_").lower()[:64]
    if not safe or _is_reserved(safe):
        return None
    return f"b_{safe}" if safe[0].isdigit() else safe


def _is_reserved(name: str) -> bool:
    """Whether an array of a scene group cannot have a name that somebody chose: another one may have it."""
    reserved = {*POLARIZATIONS, "x", "y", "c", "spatial_ref", "zarr"}
    return name in reserved or name.endswith("_flags") or re.fullmatch(r"band_\d+", name) is not None


def check_layer_name(name: str) -> str:
    """Return a layer's name that a scene group can hold beside its arrays.

    Raises
    ------
    InvalidInputError
        It is not a word of letters, digits and ``_`` that begins with a letter, or is reserved.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name) or _is_reserved(name.lower()):
        raise InvalidInputError(
            "expected a layer's name of letters, digits and '_' that begins with a letter and is no polarization, "
            f"coordinate, band_N or *_flags, got {name[:80]!r}. Give it another name."
        )
    return name


def scene_name(stem: str, folder: str, product: str | None) -> str:
    """Return the scene id that a file's place and name make.

    Parameters
    ----------
    stem
        The file's name without its suffix.
    folder
        Name of the folder that it is in.
    product
        Name of the product folder that holds ``measurement/``, if it is in one.

    Raises
    ------
    SceneIdError
        Nothing that a store can hold is left of the name.

    >>> scene_name("S1_panama_VV", "raw", None), scene_name("VV", "baltic", None)
    ('S1_panama', 'baltic')
    """
    if product is not None:
        subswath = [word for word in tokens(stem) if re.fullmatch(r"(iw|ew)[1-5]|s[1-6]|wv[12]", word)]
        burst = "_".join(word for word in subswath if word not in tokens(product))
        return safe_scene_id(f"{product}_{burst}" if burst else product)
    measurement = _MEASUREMENT.fullmatch(stem)
    if measurement:
        return safe_scene_id(f"{measurement[1]}-{measurement[2]}")
    rest = _without_polarizations(stem)
    return safe_scene_id(rest or folder)


def _without_polarizations(stem: str) -> str:
    """Return a stem less its polarization words, each with the separator before it."""
    words = "|".join(POLARIZATIONS)
    rest = re.sub(rf"(?:^|[^a-z0-9])(?:{words})(?![a-z0-9])", "", stem, flags=re.IGNORECASE)
    return rest.strip("._- ")


def safe_scene_id(name: str) -> str:
    """Return a name with what a store cannot hold replaced by ``_``.

    Raises
    ------
    SceneIdError
        Nothing is left of it, or it is reserved.

    >>> safe_scene_id("Baltic sea (1).SAFE")
    'Baltic_sea_1_'
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name.removesuffix(".SAFE")).lstrip("._")[:128]
    return check_scene_id(safe)


def check_scene_id(scene_id: str) -> str:
    """Return a scene id that a store can hold: it becomes the name of a group.

    Raises
    ------
    SceneIdError
        It is not 1 to 128 of ``A-Z a-z 0-9 . _ -``, begins with a dot or an underscore, or is reserved.
    """
    if not _ID.fullmatch(scene_id) or scene_id in _RESERVED:
        raise SceneIdError(
            "expected a scene id of 1 to 128 letters, digits, '.', '_' or '-' that does not begin with '.' or "
            f"'_' and is not 'c' or 'zarr.json', got {scene_id[:200]!r}. Give one with --id."
        )
    return scene_id


def counted(count: int, noun: str) -> str:
    """Return a count and its noun.

    >>> counted(1, "scene"), counted(2, "scene"), counted(0, "box")
    ('1 scene', '2 scenes', '0 boxes')
    """
    plural = "es" if noun.endswith(("s", "x")) else "s"
    return f"{count} {noun}{'' if count == 1 else plural}"
