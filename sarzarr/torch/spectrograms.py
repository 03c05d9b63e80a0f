"""`SpectrogramDataset` and `create_data_loaders`: spectrograms with boxes, from their older files or from a store."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.export.npz import check_spectrograms
from sarzarr.ingestion.chips.npz import read_sample_json, read_spectrogram
from sarzarr.patches.cut import sample_ids as numbers_of
from sarzarr.reader.augment import collate_fn
from sarzarr.splits.samples.backends import FolderBackend, StoreBackend, checked_name
from sarzarr.splits.samples.manager import SplitManager
from sarzarr.store.boxes import check_boxes
from sarzarr.store.samples import SampleSet, open_samples
from sarzarr.store.store import Store
from sarzarr.text import listed

log = logging.getLogger(__name__)
Transform = Callable[[Any, dict[str, Any]], tuple[Any, dict[str, Any]]]


class _Spectrograms(Protocol):
    """Where spectrograms are."""

    @property
    def name(self) -> str:
        """The signal's."""

    @property
    def ids(self) -> frozenset[str]:
        """Ids of the samples that are whole."""

    def read(self, sample: str) -> tuple[Array, Array]:
        """Return a sample's picture (1024, 1024) uint8, and boxes (n, 4) float32 in pixels."""


@dataclass(frozen=True)
class _InFolder:
    """Spectrograms in a folder of ``<id>.npz`` and ``<id>.json``."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.absolute().parent.name

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(FolderBackend.samples_in(self.folder))

    def read(self, sample: str) -> tuple[Array, Array]:
        place = self.folder / f"{sample}.npz"
        _, annotation = read_sample_json(place.with_suffix(".json"))
        return read_spectrogram(place), check_boxes(
            annotation.boxes, height=cv.SPECTROGRAM_SIDE, width=cv.SPECTROGRAM_SIDE
        ).boxes


@dataclass(frozen=True)
class _InStore:
    """Spectrograms in a sample set of a store."""

    samples: SampleSet

    @property
    def name(self) -> str:
        return self.samples.name

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(self._rows)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {sample: row for row, sample in enumerate(self.samples.ids)}

    def read(self, sample: str) -> tuple[Array, Array]:
        row = self._rows[sample]
        return self.samples.image(row), self.samples.target(row)[0]


def _found(place: SampleSet | str | Path) -> _Spectrograms:
    if not isinstance(place, SampleSet):
        path = Path(place)
        if path.parent.name != cv.SAMPLES or not (path.parent.parent / "zarr.json").exists():
            return _InFolder(path)
        place = open_samples(path.parent.parent, path.name)
    check_spectrograms(place)
    return _InStore(place)


class SpectrogramDataset(Dataset[Any]):
    """Spectrograms with boxes by number: ``(image, target)``, as torchvision's detectors take them.

    ``image`` is float32 (3, 1024, 1024) in [0, 1]: the stored value / 255, thrice. ``target`` has ``boxes`` float32
    (n, 4) ``x_min y_min x_max y_max``, half-open pixel edges with an area inside the picture; ``labels`` int64 (n,),
    all 1; and ``image_id`` int64 (1,), which stays with a sample whatever is chosen beside it. Without boxes n is 0.

    Parameters
    ----------
    samples_dir
        ``signals/NAME/samples`` of the older layout; or ``STORE/samples/NAME``, or what `sarzarr.open_samples` gave.
    sample_ids
        Ids, in the order of the dataset. Those that lack a file are warned of and left out: see `sample_ids`.
    transform
        Called last with image and target; returns both.

    Raises `InvalidInputError` where an id leads out of the folder, or the pictures of a set are others; on reading,
    `UnsupportedRasterError` or `CorruptStoreError` where a sample is damaged.
    """

    sample_ids: tuple[str, ...]
    """The ids that are delivered, in order."""

    def __init__(
        self,
        samples_dir: SampleSet | str | Path,
        sample_ids: Sequence[str],
        transform: Transform | None = None,
    ) -> None:
        self._from, self.transform = _found(samples_dir), transform
        there = self._from.ids
        asked = [checked_name(one, "an id") for one in sample_ids]
        if lost := [one for one in asked if one not in there]:
            log.warning("%s: left out, without both files: %s", self._from.name, listed(lost))
        self.sample_ids = tuple(one for one in asked if one in there)
        self._numbers = numbers_of(f"{cv.SAMPLES}/{self._from.name}", self.sample_ids, cv.SPECTROGRAM_SIDE)

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        """Return image (3, 1024, 1024) float32 and target of a sample."""
        picture, boxes = self._from.read(self.sample_ids[index])
        grey = torch.from_numpy(picture.astype(np.float32) / np.float32(255))
        target = {
            "boxes": torch.from_numpy(boxes.astype(np.float32)),
            "labels": torch.ones(len(boxes), dtype=torch.int64),
            "image_id": torch.tensor([int(self._numbers[index])]),
        }
        image = grey.repeat(3, 1, 1)
        return (image, target) if self.transform is None else self.transform(image, target)


def create_data_loaders(
    signal: str,
    dir: str | Path | Store,  # noqa: A002 - the name that callers know
    split_version: int | None = None,
    batch_size: int = 4,
    num_workers: int = 0,
    *,
    transform: Transform | None = None,
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return loaders of training, shuffled, and of validation: batches are (list of images, list of targets).

    Images are float32 (3, 1024, 1024), see `SpectrogramDataset`. Memory is pinned where there is a GPU.

    Parameters
    ----------
    signal
        Name of the signal, or of the store's sample set.
    dir
        The folder that holds ``signals``, or a store.
    split_version
        Of the split; the active one if left out, else the highest.
    transform
        Of training's images and targets.

    Raises `SplitNotFoundError`, a `FileNotFoundError`, where there is no split, or none of that version;
    `InvalidInputError` where none of training's samples is there.
    """
    splits = SplitManager(dir)
    train, val = splits.get_split(signal, split_version)
    backend = splits.backend
    place: SampleSet | Path
    if isinstance(backend, StoreBackend):
        place = open_samples(backend.store, signal)
    else:
        place = backend.folder(signal) / "samples"
    sides = SpectrogramDataset(place, train, transform), SpectrogramDataset(place, val)
    if not len(sides[0]):
        raise InvalidInputError(
            f"samples for training were expected in {signal!r}, got none of {len(train)}. Check the folder."
        )
    shared: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "collate_fn": collate_fn}
    shared["pin_memory"] = torch.cuda.is_available()
    return DataLoader(sides[0], shuffle=True, **shared), DataLoader(sides[1], **shared)
