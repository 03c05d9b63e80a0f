"""Scans in a store: sets of samples that `sarzarr.import_ptychography` made."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.ptychography.config import PHOTONS
from sarzarr.ptychography.scan import Scan
from sarzarr.store.documents import named
from sarzarr.store.limits import check_within
from sarzarr.store.samples import SampleSet, open_samples, sample_sets
from sarzarr.store.store import AnyStore, open_store

ENERGY: Final = "energy"
"""The column of the sum of A squared of each frame, float64."""
COLUMNS: Final = ("xcoords", "ycoords", "scan_index", "probe", "object", ENERGY)
"""The columns of a set that is a scan; probe and object have (rows, columns, 2): real and imaginary part."""
NPHOTONS: Final = "nphotons"
"""The attribute of the photons of a frame on average."""


@dataclass(frozen=True, eq=False)
class StoredFrames:
    """The frames (n, N, N) of a set, float32 amplitudes, read by number and checked against their checksums."""

    samples: SampleSet
    """The set."""
    shape: tuple[int, ...]
    """(n, N, N)."""
    dtype: np.dtype[np.generic]
    """Of the values, float32."""

    def __getitem__(self, rows: Array) -> Array:
        once, back = np.unique(rows, return_inverse=True)
        frames = np.empty((len(once), *self.shape[1:]), self.dtype)
        for frame, row in zip(frames, once.tolist(), strict=True):
            frame[:] = self.samples.image(row)
        return frames[back.reshape(np.shape(rows))]


def open_scan(store: AnyStore, name: str | None = None) -> SampleSet:
    """Return the set of samples that is a scan, of that name or the only one of a store.

    Raises `NotInStoreError` where there is no set of that name; `InvalidInputError` where it is no scan, or several
    are and none is named; `CorruptStoreError` where its columns are not those of a scan.
    """
    store = open_store(store)
    known = {one: samples for one in sample_sets(store) if _is_scan(samples := open_samples(store, one))}
    if name is not None and name not in known:
        open_samples(store, name)
        raise InvalidInputError(
            f"expected a scan among {', '.join(known) or 'none'}, got {name!r}, a set without positions. "
            "Import one with `sarzarr import ptychography`."
        )
    if name is None and len(known) != 1:
        raise InvalidInputError(
            f"expected a store with one scan, got {', '.join(known) or 'none'}. Name the set as samples=."
        )
    samples = known[name] if name is not None else next(iter(known.values()))
    _check(samples)
    return samples


def _is_scan(samples: SampleSet) -> bool:
    return {*COLUMNS} <= {*map(str, samples.table.data_vars)}


def _check(samples: SampleSet) -> None:
    """Raise `CorruptStoreError` unless columns and frames are those of a scan: a stranger may have written them."""
    table, layout = samples.table, samples.layout
    kinds = {"xcoords": "f", "ycoords": "f", "scan_index": "iu", ENERGY: "f"}
    with named(samples.store.place, f"{samples.key}/zarr.json"):
        if layout.dtype != "float32" or layout.height != layout.width:
            raise ValueError(f"frames of {layout.height} x {layout.width} {layout.dtype}")
        for name, kind in kinds.items():
            values = table[name].values
            if (
                values.shape != (layout.count,)
                or values.dtype.kind not in kind
                or not np.isfinite(values).all()
            ):
                raise ValueError(f"a column {name} that is not a number for each of {layout.count} frames")
        check_within(table[ENERGY].values, 0, np.inf, ENERGY)
        for name in ("probe", "object"):
            if table[name].ndim != 3 or table[name].shape[2] != 2 or table[name].dtype != np.float32:
                raise ValueError(f"{name} of shape {table[name].shape} and {table[name].dtype}")


def scan_of(samples: SampleSet) -> Scan:
    """Return the scan of a set; its frames stay in the store."""
    table, layout = samples.table, samples.layout
    return Scan(
        x=table["xcoords"].values,
        y=table["ycoords"].values,
        frames=StoredFrames(samples, (layout.count, layout.height, layout.width), np.dtype(layout.dtype)),
        probe=from_parts(table["probe"].values),
        object=from_parts(table["object"].values),
        index=table["scan_index"].values,
        nphotons=float(table.attrs.get(NPHOTONS, PHOTONS)),
    )


def to_parts(picture: Array) -> Array:
    """Return a complex picture (rows, columns) as float32 (rows, columns, 2); `from_parts` is the way back."""
    return np.stack([picture.real, picture.imag], axis=-1).astype(np.float32)


def from_parts(parts: Array) -> Array:
    """Return (rows, columns, 2) as complex64 (rows, columns)."""
    return np.ascontiguousarray(parts, np.float32).view(np.complex64)[..., 0]
