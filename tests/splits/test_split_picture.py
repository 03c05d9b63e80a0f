"""The picture of a split shows its scenes, however far apart they lie."""

import numpy as np
import pytest
import rasterio
from conftest import speckle, write_band

import sarzarr as sz
from sarzarr.export.pictures.split_picture import COLOURS, write_split_picture
from sarzarr.splits.make import make_split


@pytest.mark.parametrize("apart", [60_000, 300_000])
def test_scattered_scenes_have_the_colour_of_their_side(tmp_path, apart):
    image = pytest.importorskip("matplotlib.image")
    paths = [
        write_band(
            tmp_path / f"s{i}{j}_vv.tif",
            speckle((768, 768), seed=i),
            transform=rasterio.Affine(10, 0, 300_000 + apart * i, 0, -10, 5_400_000 + apart * j),
        )
        for i in range(2)
        for j in range(3)
    ]
    store = sz.ingest(sz.plan_ingest(paths, tmp_path / "s.zarr"))
    split = make_split(store, val_fraction=0.3, seed=2)
    drawn = image.imread(write_split_picture(store, split, tmp_path / "split.png"))[..., :3]
    drawn = (255 * drawn[: int(0.9 * len(drawn))]).round().astype(int)  # the legend is below
    for side in (1, 2):
        colour = [int(COLOURS[side][i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(drawn - colour).max(axis=-1) <= 12).sum() > 9
