"""SAR GeoTIFFs to one chunked Zarr store, and that store to training batches.

Everything public is here but what needs torch (`sarzarr.torch`). Names are loaded when they are
first used, so that ``import sarzarr`` and the command line start at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sarzarr.export.copy_store import copy_store
    from sarzarr.export.quicklook import write_quicklook
    from sarzarr.grids.grid import Grid
    from sarzarr.ingestion.boxes import import_boxes
    from sarzarr.ingestion.chips.pack import import_chips
    from sarzarr.ingestion.options import IngestOptions
    from sarzarr.ingestion.plan import IngestPlan, plan_ingest
    from sarzarr.ingestion.run import ingest, remove_scene
    from sarzarr.patches.clips import recommend_clips, set_clip
    from sarzarr.patches.index import index_patches
    from sarzarr.patches.stacks.cube import open_stack
    from sarzarr.patches.stacks.find import find_stacks, make_stack
    from sarzarr.patches.stacks.stack import Stack
    from sarzarr.pixels.bounds import ClipBounds, Histogram, clip_bounds_from_histogram, compute_clip_bounds
    from sarzarr.pixels.legacy import extract_patches, inverse_preprocess, preprocess_sar_complete
    from sarzarr.pixels.radiometry import (
        denormalize,
        from_codes,
        from_db,
        handle_invalid_values,
        normalize,
        restretch,
        to_codes,
        to_db,
        to_power,
    )
    from sarzarr.pixels.statistics import SceneStatistics, scene_statistics
    from sarzarr.reader.augment import Compose, RandomHorizontalFlip, RandomVerticalFlip, collate_fn
    from sarzarr.reader.rate import measure_delivery
    from sarzarr.reader.reader import PatchReader
    from sarzarr.reader.samples import SampleReader
    from sarzarr.scenes.probe import RasterProbe, probe_file
    from sarzarr.scenes.scene import SceneProbe, group_scenes, open_scene
    from sarzarr.scenes.synthetic.scenes import write_synthetic_scenes
    from sarzarr.splits.exchange import check_split, export_split, import_split
    from sarzarr.splits.make import extend_split, make_split
    from sarzarr.splits.samples.manager import SplitManager
    from sarzarr.store.samples import open_samples
    from sarzarr.store.store import Store, open_store

_HOME = {
    "ClipBounds": "pixels.bounds",
    "Compose": "reader.augment",
    "Grid": "grids.grid",
    "Histogram": "pixels.bounds",
    "IngestOptions": "ingestion.options",
    "IngestPlan": "ingestion.plan",
    "PatchReader": "reader.reader",
    "Progress": "tasks",
    "RandomHorizontalFlip": "reader.augment",
    "RandomVerticalFlip": "reader.augment",
    "RasterProbe": "scenes.probe",
    "SampleReader": "reader.samples",
    "SceneProbe": "scenes.scene",
    "SceneStatistics": "pixels.statistics",
    "SplitManager": "splits.samples.manager",
    "Stack": "patches.stacks.stack",
    "Store": "store.store",
    "check_split": "splits.exchange",
    "clip_bounds_from_histogram": "pixels.bounds",
    "collate_fn": "reader.augment",
    "compute_clip_bounds": "pixels.bounds",
    "copy_store": "export.copy_store",
    "denormalize": "pixels.radiometry",
    "export_split": "splits.exchange",
    "extend_split": "splits.make",
    "extract_patches": "pixels.legacy",
    "find_stacks": "patches.stacks.find",
    "from_codes": "pixels.radiometry",
    "from_db": "pixels.radiometry",
    "group_scenes": "scenes.scene",
    "handle_invalid_values": "pixels.radiometry",
    "import_boxes": "ingestion.boxes",
    "import_chips": "ingestion.chips.pack",
    "import_split": "splits.exchange",
    "index_patches": "patches.index",
    "ingest": "ingestion.run",
    "inverse_preprocess": "pixels.legacy",
    "make_split": "splits.make",
    "make_stack": "patches.stacks.find",
    "measure_delivery": "reader.rate",
    "normalize": "pixels.radiometry",
    "open_samples": "store.samples",
    "open_scene": "scenes.scene",
    "open_stack": "patches.stacks.cube",
    "open_store": "store.store",
    "plan_ingest": "ingestion.plan",
    "preprocess_sar_complete": "pixels.legacy",
    "probe_file": "scenes.probe",
    "recommend_clips": "patches.clips",
    "remove_scene": "ingestion.run",
    "restretch": "pixels.radiometry",
    "scene_statistics": "pixels.statistics",
    "set_clip": "patches.clips",
    "to_codes": "pixels.radiometry",
    "to_db": "pixels.radiometry",
    "to_power": "pixels.radiometry",
    "write_quicklook": "export.quicklook",
    "write_synthetic_scenes": "scenes.synthetic.scenes",
}

__all__ = [
    "ClipBounds",
    "Compose",
    "Grid",
    "Histogram",
    "IngestOptions",
    "IngestPlan",
    "PatchReader",
    "Progress",
    "RandomHorizontalFlip",
    "RandomVerticalFlip",
    "RasterProbe",
    "SampleReader",
    "SceneProbe",
    "SceneStatistics",
    "SplitManager",
    "Stack",
    "Store",
    "check_split",
    "clip_bounds_from_histogram",
    "collate_fn",
    "compute_clip_bounds",
    "copy_store",
    "denormalize",
    "export_split",
    "extend_split",
    "extract_patches",
    "find_stacks",
    "from_codes",
    "from_db",
    "group_scenes",
    "handle_invalid_values",
    "import_boxes",
    "import_chips",
    "import_split",
    "index_patches",
    "ingest",
    "inverse_preprocess",
    "make_split",
    "make_stack",
    "measure_delivery",
    "normalize",
    "open_samples",
    "open_scene",
    "open_stack",
    "open_store",
    "plan_ingest",
    "preprocess_sar_complete",
    "probe_file",
    "recommend_clips",
    "remove_scene",
    "restretch",
    "scene_statistics",
    "set_clip",
    "to_codes",
    "to_db",
    "to_power",
    "write_quicklook",
    "write_synthetic_scenes",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("sarzarr")
    if name not in _HOME:
        raise AttributeError(f"module 'sarzarr' has no attribute {name!r}")
    value = getattr(import_module(f"sarzarr.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
