"""Samples through the readers: every picture once, whole, with its boxes, in an order that can be repeated."""

import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import sarzarr as sz
from sarzarr.conventions import Flag
from sarzarr.errors import InvalidInputError, MixedBoundsError, NotInStoreError, SplitNotFoundError
from sarzarr.ingestion.chips.find import ChipOptions
from sarzarr.pixels.turns import apply, inverse
from sarzarr.reader.order import Position, Share

SHAPES = [(40, 60), (256, 256), (300, 200), (256, 512), (7, 5), (260, 90), (31, 31), (256, 255), (400, 300)]
WHITE = {"uint8": 255, "uint16": 65535, "float32": 1}


def pictures(folder, dtype):
    """Write pictures, most of them with the box of their one bright part."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, shape in enumerate(SHAPES):
        values = rng.integers(1, 200 if dtype == "uint8" else 60_000, shape).astype(dtype)
        if dtype == "float32":
            values /= np.float32(60_000)
        values[2:6, 1:4] = WHITE[dtype]
        Image.fromarray(values).save(folder / f"p{i}.{'tif' if dtype == 'float32' else 'png'}")
        box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>4</xmax><ymax>6</ymax></bndbox>"
        if i % 3:
            xml = f"<annotation><object><name>ship</name>{box}</object></annotation>"
            (folder / f"p{i}.xml").write_text(xml)


@pytest.fixture(scope="module", params=["uint8", "uint16", "float32"])
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chips")
    pictures(folder / "ships", request.param)
    samples, _ = sz.import_chips(folder / "ships", folder / "s.zarr")
    return sz.open_store(folder / "s.zarr"), samples, WHITE[request.param]


def padded(samples, white, sample, shape=(400, 512)):
    out = np.zeros(shape, np.float32)
    image = samples.image(sample)
    out[: image.shape[0], : image.shape[1]] = image.astype(np.float32) / np.float32(white)
    return out


def test_every_picture_comes_once_whole_and_where_flags_say(made):
    store, samples, white = made
    reader = sz.SampleReader(store, "ships", batch_size=4, flags=True, with_meta=True)
    seen = []
    for batch in reader:
        for i, name in enumerate(batch["id"]):
            sample = samples.ids.index(name)
            assert batch["image"].shape[1:] == (1, 400, 512)
            np.testing.assert_allclose(batch["image"][i, 0], padded(samples, white, sample), rtol=1e-6)
            height, width = int(batch["height"][i]), int(batch["width"][i])
            assert samples.image(sample).shape == (height, width)
            is_padding = np.ones((400, 512), bool)
            is_padding[:height, :width] = False
            np.testing.assert_array_equal(batch["flags"][i, 0] == Flag.NODATA, is_padding)
            assert batch["source"][i].startswith("p")
            seen.append(name)
    assert sorted(seen) == sorted(samples.ids)
    assert len(reader) == 3


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=4),
    st.sampled_from(["uint8", "uint16", "float32"]),
    st.sampled_from([None, "d4", "flips"]),
    st.integers(0, 99),
)
def test_pictures_of_any_size_are_delivered_as_they_are(tmp_path_factory, shapes, dtype, augment, seed):
    folder, rng = tmp_path_factory.mktemp("any"), np.random.default_rng(seed)
    drawn = []
    for i, shape in enumerate(shapes):
        values = rng.integers(0, WHITE[dtype] + 1 if dtype != "float32" else 2, shape).astype(dtype)
        Image.fromarray(values).save(folder / f"p{i}.{'tif' if dtype == 'float32' else 'png'}")
        drawn.append(values)
    samples, _ = sz.import_chips(folder, folder / "s.zarr", options=ChipOptions(name="any"))
    height, width = (max(sizes) for sizes in zip(*shapes, strict=True))
    assert (samples.layout.height, samples.layout.width) == (height, width)
    assert samples.layout.chunk == (min(height, 256), min(width, 256))
    with pytest.raises(InvalidInputError, match="quarter turn") if height != width else nullcontext():
        sz.SampleReader(samples.store, "any").read([0], [4])
    shape = (max(height, width),) * 2 if augment == "d4" else (height, width)
    for batch in sz.SampleReader(
        samples.store, "any", augment=augment, flags=True, with_meta=True, seed=seed
    ):
        assert batch["image"].shape[1:] == batch["flags"].shape[1:] == (1, *shape)
        for image, flags, turn, name in zip(
            batch["image"][:, 0], batch["flags"][:, 0], batch["turn"].tolist(), batch["id"], strict=True
        ):
            values = drawn[int(name[1:])]
            rows, cols = values.shape
            image, flags = (apply(inverse(turn), part) for part in (image, flags))
            np.testing.assert_array_max_ulp(
                image[:rows, :cols],
                values.astype(np.float32) / np.float32(WHITE[dtype]),
                int(dtype == "uint16"),
            )
            assert (flags[:rows, :cols] == Flag.VALID).all()
            assert not image[rows:].any()
            assert not image[:, cols:].any()
            assert (flags[rows:] == Flag.NODATA).all()
            assert (flags[:, cols:] == Flag.NODATA).all()


@pytest.mark.parametrize("widest", [False, True])
def test_uint8_is_divided_by_255_to_the_last_bit(tmp_path, widest):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    (tmp_path / "all").mkdir()
    Image.fromarray(values if widest else np.minimum(values, 254)).save(tmp_path / "all" / "a.png")
    samples, _ = sz.import_chips(tmp_path / "all", tmp_path / "s.zarr")
    assert samples.layout.stored == ("uint16" if widest else "uint8")
    (batch,) = sz.SampleReader(samples.store, "all")
    wanted = samples.image(0).astype(np.float32) / np.float32(255)
    assert batch[0, 0].tobytes() == wanted.tobytes()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99), st.sampled_from([None, "d4", "flips", "azimuth"]), st.integers(1, 5))
def test_boxes_stay_with_their_pixels(made, seed, augment, batch_size):
    store, samples, white = made
    reader = sz.SampleReader(
        store,
        "ships",
        boxes=True,
        with_meta=True,
        shuffle=True,
        seed=seed,
        augment=augment,
        batch_size=batch_size,
    )
    seen = []
    for batch in reader:
        for image, target, turn, name in zip(
            batch["image"][:, 0], batch["target"], batch["turn"], batch["id"], strict=True
        ):
            sample = samples.ids.index(name)
            whole = padded(samples, white, sample, (512, 512) if augment == "d4" else (400, 512))
            np.testing.assert_allclose(image, apply(int(turn), whole), rtol=1e-6)
            assert target["boxes"].shape == (sample % 3 > 0, 4)
            painted = np.zeros(image.shape, bool)
            for x_min, y_min, x_max, y_max in target["boxes"].astype(int):
                painted[y_min:y_max, x_min:x_max] = True
            if sample % 3:
                assert (image[painted] == 1).all()
                assert target["labels"].tolist() == [1]
                assert target["area"].tolist() == [12.0]
            seen.append(name)
    assert sorted(seen) == sorted(samples.ids)


def test_sides_of_a_split_are_its_samples(made):
    store, samples, _ = made
    with pytest.raises(SplitNotFoundError):
        sz.SampleReader(store, "ships", split="train")
    manager = sz.SplitManager(store)
    manager.create_initial_split("ships", val_ratio=0.3)
    train, val = manager.get_split("ships")
    for side, wanted in (("train", train), ("val", val), ("v1:val", val)):
        chosen = sz.SampleReader(store, "ships", split=side).selection.table_row
        assert sorted(samples.ids[i] for i in chosen) == sorted(wanted)
    with pytest.raises(InvalidInputError, match="got none of 9"):
        sz.SampleReader(store, "ships", split="test")
    with pytest.raises(SplitNotFoundError):
        sz.SampleReader(store, "ships", split="v7:val")


def test_shares_and_resuming_lose_and_repeat_nothing(made):
    store, *_ = made
    for shuffle in (True, "window"):
        reader = sz.SampleReader(store, "ships", batch_size=2, shuffle=shuffle, with_meta=True)
        whole = [i for b in reader.batches(Position()) for i in b["id"]]
        parts = [
            [i for b in reader.batches(Position(), Share(rank=r, ranks=2)) for i in b["id"]] for r in range(2)
        ]
        assert sorted(parts[0] + parts[1]) == sorted(whole)
        steps = iter(reader)
        first = [i for _ in range(2) for i in next(steps)["id"]]
        state = reader.state_dict()
        again = sz.SampleReader(store, "ships", batch_size=2, shuffle=shuffle, with_meta=True)
        again.load_state_dict(state)
        assert first + [i for b in again for i in b["id"]] == whole


def test_what_says_nothing_of_samples_is_refused(made):
    store, *_ = made
    for option in ({"polarizations": "vv"}, {"stride": 128}, {"weights": "scene"}):
        with pytest.raises(InvalidInputError, match=f"keyword of SampleReader.*got {next(iter(option))!r}"):
            sz.SampleReader(store, "ships", **option)
    with pytest.raises(InvalidInputError, match="samples with dB were expected for clip="):
        sz.SampleReader(store, "ships", clip=(-25, 5))
    some = sz.SampleReader(store, "ships", rows=[2, 0, 10**6])
    assert some.selection.table_row.tolist() == [0, 2]
    with pytest.raises(NotInStoreError, match="ships"):
        sz.SampleReader(store, "boats")
    with pytest.raises(MixedBoundsError, match="no dB"):
        _ = sz.SampleReader(store, "ships").preprocessing_params


def test_torch_gets_what_detectors_take(made):
    torch = pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
    from sarzarr.torch import ZarrPatchDataset

    store, samples, _ = made
    data = ZarrPatchDataset(
        store, samples="ships", boxes=True, channels=3, batch_size=4, shuffle=True, augment="d4"
    )
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=2)
    count = 0
    for images, targets in loader:
        assert images.shape[1:] == (3, 512, 512)
        assert images.dtype == torch.float32
        for target in targets:
            assert target["boxes"].dtype == torch.float32
            assert target["labels"].dtype == target["image_id"].dtype == torch.int64
            count += 1
    assert count == len(samples)


def test_the_loop_in_the_docs_runs(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
    page = (Path(__file__).parents[2] / "docs/boxes.md").read_text()
    (loop,) = re.findall(r"## Training on chips\n\n```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "SSDD", "uint8")
    sz.import_chips(tmp_path / "SSDD", tmp_path / "stores/ships.zarr")
    space = {"__name__": "docs"}
    exec(compile(loop, "boxes.md", "exec"), space)
    assert space["images"].shape[1:] == (3, 512, 512)
    assert len(space["train"].reader.selection) == 8
