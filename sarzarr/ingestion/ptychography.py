"""Scans on their way into a store: an NPZ file becomes one set of samples, its frames float32 amplitudes."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError
from sarzarr.files import locked, remove_tree
from sarzarr.ingestion.chips.find import safe_stem
from sarzarr.ingestion.chips.pack import SamplePack, TellSamples, check_new, pack_samples
from sarzarr.ingestion.chips.read import Pixels
from sarzarr.ptychography.frames import Rows, amplitudes
from sarzarr.ptychography.grouped import energies
from sarzarr.ptychography.npz import Npz
from sarzarr.ptychography.scan import Scan, read_scan
from sarzarr.ptychography.stored import ENERGY, NPHOTONS, to_parts
from sarzarr.store.boxes import safe_name
from sarzarr.store.samples import SampleLayout, SampleSet
from sarzarr.store.store import Store, open_store

log = logging.getLogger(__name__)
AT_ONCE: Final = 64
"""Frames that are read together."""
USUAL: Final = 10.0
"""The amplitude that normalized frames stay below."""


@dataclass(frozen=True, eq=False)
class FrameRows:
    """The frames of a scan (N, N) as samples, and the energy of each."""

    frames: Rows
    """Amplitudes or intensities, on a disk."""
    measures: Mapping[str, str]
    """The dtype of each column that is measured."""

    def pixels(self, start: int, stop: int) -> Iterator[Pixels | str]:
        """Yield the frames of rows start to stop - 1, float32 amplitudes (N, N), all of it measured."""
        for first in range(start, stop, AT_ONCE):
            rows = np.arange(first, min(first + AT_ONCE, stop))
            for frame in amplitudes(self.frames[rows], first):
                values = np.ascontiguousarray(frame)
                yield Pixels(values=values, is_measured=np.ones(values.shape, np.bool_), is_coloured=False)

    def measure(self, pixels: Pixels) -> Mapping[str, Any]:
        """Return the sum of A squared of a frame, float64."""
        return {ENERGY: energies(pixels.values[None])[0]}


def import_ptychography(
    file: str | Path,
    store: Store | str | Path,
    *,
    name: str | None = None,
    replace: bool = False,
    progress: TellSamples | None = None,
) -> SampleSet:
    """Pack the scan in an NPZ file into a store's set of samples, and return it; a store that is not there is made.

    Frames become float32 amplitudes in chunks of one frame; integers are intensities, whose square root is taken.
    Columns are ``xcoords``, ``ycoords`` (pixels, float64), ``scan_index``, ``energy`` (the sum of A squared of each
    frame, float64), starts of the positions where the file has them, and ``probe`` and ``object`` (rows, columns, 2).
    Interrupted, it is simply run again. ``progress`` is called with (frames done, frames).

    Raises as `sarzarr.ptychography.scan.read_scan`; `InvalidInputError` where the store has a set of that name, or
    frames have NaN or negative values.
    """
    path = Path(file).absolute()
    root = store.root if isinstance(store, Store) else Path(store)
    name = safe_name(name or safe_stem(path.stem))
    beside = root.resolve().with_name(f"{root.resolve().name}.samples-{name}")
    if (root / "zarr.json").exists():
        with _removing_on_refusal(beside):
            check_new(open_store(root), name, replace=replace)
    scan = read_scan(path, beside / "converted", with_patches=False)
    status = path.stat()
    layout = SampleLayout.of(count=len(scan), height=scan.size, width=scan.size, dtype="float32")
    parts = [path.name, status.st_size, status.st_mtime_ns]
    pack = SamplePack(
        name=name,
        layout=replace_fields(layout, codec="none"),
        source=FrameRows(scan.frames, {ENERGY: "float64"}),
        table=_table(scan, path.name),
        fingerprint=json.dumps(parts),
        about={cv.REPRESENTATION: "amplitude", NPHOTONS: scan.nphotons},
        replace=replace,
    )
    with _removing_on_refusal(beside):
        made = pack_samples(store, pack, progress)
    _remove_converted(beside)
    if "Y" in Npz(path).members:
        log.warning("%s: Y was left out: groups of a store cut the object out of objectGuess", path.name)
    highest = float(made.table[ENERGY].max()) / scan.size**2
    if scan.frames.dtype.kind == "f" and highest >= USUAL**2:
        log.warning(
            "%s: floats are amplitudes, and their mean square reaches %.3g: take the square root of intensities",
            path.name,
            highest,
        )
    return made


@contextmanager
def _removing_on_refusal(beside: Path) -> Iterator[None]:
    """Remove what was converted where an import is refused: of another error it is found again."""
    try:
        yield
    except InvalidInputError:
        _remove_converted(beside)
        raise


def _remove_converted(beside: Path) -> None:
    """Remove what was converted, unless another process is at work on it."""
    if beside.exists():
        with suppress(BlockingIOError), locked(beside, busy=BlockingIOError):
            remove_tree(beside / "converted")


def _table(scan: Scan, source: str) -> xr.Dataset:
    """Return the columns of a scan (n,), and its probe and object (rows, columns, 2)."""
    n = len(scan)
    columns: dict[str, Any] = {
        "id": np.array([f"{i:07d}" for i in range(n)], object),
        "source": np.array([source] * n, object),
        "height": np.full(n, scan.size, np.int32),
        "width": np.full(n, scan.size, np.int32),
        "xcoords": scan.x,
        "ycoords": scan.y,
        "scan_index": scan.index,
    }
    if scan.start is not None:
        columns |= {"xcoords_start": scan.start[0], "ycoords_start": scan.start[1]}
    pictures = {"probe": scan.probe, "object": scan.object}
    return xr.Dataset(
        {key: ("sample", column) for key, column in columns.items()}
        | {
            key: ((f"{key}_y", f"{key}_x", "part"), to_parts(picture))
            for key, picture in pictures.items()
            if picture is not None
        }
    )
