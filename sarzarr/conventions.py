"""Every name, unit, code and number that a store is written with, in one place.

Nothing else in the package spells an attribute key of its own. The stored range and the flag
codes are fixed by ``SCHEMA_VERSION``: 0 and 1 mean the same in every array of every store.
"""

from enum import IntEnum, StrEnum
from typing import Any, Final

SCHEMA: Final = "sarzarr"
SCHEMA_VERSION: Final = 2
COPIED_SCHEMA: Final = 1
"""The older schema that a copy brings over; nothing else reads it."""
DB_FLOOR: Final = -60.0
"""dB that a stored 0.0, code 1, stands for: the faintest calibrated pixel."""
DB_CEILING: Final = 100.0
"""dB that a stored 1.0, code 65535, stands for: a saturated 16-bit DN squared is 96.3 dB."""
STORED_RANGE: Final = (DB_FLOOR, DB_CEILING)
NOISE_FLOOR: Final = 1e-10
"""Linear power that nonpositive power is raised to before a logarithm (-100 dB)."""
NOT_MEASURED: Final = 0
"""The uint16 code of a pixel that was not measured, and of nothing else; of floats it is NaN."""
FIRST_CODE: Final = 1
"""The uint16 code of 0.0."""
MAX_CODE: Final = 65535
"""The uint16 code of 1.0."""
STEPS: Final = MAX_CODE - FIRST_CODE
"""Steps of codes from 0.0 to 1.0, (DB_CEILING - DB_FLOOR) / STEPS = 0.00244 dB each."""
HISTOGRAM_BINS: Final = 2 * STEPS + 1
"""Two histogram bins per step (0.00122 dB each); the last one holds exactly 1.0."""
POLARIZATIONS: Final = ("vv", "vh", "hh", "hv")


class Representation(StrEnum):
    """The form that the numbers of a raster are written down in."""

    POWER = "power"
    AMPLITUDE = "amplitude"
    DB = "db"
    COMPLEX = "complex"
    NORMALIZED = "normalized"


class Quantity(StrEnum):
    """The physical quantity that the numbers of a raster are."""

    SIGMA0 = "sigma0"
    BETA0 = "beta0"
    GAMMA0 = "gamma0"
    GAMMA0_RTC = "gamma0_rtc"
    DN = "dn"
    POWER = "power"


class Flag(IntEnum):
    """Codes of a ``<array>_flags`` array, uint8."""

    VALID = 0
    NONPOSITIVE = 1
    NODATA = 2
    BORDER = 3

    @staticmethod
    def is_valid(flags: Any) -> Any:
        """Return which pixels of uint8 ``flags`` (NumPy, Dask, xarray) were measured, nonpositive ones too: bool."""
        return flags < Flag.NODATA


class Membership(IntEnum):
    """Codes of a split: which side a cell of a scene is on."""

    HELD_BACK = 0
    TRAIN = 1
    VAL = 2
    TEST = 3


CHUNK: Final = 256
SHARD: Final = 2048
CELL: Final = 256
"""Rows and columns of a cell: the unit of a split, whatever an array's chunks are."""
FLAGS_SUFFIX: Final = "_flags"
FLAGS_FILL: Final = 255
"""The ``fill_value`` of flags, which no pixel has: tools that take it for nodata mask nothing."""
BESIDE_CODEC: Final = "blosc-lz4"
"""The codec of flags and layers, whatever that of the backscatter in its shards: labels shrink to next to nothing."""
SCENES: Final = "scenes"
CATALOG: Final = "catalog"
PATCHES: Final = "patches"
SHARES: Final = "shares"
"""The group of tables of layers' shares in the patches of each index."""
DOCUMENTS: Final = "documents"
"""The array, a scalar, in whose folder a copy of each document is: see `sarzarr.store.copies`."""
CONSOLIDATED: Final = "consolidated_metadata"
"""The key of a group's document that holds copies of those below it."""
CUTS: Final = "cuts"
"""The attribute of the group of patch indices that says how each is cut: size, stride (pixels) and edge."""
OVERVIEWS: Final = "overviews"
"""The group of scenes at fewer pixels: ``overviews/<scene>/<level>/<array>``."""
SAMPLES: Final = "samples"
COLLECTIONS: Final = "collections"
"""The group of collections of chips: ``collections/<name>/<rows>x<columns>/<array>``."""
CHIP_LABELS: Final = "labels"
"""The group of sets of labels on chips: ``labels/<collection>/<set>``."""
BOXES: Final = "boxes"
CLASS_TABLE: Final = "classes"
"""The group of the table of a store's classes."""
SPLITS: Final = "splits"
SPECTROGRAM: Final = "spectrogram"
"""The array of a spectrogram's ``.npz``."""
SPECTROGRAM_SIDE: Final = 1024
"""Rows (frequencies, the highest first) and columns (times) of a spectrogram, uint8."""
SAMPLE_JSON: Final = "json"
"""The column of a sample set that has each sample's JSON as it came, with keys that are not known."""
HISTOGRAMS: Final = "histograms"
DEFAULT_INDEX: Final = "default"
MANIFEST: Final = "manifest.json"
SARZARR: Final = "sarzarr"
SEAL: Final = "sarzarr_seal"
"""The attribute of every document that holds its checksum, and the names of the attributes that it covers."""
CHUNK_CRC: Final = "chunk_crc32c"
"""The attribute of an array of one chunk that holds the CRC-32C of the chunk; of a column in chunks of rows, that
over the checksums of all, 4 little-endian bytes each; also those of a table's columns."""
CRC_BEFORE_LAST: Final = "crc32c_before_last_chunk"
"""The attribute of a column in chunks of rows: the CRC-32C over the checksums of all its chunks but the last."""
CHUNK_ROWS: Final = "chunk_rows"
"""The attribute of a table that is appended to: rows of a chunk by dimension."""
VMIN: Final = "vmin"
VMAX: Final = "vmax"
CLIP_VMIN: Final = "clip_vmin"
CLIP_VMAX: Final = "clip_vmax"
CLIP_METHOD: Final = "clip_method"
BOUNDS: Final = "bounds"
QUANTITY: Final = "quantity"
REPRESENTATION: Final = "representation"
SOURCE_REPRESENTATION: Final = "source_representation"
SOURCE_DTYPE: Final = "source_dtype"
"""The dtype of pictures in their files, whose highest value is white; of a layer, if it is stored in a wider one."""
REASON: Final = "identified_by"
CALIBRATED_BY: Final = "calibrated_by"
"""The files or tags whose numbers made the quantity of digital numbers; absent where the file holds it itself."""
DENOISED_BY: Final = "denoised_by"
"""The file whose thermal noise was subtracted from the power of digital numbers; absent where none was."""
BORDER_NOISE: Final = "border_noise_by"
"""The file whose thermal noise says which pixels at a scene's edges are border; absent where none was asked."""
GAIN: Final = "gain"
"""The coordinate of an array of digital numbers that holds linear power per DN^2."""
NOISE: Final = "noise"
"""The coordinate of an array of digital numbers that holds what is subtracted from DN^2 first."""
SOURCE_HASH: Final = "source_hash"
BORDER: Final = "border"
SOURCE_NODATA: Final = "source_nodata"
SCALE_FACTOR: Final = "scale_factor"
ADD_OFFSET: Final = "add_offset"
UNITS: Final = "units"
LONG_NAME: Final = "long_name"
STANDARD_NAME: Final = "standard_name"
GRID_MAPPING: Final = "grid_mapping"
COORDINATES: Final = "coordinates"
SPATIAL_REF: Final = "spatial_ref"
FLAG_VALUES: Final = "flag_values"
FLAG_MEANINGS: Final = "flag_meanings"
ANCILLARY: Final = "ancillary_variables"
PROJ_CODE: Final = "proj:code"
PROJ_WKT2: Final = "proj:wkt2"
SPATIAL_TRANSFORM: Final = "spatial:transform"
SPATIAL_DIMENSIONS: Final = "spatial:dimensions"
SPATIAL_SHAPE: Final = "spatial:shape"
SPATIAL_BBOX: Final = "spatial:bbox"
MULTISCALES: Final = "multiscales"
"""The levels of a scene, as https://github.com/zarr-conventions/multiscales has it."""
FULL_RESOLUTION: Final = "full_resolution"
"""The key of the scene that levels were made of."""
MADE_OF: Final = "made_of"
"""The place of that scene, and the checksums of its arrays and flags and their dB: of others, levels are stale."""
CONVENTIONS: Final = tuple(
    {
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/v1/schema.json",
        "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v1/README.md",
        "uuid": uuid,
        "name": name if name == MULTISCALES else f"{name}:",
    }
    for name, uuid in (
        (MULTISCALES, "d35379db-88df-4056-af3a-620245f8e347"),
        ("proj", "f17cb550-5864-4468-aeb7-f3180cfb622f"),
        ("spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4"),
    )
)
"""The conventions that the group of a scene's levels says it keeps."""
EXPORTED_SCENE: Final = "sarzarr_scene"
"""The tag of a GeoTIFF that a scene of a store was written to: no value but its nodata stands for nothing in it."""
SOURCE_FILES: Final = "source_files"
"""Names of the files that a scene was made of; never their paths."""
LAYERS: Final = "layers"
"""Names of the arrays of a scene group that are layers: kept as they are, and no backscatter."""
LAYER_KIND: Final = "layer_kind"
"""The kind of a layer's numbers: ``classes``, ``continuous`` or ``counts``."""
SOURCE_BAND: Final = "source_band"
"""The band of the file that a layer was made of, from 1."""
CLASSES: Final = "classes"
"""The name of each value of a layer that was made of polygons."""
ALL_TOUCHED: Final = "all_touched"
"""Whether such a layer has the pixels that a polygon touches; else those whose centres it covers."""
SOURCE_COLUMN: Final = "source_column"
"""The property, or column, of the polygons' file that classes were taken from."""
SOURCE_TABLE: Final = "source_table"
"""The table of the polygons' file."""
NODATA: Final = "nodata"
"""The value of a layer, or of samples, that says "no data"; absent where there is none, or it is NaN."""
FILL_VALUE: Final = "_FillValue"
"""CF's name of the same, which makes xarray put NaN there: so it is not given to classes of integers."""
CODED: Final = {SCALE_FACTOR: 1 / STEPS, ADD_OFFSET: -FIRST_CODE / STEPS, FILL_VALUE: NOT_MEASURED}
"""CF's attributes of uint16 codes: decoded they are in [0, 1], NaN where nothing was measured."""
MODEL: Final = "model"
"""The name of the model that predicted a layer; layers without it were not predicted."""
MODEL_IDENTITY: Final = "model_identity"
"""What tells the model from any other: checksums of its file or weights; absent where nothing does."""
MODEL_INPUTS: Final = "model_inputs"
"""The arrays and layers that were its channels, in their order."""
MODEL_CLIPS: Final = "model_clips"
"""vmin and vmax, dB, of each array among them, one pair after another."""
PREDICTED_AS: Final = "predicted_as"
"""The checksum of model, options and input pixels: the same prediction has the same."""
PREDICTED_BY: Final = "predicted_by"
"""The release of sarzarr, and the windows: size, overlap, blend."""
GCPS: Final = "gcps"
"""Ground control points: row, column, x, y, z of one after the other, in the CRS of ``gcps_crs``."""
GCPS_CRS: Final = "gcps_crs"
GEOLOCATION: Final = "geolocation"
"""The tie of pixels to the ground: ``affine``, ``rotated_affine``, ``gcps``, ``none``, ``gcp_tps_no_dem``."""
RESAMPLING: Final = "resampling"
"""Resampling method of a warped array: ``nearest``, ``average``, ...; absent where it was not warped."""
RESAMPLING_TOLERANCE: Final = "resampling_tolerance"
"""Source pixels by which positions may be off; 0 is exact."""
RESAMPLING_LOOKS: Final = "resampling_looks"
"""``unchanged`` or ``unknown``: what the resampling left of the equivalent number of looks."""
# STAC spelling of acquisition facts; absent where no tag, name or product says them.
DATETIME: Final = "datetime"
PLATFORM: Final = "platform"
INSTRUMENT_MODE: Final = "sar:instrument_mode"
PRODUCT_TYPE: Final = "sar:product_type"
SAR_POLARIZATIONS: Final = "sar:polarizations"
OBSERVATION_DIRECTION: Final = "sar:observation_direction"
LOOKS_EQUIVALENT_NUMBER: Final = "sar:looks_equivalent_number"
ORBIT_STATE: Final = "sat:orbit_state"
RELATIVE_ORBIT: Final = "sat:relative_orbit"
ABSOLUTE_ORBIT: Final = "sat:absolute_orbit"
INCIDENCE_ANGLE: Final = "view:incidence_angle"
BURST: Final = "s1:burst"
CATALOG_COLUMNS: Final = {
    DATETIME: "time",
    PLATFORM: "platform",
    INSTRUMENT_MODE: "mode",
    PRODUCT_TYPE: "product",
    OBSERVATION_DIRECTION: "look_side",
    LOOKS_EQUIVALENT_NUMBER: "looks",
    ORBIT_STATE: "orbit_state",
    RELATIVE_ORBIT: "relative_orbit",
    ABSOLUTE_ORBIT: "absolute_orbit",
    INCIDENCE_ANGLE: "incidence",
    BURST: "burst",
}
"""The catalog's column of each acquisition fact, in the order of ``info``; no colon: file names cannot have one."""
ACQUISITION_KEYS: Final = tuple(CATALOG_COLUMNS)
"""The keys of the acquisition facts."""
CATALOG_SCHEMA: Final = {
    **dict.fromkeys(("scene", "name", "flags", "polarization", "quantity"), "text"),
    **dict.fromkeys(("source_representation", "dtype", "codec"), "text"),
    **dict.fromkeys(("height", "width", "chunk", "shard"), "integer"),
    **dict.fromkeys(("vmin", "vmax"), "number"),
    **dict.fromkeys(("bounds_key", "crs_wkt"), "text"),
    "transform": "affine",
    **dict.fromkeys(("geolocation", "time", "platform", "mode", "product", "look_side"), "text"),
    "looks": "number",
    "orbit_state": "text",
    **dict.fromkeys(("relative_orbit", "absolute_orbit", "incidence"), "number"),
    "burst": "text",
    "source_hash": "text",
}
"""The catalog's columns and their kinds; ``name`` is the array's name in its scene group.

A scene of layers alone has one row of no ``name``, that tells its place, chunks and shards; its ``codec`` is that of
layers."""
NO_DTYPE: Final = "uint8"
"""The catalog's dtype of a scene of layers alone: each layer has its own."""
