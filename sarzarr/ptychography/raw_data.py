"""`RawDataTorch`: a scan in memory or on a disk, and groups of it as NumPy arrays."""

from pathlib import Path
from typing import Any

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.grouping import group_positions, subsampled
from sarzarr.ptychography.config import PtychoConfig
from sarzarr.ptychography.frames import amplitudes
from sarzarr.ptychography.grouped import Layout, Position, grouped_arrays
from sarzarr.ptychography.scan import Scan, scan_of_arrays


class RawDataTorch:
    """A scan of n positions and its groups. Everything is NumPy; torch is not needed.

    Parameters
    ----------
    xcoords, ycoords
        (n,) columns and rows on the object's grid, pixels; kept as float64.
    diff3d
        (n, N, N) amplitudes, or intensities where they are integers. (n, N, N, 1) and (N, N, n) are taken, too.
    probeGuess
        (N, N), kept as complex64.
    scan_index
        (n,) whole numbers; 0 to n - 1 if None.
    objectGuess
        (M, M'), kept as complex64.
    config
        A `PtychoConfig`, or any object with its attributes: what groups are made of where a call does not say.
    Y
        (n, N, N) complex: the object at each position; cut out of ``objectGuess`` if None.

    Raises `InvalidInputError`, a ValueError, where arrays are of other shapes, or of dtypes that do not fit.
    """

    def __init__(
        self,
        xcoords: Any,
        ycoords: Any,
        diff3d: Any,
        probeGuess: Any,  # noqa: N803 - its name in the older pipeline
        scan_index: Any = None,
        objectGuess: Any = None,  # noqa: N803
        config: Any = None,
        *,
        Y: Any = None,  # noqa: N803
    ) -> None:
        arrays = {
            "xcoords": xcoords,
            "ycoords": ycoords,
            "diff3d": diff3d,
            "probeGuess": probeGuess,
            "scan_index": scan_index,
            "objectGuess": objectGuess,
            "Y": Y,
        }
        self._set(scan_of_arrays(arrays), config)

    @classmethod
    def of_scan(cls, scan: Scan, config: Any = None) -> "RawDataTorch":
        """Return the raw data of a scan whose arrays may be on a disk."""
        made = cls.__new__(cls)
        made._set(scan, config)
        return made

    def _set(self, scan: Scan, config: Any) -> None:
        self.scan = scan
        self.config = None if config is None else PtychoConfig.of(config)
        if self.config is not None and scan.size != self.config.N:
            raise InvalidInputError(
                f"expected frames of {self.config.N} x {self.config.N} pixels, got {scan.size}. Mend N of the config."
            )
        count = None if self.config is None else self.config.n_subsample
        seed = None if self.config is None else self.config.subsample_seed
        self.sample_indices = subsampled(len(scan), count, seed)

    @property
    def xcoords(self) -> Array:
        """(n,) float64: columns, pixels."""
        return self.scan.x

    @property
    def ycoords(self) -> Array:
        """(n,) float64: rows, pixels."""
        return self.scan.y

    @property
    def scan_index(self) -> Array:
        """(n,) int64: number of the scan that each position is of."""
        return self.scan.index

    @property
    def diff3d(self) -> Array:
        """(n, N, N) float32: all amplitudes, read now where they are on a disk."""
        return amplitudes(self.scan.frames[np.arange(len(self.scan))])

    @property
    def probeGuess(self) -> Array:  # noqa: N802 - its name in the older pipeline
        """(N, N) complex64."""
        return self.scan.probe

    @property
    def objectGuess(self) -> Array | None:  # noqa: N802
        """(M, M') complex64; None where there is none."""
        return self.scan.object

    def generate_grouped_data(
        self,
        N: int | None = None,  # noqa: N803 - its name in the older pipeline
        K: int | None = None,  # noqa: N803
        nsamples: int | None = None,
        seed: int | None = None,
        sequential_sampling: bool | None = None,
        gridsize: int | None = None,
        dataset_path: str | Path | None = None,
        *,
        enable_oversampling: bool | None = None,
        neighbor_pool_size: int | None = None,
        position: Position = "true",
        layout: Layout = "nhwc",
    ) -> dict[str, Any]:
        """Return groups as arrays by name, as `sarzarr.ptychography.grouped.grouped_arrays` says them.

        Parameters
        ----------
        N
            Pixels of a frame's side; another than the data's is refused.
        K, nsamples, gridsize, sequential_sampling, enable_oversampling, neighbor_pool_size
            As of `sarzarr.grouping.GroupRecipe`. Those that are left out are the config's; without one K is 4,
            nsamples 1, and ``gridsize`` must be given.
        seed
            Of the draw: the same gives the same groups; None is another one each time.
        dataset_path
            Taken and not used: groups are never kept in a file, since making them takes milliseconds.
        position
            ``compat`` cuts the object out at 2 m - c, as an older pipeline does; for ``Y`` alone.
        layout
            ``nhwc``, or ``nchw`` for torch.

        Raises `InvalidInputError`, a ValueError, as `sarzarr.grouping.group_positions`; where frames have NaN,
        negative values or no light.
        """
        del dataset_path
        config = self.config
        if N not in (None, self.scan.size):
            raise InvalidInputError(
                f"expected N={self.scan.size}, the side of the frames, got {N}. Leave N= out, or cut the frames."
            )
        if gridsize is None and config is None:
            raise InvalidInputError(
                "expected gridsize, got none and no config. Pass gridsize=, or config= to the constructor."
            )
        chosen = self.sample_indices
        x, y = (self.scan.x, self.scan.y) if chosen is None else (self.scan.x[chosen], self.scan.y[chosen])
        if config is None:
            config = PtychoConfig(N=self.scan.size, gridsize=gridsize or 1, n_groups=1)
        recipe = config.recipe(
            len(x),
            seed=seed,
            gridsize=gridsize,
            nsamples=nsamples,
            neighbors=K,
            sequential_sampling=sequential_sampling,
            enable_oversampling=enable_oversampling,
            neighbor_pool_size=neighbor_pool_size,
        )
        found = grouped_arrays(self.scan, group_positions(x, y, recipe), chosen, position, layout)
        return found | {"nphotons": config.nphotons or self.scan.nphotons}

    def __repr__(self) -> str:
        what = ", ".join(f"{n} {v.dtype} {v.shape}" for n, v in self._arrays().items())
        return f"<sarzarr.RawDataTorch of {len(self.scan)} positions: {what}>"

    def _arrays(self) -> dict[str, Any]:
        named = {"diff3d": self.scan.frames, "probeGuess": self.probeGuess, "objectGuess": self.objectGuess}
        return {name: values for name, values in named.items() if values is not None}
