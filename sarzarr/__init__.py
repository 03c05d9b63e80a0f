"""SAR GeoTIFFs to one chunked Zarr store, and that store to training batches.

Everything public is here, `sarzarr.torch` too where torch is installed. Names are loaded when they are
first used, so that ``import sarzarr`` and the command line start at once.
"""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

# The one list of public names: editors and type checkers read it, and so does `_modules` when the first is used.
if TYPE_CHECKING:
    from sarzarr import torch as torch
    from sarzarr.export.chip_files import export_chip as export_chip
    from sarzarr.export.copy_store import copy_store as copy_store
    from sarzarr.export.detections import export_detections as export_detections
    from sarzarr.export.geotiff import export_geotiff as export_geotiff
    from sarzarr.export.npy import export_npy as export_npy
    from sarzarr.export.npz import export_npz as export_npz
    from sarzarr.export.pictures.quicklook import quicklook as quicklook
    from sarzarr.export.pictures.quicklook import write_quicklook as write_quicklook
    from sarzarr.export.report.write import Report as Report
    from sarzarr.export.report.write import write_report as write_report
    from sarzarr.export.stitch import stitch as stitch
    from sarzarr.export.table import export_table as export_table
    from sarzarr.grids.grid import Grid as Grid
    from sarzarr.ingestion.archives.npy import verify_patch_files as verify_patch_files
    from sarzarr.ingestion.archives.patches import import_npy as import_npy
    from sarzarr.ingestion.boxes import import_boxes as import_boxes
    from sarzarr.ingestion.chips.labels import import_labels as import_labels
    from sarzarr.ingestion.chips.pictures import import_chips as import_chips
    from sarzarr.ingestion.chips.spectrograms import import_npz as import_npz
    from sarzarr.ingestion.collections.boxes import import_chip_boxes as import_chip_boxes
    from sarzarr.ingestion.collections.remove import remove_collection as remove_collection
    from sarzarr.ingestion.options import IngestOptions as IngestOptions
    from sarzarr.ingestion.plan import IngestPlan as IngestPlan
    from sarzarr.ingestion.plan import plan_ingest as plan_ingest
    from sarzarr.ingestion.polygons import import_polygons as import_polygons
    from sarzarr.ingestion.ptychography import import_ptychography as import_ptychography
    from sarzarr.ingestion.run import ingest as ingest
    from sarzarr.ingestion.run import remove_scene as remove_scene
    from sarzarr.ingestion.verification.accept import accept_changes as accept_changes
    from sarzarr.ingestion.verification.repair import repair as repair
    from sarzarr.ingestion.verification.verify import verify as verify
    from sarzarr.ingestion.waiting import clean as clean
    from sarzarr.patches.clips import recommend_clips as recommend_clips
    from sarzarr.patches.clips import set_clip as set_clip
    from sarzarr.patches.index import index_patches as index_patches
    from sarzarr.patches.shares import index_layers as index_layers
    from sarzarr.patches.stacks.cube import open_stack as open_stack
    from sarzarr.patches.stacks.find import find_stacks as find_stacks
    from sarzarr.patches.stacks.find import make_stack as make_stack
    from sarzarr.patches.stacks.stack import Stack as Stack
    from sarzarr.pixels.bounds import ClipBounds as ClipBounds
    from sarzarr.pixels.bounds import Histogram as Histogram
    from sarzarr.pixels.bounds import clip_bounds_from_histogram as clip_bounds_from_histogram
    from sarzarr.pixels.bounds import compute_clip_bounds as compute_clip_bounds
    from sarzarr.pixels.legacy import extract_patches as extract_patches
    from sarzarr.pixels.legacy import inverse_preprocess as inverse_preprocess
    from sarzarr.pixels.legacy import preprocess_sar_complete as preprocess_sar_complete
    from sarzarr.pixels.radiometry import denormalize as denormalize
    from sarzarr.pixels.radiometry import from_codes as from_codes
    from sarzarr.pixels.radiometry import from_db as from_db
    from sarzarr.pixels.radiometry import handle_invalid_values as handle_invalid_values
    from sarzarr.pixels.radiometry import normalize as normalize
    from sarzarr.pixels.radiometry import restretch as restretch
    from sarzarr.pixels.radiometry import to_codes as to_codes
    from sarzarr.pixels.radiometry import to_db as to_db
    from sarzarr.pixels.radiometry import to_power as to_power
    from sarzarr.pixels.statistics import SceneStatistics as SceneStatistics
    from sarzarr.pixels.statistics import scene_statistics as scene_statistics
    from sarzarr.prediction.predict import predict_scene as predict_scene
    from sarzarr.prediction.predict import predict_scenes as predict_scenes
    from sarzarr.ptychography import MemmapDatasetBridge as MemmapDatasetBridge
    from sarzarr.ptychography import PtychoConfig as PtychoConfig
    from sarzarr.ptychography import PtychoDataContainerTorch as PtychoDataContainerTorch
    from sarzarr.ptychography import RawDataTorch as RawDataTorch
    from sarzarr.reader.augment import AdditiveNoise as AdditiveNoise
    from sarzarr.reader.augment import Augmentation as Augmentation
    from sarzarr.reader.augment import Compose as Compose
    from sarzarr.reader.augment import Gain as Gain
    from sarzarr.reader.augment import PowerChange as PowerChange
    from sarzarr.reader.augment import RandomHorizontalFlip as RandomHorizontalFlip
    from sarzarr.reader.augment import RandomVerticalFlip as RandomVerticalFlip
    from sarzarr.reader.augment import Speckle as Speckle
    from sarzarr.reader.augment import collate_fn as collate_fn
    from sarzarr.reader.collections import CollectionReader as CollectionReader
    from sarzarr.reader.groups import GroupReader as GroupReader
    from sarzarr.reader.rate import measure_delivery as measure_delivery
    from sarzarr.reader.reader import PatchReader as PatchReader
    from sarzarr.reader.samples import SampleReader as SampleReader
    from sarzarr.scenes.probe import RasterProbe as RasterProbe
    from sarzarr.scenes.probe import probe_file as probe_file
    from sarzarr.scenes.scene import SceneProbe as SceneProbe
    from sarzarr.scenes.scene import group_scenes as group_scenes
    from sarzarr.scenes.scene import open_scene as open_scene
    from sarzarr.scenes.synthetic.scenes import write_synthetic_scenes as write_synthetic_scenes
    from sarzarr.splits.chips.lists import import_split_lists as import_split_lists
    from sarzarr.splits.chips.make import split_collection as split_collection
    from sarzarr.splits.exchange import check_split as check_split
    from sarzarr.splits.exchange import export_split as export_split
    from sarzarr.splits.exchange import import_split as import_split
    from sarzarr.splits.make import extend_split as extend_split
    from sarzarr.splits.make import make_split as make_split
    from sarzarr.splits.samples.manager import SplitManager as SplitManager
    from sarzarr.store.classes import store_classes as store_classes
    from sarzarr.store.collections import Collection as Collection
    from sarzarr.store.collections import open_collection as open_collection
    from sarzarr.store.overviews.make import make_overviews as make_overviews
    from sarzarr.store.samples import open_samples as open_samples
    from sarzarr.store.store import Store as Store
    from sarzarr.store.store import open_store as open_store
    from sarzarr.store.tree import StoreTree as StoreTree
    from sarzarr.store.tree import open_tree as open_tree
    from sarzarr.store.verify.findings import Finding as Finding
    from sarzarr.store.verify.findings import Verification as Verification
    from sarzarr.tasks import Progress as Progress

_EITHER = "PtychoDataContainerTorch"
"""The name that is of tensors where torch is installed, and of arrays where it is not; it alone imports torch."""


@cache
def _modules() -> dict[str, str]:
    """Return the module of each name of the list."""
    import ast
    from pkgutil import get_data

    nodes = ast.walk(ast.parse(get_data(__name__, "__init__.py") or b""))
    imports = [n for n in nodes if isinstance(n, ast.ImportFrom) and str(n.module).startswith(__name__)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("sarzarr")
    if name == "__all__":
        return sorted(_modules().keys() - {"torch", _EITHER})
    if name.startswith("__") or name not in _modules():
        raise AttributeError(f"module 'sarzarr' has no attribute {name!r}")
    module = _modules()[name]
    if name == _EITHER:
        try:
            module = import_module(f"{__name__}.torch").__name__
        except ImportError:
            from logging import getLogger

            getLogger(__name__).warning("torch is not installed: %s is of NumPy arrays", name)
    value = import_module(f"sarzarr.{name}") if module == __name__ else getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
