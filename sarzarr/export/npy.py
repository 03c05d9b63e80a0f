"""Patches in the layout of the older pipeline: ``.npy`` files beside a ``metadata.npy``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, StoreExistsError
from sarzarr.files import whole_folder
from sarzarr.pixels.radiometry import from_codes
from sarzarr.store.samples import SampleSet, open_samples
from sarzarr.store.store import AnyStore

FACTS: Final = ("vmin", "vmax", "stride", "min_valid")
"""Facts of ``metadata.npy`` that are attributes of a set of patches."""


def export_npy(store: AnyStore, samples: str, folder: str | Path) -> Path:
    """Write a set of patches as ``.npy`` files (n, rows, columns) float32 and a ``metadata.npy``; return its path.

    The inverse of `sarzarr.import_npy`: the files have their names, and of float32 sets their bytes; paths in
    ``file_index`` are names. What was not measured is NaN. The folder is there whole, or not at all.

    Raises `InvalidInputError` where the set's samples are not such patches, or the folder cannot be made;
    `NotInStoreError` where there is no such set; `StoreExistsError` where there is something at that path.
    """
    made, place = open_samples(store, samples), Path(folder)
    files = _files(made)
    try:
        with whole_folder(place, once=True) as partial:
            for name, rows in files.items():
                _write(partial / name, made, rows)
            np.save(partial / "metadata.npy", np.array(_metadata(made, files), object), allow_pickle=True)
    except FileExistsError:
        raise StoreExistsError(
            f"a new folder was expected, got {str(place)!r}, which is there. Name another, or take it away."
        ) from None
    return place / "metadata.npy"


def _files(made: SampleSet) -> dict[str, Array]:
    """Return the rows (n,) of the set that each file holds, in its order."""
    table, attributes = made.table, made.table.attrs
    lacking = {*{"file", "row"} - {*table.variables}, *{"vmin", "vmax"} - {*attributes}}
    if lacking:
        raise InvalidInputError(
            f"patches that `sarzarr import npy` took in were expected in {made.name!r}, got samples without "
            f"{', '.join(sorted(lacking))}. Export such a set."
        )
    names, numbers = table["file"].values.astype(str), table["row"].values
    files = {name: np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())}
    for name, rows in files.items():
        is_whole = (numbers[rows] == np.arange(len(rows))).all()
        if not is_whole or Path(name).name != name or not name.endswith(".npy"):
            raise InvalidInputError(
                f"the names of .npy files, each with all of its patches, were expected in {made.name!r}, got "
                f"{name!r}. Import the patches anew."
            )
    return files


def _write(path: Path, made: SampleSet, rows: Array) -> None:
    layout = made.layout
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(rows), layout.height, layout.width)}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for patch in _patches(made, rows):
            stream.write(patch.tobytes())


def _patches(made: SampleSet, rows: Array) -> Iterator[Array]:
    """Yield patches (rows, columns) of little-endian float32 in [0, 1]."""
    is_coded = made.layout.dtype == "uint16"
    for row in rows.tolist():
        values = made.image(row)
        yield (from_codes(values) if is_coded else values).astype("<f4", copy=False)


def _metadata(made: SampleSet, files: dict[str, Array]) -> dict[str, Any]:
    attributes, size = made.table.attrs, max(made.layout.height, made.layout.width)
    facts = {"stride": size, "min_valid": 0.0} | {k: attributes[k] for k in FACTS if k in attributes}
    facts |= {cv.VMIN: float(facts[cv.VMIN]), cv.VMAX: float(facts[cv.VMAX])}
    index = [(name, len(rows)) for name, rows in files.items()]
    return {**facts, "patch_size": size, "num_patches": sum(n for _, n in index), "file_index": index}
