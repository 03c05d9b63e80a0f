"""One chip of an archive, read: each of its files opened once, its header judged and its pixels encoded at once.

A chip's codes, flags and counts are those of the same file as a scene: the kernels, rules and tiles are the same.
What a scene's sample is asked for (values that stand for nothing) is asked of all pixels of a chip, where counting
them has shown that a value is repeated.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from zipfile import ZipInfo

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import UnsupportedRasterError
from sarzarr.grids.grid import Grid
from sarzarr.ingestion.blocks.flags import UNDECIDED, decide, region_mask
from sarzarr.ingestion.blocks.jobs import ArraySource, BlockJob
from sarzarr.ingestion.blocks.regions import RegionTracker, reaching_edge
from sarzarr.ingestion.blocks.tiles import Counts, TileEncoder
from sarzarr.ingestion.blocks.undecided_zeros import stored_zero
from sarzarr.ingestion.blocks.write import tiles
from sarzarr.ingestion.scene_plan import group_named
from sarzarr.pixels.kernels import is_sentinel
from sarzarr.rasters import FileStamp, Unmeasured, measured, open_raster, read_dtype, read_mask
from sarzarr.scenes.acquisition import Acquisition, merge_facts
from sarzarr.scenes.header import header_of
from sarzarr.scenes.measured import SATURATED, SHARE, BandSample, fills_of
from sarzarr.scenes.told import Kind, Teller, Told
from sarzarr.store.collections import ABSENT, LONGEST, NO_TIME, ChipArray, ChipLayer
from sarzarr.store.documents import Encoding
from sarzarr.zips import member, open_file
from sarzarr.zips.zarrs import zarr_chip_at

_HASHED: Final = 1 << 14
"""Bytes of each of the pieces of a file that are hashed."""
_IN_ARCHIVE: Final = re.compile(r"\.(?:zip|tar)/", re.IGNORECASE)
_PIECES: Final = 16
"""Pieces of a file that are hashed; all of one that is no longer than they are."""
OTHERS: Final = ("under", "over", "nonpositive", "nodata")
"""Counts of pixels without a bin."""
_NO_STAMP: Final = FileStamp(path="", size=0, modified=0, hash="")
_NEAR: Final = 0.01
"""Pixels by which the place of a layer may differ from its chip's."""


@dataclass(frozen=True, kw_only=True)
class BandMeaning:
    """A band of files of one kind: the array that it is, and how its numbers are written down."""

    band: int
    """Its number in the file, from 1."""
    name: str
    """The array's name."""
    quantity: str
    """`conventions.Quantity`."""
    representation: str
    """`conventions.Representation`."""
    reason: str
    """How that was found, for people."""


@dataclass(frozen=True, kw_only=True)
class LayerBand:
    """A layer of chips, and the band of its files that it is."""

    layer: ChipLayer
    """The layer."""
    files: str
    """The name that its files have among those of a chip: that of `sarzarr.ingestion.layers.layer.Layer`."""
    band: int
    """The band, from 1."""
    bands: int
    """Bands of such a file."""
    is_said: bool
    """Whether the caller says its nodata, whatever the tags of files are."""


@dataclass(frozen=True, kw_only=True)
class Understanding:
    """The meaning of an archive's files: all that a worker needs to read a chip."""

    meanings: Mapping[Kind, tuple[BandMeaning, ...]]
    """Of files of each kind, the bands that are kept."""
    arrays: tuple[ChipArray, ...]
    """Arrays of backscatter."""
    layers: tuple[LayerBand, ...] = ()
    """Layers."""
    polarizations: Sequence[str] | None = None
    """See `IngestOptions.polarizations`."""
    nodata: float | None = None
    """See `IngestOptions.nodata`."""
    representation: str | None = None
    """See `IngestOptions.representation`."""

    @property
    def teller(self) -> Teller:
        """A new teller of what files say by their headers."""
        return Teller(
            polarizations=self.polarizations, nodata=self.nodata, representation=self.representation
        )


class OtherSizeError(Exception):
    """A chip of another size, (rows, columns), than was expected: it belongs into another part."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__(f"{shape}")
        self.shape = shape


@dataclass(kw_only=True)
class Chip:
    """A chip, encoded; its pixels are good until the next one is read."""

    pixels: dict[str, Array]
    """Stored values (rows, columns) by array: codes, flags and layers."""
    grid: Grid
    """CRS, transform and (rows, columns)."""
    facts: Acquisition
    """The facts of the acquisition."""
    representations: dict[str, str]
    """How the numbers of each array were written down."""
    numbers: dict[str, int]
    """``time``, ``valid_vv`` and ``hash_mask``, ..., as `sarzarr.store.collections.Contents.numbers` has them."""
    source_hash: bytes
    """SHA-256 (32 bytes) of the bytes of its files of backscatter, or of samples of them."""


@dataclass
class ChipReader:
    """Read chips of one size one after another, and count their pixels."""

    understanding: Understanding
    """The meaning of their files."""
    shape: tuple[int, int]
    """(rows, columns) of a chip."""
    workload: int = 0
    """Pixels that a worker may expect, of all chips."""
    encoders: dict[str, "ArrayEncoder"] = field(init=False)
    """The encoder of each array, with its counts."""

    def __post_init__(self) -> None:
        self.encoders = {
            array.name: ArrayEncoder(array, self.shape, self.workload) for array in self.understanding.arrays
        }
        self._all_valid = np.zeros(self.shape, np.uint8)
        self._teller = self.understanding.teller
        self._rooms: dict[tuple[int, int, str], Array] = {}

    def read(self, files: Sequence[str], layers: Mapping[str, str]) -> Chip:
        """Return a chip from the paths of its files, and of the file of each of its layers.

        Raises `OtherSizeError` where it is of another size; `UnsupportedRasterError` and its like where it cannot be
        taken: what it holds is then counted nowhere.
        """
        for encoder in self.encoders.values():
            encoder.forget()
        chip = self._read(files, layers)
        for encoder in self.encoders.values():
            encoder.keep()
        return chip

    def _read(self, files: Sequence[str], layers: Mapping[str, str]) -> Chip:
        pixels: dict[str, Array] = {}
        representations: dict[str, str] = {}
        numbers = {f"valid_{name}": ABSENT for name in self.encoders}
        grids: list[Grid] = []
        facts: list[Acquisition] = []
        for path in files:
            told, bands = self._bands(Path(path))
            grids.append(told.header.grid)
            facts.append(told.facts)
            for meaning, raw, mask, nodata in bands:
                if meaning.name in pixels:
                    raise UnsupportedRasterError(
                        f"expected one file for {meaning.name!r} of a chip, got a second, {Path(path).name!r}. Give "
                        "each file a name of its own."
                    )
                encoder = self.encoders[meaning.name]
                values, flags = encoder.encode(
                    raw, mask, nodata, meaning.representation, is_told=told.is_told
                )
                pixels[meaning.name] = values
                pixels[encoder.array.flags] = self._all_valid if flags is None else flags
                valid = values.size if flags is None else int(np.count_nonzero(cv.Flag.is_valid(flags)))
                numbers[f"valid_{meaning.name}"] = valid
                representations[meaning.name] = meaning.representation
        grid, known = grids[0], merge_facts(facts)
        for other in grids[1:]:
            _check_place(other, grid, "a file of it")
        beside, stamps = self.layers(layers, grid)
        when = known.datetime
        numbers["time"] = (
            NO_TIME if when is None else int(np.datetime64(when.rstrip("Z"), "ns").astype(np.int64))
        )
        return Chip(
            pixels=pixels | beside,
            grid=grid,
            facts=known,
            representations=representations,
            numbers=numbers | stamps,
            source_hash=files_hash(files),
        )

    def layers(self, files: Mapping[str, str], grid: Grid) -> tuple[dict[str, Array], dict[str, int]]:
        """Return the pixels (rows, columns) of the layers of a chip from their files by name, and ``hash_mask``, ...

        Raises `UnsupportedRasterError` where one is not on the chip's grid, or not like the others of its name.
        """
        pixels: dict[str, Array] = {}
        hashes: dict[str, int] = {}
        for name, path in files.items():
            if path:
                own = [one for one in self.understanding.layers if one.files == name]
                pixels |= self._layer(Path(path), own, grid)
                hashes[f"hash_{name}"] = layer_hash(path)
        return pixels, hashes

    def _bands(self, path: Path) -> tuple[Told, list[tuple[BandMeaning, Array, Array | None, float | None]]]:
        """Return what a file tells, and of each band that is kept its pixels, its mask and its nodata."""
        with open_raster(path) as dataset:
            self._check_shape(dataset.shape)
            told = self._teller.of(path, header_of(dataset, path))
            bands = self._meaning(path, told)
            wanted = [meaning.band for meaning in bands]
            raw = self._raw(dataset, wanted, 0)
            masks = [self._mask(dataset, told, band) for band in wanted]
        sentinels = dict(zip((band.number for band in told.bands), told.nodata, strict=True))
        return told, [
            (meaning, raw[i], masks[i], sentinels.get(meaning.band)) for i, meaning in enumerate(bands)
        ]

    def _raw(self, dataset: Any, bands: list[int], which: int) -> Array:
        """Return bands (n, rows, columns) of a file, in memory that is used again for the next chip."""
        dtype = read_dtype(dataset)
        key = which, len(bands), str(dtype)
        if key not in self._rooms:
            self._rooms[key] = np.empty((len(bands), *self.shape), dtype)
        return np.asarray(dataset.read(bands, out=self._rooms[key]))

    def _mask(self, dataset: Any, told: Told, band: int) -> Array | None:
        mask = told.header.masks[band - 1]
        if mask is None:
            return None
        if mask.is_beside:
            return read_mask(mask, row=0, col=0, height=self.shape[0], width=self.shape[1])
        return np.asarray(dataset.read_masks(mask.band) != 0)

    def _check_shape(self, shape: tuple[int, int]) -> None:
        if max(shape) > LONGEST:
            raise UnsupportedRasterError(
                f"expected a chip of at most {LONGEST} x {LONGEST} pixels, got {shape[0]} x {shape[1]}. Ingest it "
                "as a scene: --scenes."
            )
        if shape != self.shape:
            raise OtherSizeError(shape)

    def _meaning(self, path: Path, told: Told) -> tuple[BandMeaning, ...]:
        """Return the bands that are kept of a file; raises where it is not what the archive's sample was."""
        if told.refusal is not None:
            raise UnsupportedRasterError(told.refusal)
        if told.header.georeference.gcps and not told.header.grid.is_georeferenced:
            raise UnsupportedRasterError(
                f"expected a chip that an affine places, got {len(told.header.georeference.gcps)} GCPs. Ingest it as "
                "a scene: --scenes."
            )
        bands = self.understanding.meanings.get(told.kind)
        if bands is None:
            dtype, said = told.kind
            known = "; ".join(sorted({_said(kind) for kind in self.understanding.meanings}))
            raise UnsupportedRasterError(
                f"expected a file like those that were looked at ({known}), got {_said((dtype, said))}. Put files of "
                "another kind into a collection of their own with --collection NAME."
            )
        for meaning in bands:
            array = self.encoders[meaning.name].array
            group = group_named(meaning.name, meaning.quantity, meaning.representation, told.facts)
            if group != array.bounds_key:
                raise UnsupportedRasterError(
                    f"expected {meaning.name} of {array.bounds_key}, as the collection's, got {group}. Put it into a "
                    "collection of its own with --collection NAME."
                )
        return bands

    def _layer(self, path: Path, own: Sequence[LayerBand], grid: Grid) -> dict[str, Array]:
        """Return the bands of a layer's file by the layers' names."""
        with open_raster(path) as dataset:
            if dataset.shape != self.shape:
                raise UnsupportedRasterError(
                    f"expected a layer of {self.shape[0]} x {self.shape[1]} pixels, as its chip, got {path.name!r} "
                    f"of {dataset.height} x {dataset.width}. Take it away, or write it on the chip's grid."
                )
            _check_layer_place(dataset, grid, path.name)
            dtype = str(read_dtype(dataset))
            if (dtype, dataset.count) != (own[0].layer.dtype, own[0].bands):
                raise UnsupportedRasterError(
                    f"expected layer {own[0].files!r} of {own[0].layer.dtype} and {own[0].bands} bands, got "
                    f"{path.name!r} of {dtype} and {dataset.count}. Give it a name of its own."
                )
            told = dataset.nodata
            if not own[0].is_said and told != own[0].layer.nodata and not (told is None or np.isnan(told)):
                raise UnsupportedRasterError(
                    f"expected nodata {own[0].layer.nodata} of layer {own[0].files!r}, as of its other files, got "
                    f"{told:g} in {path.name!r}. Say it with --layer {own[0].files}:nodata{told:g}=..."
                )
            raw = self._raw(dataset, [one.band for one in own], 1 + self.understanding.layers.index(own[0]))
        return {one.layer.name: pixels for one, pixels in zip(own, raw, strict=True)}


def _said(kind: Kind) -> str:
    dtype, bands = kind
    names = ", ".join(" ".join(filter(None, (name, quantity, form))) for quantity, form, name in bands)
    return f"{names or 'no band'} of {dtype}"


def _check_place(other: Grid, grid: Grid, what: str) -> None:
    """Refuse a raster beside a chip that lies elsewhere; one that says no place is taken to lie there."""
    if other.shape != grid.shape:
        raise UnsupportedRasterError(
            f"expected {what} of {grid.height} x {grid.width} pixels, got {other.height} x {other.width}."
        )
    if not (other.is_georeferenced and grid.is_georeferenced):
        return
    corners = np.array(other.corners) - np.array(grid.corners)
    if other.crs_wkt != grid.crs_wkt or np.abs(corners).max() > _NEAR * max(map(abs, grid.pixel_size)):
        raise UnsupportedRasterError(
            f"expected {what} in the place of its chip, got transform {other.transform} beside {grid.transform}, or "
            "another CRS. Check the names."
        )


def _check_layer_place(dataset: Any, grid: Grid, what: str) -> None:
    """Refuse the open file of a layer that lies elsewhere than its chip; one that says no place lies there.

    CRSs are compared where the affines differ in more than rounding: zones repeat their coordinates, files of one
    chip are not of two.
    """
    if dataset.crs is None or not grid.is_georeferenced:
        return
    own, pixel = np.array(dataset.transform[:6]), max(map(abs, grid.pixel_size))
    rows, cols = grid.shape
    reach = np.array([cols, rows, 1.0, cols, rows, 1.0])
    if (np.abs(own - np.array(grid.transform)) * reach).max() > _NEAR * pixel:
        raise UnsupportedRasterError(
            f"expected {what} in the place of its chip, got transform {tuple(own.tolist())} beside {grid.transform}. "
            "Check the names."
        )


@dataclass
class ArrayEncoder:
    """The encoder of one array of chips, with the counts of all that went through it."""

    array: ChipArray
    """The array."""
    shape: tuple[int, int]
    """(rows, columns) of a chip."""
    workload: int
    """Pixels that a worker may expect."""
    counts: Counts = field(default_factory=Counts, init=False)
    """The histogram of all chips that are kept."""
    chip: Counts = field(default_factory=Counts, init=False)
    """That of the chip at hand."""
    impossible: int = field(default=0, init=False)
    """Pixels that are not valid for their value alone: no radar measures it."""
    fills: dict[float, int] = field(default_factory=dict, init=False)
    """Chips in which a value that no tag declares stands for nothing, by the value."""
    _counted: slice = field(default_factory=partial(slice, None), init=False)
    """The half-codes among which all are that the chip at hand has: most of a histogram is empty."""
    _encoders: dict[Any, TileEncoder] = field(default_factory=dict, init=False)
    _out: Array | None = field(default=None, init=False)

    def forget(self) -> None:
        """Take back what was counted of the chip at hand."""
        self.chip.counts[self._counted] = 0
        vars(self.chip).update(dict.fromkeys(OTHERS, 0))

    def keep(self) -> None:
        """Count the chip at hand."""
        self.counts.counts[self._counted] += self.chip.counts[self._counted]
        for name in OTHERS:
            setattr(self.counts, name, getattr(self.counts, name) + getattr(self.chip, name))

    def encode(
        self, raw: Array, mask: Array | None, nodata: float | None, representation: str, *, is_told: bool
    ) -> tuple[Array, Array | None]:
        """Return (stored values, flags uint8) of a chip (rows, columns), and count it; no flags: all are valid.

        ``mask`` is bool of its shape: where a pixel was measured. Raises `UnsupportedRasterError` where its pixels
        contradict the representation of the archive.
        """
        is_untagged = not is_told and mask is None and (nodata is None or bool(np.isnan(nodata)))
        is_db = representation == cv.Representation.DB
        values = (0.0,) if is_db and is_untagged else ()
        out = self._encode(raw, mask, nodata, representation, values)
        if not is_told and self._is_repeated(raw):
            more = self._fills(raw, mask, nodata, representation)
            if more and set(more) != set(values):
                self.forget()
                out = self._encode(raw, mask, nodata, representation, more)
                for value in more:
                    self.fills[value] = self.fills.get(value, 0) + 1
        self._check(raw, representation)
        return out

    def _fills(
        self, raw: Array, mask: Array | None, nodata: float | None, representation: str
    ) -> tuple[float, ...]:
        """Return the values that stand for nothing though no tag says so, by the law of a scene's sample."""
        window = measured(raw.copy(), None, row=0, col=0)
        if mask is not None or nodata is not None:
            window = window.astype(np.result_type(raw.dtype, np.float32))
            if mask is not None:
                window[~mask] = np.nan
            if nodata is not None:
                window[is_sentinel(raw, nodata)] = np.nan
        fills = fills_of([window], is_float=raw.dtype.kind == "f")
        rule = BandSample(windows=(), nodata=nodata, rule=Unmeasured(), is_told=False, fills=fills)
        found = rule.unmeasured(representation)
        return () if found is None else found.values

    def _is_repeated(self, raw: Array) -> bool:
        """Whether a value may stand out by how often it is there: each is in one bin, or is not positive."""
        if raw.dtype.kind != "f":
            return bool((raw == SATURATED).any()) if raw.dtype.kind in "iu" else False
        most = max(int(self.chip.counts[self._counted].max()), self.chip.nonpositive)
        return most > SHARE * (raw.size - self.chip.nodata)

    def _check(self, raw: Array, representation: str) -> None:
        """Refuse a chip whose pixels are not of the representation: most beyond the stored range, or below zero."""
        found = self.chip
        valid, beyond, dark = raw.size - found.nodata, found.under + found.over, found.nonpositive
        if representation == cv.Representation.DB:
            low = raw.min()  # NaN where one is
            is_wrong = valid > 256 and bool((np.nanmin(raw) if np.isnan(low) else low) >= 0)
            why = "none of them negative, like power"
        else:
            is_wrong = 2 * dark > valid > 256 and bool(np.count_nonzero(raw < 0) * 2 > valid)
            why = "most of them negative, like dB"
        if 2 * beyond > valid > 0:
            is_wrong, why = True, "most of them beyond the stored range"
        if is_wrong:
            raise UnsupportedRasterError(
                f"expected {representation}, as in the files that were looked at, got {valid:,} pixels, {why}. Look "
                "at the file; say what it is with --representation, in a collection of its own."
            )

    def _encode(
        self,
        raw: Array,
        mask: Array | None,
        nodata: float | None,
        representation: str,
        values: tuple[float, ...],
    ) -> tuple[Array, Array | None]:
        rule = Unmeasured(values=values) if values else None
        pixels = raw
        if rule is not None and any((raw == value).any() for value in values):
            pixels = measured(raw.copy(), rule, row=0, col=0)
        if mask is not None and not mask.all():
            pixels = pixels.astype(np.result_type(pixels.dtype, np.float32), copy=pixels is raw)
            pixels[~mask] = np.nan
        encoder = self._encoder(pixels.dtype, nodata, representation, has_mask=mask is not None)
        if self._out is None:
            self._out = np.empty(self.shape, self.array.dtype)
        out = self._out
        flags: Array | None = None
        encoder.impossible, self._counted = 0, slice(None)
        for row, col, tile in tiles(pixels, encoder.job.encoding.chunk, encoder.columns):
            stored, coded = encoder.encode(pixels, row, col)
            window = slice(row, row + tile.shape[0]), slice(col, col + tile.shape[1])
            out[window] = stored
            if coded is not None:
                flags = np.zeros(self.shape, np.uint8) if flags is None else flags
                flags[window] = coded
        if out.dtype == np.uint16 and (self.array.vmin, self.array.vmax) == cv.STORED_RANGE:
            low, high = int(out.min()), int(out.max())  # code c is half-codes 2c - 3 and 2c - 2
            self._counted = slice(max(2 * low - 3, 0), max(2 * high - 1, 1))
        self.impossible += encoder.impossible
        if flags is not None and (flags == UNDECIDED).any():
            self._decide(out, flags, encoder)
        return out, flags

    def _decide(self, out: Array, flags: Array, encoder: TileEncoder) -> None:
        """Settle the zeros of a chip that nothing tells of: nodata where their region reaches its edge."""
        tracker, source = RegionTracker(), encoder.source
        labels = tracker.add(region_mask(flags, source))
        reaches = reaching_edge({(0, 0): tracker.finish()})[0, 0][tracker.names()]
        undecided = flags == UNDECIDED
        nodata = decide(flags, reaches[labels], source)
        zero = stored_zero((self.array.vmin, self.array.vmax), self.array.dtype)
        out[undecided & cv.Flag.is_valid(flags)] = zero
        self.chip.nonpositive -= nodata
        self.chip.nodata += nodata

    def _encoder(
        self, dtype: np.dtype[Any], nodata: float | None, representation: str, *, has_mask: bool
    ) -> TileEncoder:
        key = str(dtype), repr(nodata), representation, has_mask
        if key not in self._encoders:
            source = _MaskedSource if has_mask else ArraySource
            height, width = self.shape
            array = source(
                name=self.array.name,
                file=_NO_STAMP,
                band=1,
                representation=representation,
                itemsize=dtype.itemsize,
                nodata=nodata,
                vmin=self.array.vmin,
                vmax=self.array.vmax,
            )
            job = BlockJob(
                scene="",
                folder="",
                encoding=Encoding(dtype=self.array.dtype, codec=self.array.codec, shard=cv.CHUNK),
                row=0,
                col=0,
                height=height,
                width=width,
                band_rows=height,
                arrays=(array,),
                shape=self.shape,
                workload=self.workload,
            )
            self._encoders[key] = TileEncoder(job, array, dtype)
            self._encoders[key].counts = self.chip
        return self._encoders[key]


class _MaskedSource(ArraySource):
    """A band with a mask, which is applied already: zeros in it are measured."""

    @property
    def has_untagged_zeros(self) -> bool:
        """False: a mask tells which pixels were measured."""
        return False


def files_hash(paths: Sequence[str], *, sampled: bool = False) -> bytes:
    """Return SHA-256 (32 bytes) of all bytes of files; ``sampled``: of 16 pieces of 16 KiB of those that are longer.

    Of a file in a ZIP archive it is that of the CRC-32 and the size that the archive lists, of a chip of a Zarr
    archive that of its pixels and its place.

    Raises `RasterNotFoundError` or `OSError` where there is no such file.
    """
    digest = sha256()
    for path in paths:
        if (chip := zarr_chip_at(Path(path))) is not None:
            digest.update(chip[0].identity(chip[1]))
            continue
        found = member(Path(path)) if _IN_ARCHIVE.search(path) else None
        if found is not None and isinstance(found[1], ZipInfo):
            digest.update(f"{found[1].CRC:08x} {found[1].file_size}".encode())
            continue
        for piece in _pieces(path, sampled=sampled):
            digest.update(piece)
    return digest.digest()


def layer_hash(path: str, *, sampled: bool = False) -> int:
    """Return the first 63 bits of `files_hash` of the file of a layer, as the table keeps them: int64."""
    return int.from_bytes(files_hash([path], sampled=sampled)[:8], "big") >> 1


def _pieces(path: str, *, sampled: bool) -> Iterator[bytes]:
    with open_file(Path(path)) if _IN_ARCHIVE.search(path) else Path(path).open("rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        yield size.to_bytes(8, "little")
        if not sampled or size <= _PIECES * _HASHED:
            while piece := file.read(1 << 20):
                yield piece
            return
        for step in range(_PIECES):
            file.seek(step * (size - _HASHED) // (_PIECES - 1))
            yield file.read(_HASHED)
