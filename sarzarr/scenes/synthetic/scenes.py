"""Speckled scenes of invented ground: for the demo and for tests.

A scene is a `sarzarr.scenes.synthetic.ground.Ground` times gamma speckle, with ships on it. It is made and
written band by band, so memory does not grow with it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.conventions import POLARIZATIONS, Representation
from sarzarr.errors import InvalidInputError
from sarzarr.files import whole_file
from sarzarr.scenes.synthetic.ground import Ground, speckle

PIXEL_SIZE: Final = 10.0
"""Metres."""
CALIBRATION: Final = 474.0
"""DN of sigma0 = 1: ``DN = CALIBRATION sqrt(sigma0)``."""
_BAND: Final = 512
"""Rows made and written at a time; a row of the TIFF's tiles."""
_TILED: Final[Mapping[str, Any]] = MappingProxyType(
    {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
)


def write_synthetic_scenes(
    folder: str | Path,
    *,
    count: int = 3,
    shape: tuple[int, int] = (1024, 1024),
    polarizations: Sequence[str] = ("VV", "VH"),
    seed: int = 0,
    representation: str = "power",
    border: float = 0.08,
    changes: bool = True,
) -> list[Path]:
    """Write ``count`` acquisitions of one place, 12 days apart, a GeoTIFF a polarization; return the paths.

    Files are ``s1_20260101_vv.tif`` and so on: sigma0 in UTM 33N at 10 m, tiled and deflated. Acquisitions
    share the ground; speckle, waves, ships and crops differ. Without ``changes`` the speckle alone does,
    independent from date to date, as methods that learn from pairs of dates assume. The same arguments give the
    same pixels, and the same seed the same ground and speckle in every ``representation``: ``power``,
    ``amplitude`` and ``db`` are float32 with NaN as nodata, ``dn`` is uint16 ``474 sqrt(sigma0)`` with 0 as nodata.

    ``folder`` is made if need be; ``shape`` is (rows, columns) of each, and ``polarizations`` are of VV, VH, HH, HV.
    ``border`` is the share of the width that a slanted nodata border takes off at most on each side; 0 for none.

    Raises `InvalidInputError` where a polarization or the representation is unknown, or the count, shape or border
    is out of range.
    """
    folder = Path(folder)
    names = _checked(polarizations, representation)
    if count < 1 or min(shape) < 1 or not 0 <= border < 0.5:
        raise InvalidInputError(
            f"expected a scene of pixels and a border in 0..0.5, got {count} of {shape}, border {border}."
        )
    ground = Ground(height=shape[0], width=shape[1], seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for date in range(count):
        for name in names:
            path = folder / f"s1_{_when(date):%Y%m%d}_{name.lower()}.tif"
            seen = date if changes else 0
            speckled = partial(_speckled, ground, date=date, seen=seen, polarization=name, border=border)
            bands = map(speckled, _rows(shape[0]))
            paths.append(_write(path, bands, shape=shape, form=representation, polarization=name, date=date))
    return paths


def _speckled(
    ground: Ground, rows: Array, *, date: int, seen: int, polarization: str, border: float
) -> Array:
    """Return rows of one acquisition, of the ground of the date ``seen``, as linear power; NaN where no data are."""
    power = _to_linear(ground.levels_db(rows, date=seen, polarization=polarization))
    key = [ground.seed, 2, date, *polarization.encode(), int(rows[0])]
    power *= speckle(power.shape, np.random.default_rng(key))
    ground.add_ships(power, rows, date=seen, polarization=polarization)
    down = (rows / ground.height)[:, None]
    across = (np.arange(ground.width) / ground.width)[None]
    power[(across < border * (1 - 1.2 * down)) | (across > 1 - border * (1.2 * down - 0.2))] = np.nan
    return power


def _to_linear(db: Array) -> Array:
    return np.exp(db * np.float32(math.log(10) / 10))


def _to_dn(power: Array) -> Array:
    dn = np.clip(np.rint(CALIBRATION * np.sqrt(power)), 1, 65535)
    return np.where(np.isnan(dn), 0, dn).astype(np.uint16)


_FORMS: Final[Mapping[str, tuple[str, Callable[[Array], Array]]]] = MappingProxyType(
    {
        Representation.POWER.value: ("Sigma0_{}", lambda power: power),
        Representation.AMPLITUDE.value: ("Amplitude_{}", np.sqrt),
        Representation.DB.value: ("Sigma0_{}_db", lambda power: 10 * np.log10(power)),
        "dn": ("Amplitude_{}", _to_dn),
    }
)
"""A representation's band description, as SNAP names it, and the law from linear power with NaN to it."""


def _checked(polarizations: Sequence[str], representation: str) -> list[str]:
    """Return polarizations in upper case."""
    for name in polarizations:
        if name.lower() not in POLARIZATIONS:
            raise InvalidInputError(f"polarization must be VV, VH, HH or HV, got {name!r}.")
    if representation not in _FORMS:
        raise InvalidInputError(f"representation must be one of {', '.join(_FORMS)}, got {representation!r}.")
    return [name.upper() for name in polarizations]


def _when(date: int) -> datetime:
    return datetime(2026, 1, 1, 5, 16, 32, tzinfo=UTC) + timedelta(days=12 * date)


def _rows(height: int) -> Iterator[Array]:
    return (np.arange(top, min(top + _BAND, height)) for top in range(0, height, _BAND))


def _write(
    path: Path,
    bands: Iterator[Array],
    *,
    shape: tuple[int, int],
    form: str,
    polarization: str,
    date: int,
) -> Path:
    """Write bands of linear power beside ``path``, and rename."""
    import rasterio
    from rasterio.windows import Window

    description, convert = _FORMS[form]
    with (
        whole_file(path) as partial,
        rasterio.open(
            partial,
            "w",
            driver="GTiff",
            height=shape[0],
            width=shape[1],
            count=1,
            dtype="uint16" if form == "dn" else "float32",
            nodata=0 if form == "dn" else math.nan,
            crs="EPSG:32633",
            transform=rasterio.Affine(PIXEL_SIZE, 0, 400_000, 0, -PIXEL_SIZE, 6_000_000),
            num_threads="ALL_CPUS",
            bigtiff="IF_SAFER",
            **_TILED,
        ) as file,
    ):
        row = 0
        for power in bands:
            file.write(convert(power), 1, window=Window(0, row, shape[1], len(power)))
            row += len(power)
        file.set_band_description(1, description.format(polarization))
        file.update_tags(  # as SNAP names them: GDAL cuts names with a colon, as STAC's have, in two
            MISSION="SENTINEL-1A",
            ACQUISITION_MODE="IW",
            PRODUCT_TYPE="GRD",
            PASS="DESCENDING",
            antenna_pointing="right",
            ACQUISITION_DATETIME=_when(date).isoformat().replace("+00:00", "Z"),
            ABS_ORBIT=str(62_416 + 175 * date),
            REL_ORBIT="44",
            incidenceAngleMidSwath="38.9",
            azimuth_looks="1",
            range_looks="5",
            POLARIZATION=polarization,
        )
    return path
