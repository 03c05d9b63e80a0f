"""Folders of spectrograms in the older layout, ``signals/<name>``."""

import json

import numpy as np

PICTURE = (np.arange(1024)[:, None] // 4 + np.arange(1024) // 7).astype(np.uint8)


def add_sample(folder, name, picture, document, **others):
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "samples" / f"{name}.npz", spectrogram=picture, **others)
    (folder / "samples" / f"{name}.json").write_text(json.dumps(document))


def write_version(folder, version, train, val, **more):
    (folder / "splits").mkdir(parents=True, exist_ok=True)
    document = {
        "version": version, "created_at": "2024-01-02T03:04:05Z", "total_samples": len(train) + len(val),
        "train_samples": train, "val_samples": val, "train_count": len(train), "val_count": len(val),
        "val_ratio": 0.25, "random_seed": 42, "notes": "by hand", **more,
    }  # fmt: skip
    path = folder / "splits" / f"v{version}.json"
    path.write_text(json.dumps(document))
    return path


def signal_folder(root, pointer="copy"):
    """Write four samples, versions 1 and 3 of a split, and a pointer to version 1."""
    folder = root / "signals" / "beep"
    boxes = [
        {"x_min": 1, "y_min": 2, "x_max": 30, "y_max": 40, "label": "whistle", "confidence": 0.1},
        {"x_min": 0, "y_min": 0, "x_max": 1023.5, "y_max": 7, "by": {"hand": True}},
    ]
    add_sample(folder, "a", PICTURE, {"boxes": boxes, "sample_rate": 2.4e6, "notes": ["ü", None]})
    add_sample(folder, "b", PICTURE.T, {"boxes": boxes[:1]})
    add_sample(folder, "c", 255 - PICTURE, {"boxes": boxes[1:]})
    add_sample(folder, "d", np.minimum(PICTURE, 200), {"source": "x.cfile"})
    first = write_version(folder, 1, ["c", "a"], ["b"])
    write_version(folder, 3, ["c", "a", "d"], ["b"], parent_version=1, samples_added=1)
    active = folder / "splits" / "active.json"
    if pointer == "link":
        active.symlink_to("v1.json")
    elif pointer == "copy":
        active.write_bytes(first.read_bytes())
    elif pointer == "text":
        active.write_text("v1.json\n")
    return folder
