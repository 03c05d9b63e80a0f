"""Predicted layers: what model outputs become, and their way into whole shards beside a store.

Rows come in order. A row of shards is done when its files are whole and a receipt says so: an interrupted prediction
goes on after the last of them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, InvalidInputError
from sarzarr.files import boot, remove_partials, remove_tree, whole_file
from sarzarr.prediction.options import MAX_CHANNELS, NO_CLASS, PredictOptions
from sarzarr.prediction.windows import WindowGrid
from sarzarr.store.documents import Encoding, array_document, cf_fill, write_node
from sarzarr.store.manifest import ShardRecord, write_manifest
from sarzarr.store.place import Folder
from sarzarr.store.shard_job import check_written, job_side
from sarzarr.store.shards import ArrayFiles


@dataclass(frozen=True, kw_only=True)
class ModelOutput:
    """The output of a model for a window, and the layers that it becomes."""

    channels: int
    """K, channels that it returns."""
    is_labels: bool
    """Whether they are whole numbers: classes, which are not averaged."""
    kind: str
    """``continuous``, ``normalized`` or ``classes``."""

    @classmethod
    def of(cls, values: Array, inputs: int, options: PredictOptions) -> "ModelOutput":
        """Return what the first batch (n, K, rows, columns) shows; ``inputs`` is the number of its arrays.

        Raises `InvalidInputError` where it cannot be what the options say.
        """
        channels, is_labels = values.shape[1], values.dtype.kind != "f"
        kind = options.kind or ("classes" if is_labels else "continuous")
        if not 1 <= channels <= MAX_CHANNELS:
            raise InvalidInputError(f"1 to {MAX_CHANNELS} channels of a model were expected, got {channels}.")
        if is_labels != (kind == "classes") and is_labels:
            raise InvalidInputError(
                f"floats were expected for kind={kind!r}, got {values.dtype}. Return float32, or ask for classes."
            )
        if kind == "classes" and not is_labels and channels < 2:
            raise InvalidInputError(
                "scores of two classes at least, or whole numbers, were expected, got one channel of floats. Return "
                "a score for each class, or compare with a threshold of your own and return whole numbers."
            )
        if kind == "classes" and not is_labels and options.classes and len(options.classes) != channels:
            raise InvalidInputError(
                f"scores of {len(options.classes)} classes were expected, got {channels}. Name each in classes=."
            )
        if kind == "normalized" and channels != inputs:
            raise InvalidInputError(
                f"a channel for each of {inputs} arrays was expected for kind='normalized', got {channels}. Return "
                "each cleaned, or ask for continuous values."
            )
        return cls(channels=channels, is_labels=is_labels, kind=kind)

    @property
    def layers(self) -> int:
        """Layers that it becomes: one of scores, else one for each channel."""
        return 1 if self.kind == "classes" and not self.is_labels else self.channels

    @property
    def dtype(self) -> str:
        """Their dtype: uint8 of classes, else float32."""
        return "uint8" if self.kind == "classes" else "float32"

    @property
    def nodata(self) -> float | int:
        """Their value where nothing was measured."""
        return NO_CLASS if self.kind == "classes" else np.nan

    def blended(self, grid: WindowGrid) -> WindowGrid:
        """Return the windows (rows, columns) with the blend that suits: whole numbers are not averaged."""
        return replace(grid, blend="nearest") if self.is_labels else grid

    def made(self, rows: Array, valid: Array) -> Array:
        """Return (layers, rows, columns) of what was added up (K, rows, columns), nodata where not ``valid``."""
        if self.layers == self.channels:
            return np.asarray(np.where(valid, rows, np.asarray(self.nodata, self.dtype)))
        best: Array = rows.argmax(0).astype(np.uint8)
        best[~valid | np.isnan(rows).any(0)] = NO_CLASS
        return best[None]


class RowSink(Protocol):
    """A taker of rows of layers, from top to bottom."""

    @property
    def first(self) -> int:
        """The first row that is wanted: those above are there already."""

    def begin(self, output: ModelOutput) -> None:
        """Say what comes; before the first rows."""

    def write(self, top: int, values: Array) -> None:
        """Take (layers, rows, columns) whose first row is ``top``."""


@dataclass(eq=False)
class ArrayRows:
    """Rows on their way into an array of the user's own, (rows, columns) or (layers, rows, columns)."""

    array: Any
    """The array."""
    shape: tuple[int, int]
    """(rows, columns) of the scene."""
    first: int = 0

    def begin(self, output: ModelOutput) -> None:
        """Raise `InvalidInputError` unless the array has room for (layers, rows, columns)."""
        wanted = (output.layers, *self.shape)
        if tuple(self.array.shape) not in (wanted, self.shape if output.layers == 1 else wanted):
            raise InvalidInputError(f"out= of shape {wanted} was expected, got {tuple(self.array.shape)}.")

    def write(self, top: int, values: Array) -> None:
        """Write (layers, rows, columns) from row ``top`` on."""
        rows = slice(top, top + values.shape[1])
        if len(self.array.shape) == 2:
            self.array[rows, :] = values[0]
        else:
            self.array[:, rows, :] = values


@dataclass(eq=False)
class StagedLayers:
    """Layers of one scene on their way into a store: whole files in a folder beside it, and receipts."""

    folder: Path
    """The folder of this prediction beside the store."""
    fingerprint: str
    """What decides every byte; a folder of another one is begun anew."""
    shape: tuple[int, int]
    """(rows, columns) of the scene."""
    beside: Encoding
    """The encoding of the scene's arrays: chunks and shards are theirs."""
    options: PredictOptions
    """The options."""
    check: Callable[[str], None] = lambda name: None
    """Raises where a layer's name is taken; asked once they are known, before anything is written."""
    names: tuple[str, ...] = field(default=(), init=False)
    output: ModelOutput | None = field(default=None, init=False)
    _records: list[dict[str, dict[str, ShardRecord]]] = field(default_factory=list, init=False)
    _files: list[ArrayFiles] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        mark, began = self.folder / "fingerprint", self.folder / "boot"
        known = [path.read_text() if path.exists() else None for path in (mark, began)]
        if self.folder.exists() and known != [self.fingerprint, boot()]:
            remove_tree(self.folder)
        (self.folder / "receipts").mkdir(parents=True, exist_ok=True)
        began.write_text(boot())
        mark.write_text(self.fingerprint)
        remove_partials(self.folder)
        self._take_up()

    @property
    def group(self) -> Path:
        """The folder that holds the layers (rows, columns)."""
        return self.folder / "scene"

    @cached_property
    def _step(self) -> int:
        return job_side(self.beside.file_size)

    @property
    def first(self) -> int:
        """The first row that is not in whole files with a receipt."""
        return min(len(self._records) * self._step, self.shape[0])

    @property
    def is_whole(self) -> bool:
        """Whether every row is."""
        return self.first >= self.shape[0]

    def _receipt(self, number: int) -> Path:
        return self.folder / "receipts" / f"{number}.json"

    def _take_up(self) -> None:
        """Take up the rows of shards, from the first on, whose files have what their receipts say."""
        while (place := self._receipt(len(self._records))).exists():
            told = json.loads(place.read_text())
            records = {
                name: {key: ShardRecord.from_json(one) for key, one in files.items()}
                for name, files in told["layers"].items()
            }
            try:
                for name, files in records.items():
                    check_written(self.group / name, files, self.beside.grid)
            except CorruptStoreError:
                return
            self._begin(ModelOutput(**told["output"]))
            self._records.append(records)

    def begin(self, output: ModelOutput) -> None:
        """Take what the model returns; `InvalidInputError` where it returned something else before, (K, ...)."""
        if self.output not in (None, output):
            raise InvalidInputError(
                f"{self.output} were expected as before it was interrupted, got {output}. Pass another model_name=."
            )
        self._begin(output)
        for name in self.names:
            self.check(name)

    def _begin(self, output: ModelOutput) -> None:
        self.output, self.names = output, self.options.layer_names(output.layers)

    @property
    def encoding(self) -> Encoding:
        """The encoding of the layers."""
        output = self._known()
        codec = self.beside.codec_beside
        return replace(self.beside, dtype=output.dtype, codec=codec, nodata=output.nodata)

    def _known(self) -> ModelOutput:
        if self.output is None:
            raise RuntimeError("begin() comes first")
        return self.output

    @cached_property
    def _buffer(self) -> Array:
        """Room for a row of chunks of every layer, (layers, chunk, columns)."""
        chunk = self.beside.chunk
        width = -(-self.shape[1] // chunk) * chunk
        return np.full((len(self.names), chunk, width), self.encoding.fill)

    def write(self, top: int, values: Array) -> None:
        """Write rows (layers, rows, columns); those above `first` are there already."""
        chunk, height, width = self.beside.chunk, *self.shape
        end = top + values.shape[1]
        row = max(top, self.first) if not self._files else top
        while row < end:
            if not self._files:
                self._files = [ArrayFiles(self.group / name, self.encoding) for name in self.names]
            within = row % chunk
            count = min(chunk - within, end - row)
            self._buffer[:, within : within + count, :width] = values[:, row - top : row - top + count]
            row += count
            if row % chunk == 0 or row == height:
                self._write_chunks((row - 1) // chunk)
            if row % self._step == 0 or row == height:
                self._finish_shards()

    def _write_chunks(self, row: int) -> None:
        chunk = self.beside.chunk
        for files, pixels in zip(self._files, self._buffer, strict=True):
            for col in range(pixels.shape[1] // chunk):
                files.write(row, col, np.ascontiguousarray(pixels[:, col * chunk : (col + 1) * chunk]))
        self._buffer[:] = self.encoding.fill

    def _finish_shards(self) -> None:
        """Close the files of a row of shards, and leave their receipt."""
        records = {name: files.close() for name, files in zip(self.names, self._files, strict=True)}
        layers = {
            name: {key: record.to_json() for key, record in one.items()} for name, one in records.items()
        }
        with whole_file(self._receipt(len(self._records))) as partial:
            partial.write_text(json.dumps({"output": vars(self._known()), "layers": layers}))
        self._records.append(records)
        self._files = []

    def abort(self) -> None:
        """Leave no file open, and none half written."""
        for files in self._files:
            files.__exit__()
        self._files = []

    def write_documents(self, scene: str, attributes: Sequence[Mapping[str, Any]]) -> None:
        """Write the manifest and the ``zarr.json`` of each layer (rows, columns), with its attributes."""
        place = Folder(self.group, f"{cv.SCENES}/{scene}")
        remove_partials(self.group)
        for name, about in zip(self.names, attributes, strict=True):
            records = {key: record for part in self._records for key, record in part[name].items()}
            check_written(self.group / name, records, self.encoding.grid)
            write_manifest(place, name, records)
            document = array_document(self.shape, self.encoding, dims=("y", "x"), attributes=about)
            write_node(place, name, document)


def nodata_attributes(output: ModelOutput) -> dict[str, Any]:
    """Return what says "no data" of a layer: CF's fill of float32; of uint8 classes, whose fill would make floats."""
    if output.kind == "classes":
        return {cv.NODATA: NO_CLASS}
    return {cv.FILL_VALUE: cf_fill(np.float32(np.nan))}
