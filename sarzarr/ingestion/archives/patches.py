"""Patches in ``.npy`` files, with the masks beside them, on their way into a store as one set of samples."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, RasterNotFoundError
from sarzarr.ingestion.archives.npy import (
    BOUNDS,
    METADATA,
    SUFFIX,
    PatchArchive,
    PatchFile,
    read_archive,
    read_bounds,
    read_npy_header,
)
from sarzarr.ingestion.archives.rows import patches_of_file, quadrant_hashes
from sarzarr.ingestion.chips.find import safe_stem
from sarzarr.ingestion.chips.pack import SamplePack, pack_samples
from sarzarr.ingestion.chips.read import Pixels
from sarzarr.pixels.radiometry import normalize, to_codes, to_db
from sarzarr.splits.samples.products import HASHES
from sarzarr.store.samples import SampleLayout, SampleSet
from sarzarr.store.store import Store

REPRESENTATIONS: Final = (cv.Representation.NORMALIZED, cv.Representation.DB, cv.Representation.POWER)
"""The forms of the values of patches."""
MASKS: Final = {
    "_valid_mask": "valid",
    "_valid": "valid",
    "_invalid_mask": "invalid",
    "_invalid": "invalid",
    "_mask": None,
}
"""The ends of the stems of masks, and the pixels that are not 0 in them; ``_mask`` does not say which."""
_OTHERS: Final = (METADATA, BOUNDS, "shuffle_idx.npy")
"""Files of archives that hold no patches."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class PatchOptions:
    """Options of an import of patches."""

    name: str | None = None
    """The set's name; the folder's, or a single file's, if left out."""
    dtype: str = "float32"
    """``float32`` keeps every value; ``uint16`` codes take half the bytes, within 7.63e-6 of [0, 1]."""
    representation: str | None = None
    """``normalized``, ``db`` or ``power``, of files without a ``metadata.npy``, which says normalized."""
    vmin: float | None = None
    """The dB that 0 stands for, of files without metadata; of dB and power -60 if left out."""
    vmax: float | None = None
    """The dB that 1 stands for; 100 if left out."""
    stride: int | None = None
    """Pixels from one patch to the next, of files without metadata."""
    masks: str | None = None
    """``valid`` or ``invalid``: the pixels that are not 0 in files that end in ``_mask``."""
    replace: bool = False
    """Put the set in the place of one of that name."""

    def __post_init__(self) -> None:
        for name, known in (
            ("dtype", ("float32", "uint16")),
            ("representation", (None, *map(str, REPRESENTATIONS))),
            ("masks", (None, "valid", "invalid")),
        ):
            if getattr(self, name) not in known:
                shown = ", ".join(str(k) for k in known if k)
                raise InvalidInputError(f"{name} must be one of {shown}, got {getattr(self, name)!r}.")
        if (self.vmin is None) != (self.vmax is None) or (
            self.vmin is not None and self.vmin >= (self.vmax or 0)
        ):
            raise InvalidInputError(
                f"vmin below vmax, both in dB, was expected, got {self.vmin} and {self.vmax}. Give both, or neither."
            )


@dataclass(frozen=True, kw_only=True)
class _FoundPatches:
    """The files of an import, and what their values are."""

    archive: PatchArchive
    """The files, one after the other, with vmin and vmax in dB."""
    masks: tuple[PatchFile | None, ...]
    """The mask of each file."""
    is_valid: tuple[bool, ...]
    """Whether pixels that are not 0 in that mask are those that were measured."""
    representation: str
    """The form of the files' values."""
    about: Mapping[str, Any]
    """JSON attributes of the set."""


def import_npy(
    path: str | Path,
    store: Store | str | Path,
    *,
    options: PatchOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SampleSet:
    """Pack patches (n, rows, columns) of ``.npy`` files into a store's set of samples, and return it.

    ``path`` is the ``metadata.npy`` of an archive, a folder of ``.npy`` files, or one of them. Without metadata the
    ``options`` say what the values are; of normalized ones a ``global_bounds.npy`` beside them may say vmin and vmax.
    A mask beside a file has its stem and ``_valid``, ``_invalid`` or ``_mask``. What is not finite, or masked, is not
    measured. Interrupted, it is simply run again. ``progress`` is called with (patches done, patches).

    The set's columns say of each patch its ``file``, its ``row`` in that, its ``product`` (the file's name without
    its polarization), and ``hash_0`` to ``hash_3`` of its quarters, by which splits tell patches that share pixels.

    Raises `InvalidInputError` where a file is not as it is listed, values are not told, or are not what is told, or
    the store has a set of that name; `RasterNotFoundError` where there is nothing at that path.
    """
    options = options or PatchOptions()
    place = Path(path).absolute()
    found = _found(place, options)
    files, counts = found.archive.files, found.archive.counts
    height, width = found.archive.shape
    cut: dict[str, Any] = {"count": sum(counts), "height": height, "width": width, "dtype": options.dtype}
    layout = _CodedLayout.of(**cut, free=("uint16", cv.NOT_MEASURED)) if options.dtype == "uint16" else None
    stamps = [(*_stamp(file), *_stamp(mask)) for file, mask in zip(files, found.masks, strict=True)]
    facts = [stamps, counts, found.is_valid, found.representation, options.dtype, dict(found.about)]
    folder = place if place.is_dir() else place.parent
    name = options.name or safe_stem(folder.name if place.is_dir() or place.name == METADATA else place.stem)
    pack = SamplePack(
        name=name,
        layout=layout or SampleLayout.of(**cut),
        source=_PatchRows(found=found, dtype=options.dtype),
        table=_table(found.archive),
        fingerprint=sha256(json.dumps(facts).encode()).hexdigest(),
        about=found.about,
        replace=options.replace,
    )
    return pack_samples(store, pack, progress)


class _CodedLayout(SampleLayout):
    """The layout of codes: 0 is no measurement, whatever other codes there are."""

    def filled(self, taken: Array) -> "SampleLayout":
        """Return itself."""
        return self


@dataclass(frozen=True, kw_only=True)
class _PatchRows:
    """Patches by the number of their row, as the files have them one after the other."""

    found: _FoundPatches
    """The files."""
    dtype: str
    """``float32``, or ``uint16`` codes."""

    @property
    def measures(self) -> Mapping[str, str]:
        """The dtype of each column that is measured on the pixels."""
        return dict.fromkeys(HASHES, "uint64")

    def measure(self, pixels: Pixels) -> Mapping[str, Any]:
        """Return the hash of each quarter of a patch."""
        return dict(zip(HASHES, quadrant_hashes(pixels.values), strict=True))

    def pixels(self, start: int, stop: int) -> Iterator[Pixels]:
        """Yield the patches of rows start to stop - 1, one at a time."""
        first = 0
        for i, file in enumerate(self.found.archive.files):
            begin, end = max(start - first, 0), min(stop - first, file.count)
            if begin < end:
                mask = self.found.masks[i]
                masks = repeat(None) if mask is None else patches_of_file(mask, begin, end)
                for patch, beside in zip(patches_of_file(file, begin, end), masks, strict=False):
                    yield self._pixels(file, patch, beside, self.found.is_valid[i])
            first += file.count

    def _pixels(self, file: PatchFile, patch: Array, mask: Array | None, is_valid: bool) -> Pixels:
        values = patch.astype(patch.dtype.newbyteorder("="), copy=False)
        is_measured = np.isfinite(values)
        if mask is not None:
            is_measured &= (mask != 0) == is_valid
        if self.found.representation == cv.Representation.NORMALIZED:
            _check_unit(values[is_measured], file)
        else:
            db = to_db(values) if self.found.representation == cv.Representation.POWER else values
            archive = self.found.archive
            values = normalize(db, (float(archive.vmin or 0), float(archive.vmax or 0)))
        values = np.where(is_measured, values, np.float32(np.nan)).astype(np.float32, copy=False)
        if self.dtype == "uint16":
            values = to_codes(values)
        return Pixels(values=np.ascontiguousarray(values), is_measured=is_measured, is_coloured=False)


def _check_unit(values: Array, file: PatchFile) -> None:
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise InvalidInputError(
            f"normalized patches in [0, 1] were expected, got {values.min():.4g} to {values.max():.4g} in "
            f"{file.path.name!r}. Say what they are with --representation db or power."
        )


def _stamp(file: PatchFile | None) -> tuple[str, int, int]:
    if file is None:
        return "", 0, 0
    stat = file.path.stat()
    return file.path.name, stat.st_size, stat.st_mtime_ns


def _table(archive: PatchArchive) -> xr.Dataset:
    """Return the columns of a set, a row for each patch."""
    files, counts = archive.files, archive.counts
    stems = [_UNSAFE.sub("_", file.path.stem.removesuffix(SUFFIX))[-110:] for file in files]
    known = Counter(stems)
    stems = [stem if known[stem] == 1 else f"{stem}_{i}" for i, stem in enumerate(stems)]
    names = [file.path.name for file in files]
    columns: dict[str, Any] = {
        "id": np.array(
            [f"{stem}-{row:07d}" for stem, n in zip(stems, counts, strict=True) for row in range(n)], object
        ),
        "source": np.repeat(np.array(names, object), counts),
        "height": np.repeat(np.array([file.height for file in files], np.int32), counts),
        "width": np.repeat(np.array([file.width for file in files], np.int32), counts),
        "file": np.repeat(np.array(names, object), counts),
        "row": np.concatenate([np.arange(n, dtype=np.int64) for n in counts]),
        "product": np.repeat(np.array([file.product for file in files], object), counts),
    }
    return xr.Dataset({name: ("sample", values) for name, values in columns.items()})


# ------------------------------------------------------------------ files without metadata
def _found(place: Path, options: PatchOptions) -> _FoundPatches:
    """Return the files of an import, and what their values are; `InvalidInputError` where that is not told."""
    if not place.exists():
        raise RasterNotFoundError(
            f"metadata.npy, or a folder of .npy files, was expected, got nothing at {str(place)!r}. Give its path."
        )
    metadata = place / METADATA if place.is_dir() else place
    if metadata.name == METADATA and metadata.exists():
        told = ("representation", "vmin", "vmax", "stride")
        if given := [name for name in told if getattr(options, name) is not None]:
            raise InvalidInputError(
                f"no {', '.join(given)} was expected beside {METADATA}, got some: the metadata says it. Leave it out."
            )
        archive = read_archive(metadata)
        about = {"db_convention": "10 log10(DN)", "min_valid": archive.min_valid}
        return _with_masks(archive, {}, options, cv.Representation.NORMALIZED, about)
    if options.representation is None:
        raise InvalidInputError(
            f"what the values are was expected, got {place.name!r} without {METADATA}. Say --representation "
            "normalized, db or power."
        )
    paths = sorted(place.glob("*.npy")) if place.is_dir() else [place, *sorted(place.parent.glob("*.npy"))]
    masks = _masks(path for path in paths if path.name not in _OTHERS)
    patches = [path for path in paths if path.name not in _OTHERS and path not in set(masks.values())]
    files = tuple(read_npy_header(path, path.name) for path in (patches if place.is_dir() else [place]))
    files = tuple(file for file in files if file.count)
    _check_alike(files, place, options.representation)
    vmin, vmax = _bounds(place if place.is_dir() else place.parent, options)
    archive = PatchArchive(files=files, vmin=vmin, vmax=vmax, stride=options.stride)
    is_power = options.representation == cv.Representation.POWER
    about = {"db_convention": "10 log10(power)"} if is_power else {}
    return _with_masks(archive, masks, options, options.representation, about)


def _with_masks(
    archive: PatchArchive,
    masks: Mapping[Path, Path],
    options: PatchOptions,
    representation: str,
    about: Mapping[str, Any],
) -> _FoundPatches:
    """Return the files with their masks, each held against the shape of its file."""
    found, is_valid = list[PatchFile | None](), []
    for file in archive.files:
        mask = masks.get(file.path)
        found.append(None if mask is None else read_npy_header(mask, mask.name))
        is_valid.append(mask is None or _is_valid(mask, options))
        if (one := found[-1]) is not None:
            got = (one.count, one.height, one.width)
            if got != (file.count, file.height, file.width) or np.dtype(one.dtype).kind not in "bui":
                raise InvalidInputError(
                    f"a mask of {file.count} x {file.height} x {file.width} bool or whole numbers was expected in "
                    f"{one.path.name!r}, got {' x '.join(map(str, got))} of {np.dtype(one.dtype)}. Mend it, or "
                    "take it away."
                )
    attributes = {
        cv.REPRESENTATION: str(cv.Representation.NORMALIZED),
        cv.VMIN: archive.vmin,
        cv.VMAX: archive.vmax,
    }
    return _FoundPatches(
        archive=archive,
        masks=tuple(found),
        is_valid=tuple(is_valid),
        representation=representation,
        about={k: v for k, v in {**attributes, "stride": archive.stride, **about}.items() if v is not None},
    )


def _masks(paths: Iterable[Path]) -> dict[Path, Path]:
    """Return the mask of each file that has one beside it; `InvalidInputError` where it has two."""
    every = {path.stem: path for path in paths}
    found: dict[Path, Path] = {}
    for stem, path in every.items():
        owner = next((every.get(stem.removesuffix(end)) for end in MASKS if stem.endswith(end)), None)
        if owner is not None and owner in found:
            raise InvalidInputError(
                f"one mask of {owner.name!r} was expected, got {found[owner].name!r} and {path.name!r}. Take one "
                "away."
            )
        if owner is not None:
            found[owner] = path
    return found


def _is_valid(mask: Path, options: PatchOptions) -> bool:
    """Return whether the pixels that are not 0 in a mask were measured, by its name or as is told."""
    meant = next(meant for end, meant in MASKS.items() if mask.stem.endswith(end)) or options.masks
    if meant is None:
        raise InvalidInputError(
            f"a mask that says what its pixels are was expected, got {mask.name!r}. Say --masks valid or invalid: "
            "what the pixels that are not 0 are."
        )
    return meant == "valid"


def _check_alike(files: Sequence[PatchFile], place: Path, representation: str) -> None:
    """Refuse files of several shapes, of no patches at all, or of dtypes that are not taken."""
    if not files:
        raise InvalidInputError(
            f".npy files of patches were expected in {place.name!r}, got none. Check the path."
        )
    wanted = (
        ("<f4", ">f4") if representation == cv.Representation.NORMALIZED else ("<f4", ">f4", "<f8", ">f8")
    )
    for file in files:
        if (file.height, file.width) != (files[0].height, files[0].width) or file.dtype not in wanted:
            floats = "float32" if len(wanted) == 2 else "float32 or float64"
            raise InvalidInputError(
                f"patches of {files[0].height} x {files[0].width} pixels of {floats} were expected in "
                f"{file.path.name!r}, got {file.height} x {file.width} of {np.dtype(file.dtype)}. Import it "
                "apart, or save it so."
            )


def _bounds(folder: Path, options: PatchOptions) -> tuple[float, float]:
    """Return the dB that 0 and 1 stand for, as told; of dB and power, the range of all stores."""
    if options.vmin is not None and options.vmax is not None:
        return options.vmin, options.vmax
    if options.representation != cv.Representation.NORMALIZED:
        return cv.STORED_RANGE
    if (folder / BOUNDS).exists():
        return read_bounds(folder / BOUNDS)
    raise InvalidInputError(
        f"the dB that 0 and 1 stand for were expected, got no {BOUNDS} in {folder.name!r}. Say --vmin and --vmax."
    )
