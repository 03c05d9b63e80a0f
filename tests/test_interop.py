"""Tools other than ours give the values, mask and place that sarzarr gives: of docs/interop.md what is installed."""

import json
import re
from importlib.metadata import version

import interop
import pytest
import rasterio
from interop_tools import TOOLS, verdict
from packaging.version import Version

GDAL = tuple(int(n) for n in rasterio.__gdal_version__.split(".")[:2])
REFUSED = {
    "rioxarray, a part": {"rotated": "another transform"},  # isel cannot move an affine along
    "rasterix": {"samples": "ValueError: Cannot create affine transform"},
    "rio-tiler": {
        "rotated": "WindowError",
        "gcps": "MissingCRS",
        "nowhere": "MissingCRS",
        "samples": "DimensionMissingCoordinateError",
    },
    "titiler-xarray": {
        "rotated": "WindowError",
        "gcps": "InvalidGeographicBounds",
        "nowhere": "InvalidGeographicBounds",
    },
    "GDAL of rasterio": {"samples": "RasterioIOError: Unsupported codec"}
    | ({"rotated": "another transform: 1, 0, 0"} if GDAL < (3, 13) else {}),
}
"""The beginning of the reason, by tool and kind, of what is not the same."""
NOT_IN_CI = (
    *("rio-tiler", "titiler-xarray", "VirtualiZarr", "icechunk, copied", "icechunk, virtual"),
    *("GDAL of osgeo", "zarrita (node)", "zarr-python, fused pipeline"),
)
"""With many dependencies, not for Python 3.11 any more, without a wheel that has Zarr, or not of Python."""
OLDEST = {
    "VirtualiZarr": ("virtualizarr", (2, 8), "refuses arrays without any chunk"),
    "icechunk, copied": ("icechunk", (2,), "does not know xarray of today"),
    "icechunk, virtual": ("virtualizarr", (2, 8), "refuses arrays without any chunk"),
}
"""The package and release that a tool works from, and what it does before."""
pytestmark = pytest.mark.filterwarnings("ignore")  # they are other tools'


@pytest.fixture(scope="module")
def cases_of(tmp_path_factory):
    """Return a function that gives (folder, cases) of a layout, each made once."""
    folder, made = tmp_path_factory.mktemp("interop"), {}

    def get(**layout):
        key = tuple(layout.items())
        if key not in made:
            made[key] = json.loads(json.dumps(interop.make_cases(folder, **layout)))
        return folder, made[key]

    get.folder = folder
    return get


def need(name, folder):
    """Skip, with the reason, what cannot be asked here."""
    if name == "zarrita (node)":
        if reason := interop.with_zarrita(folder):
            pytest.skip(f"not tried: {reason}")
        return
    package, oldest, why = OLDEST.get(name, (TOOLS[name][0], (), ""))
    pytest.importorskip(package, reason=f"{name} is not installed; `make interop` installs it")
    if oldest and Version(version(package)).release < oldest:
        pytest.skip(f"{package} {version(package)} {why}")
    if name == "zarr-python, fused pipeline":
        module = pytest.importorskip("zarr.core.codec_pipeline")
        if not hasattr(module, "FusedCodecPipeline"):
            pytest.skip("zarr-python has it from 3.2 on")
    if name == "GDAL of rasterio" and GDAL < (3, 11):
        pytest.skip(f"GDAL {rasterio.__gdal_version__} knows a draft of Zarr v3 alone")
    if name == "GDAL of osgeo":
        gdal = pytest.importorskip("osgeo.gdal")
        if gdal.GetDriverByName("Zarr") is None:
            pytest.skip(f"GDAL {gdal.__version__} is built without Zarr")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in NOT_IN_CI)) for name in TOOLS]
)
def test_a_tool_reads_every_kind_as_sarzarr_does(cases_of, name):
    unsharded = name == "GDAL of rasterio" and GDAL < (3, 13)
    need(name, cases_of.folder)
    folder, cases = cases_of(**({"shard": 0} if unsharded else {}))
    said = {case["kind"]: verdict(name, case, folder) for case in cases}
    assert len(said) == 11
    refused = {kind: reason for kind, reason in said.items() if reason not in ("same", "")}
    expected = REFUSED.get(name, {})
    assert refused.keys() == expected.keys(), refused
    for kind, reason in refused.items():
        assert re.match(re.escape(expected[kind]), reason)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"range": [-60, 99]}, "other values"),
        ({"epsg": 32632}, "32633, not 32632"),
        ({"affine": [10, 0, 500_010, 0, -10, 5_400_000]}, "another transform"),
        ({"truth": "sharded-floor.npy"}, "another mask: 84000 pixels are not valid, not 0"),
    ],
)
def test_what_differs_is_said(cases_of, spoil, reason):
    folder, cases = cases_of()
    assert verdict("rioxarray", cases[0] | spoil, folder).startswith(reason)
