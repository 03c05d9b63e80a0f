"""A tile server for xarray serves pictures of levels: group ``overviews/SCENE/LEVEL``, variable ``vv``."""

import io

import pytest
from conftest import speckle, write_band

import sarzarr as sz

pytestmark = pytest.mark.filterwarnings("ignore")  # they are of others


def test_a_tile_is_served_from_a_level(tmp_path):
    main = pytest.importorskip(
        "titiler.xarray.factory", reason="titiler.xarray is not installed (sarzarr[interop])"
    )
    pytest.importorskip("httpx", reason="httpx is not installed, which asks the server in this process")
    import morecantile
    import numpy as np
    import rasterio
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    power = speckle((1500, 1400))
    power[:750] *= 100  # 20 dB brighter in the north
    file = write_band(tmp_path / "a_vv.tif", power, tiles=256)
    store = sz.make_overviews(
        sz.ingest(sz.plan_ingest(file, tmp_path / "s.zarr", quantity="sigma0", representation="power"))
    )
    bounds = rasterio.warp.transform_bounds("EPSG:32633", "EPSG:4326", *store.grid("a", level=1).bbox)
    lon, lat = (bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2
    tile = morecantile.tms.get("WebMercatorQuad").tile(lon, lat, 10)
    app = FastAPI()
    app.include_router(main.TilerFactory().router)
    client = TestClient(app)
    for level in (1, 2):
        asked = {"url": str(store.root), "group": f"overviews/a/{level}", "variable": "vv", "rescale": "0,1"}
        answer = client.get(f"/tiles/WebMercatorQuad/{tile.z}/{tile.x}/{tile.y}.png", params=asked)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/png"
        with rasterio.io.MemoryFile(io.BytesIO(answer.content)) as memory, memory.open() as picture:
            grey, mask = picture.read(1).astype(float), picture.read(picture.count) > 0
        rows = np.flatnonzero(mask.any(axis=1))
        north, south = (grey[row][mask[row]].mean() for row in (rows[2], rows[-3]))
        assert north - south == pytest.approx(255 * 20 / 160, abs=4)  # of 160 dB
