"""Mean and standard deviation of what is delivered are those of the pixels, within the bound that is said."""

import numpy as np
import pytest
from loader_stores import codes, make_store

import sarzarr as sz


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store of each dtype."""
    return {
        kind: make_store(tmp_path_factory.mktemp(kind), dtype=kind)
        for kind in ("uint16", "float32", "float16")
    }


def pixels(store, arrays, clip, dtype):
    """Return the valid pixels of arrays, as delivered patch by patch over every window, in float64."""
    found = []
    for scene, array in arrays:
        options = {
            "scenes": [scene],
            "polarizations": [array],
            "min_valid": 0,
            "min_unsaturated": 0,
            "edge": "pad",
        }
        reader = sz.PatchReader(store, flags=True, batch_size=64, clip=clip, dtype=dtype, **options)
        for images, flags in reader:
            found.append(images[flags < 2].astype(np.float64))
        assert sum(f.size for f in found[-len(reader) :]) == (codes(store, scene, f"{array}_flags") < 2).sum()
    return np.concatenate(found)


@pytest.mark.parametrize("stored", ["uint16", "float32", "float16"])
@pytest.mark.parametrize("clip", [None, (-20.0, -10.0), (-60.0, 100.0), (-80.0, 20.0), (-13.0, -12.9)])
def test_moments_are_those_of_the_pixels(stores, stored, clip):
    store = stores[stored]
    reader = sz.PatchReader(store, polarizations=["vh", "vv"], clip=clip)
    found = reader.statistics()
    for channel, array in enumerate(("vh", "vv")):
        values = pixels(store, [("a", array)], clip, "float32")
        assert found.pixels[channel] == values.size
        assert abs(found.mean[channel] - values.mean()) <= found.bound[channel]
        assert abs(found.std[channel] - values.std()) <= found.bound[channel]
    span = 160 / (clip[1] - clip[0]) if clip else 0
    coarse = {"uint16": 0, "float32": 1 / 262136, "float16": 1 / 262136 + 2**-12}[stored] * span
    assert clip is None or (found.bound <= coarse * 1.01 + 2e-7).all()
    assert "2 whole arrays of 1 scene" in found.of


def test_of_several_arrays_scenes_and_stores(stores):
    one, other = stores["uint16"], stores["float32"]
    reader = sz.PatchReader([one, other], polarizations=["vv"], clip=(-25, 0))
    found = reader.statistics()
    values = np.concatenate(
        [pixels(s, [("a", "vv"), ("b", "vv")], (-25, 0), "float32") for s in (one, other)]
    )
    assert found.pixels.tolist() == [values.size]
    np.testing.assert_allclose(
        [found.mean[0], found.std[0]], [values.mean(), values.std()], atol=found.bound[0]
    )
    assert found.of == f"{values.size:,} pixels, valid ones of 4 whole arrays of 4 scenes"
    assert str(found).startswith("mean and std of")


def test_of_codes_exactly(stores):
    store = stores["uint16"]
    found = sz.PatchReader(store, polarizations=["vv"], scenes=["b"], dtype="uint16").statistics()
    values = pixels(store, [("b", "vv")], None, "uint16")
    np.testing.assert_allclose([found.mean[0], found.std[0]], [values.mean(), values.std()], rtol=1e-12)
    assert found.bound.tolist() == [0.0]


def test_no_chunk_is_read(tmp_path):
    store = make_store(tmp_path)
    reader = sz.PatchReader(store)
    for shard in (store.root / "scenes").rglob("c/*/*"):
        shard.unlink()
    assert np.isfinite(reader.statistics().mean).all()
