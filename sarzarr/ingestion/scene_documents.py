"""The documents of one scene: the attributes of its group and its arrays, and its rows in the catalog."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.grids.warp.plan import WarpPlan
from sarzarr.ingestion.blocks.receipts import ArrayReceipt
from sarzarr.ingestion.layers.plan import LayerPlan
from sarzarr.ingestion.scene_plan import ScenePlan
from sarzarr.pixels.bounds import Histogram
from sarzarr.pixels.kernels import HALF_CODES
from sarzarr.scenes.measured import is_repeated
from sarzarr.scenes.probe import ArrayProbe
from sarzarr.store.documents import (
    Encoding,
    array_document,
    cf_attributes,
    group_document,
    spatial_attributes,
    write_coordinates,
    write_node,
)
from sarzarr.store.manifest import ShardRecord, write_manifest
from sarzarr.store.place import Place
from sarzarr.text import counted

SATURATED_DB: Final = 96.32
"""Below the dB of the highest uint16 as an amplitude, and above that of the next one."""
log = logging.getLogger(__name__)


def write_scene_documents(group: Place, plan: ScenePlan) -> None:
    """Write a scene's coordinates, float64 (rows,) and (columns,), and, last, the ``zarr.json`` of its group.

    Its attributes are the facts, in STAC's spelling; never a path.
    """
    probe = plan.probe
    attributes: dict[str, Any] = {
        "id": plan.id,
        **probe.acquisition.attrs(),
        cv.GEOLOCATION: plan.geolocation,
        **spatial_attributes(plan.grid),
        cv.SOURCE_HASH: probe.source_hash,
        cv.SOURCE_FILES: sorted(f.path.name for f in probe.files),
    }
    if polarizations := [a.polarization for a in probe.arrays if a.polarization]:
        attributes[cv.SAR_POLARIZATIONS] = polarizations
    place = probe.georeference
    if place.gcps and not plan.is_warped:  # their rows and columns are those of the file
        attributes[cv.GCPS] = [value for gcp in place.gcps for value in gcp]
        attributes[cv.GCPS_CRS] = place.gcps_crs
    if plan.border:
        attributes[cv.BORDER] = plan.border
    if plan.layers:  # last: one that is added later is written there, too
        attributes[cv.LAYERS] = sorted(layer.name for layer in plan.layers)
    write_coordinates(group, plan.grid, plan.encoding.codec_of_coordinates)
    write_node(group, "", group_document(attributes))


def write_array_documents(
    group: Place, plan: ScenePlan, array: ArrayProbe, receipts: Sequence[ArrayReceipt]
) -> None:
    """Write the ``zarr.json`` and the manifest of a (rows, columns) array and of its flags, uint8."""
    vmin, vmax = plan.bounds[array.name]
    doubts = measured_otherwise(array, receipts)
    for doubt in doubts:
        log.warning("%s: %s: %s.", plan.id, array.name, doubt)
    flags, placed, nodata = array.name + cv.FLAGS_SUFFIX, _placement(plan), array.nodata
    about: dict[str, Any] = {
        cv.LONG_NAME: f"{array.quantity} {array.polarization or array.name}, normalized dB",
        cv.UNITS: "1",
        cv.VMIN: vmin,
        cv.VMAX: vmax,
        cv.QUANTITY: str(array.quantity),
        cv.REPRESENTATION: str(cv.Representation.NORMALIZED),
        cv.SOURCE_REPRESENTATION: str(array.representation),
        cv.REASON: "; ".join((array.reason, *doubts)),
        cv.ANCILLARY: flags,
        **placed,
    }
    if calibration := array.calibration:
        about[cv.CALIBRATED_BY] = calibration.source
        about |= {cv.DENOISED_BY: calibration.noise.source} if calibration.noise else {}
    if array.border_noise:
        about[cv.BORDER_NOISE] = array.border_noise.source
    if nodata is not None:
        about[cv.SOURCE_NODATA] = nodata if np.isfinite(nodata) else str(nodata)
    if plan.onto:
        about |= plan.onto[plan.probe.arrays.index(array)].attrs
    if array.polarization:
        about[cv.SAR_POLARIZATIONS] = [array.polarization]
    about |= cf_attributes(plan.encoding)
    _write_array(group, array.name, plan, plan.encoding, about, [r.shards for r in receipts])
    coded: dict[str, Any] = {
        cv.LONG_NAME: f"validity of {array.name}",
        cv.FLAG_VALUES: [int(f) for f in cv.Flag],
        cv.FLAG_MEANINGS: " ".join(f.name.lower() for f in cv.Flag),
        **placed,
    }
    _write_array(group, flags, plan, plan.encoding.of_flags, coded, [r.flag_shards for r in receipts])


def measured_otherwise(array: ArrayProbe, receipts: Sequence[ArrayReceipt]) -> list[str]:
    """Return a sentence for each thing that the pixels of a (rows, columns) array show, and its sample did not.

    Numbers that no radar measures were flagged. A value that is repeated as fill is, and pixels beyond the stored
    range, are valid: that alone does not tell that they are not.
    """
    histogram, out = sum((r.histogram for r in receipts), start=Histogram.empty()), []
    if wrong := sum(r.impossible for r in receipts):
        out.append(f"{counted(wrong, 'pixel')} of a value that no radar measures flagged as nodata")
    valid = histogram.n_valid
    beyond = histogram.under + histogram.over
    if valid and beyond > valid / 2:
        out.append(
            f"{beyond:,} of {valid:,} valid pixels lie beyond the stored range: check that they are "
            f"{array.representation}"
        )
    bins = np.flatnonzero(histogram.counts)
    stands_out = bins[is_repeated(bins, histogram.counts[bins])]
    is_kept = np.dtype(array.dtype).kind == "f"
    for at in stands_out[(stands_out > 0) & (stands_out < HALF_CODES)].tolist():
        db = cv.DB_FLOOR + at / HALF_CODES * (cv.DB_CEILING - cv.DB_FLOOR)
        if is_kept or db > SATURATED_DB:
            out.append(
                f"{histogram.counts[at]:,} pixels are all of {db:.3f} dB: if nobody measured them, give their "
                "value with --nodata and --replace"
            )
    return out


def write_layer_documents(
    group: Place, plan: ScenePlan, layer: LayerPlan, receipts: Sequence[ArrayReceipt]
) -> None:
    """Write the ``zarr.json`` and the manifest of a (rows, columns) layer."""
    about = {**layer.attrs, **_placement(plan)}
    _write_array(group, layer.name, plan, layer.encoding(plan.encoding), about, [r.shards for r in receipts])


def _placement(plan: ScenePlan) -> dict[str, Any]:
    """Return where an array says that its CRS and affine stand; nothing where no affine ties it to the ground."""
    if not plan.grid.is_georeferenced:
        return {}
    return {cv.GRID_MAPPING: cv.SPATIAL_REF, cv.COORDINATES: cv.SPATIAL_REF}


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


def catalog_row(plan: ScenePlan, array: ArrayProbe | None = None) -> dict[str, Any]:
    """Return the row that an array has in the catalog: its (height, width), encoding, dB, place and facts.

    Without an array it is that of a scene of layers alone.
    """
    facts = {cv.CATALOG_COLUMNS[key]: value for key, value in plan.probe.acquisition.attrs().items()}
    if any(not warp.keeps_looks for warp in plan.onto if isinstance(warp, WarpPlan)):
        facts.pop(cv.CATALOG_COLUMNS[cv.LOOKS_EQUIVALENT_NUMBER], None)
    about: dict[str, Any] = dict.fromkeys(("name", "flags", "bounds_key"), "")
    if array is not None:
        vmin, vmax = plan.bounds[array.name]
        about = {
            "name": array.name,
            "flags": array.name + cv.FLAGS_SUFFIX,
            "polarization": array.polarization,
        }
        about |= {"quantity": str(array.quantity), "source_representation": str(array.representation)}
        about |= {"vmin": vmin, "vmax": vmax, "bounds_key": plan.group(array)}
    return {
        "scene": plan.id,
        **about,
        **{k: getattr(plan.encoding, k) for k in ("dtype", "codec", "chunk", "shard")},
        "height": plan.grid.height,
        "width": plan.grid.width,
        "crs_wkt": plan.grid.crs_wkt,
        "transform": plan.grid.transform,
        "geolocation": plan.geolocation,
        "source_hash": plan.probe.source_hash,
        **facts,
    }
