"""Names that a store can hold: of scenes, arrays and layers; and the names on a path that tell of a file."""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from sarzarr.conventions import POLARIZATIONS
from sarzarr.errors import InvalidInputError, SceneIdError
from sarzarr.scenes.grammars import without_named_polarization
from sarzarr.scenes.products.table import scene_of
from sarzarr.scenes.words import polarizations_in, quantity_in, representation_in, without_polarizations

_ID: Final = re.compile(r"[A-Za-z0-9-][A-Za-z0-9._-]{0,127}")
_RESERVED: Final = frozenset({"zarr.json", "c"})
_KINDS: Final = frozenset({
    "image", "images", "img", "imagery", "imagedata", "measurement", "band", "bands", "raster", "backscatter", "data",
    "output", "result", "orb", "nr", "bnr", "cal", "tf", "tc", "ml", "spk",
})  # fmt: skip
"""Words that files of any scene have: product folders' own, and those of SNAP's chain."""
_NUMBER: Final = re.compile(r"[dt]?\d+(t\d+z?)?")
"""A word that is a number, a date or a time."""
_PRODUCT_FOLDERS: Final = ("imagedata",)
"""Folders in which files of all products have the same names: TerraSAR-X's."""


def array_names(own: Sequence[str | None], polarizations: Sequence[str | None]) -> tuple[str, ...]:
    """Return the array names of a file's bands, (bands,), at most 66 bytes each.

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
    """Return a layer's name, of at most 64 bytes, that a scene group can hold beside its arrays.

    Raises `InvalidInputError` where it is not a word of letters, digits and ``_`` that begins with a letter, or
    is reserved.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name) or _is_reserved(name.lower()):
        raise InvalidInputError(
            "expected a layer's name of letters, digits and '_' that begins with a letter and is no polarization, "
            f"coordinate, band_N or *_flags, got {name[:80]!r}. Give it another name."
        )
    return name


def scene_name(path: Path) -> str:
    """Return the scene id of a file, at most 128 bytes: by its product, else its name and those of its folders.

    It depends on the path alone, never on which other files there are. A name that says more than polarization,
    quantity and kind of file is the id, less its polarizations. One that does not, or says numbers and dates alone,
    is preceded by the name of the first folder above it that says more, and by those between that say numbers.

    Raises `SceneIdError`, which names the file, where nothing that a store can hold is left of the names.

    >>> scene_name(Path("raw/S1_panama_VV.tif")), scene_name(Path("baltic/Gamma0_VV.tif"))
    ('S1_panama', 'baltic')
    >>> scene_name(Path("baltic/20260101/VV.tif"))
    'baltic_20260101'
    """
    name = scene_of(path)
    if name is None:
        inner, *folders = naming_parts(path)
        own = [_bare(inner) if not folders else _numbers(inner), *map(_numbers, folders[:-1]), *folders[-1:]]
        name = "_".join(part for part in reversed(own) if part)
    try:
        return safe_scene_id(name)
    except SceneIdError as error:
        raise SceneIdError(f"{path.name}: {error}") from error


@lru_cache(maxsize=2**15)
def scene_claim(path: Path, given: str | None = None) -> tuple[str, str]:
    """Return the scene id, at most 128 bytes, and the folder of a file: the files that share both are one scene.

    The id is that of `scene_name`, or the one that is ``given``, whatever the folder; in that, ``{name}`` is the
    former and ``{folder}`` the name of the folder, so that one text can name the scenes of many.

    Raises `SceneIdError` where an id is malformed.

    >>> scene_claim(Path("/raw/Aarhus/S1_VV.tif"), "{folder}_{name}")
    ('Aarhus_S1', '/raw/Aarhus')
    """
    folder = scene_folder(path)
    if given is None:
        return scene_name(path), folder.as_posix()
    if (
        filled := _filled(given, name=scene_name(path) if "{name}" in given else "", folder=folder.name)
    ) != given:
        return safe_scene_id(filled), folder.as_posix()
    return check_scene_id(given), ""


def check_given_id(given: str) -> str:
    """Return an id, in which ``{name}`` and ``{folder}`` may stand; `SceneIdError` where it can be none."""
    check_scene_id(_filled(given, name="name", folder="folder"))
    return given


def _filled(given: str, *, name: str, folder: str) -> str:
    return given.replace("{name}", name).replace("{folder}", folder)


def scene_folder(path: Path) -> Path:
    """Return the folder that a scene's files share: theirs, or that above one named by a polarization alone."""
    folder = path.parent
    return (
        folder.parent if polarizations_in(folder.name) and not without_polarizations(folder.name) else folder
    )


def naming_parts(path: Path) -> tuple[str, ...]:
    """Return the names that tell of a file, its own first: as many folders above as it takes until one tells.

    >>> naming_parts(Path("raw/lake_VV.tif")), naming_parts(Path("raw/baltic/imagery/Amplitude_VV.tif"))
    (('lake_VV',), ('Amplitude_VV', 'imagery', 'baltic'))
    """
    parts = [path.stem]
    is_told = tells_scene(path.stem) and path.parent.name.lower() not in _PRODUCT_FOLDERS
    for folder in () if is_told else path.parents:
        if folder.name:
            parts.append(folder.name)
        if tells_scene(folder.name):
            break
    return tuple(parts)


def _bare(stem: str) -> str:
    """Return a stem without the polarizations in it."""
    return without_polarizations(without_named_polarization(stem))


def _is_kind(word: str) -> bool:
    """Whether a word says polarization, quantity, representation or kind of file: it names no scene."""
    return word.lower() in {*_KINDS, *POLARIZATIONS} or bool(quantity_in(word) or representation_in(word))


def tells_scene(name: str) -> bool:
    """Return whether a name says more than polarization, quantity, kind of file, numbers and dates."""
    words = re.findall(r"[^\W_]+", name)
    return any(not (_is_kind(word) or _NUMBER.fullmatch(word.lower())) for word in words)


def _numbers(name: str) -> str:
    """Return what is left of a name without the words that are kinds: numbers and dates, as it has them."""
    return re.sub(r"(^|[\W_]+)([^\W_]+)", lambda match: "" if _is_kind(match[2]) else match[0], name).strip(
        "._- "
    )


def safe_scene_id(name: str) -> str:
    """Return a name, cut to 128 bytes, with what a store cannot hold replaced by ``_``.

    A name that Zarr keeps for itself gets ``scene_`` before it. Raises `SceneIdError` where nothing is left of it.

    >>> safe_scene_id("Baltic sea (1).SAFE"), safe_scene_id("c")
    ('Baltic_sea_1_', 'scene_c')
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name.removesuffix(".SAFE")).lstrip("._")[:128]
    return check_scene_id(f"scene_{safe}" if safe in _RESERVED else safe)


def check_scene_id(scene_id: str) -> str:
    """Return a scene id that a store can hold: it becomes the name of a group.

    Raises `SceneIdError` where it is not 1 to 128 bytes of ``A-Z a-z 0-9 . _ -``, begins with a dot or an underscore,
    or is reserved.
    """
    if not _ID.fullmatch(scene_id) or scene_id in _RESERVED:
        raise SceneIdError(
            "expected a scene id of 1 to 128 letters, digits, '.', '_' or '-' that does not begin with '.' or "
            f"'_' and is not 'c' or 'zarr.json', got {scene_id[:200]!r}. Ingest it alone with --id NAME."
        )
    return scene_id
