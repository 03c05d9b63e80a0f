"""The meaning of an archive's numbers, by the headers and pixels of a few of its files, spread over all."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.ingestion.collections.files import Chips, File
from sarzarr.ingestion.collections.read import BandMeaning, LayerBand, Understanding
from sarzarr.ingestion.layers.layer import Layer
from sarzarr.ingestion.options import IngestOptions
from sarzarr.ingestion.scene_plan import group_named
from sarzarr.scenes.header import Header, read_header
from sarzarr.scenes.probe import RasterProbe, probe_file
from sarzarr.scenes.refusals import Refusals
from sarzarr.scenes.told import Kind, Teller
from sarzarr.store.collections import ChipArray, ChipLayer
from sarzarr.store.free_values import extreme
from sarzarr.store.store import Store

_SAMPLED: Final = 1 << 20
"""Pixels of an archive that are looked at before it is read, about."""
_MOST_SAMPLED: Final = 32
"""Files that are, at most."""
_LEAST_SAMPLED: Final = 3
"""Files that are, and are backscatter, at the least, if there are so many."""
_LAYER_DTYPES: Final = frozenset(
    ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", "int64", "uint64")
)


@dataclass(frozen=True, eq=False)
class Probes:
    """The probes of a plan: a file that is looked at twice is read once."""

    options: IngestOptions
    """The options that files are looked at with."""
    _known: dict[Path, RasterProbe] = field(default_factory=dict)

    @cached_property
    def teller(self) -> Teller:
        """The teller of what names and headers say."""
        return Teller(**_said(self.options))

    def of(self, path: Path) -> RasterProbe:
        """Return the probe of a file, as a scene's: of its header, and of all pixels of a small one."""
        if path not in self._known:
            said = self.options
            self._known[path] = probe_file(
                path, quantity=said.quantity, calibrate=said.calibration, **_said(said)
            )
        return self._known[path]


def spread(some: Sequence[Any], count: int) -> list[Any]:
    """Return so many of them, the first and the last among them, evenly spread."""
    if len(some) <= count:
        return list(some)
    return [some[i] for i in np.unique(np.linspace(0, len(some) - 1, count).astype(int)).tolist()]


def _said(options: IngestOptions) -> dict[str, Any]:
    return {
        "polarizations": options.polarizations,
        "nodata": options.nodata,
        "representation": options.representation,
    }


def ordered_arrays(arrays: Iterable[ChipArray]) -> tuple[ChipArray, ...]:
    """Return arrays of backscatter (chip, y, x) in the order of `conventions.POLARIZATIONS`, others behind them."""
    known = cv.POLARIZATIONS
    return tuple(
        sorted(arrays, key=lambda a: (known.index(a.name) if a.name in known else len(known), a.name))
    )


def understood(
    chips: Chips, layers: Mapping[str, Sequence[File]], store: Store | None, probes: Probes
) -> tuple[Understanding, dict[tuple[int, int], list[int]], int]:
    """Return what the numbers of chips are, their numbers by size, and how many were looked at."""
    meanings: dict[Kind, tuple[BandMeaning, ...]] = {}
    arrays: dict[str, ChipArray] = {}
    shapes: list[tuple[int, int]] = []
    failures, options = Refusals(), probes.options
    looked, pixels = 0, 0
    numbers = spread(range(len(chips)), _MOST_SAMPLED)
    for number in _far_apart(numbers):
        if pixels > _SAMPLED and looked >= _LEAST_SAMPLED:
            break
        for path in map(Path, chips.paths[number].split("\n")):
            with failures.leaving_out([path]):
                probe = probes.of(path)
                looked += probe.refusal is None
                pixels += math.prod(probe.grid.shape) * probe.header.bands
                shapes.append(probe.grid.shape)
                _take(path, probe, meanings, arrays, store, options, failures)
    if len(chips) and not arrays:
        raise failures.error()
    by_size = {max(set(shapes), key=shapes.count): list(range(len(chips)))} if shapes else {}
    understanding = Understanding(
        meanings=meanings,
        arrays=ordered_arrays(arrays.values()),
        layers=tuple(
            one for layer in options.layers if layer.name in layers for one in layer_bands(layer, layers)
        ),
        **_said(options),
    )
    return understanding, by_size, looked


def _far_apart(numbers: Sequence[int]) -> list[int]:
    """Return numbers so that the first few of them are spread over all already.

    >>> _far_apart([0, 1, 2, 3, 4])
    [0, 4, 2, 1, 3]
    """
    out: list[int] = []
    for count in (1, 2, 3, 5, 9, 17, 33, 65):
        out += [n for n in spread(numbers, count) if n not in out]
    return [*out, *(n for n in numbers if n not in out)]


def _take(
    path: Path,
    probe: RasterProbe,
    meanings: dict[Kind, tuple[BandMeaning, ...]],
    arrays: dict[str, ChipArray],
    store: Store | None,
    options: IngestOptions,
    failures: Refusals,
) -> None:
    """Take up what a file that was looked at says of others of its kind."""
    if probe.refusal is not None:
        failures.add([path], probe.refusal)
        return
    told = Teller(**_said(options)).of(path, probe.header)
    if told.refusal is not None:
        failures.add([path], told.refusal)
        return
    found = tuple(
        BandMeaning(
            band=array.band,
            name=array.name,
            quantity=str(array.quantity),
            representation=str(array.representation),
            reason=array.reason,
        )
        for array in probe.arrays
    )
    known = meanings.setdefault(told.kind, found)
    if [replace(b, reason="") for b in known] != [replace(b, reason="") for b in found]:
        one, other = (
            "; ".join(f"{b.name} {b.quantity} {b.representation}" for b in some) for some in (known, found)
        )
        raise UnsupportedRasterError(
            f"expected files of one meaning, got {one}, and {other} in {path.name!r}. Say what they are with "
            "--quantity and --representation, or give each kind a collection of its own."
        )
    for array in probe.arrays:
        key = group_named(array.name, str(array.quantity), str(array.representation), probe.acquisition)
        new = _array(array.name, array.polarization, str(array.quantity), key, store, options)
        held = arrays.setdefault(array.name, new)
        if held.bounds_key != key:
            raise UnsupportedRasterError(
                f"expected {array.name} of one quantity, got {held.bounds_key}, and {key} in {path.name!r}. Give "
                "each a collection of its own with --collection NAME."
            )


def _array(
    name: str, polarization: str | None, quantity: str, key: str, store: Store | None, options: IngestOptions
) -> ChipArray:
    entry = store.bounds.get(key) if store is not None else None
    asked = (options.vmin, options.vmax) if options.bounds == "fixed" else cv.STORED_RANGE
    vmin, vmax = asked if entry is None else (entry.vmin, entry.vmax)
    if options.bounds == "fixed" and asked != (vmin, vmax):
        raise InvalidInputError(
            f"{key} is stored from {vmin:g} to {vmax:g} dB, got bounds {asked[0]:g} to {asked[1]:g}. Leave out "
            "--bounds, or make another store."
        )
    return ChipArray(
        name=name,
        polarization=polarization,
        quantity=quantity,
        bounds_key=key,
        dtype=options.encoding.dtype,
        codec=options.encoding.codec,
        vmin=float(vmin),
        vmax=float(vmax),
    )


def layer_bands(layer: Layer, files: Mapping[str, Sequence[File]]) -> list[LayerBand]:
    """Return the bands of a layer's files, each a layer: of several all, unless one is named."""
    header: Header = read_header(Path(files[layer.name][0].path))
    if layer.band is not None and layer.band > header.bands:
        raise InvalidInputError(
            f"expected band {layer.band} of layer {layer.name!r}, got files of {header.bands} bands. Count from 1."
        )
    dtype = str(header.dtype)
    if dtype not in _LAYER_DTYPES:
        raise InvalidInputError(
            f"expected integers or floats in layer {layer.name!r}, got {dtype}. Leave it out."
        )
    bands = [layer.band] if layer.band is not None else list(range(1, header.bands + 1))
    is_float = np.dtype(dtype).kind == "f"
    is_many = len(bands) > 1
    kind = layer.kind or ("continuous" if is_float or is_many else "classes")
    nodata: float | int | None = header.nodata if layer.nodata is None else layer.nodata
    if nodata is not None and not is_float:
        nodata = int(nodata) if math.isfinite(nodata) and int(nodata) == nodata else None
    if nodata is not None and math.isnan(nodata):
        nodata = None
    fill = (None if is_float else extreme(dtype)) if nodata is None else nodata
    return [
        LayerBand(
            layer=ChipLayer(
                name=f"{layer.name}_{band}" if is_many else layer.name,
                kind=kind,
                dtype=dtype,
                nodata=nodata,
                fill=fill,
                units=layer.units or "",
            ),
            files=layer.name,
            band=band,
            bands=header.bands,
            is_said=layer.nodata is not None,
        )
        for band in bands
    ]
