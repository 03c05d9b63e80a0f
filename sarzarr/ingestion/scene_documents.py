"""The documents of one scene: what its group and its arrays say of themselves."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.grids.warp.plan import WarpPlan
from sarzarr.ingestion.blocks.receipts import ArrayReceipt
from sarzarr.ingestion.layers.plan import LayerPlan
from sarzarr.ingestion.scene_plan import ScenePlan
from sarzarr.scenes.probe import ArrayProbe
from sarzarr.store.documents import (
    Encoding,
    array_document,
    group_document,
    spatial_attributes,
    write_coordinates,
    write_json,
    write_node,
)
from sarzarr.store.place import Place
from sarzarr.store.shards import ShardRecord, write_manifest
from sarzarr.store.store import bounds_key

FLAG_MEANINGS: Final = " ".join(flag.name.lower() for flag in cv.Flag)


def write_scene_documents(group: Place, plan: ScenePlan) -> None:
    """Write a scene's coordinates and, last, the ``zarr.json`` of its group."""
    write_coordinates(group, plan.grid)
    write_json(group, "zarr.json", group_document(scene_attributes(plan)))


def scene_attributes(plan: ScenePlan) -> dict[str, Any]:
    """Return the attributes of a scene's group: the facts, in STAC's spelling; never a path."""
    probe = plan.probe
    polarizations = [a.polarization for a in probe.arrays if a.polarization]
    attributes: dict[str, Any] = {
        "id": plan.id,
        **probe.acquisition.attrs(),
        cv.GEOLOCATION: plan.geolocation,
        **spatial_attributes(plan.grid),
        cv.SOURCE_HASH: probe.source_hash,
        cv.SOURCE_FILES: [f.path.name for f in probe.files],
    }
    if polarizations:
        attributes[cv.SAR_POLARIZATIONS] = polarizations
    if plan.geolocation == "rotated_affine":
        attributes[cv.SPATIAL_TRANSFORM] = list(plan.grid.transform)
    place = probe.georeference
    if place.gcps and not plan.is_warped:  # their rows and columns are those of the file
        attributes[cv.GCPS] = [list(gcp) for gcp in place.gcps]
        attributes[cv.GCPS_CRS] = place.gcps_crs
    if plan.border:
        attributes[cv.BORDER] = plan.border
    if plan.layers:  # last: one that is added later is written there, too
        attributes[cv.LAYERS] = [layer.name for layer in plan.layers]
    return attributes


def write_array_documents(
    group: Place, plan: ScenePlan, array: ArrayProbe, receipts: Sequence[ArrayReceipt]
) -> None:
    """Write the ``zarr.json`` and the manifest of an array and of its flags."""
    vmin, vmax = plan.bounds[array.name]
    flags = array.name + cv.FLAGS_SUFFIX
    placed = _placement(plan)
    nodata = array.nodata
    about: dict[str, Any] = {
        cv.LONG_NAME: f"{array.quantity} {array.polarization or array.name}, normalized dB",
        cv.UNITS: "1",
        cv.VMIN: vmin,
        cv.VMAX: vmax,
        cv.QUANTITY: str(array.quantity),
        cv.REPRESENTATION: str(cv.Representation.NORMALIZED),
        cv.SOURCE_REPRESENTATION: str(array.representation),
        cv.REASON: array.reason,
        cv.ANCILLARY: flags,
        **placed,
    }
    if nodata is not None:
        about[cv.SOURCE_NODATA] = nodata if np.isfinite(nodata) else str(nodata)
    if plan.onto:
        about |= plan.onto[plan.probe.arrays.index(array)].attrs
    if array.polarization:
        about[cv.SAR_POLARIZATIONS] = [array.polarization]
    if plan.encoding.dtype == "uint16":
        about[cv.SCALE_FACTOR] = 1 / cv.MAX_CODE
    _write_array(group, array.name, plan, plan.encoding, about, [r.shards for r in receipts])
    coded: dict[str, Any] = {
        cv.LONG_NAME: f"validity of {array.name}",
        cv.FLAG_VALUES: [int(f) for f in cv.Flag],
        cv.FLAG_MEANINGS: FLAG_MEANINGS,
        **placed,
    }
    _write_array(group, flags, plan, plan.encoding.of_flags, coded, [r.flag_shards for r in receipts])


def write_layer_documents(
    group: Place, plan: ScenePlan, layer: LayerPlan, receipts: Sequence[ArrayReceipt]
) -> None:
    """Write the ``zarr.json`` and the manifest of a layer."""
    about = {**layer.attrs, **_placement(plan)}
    _write_array(group, layer.name, plan, layer.encoding(plan.encoding), about, [r.shards for r in receipts])


def _placement(plan: ScenePlan) -> dict[str, Any]:
    """Return what an array says of its place; nothing where no plain affine ties it to the ground."""
    grid = plan.grid
    if not grid.is_georeferenced or grid.is_rotated:
        return {}
    return {cv.GRID_MAPPING: cv.SPATIAL_REF, cv.COORDINATES: cv.SPATIAL_REF, **spatial_attributes(grid)}


def _write_array(
    group: Place,
    name: str,
    plan: ScenePlan,
    encoding: Encoding,
    attributes: Mapping[str, Any],
    records: Sequence[Mapping[str, ShardRecord]],
) -> None:
    write_manifest(group, name, {key: record for part in records for key, record in part.items()})
    document = array_document(plan.grid.shape, encoding, dims=("y", "x"), attributes=attributes)
    write_node(group, name, document)


def catalog_row(plan: ScenePlan, array: ArrayProbe) -> dict[str, Any]:
    """Return the row that an array has in the catalog."""
    probe, encoding = plan.probe, plan.encoding
    vmin, vmax = plan.bounds[array.name]
    facts = {cv.CATALOG_COLUMNS[key]: value for key, value in probe.acquisition.attrs().items()}
    if any(not warp.keeps_looks for warp in plan.onto if isinstance(warp, WarpPlan)):
        facts.pop(cv.CATALOG_COLUMNS[cv.LOOKS_EQUIVALENT_NUMBER], None)
    return {
        "scene": plan.id,
        "name": array.name,
        "flags": array.name + cv.FLAGS_SUFFIX,
        "polarization": array.polarization,
        "quantity": str(array.quantity),
        "source_representation": str(array.representation),
        "dtype": encoding.dtype,
        "codec": encoding.codec,
        "height": plan.grid.height,
        "width": plan.grid.width,
        "chunk": encoding.chunk,
        "shard": encoding.shard,
        "vmin": vmin,
        "vmax": vmax,
        "bounds_key": bounds_key(array.name, str(array.quantity)),
        "crs_wkt": plan.grid.crs_wkt,
        "transform": plan.grid.transform,
        "geolocation": plan.geolocation,
        "source_hash": probe.source_hash,
        **facts,
    }
