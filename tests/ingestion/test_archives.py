"""Archives of patches in ``.npy`` files, held against their index by headers and sizes alone."""

import numpy as np
import pytest
from archives import products, write_archive

import sarzarr as sz
from sarzarr.errors import InvalidInputError, RasterNotFoundError
from sarzarr.ingestion.archives.npy import product_of, read_archive
from sarzarr.ingestion.archives.rows import quadrant_hashes

STEM = "s1a-iw-grd-{}-20200101t050000-20200101t050025-030600-038190-00{}"


@pytest.fixture
def archive(tmp_path):
    return write_archive(
        tmp_path / "patches", products("a_vv", "b_vv", "c_vv", count=4, size=32), size=32, stride=16
    )


def test_an_index_of_another_machine_names_files_beside_it(archive):
    found = read_archive(archive)
    assert [file.path for file in found.files] == sorted(archive.parent.glob("*_patches.npy"))
    assert found.counts == (4, 4, 4)
    assert (found.vmin, found.vmax, found.stride, found.min_valid) == (14.77, 24.54, 16, 0.9)
    assert sz.verify_patch_files(archive) == []
    posix = write_archive(archive.parent, products("a_vv", count=4, size=32), size=32, prefix="/home/x/y/")
    assert [file.path.name for file in read_archive(posix).files] == ["a_vv_patches.npy"]


def test_each_file_that_is_not_as_listed_is_told_with_its_reason(archive, tmp_path):
    folder = archive.parent
    good = np.load(folder / "a_vv_patches.npy")
    wrong = {
        "cut": "it was cut", "more": "more follows", "count": "Expected 4 patches, got 3", "dtype": "float64",
        "shape": r"16 x 16", "objects": "objects", "columns": "Fortran", "text": "a .npy file", "missing": "no such",
        "link": "leads out",
    }  # fmt: skip
    write_archive(folder, {**dict.fromkeys(wrong, good), "good": good}, size=32, prefix="D:\\x\\")

    def place(name):
        return folder / f"{name}_patches.npy"

    place("cut").write_bytes(place("cut").read_bytes()[:-1])
    place("more").write_bytes(place("more").read_bytes() + b"\0")
    np.save(place("count"), good[:3])
    np.save(place("dtype"), good.astype(np.float64))
    np.save(place("shape"), good[:, :16, :16])
    np.save(place("objects"), good.astype(object))
    np.save(place("columns"), np.asfortranarray(good))
    place("text").write_text("no array")
    place("missing").unlink()
    outside = tmp_path / "elsewhere.npy"
    place("link").rename(outside)
    place("link").symlink_to(outside)
    found = dict(sz.verify_patch_files(archive))
    assert sorted(found) == sorted(f"D:\\x\\{name}_patches.npy" for name in wrong)
    for name, why in wrong.items():
        with pytest.raises(AssertionError, match=why):
            raise AssertionError(found[f"D:\\x\\{name}_patches.npy"])
    with pytest.raises(InvalidInputError, match=r"_patches\.npy'"):
        read_archive(archive)


def test_verification_reads_headers_alone(tmp_path):
    """A file of a terabyte, which takes no room on the disk, is as good as listed."""
    folder = tmp_path / "large"
    archive = write_archive(folder, {"a": np.zeros((1, 256, 256), np.float32)})
    count = 1 << 22
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, 256, 256)}
    with (folder / "a_patches.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        stream.truncate(stream.tell() + count * 256 * 256 * 4)
    facts = {"vmin": 0.0, "vmax": 1.0, "patch_size": 256, "stride": 128, "min_valid": 0.9}
    np.save(archive, {**facts, "file_index": [("a_patches.npy", count)]})
    assert sz.verify_patch_files(archive) == []


@pytest.mark.parametrize("path", ["..", "/", "a/..", "x\\..", "", "a\0.npy"])
def test_a_path_that_names_no_file_is_an_error(archive, path):
    facts = np.load(archive, allow_pickle=True).item()
    np.save(archive, {**facts, "file_index": [(path, 4)]})
    ((listed, why),) = sz.verify_patch_files(archive)
    assert listed == path
    assert "the path of a file" in why
    with pytest.raises(InvalidInputError, match="the path of a file"):
        read_archive(archive)


def test_two_files_of_one_name_are_an_error(archive):
    facts = np.load(archive, allow_pickle=True).item()
    np.save(archive, {**facts, "file_index": [("x/a_vv_patches.npy", 4), ("y\\a_vv_patches.npy", 4)]})
    assert [listed for listed, _ in sz.verify_patch_files(archive)] == [
        "x/a_vv_patches.npy",
        "y\\a_vv_patches.npy",
    ]
    with pytest.raises(InvalidInputError, match=r"got 2 of 'a_vv_patches\.npy'"):
        read_archive(archive)


def test_metadata_that_says_too_little_is_refused(archive, tmp_path):
    facts = np.load(archive, allow_pickle=True).item()
    for key in ("file_index", "vmin", "vmax", "patch_size", "stride", "min_valid"):
        np.save(archive, {k: v for k, v in facts.items() if k != key})
        with pytest.raises(InvalidInputError, match=f"{key}.* was expected in 'metadata.npy'"):
            read_archive(archive)
    for index in ([], [("a", -1)], [(1, 2)], "ab", [("a", 1, 2)]):
        np.save(archive, {**facts, "file_index": index})
        with pytest.raises(InvalidInputError, match="file_index"):
            sz.verify_patch_files(archive)
    with pytest.raises(RasterNotFoundError, match="nothing at"):
        sz.verify_patch_files(tmp_path / "none" / "metadata.npy")


def test_images_without_patches_are_left_out(tmp_path):
    patches = products("a_vv", count=4, size=32)
    archive = write_archive(tmp_path, {**patches, "b_vv": np.array([])}, size=32)
    assert sz.verify_patch_files(archive) == []
    assert read_archive(archive).counts == (4,)


def test_polarizations_of_a_product_share_its_name():
    assert product_of(STEM.format("vv", 1) + "_patches") == product_of(STEM.format("vh", 2) + "_patches")
    assert product_of(STEM.format("vv", 1)) != product_of(STEM.format("vv", 1).replace("030600", "030601"))
    assert product_of("lake_VV_patches") == product_of("lake_VH_patches") == "lake"


def test_neighbours_share_the_hash_of_a_quarter():
    image = np.random.default_rng(0).random((96, 96), np.float32)
    middle = set(quadrant_hashes(image[32:64, 32:64]))
    assert len(middle) == 4
    for down in (-16, 0, 16):
        for right in (-16, 0, 16):
            patch = image[32 + down : 64 + down, 32 + right : 64 + right]
            assert len(middle & set(quadrant_hashes(patch))) == (2 - (down != 0)) * (2 - (right != 0))
    assert not middle & set(quadrant_hashes(image[64:, 64:]))
    assert quadrant_hashes(np.zeros((4, 4), np.float32)) == (0, 0, 0, 0)
    swapped = image.astype(">f4")
    assert quadrant_hashes(swapped) == quadrant_hashes(image)
