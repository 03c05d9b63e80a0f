"""Spectrogram samples back in their older files: ``.npz`` and ``.json`` of each, and the versions of their split."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.files import flush, whole_folder
from sarzarr.splits.samples.backends import ACTIVE, checked_name
from sarzarr.splits.samples.manager import SplitManager
from sarzarr.store.boxes import CORNERS
from sarzarr.store.samples import SampleSet, open_samples
from sarzarr.store.store import AnyStore


def export_npz(store: AnyStore, samples: str, folder: str | Path) -> Path:
    """Write a set of spectrograms as ``signals/NAME`` of the older layout, whole or not at all; return that folder.

    Each sample is ``samples/<id>.npz`` with the key ``spectrogram``, uint8 (1024, 1024), and ``<id>.json``, which is
    what was imported; of a set of another origin it is the boxes, pixels, and labels. ``splits/`` has every version,
    and a copy of the active one as ``active.json``. `sarzarr.import_npz` is the inverse.

    Raises `NotInStoreError` where there is no such set; `InvalidInputError` where its pictures are others, or
    something is at ``folder``.
    """
    chosen, path = open_samples(store, samples), Path(folder)
    check_spectrograms(chosen)
    splits = SplitManager(chosen.store)
    try:
        with whole_folder(path, once=True) as new:
            (new / "samples").mkdir()
            for i, one in enumerate(chosen.ids):
                place = new / "samples" / f"{checked_name(one, 'an id')}.npz"
                np.savez_compressed(place, spectrogram=chosen.image(i))
                place.with_suffix(".json").write_text(_document(chosen, i))
            if versions := splits.get_versions(samples):
                (new / "splits").mkdir()
                texts = {f"v{v}": splits.read(samples, v).document() for v in versions}
                texts[ACTIVE] = texts[f"v{splits.get_active_split_version(samples)}"]
                for name, document in texts.items():
                    (new / "splits" / f"{name}.json").write_text(json.dumps(document, indent=1))
            flush(new)
    except FileExistsError:
        raise InvalidInputError(
            f"a new folder was expected, got {path.name!r}, which is there. Name another, or move it away."
        ) from None
    return path


def check_spectrograms(samples: SampleSet) -> None:
    """Refuse pictures that are not uint8 (1024, 1024): `InvalidInputError`; readers of spectrograms know one size."""
    side = cv.SPECTROGRAM_SIDE
    sizes = {
        tuple(map(int, size))
        for size in zip(*(samples.table[k].values for k in ("height", "width")), strict=True)
    }
    if samples.layout.dtype != "uint8" or sizes != {(side, side)}:
        shown = ", ".join(f"{h} x {w}" for h, w in sorted(sizes)[:3])
        raise InvalidInputError(
            f"pictures of uint8 and {side} x {side} pixels were expected, got {samples.layout.dtype} and {shown} "
            f"in {samples.name!r}. Read those with sarzarr.SampleReader."
        )


def _document(samples: SampleSet, sample: int) -> str:
    """Return the JSON of a sample as it came, or else its boxes, pixels."""
    if cv.SAMPLE_JSON in samples.table:
        return str(samples.table[cv.SAMPLE_JSON].values[sample])
    boxes, labels = samples.target(sample)
    names = [samples.boxes.classes[label - 1] for label in labels.tolist()]
    return json.dumps({cv.BOXES: [_box(box, name) for box, name in zip(boxes, names, strict=True)]})


def _box(box: Array, name: str) -> dict[str, Any]:
    return {**dict(zip(CORNERS, box.tolist(), strict=True)), "label": name}
