"""Padding is no invalid pixel, and a store that cannot be written to is read in any cut."""

import os
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from conftest import speckle, write_band
from hypothesis import given, settings
from hypothesis import strategies as st

import sarzarr as sz
from sarzarr.conventions import Flag
from sarzarr.errors import InvalidInputError
from sarzarr.reader.augment import AUGMENTATIONS, Augmentation

KNOWN = {"quantity": "sigma0", "representation": "power"}
NOBODY = 65534
"""A user who is not root."""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Three scenes that are smaller than a patch, one of which has a pixel that is not valid."""
    folder = tmp_path_factory.mktemp("small")
    paths = []
    for i, shape in enumerate([(224, 224), (224, 300), (100, 256)]):
        power = speckle(shape, seed=i)
        power[5, 5] = np.nan if i == 2 else power[5, 5]
        paths.append(write_band(folder / f"s{i}_vv.tif", power))
    return sz.ingest(sz.plan_ingest(paths, folder / "s.zarr", **KNOWN))


@settings(max_examples=12)
@given(
    size=st.sampled_from([64, 100, 256]),
    edge=st.sampled_from(["pad", "drop"]),
    least=st.sampled_from([None, 0.999, 0.5]),
)
def test_a_patch_is_delivered_by_the_share_of_its_own_pixels(small, size, edge, least):
    wanted = 0
    for scene in small.scenes:
        valid = np.isfinite(small.power(scene, "vv").values)
        for row in range(0, valid.shape[0], size):
            for col in range(0, valid.shape[1], size):
                own = valid[row : row + size, col : col + size]
                is_kept = edge == "pad" or own.shape == (size, size)
                wanted += is_kept and own.mean() >= (1 if least is None else least)
    options = {"patch_size": size, "edge": edge, "min_valid": least, "min_unsaturated": 0}
    if not wanted:
        with pytest.raises(InvalidInputError, match="at least one patch was expected, got none"):
            sz.PatchReader(small, **options)
    else:
        assert len(sz.PatchReader(small, **options).selection) == wanted


def test_small_scenes_come_padded_by_default(small):
    images = np.concatenate(list(sz.PatchReader(small, edge="pad", batch_size=2, scenes=["s0", "s1"])))
    assert images.shape == (3, 1, 256, 256)
    assert not images[:, :, 224:].any()
    assert images[0, 0, :224, :224].any()


def test_padding_stays_0_whatever_is_drawn(small, monkeypatch):
    monkeypatch.setitem(
        AUGMENTATIONS, "lift", Augmentation(changes=(lambda images, rngs: images + np.float32(0.2),))
    )
    reader = sz.PatchReader(small, edge="pad", augment="lift", scenes=["s0"], flags=True)
    told = sz.PatchReader(small, edge="pad", augment="lift", scenes=["s0"])
    (images, flags), plain = next(iter(reader)), next(iter(told))
    assert (images[flags == Flag.NODATA] == 0).all()
    np.testing.assert_array_equal(images, plain)


@pytest.fixture
def read_only():
    """A store where nothing can be made, whoever asks: root is somebody else meanwhile."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # pytest's own folders are their owner's alone
        path = write_band(folder / "a_vv.tif", speckle((300, 300)))
        store, other = (sz.ingest(sz.plan_ingest(path, folder / f"{x}.zarr", **KNOWN)) for x in "st")
        right = np.concatenate(list(sz.PatchReader(other, patch_size=128)))
        places = [store.root, *store.root.rglob("*")]
        for place in places:
            place.chmod(0o555 if place.is_dir() else 0o444)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(NOBODY)
        try:
            with pytest.raises(PermissionError):
                (store.root / "patches" / "probe").mkdir()
            yield store.root, right
        finally:
            if is_root:
                os.seteuid(0)
            for place in places:
                place.chmod(0o755)


def test_a_store_that_cannot_be_written_to_is_read_in_any_cut(read_only):
    root, right = read_only
    reader = sz.PatchReader(root, patch_size=128)
    np.testing.assert_array_equal(np.concatenate(list(reader)), right)
    again = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(np.concatenate(list(again)), right)
    assert sz.open_store(root).patch_indices == ("default",)
