"""`MemmapDatasetBridge`: groups of a scan that stays on the disk."""

from pathlib import Path
from typing import Any

from sarzarr.ptychography.grouped import Layout, Position
from sarzarr.ptychography.raw_data import RawDataTorch
from sarzarr.ptychography.scan import read_scan
from sarzarr.ptychography.stored import open_scan, scan_of


class MemmapDatasetBridge:
    """A scan in an NPZ file or a store, grouped as `RawDataTorch` groups it; of its frames, those of groups are read.

    Parameters
    ----------
    npz_path
        An NPZ file, or a store. An uncompressed file is read where it lies; of a compressed one, or one whose axes
        are in the older order, frames are written once below ``memmap_dir``, under the file's hash.
    config
        A `sarzarr.ptychography.PtychoConfig`, or any object with its attributes.
    memmap_dir
        A folder, which is made when something must be converted.
    samples
        Name of the set of samples that is the scan; not needed where a store has one.

    Raises as `sarzarr.ptychography.scan.read_scan`: `MissingKeyError`, a KeyError, names the keys that are there.
    """

    def __init__(
        self,
        npz_path: str | Path,
        config: Any = None,
        memmap_dir: str | Path = "data/memmap",
        *,
        samples: str | None = None,
    ) -> None:
        self.path = Path(npz_path)
        if self.path.is_dir():
            scan = scan_of(open_scan(self.path, samples))
        else:
            scan = read_scan(self.path, Path(memmap_dir))
        self.raw_data = RawDataTorch.of_scan(scan, config)

    def get_grouped_data(
        self,
        N: int | None = None,  # noqa: N803 - its name in the older pipeline
        K: int | None = None,  # noqa: N803
        nsamples: int | None = None,
        gridsize: int | None = None,
        seed: int | None = None,
        *,
        enable_oversampling: bool | None = None,
        neighbor_pool_size: int | None = None,
        position: Position = "true",
        layout: Layout = "nhwc",
    ) -> dict[str, Any]:
        """Return what `RawDataTorch.generate_grouped_data` returns of the same scan: float32, complex64, float64."""
        return self.raw_data.generate_grouped_data(
            N,
            K,
            nsamples,
            seed,
            gridsize=gridsize,
            enable_oversampling=enable_oversampling,
            neighbor_pool_size=neighbor_pool_size,
            position=position,
            layout=layout,
        )

    def __repr__(self) -> str:
        return f"<sarzarr.MemmapDatasetBridge {self.path.name!r}: {self.raw_data!r}>"
