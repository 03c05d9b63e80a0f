"""SAR GeoTIFFs to one chunked Zarr store, and that store to training batches.

Everything public is here but what needs torch (`sarzarr.torch`). Names are loaded when they are
first used, so that ``import sarzarr`` and the command line start at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sarzarr.bounds import ClipBounds, Histogram, clip_bounds_from_histogram, compute_clip_bounds
    from sarzarr.box_tables import import_boxes
    from sarzarr.clips import recommend_clips, set_clip
    from sarzarr.copying import copy_store
    from sarzarr.cube import open_stack
    from sarzarr.grid import Grid
    from sarzarr.ingestion import ingest, remove_scene
    from sarzarr.legacy import extract_patches, inverse_preprocess, preprocess_sar_complete
    from sarzarr.options import IngestOptions
    from sarzarr.patches import index_patches
    from sarzarr.plan import IngestPlan, plan_ingest
    from sarzarr.probe import RasterProbe, probe_file
    from sarzarr.quicklook import write_quicklook
    from sarzarr.radiometry import (
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
    from sarzarr.rate import measure_delivery
    from sarzarr.reader import PatchReader
    from sarzarr.sample_reader import SampleReader
    from sarzarr.sample_sets import open_samples
    from sarzarr.samples import import_chips
    from sarzarr.scene import SceneProbe, group_scenes, open_scene
    from sarzarr.split_manager import SplitManager
    from sarzarr.splits import check_split, export_split, extend_split, import_split, make_split
    from sarzarr.stacking import find_stacks, make_stack
    from sarzarr.stacks import Stack
    from sarzarr.statistics import SceneStatistics, scene_statistics
    from sarzarr.store import Store, open_store
    from sarzarr.synthetic import write_synthetic_scenes
    from sarzarr.transforms import Compose, RandomHorizontalFlip, RandomVerticalFlip, collate_fn

_HOME = {
    "ClipBounds": "bounds",
    "Compose": "transforms",
    "Grid": "grid",
    "Histogram": "bounds",
    "IngestOptions": "options",
    "IngestPlan": "plan",
    "PatchReader": "reader",
    "Progress": "scheduling",
    "RandomHorizontalFlip": "transforms",
    "RandomVerticalFlip": "transforms",
    "RasterProbe": "probe",
    "SampleReader": "sample_reader",
    "SceneProbe": "scene",
    "SceneStatistics": "statistics",
    "SplitManager": "split_manager",
    "Stack": "stacks",
    "Store": "store",
    "check_split": "splits",
    "clip_bounds_from_histogram": "bounds",
    "collate_fn": "transforms",
    "compute_clip_bounds": "bounds",
    "copy_store": "copying",
    "denormalize": "radiometry",
    "export_split": "splits",
    "extend_split": "splits",
    "extract_patches": "legacy",
    "find_stacks": "stacking",
    "from_codes": "radiometry",
    "from_db": "radiometry",
    "group_scenes": "scene",
    "handle_invalid_values": "radiometry",
    "import_boxes": "box_tables",
    "import_chips": "samples",
    "import_split": "splits",
    "index_patches": "patches",
    "ingest": "ingestion",
    "inverse_preprocess": "legacy",
    "make_split": "splits",
    "make_stack": "stacking",
    "measure_delivery": "rate",
    "normalize": "radiometry",
    "open_samples": "sample_sets",
    "open_scene": "scene",
    "open_stack": "cube",
    "open_store": "store",
    "plan_ingest": "plan",
    "preprocess_sar_complete": "legacy",
    "probe_file": "probe",
    "recommend_clips": "clips",
    "remove_scene": "ingestion",
    "restretch": "radiometry",
    "scene_statistics": "statistics",
    "set_clip": "clips",
    "to_codes": "radiometry",
    "to_db": "radiometry",
    "to_power": "radiometry",
    "write_quicklook": "quicklook",
    "write_synthetic_scenes": "synthetic",
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
