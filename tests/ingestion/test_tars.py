"""A chip from a tar archive is the chip from a folder and from a ZIP archive; a hostile archive is refused whole."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from rasterio.transform import from_origin
from tiffs import speckle, write

import sarzarr as sz
from sarzarr import zips
from sarzarr.errors import UnsupportedRasterError

FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def chips(folder, count=3, size=(40, 48)):
    for i in range(count):
        place = {"transform": from_origin(500000 + 500 * i, 5000000, 10, 10)}
        db = 10 * np.log10(speckle((2, *size), seed=i))
        write(folder / f"chip_{i}.tif", db.astype("f4"), names=("VV", "VH"), **place)
        classes = np.random.default_rng(i).integers(-1, 2, size).astype("i2")
        write(folder / "masks" / f"chip_{i}_mask.tif", classes, nodata=-1, **place)
    return folder


def tarred(path, folder, form="pax", mode="w"):
    with tarfile.open(path, mode, format=FORMATS[form]) as out:
        out.add(folder, "./" + folder.name)
    return path


@pytest.mark.parametrize(
    "form", ["pax", *(pytest.param(form, marks=pytest.mark.slow) for form in ("gnu", "ustar"))]
)
def test_a_chip_from_a_tar_is_that_from_a_folder_and_from_a_zip(tmp_path, form):
    folder = chips(tmp_path / "in" / "floods")
    tar = tarred(tmp_path / "floods.tar", folder, form)
    with zipfile.ZipFile(tmp_path / "floods.zip", "w") as packed:
        for file in sorted(folder.rglob("*.tif")):
            packed.write(file, f"floods/{file.relative_to(folder)}")
    options = {"collection": "floods", "layers": {"mask": "_mask"}}
    made = []
    for given in (folder, tar, tmp_path / "floods.zip"):
        store = sz.ingest(sz.plan_ingest(given, tmp_path / f"{given.name}.zarr", **options))
        made.append(sz.open_collection(store, "floods"))
        plan = sz.plan_ingest(given, tmp_path / f"{given.name}.zarr", **options)
        assert (plan.collections[0].present, len(plan.collections[0].chips)) == (3, 0)
    plain = made[0]
    for other in made[1:]:
        assert other.ids == plain.ids
        for name in ("sha", "transform", "valid_vv", "layers", "bytes", "bytes_mask"):
            assert np.array_equal(other.table[name], plain.table[name]), name
        for array in plain.contents.stored:
            for i in range(3):
                np.testing.assert_array_equal(other.stored(i, array), plain.stored(i, array))
    assert np.array_equal(made[1].table["source_hash"], plain.table["source_hash"])
    assert np.array_equal(made[1].table["hash_mask"], plain.table["hash_mask"])
    assert [*made[1].table["source"].values[:1]] == [
        "floods.tar/floods/chip_0.tif\nmask\tfloods.tar/floods/masks/chip_0_mask.tif"
    ]


def test_a_scene_in_a_tar_is_ingested_as_from_its_folder(tmp_path):
    db = (10 * np.log10(speckle((2, 300, 280)))).astype("f4")
    file = write(tmp_path / "s" / "x_sigma0_db.tif", db, names=("VV", "VH"))
    tar = tarred(tmp_path / "s.tar", tmp_path / "s")
    plain, packed = (
        sz.ingest(sz.plan_ingest(given, tmp_path / f"{i}.zarr")) for i, given in enumerate((file, tar))
    )
    assert plain.scenes == packed.scenes
    for array in ("vv", "vh"):
        one, other = (store.pixels(store.scenes[0], array) for store in (plain, packed))
        window = (slice(0, 300), slice(0, 280))
        np.testing.assert_array_equal(one.read(window), other.read(window))
    before = tmp_path / "1.zarr"
    assert sz.plan_ingest(tar, before).present == plain.scenes


def test_a_compressed_tar_is_refused_with_a_remedy(tmp_path):
    tar = tarred(tmp_path / "floods.tar.gz", chips(tmp_path / "floods"), mode="w:gz")
    for options in ({"collection": "floods"}, {"scenes": True}, {}):
        with pytest.raises(UnsupportedRasterError, match=r"floods\.tar\.gz.*compressed as a whole.*as ZIP"):
            sz.plan_ingest(tar, tmp_path / "s.zarr", **options)


def hostile(path, kind, tiff):
    """Write a tar archive that a stranger might send; nothing in it does harm."""
    form = tarfile.GNU_FORMAT if kind == "sparse" else tarfile.PAX_FORMAT
    with tarfile.open(path, "w", format=form) as out:

        def add(name, type_=tarfile.REGTYPE, data=b"", **facts):
            info = tarfile.TarInfo(name)
            info.type, info.size = type_, len(data)
            for key, value in facts.items():
                setattr(info, key, value)
            out.addfile(info, io.BytesIO(data))

        add("a/x_sigma0_vv.tif", data=tiff)
        if kind == "climbs":
            add("a/../../y.tif", data=tiff)
        elif kind == "absolute":
            add("/tmp/y.tif", data=tiff)
        elif kind == "backslash":
            add("..\\y.tif", data=tiff)
        elif kind == "twice":
            add("a/x_sigma0_vv.tif", data=tiff)
        elif kind == "symlink":
            add("y.tif", tarfile.SYMTYPE, linkname="/etc/hostname")
        elif kind == "hardlink":
            add("y.tif", tarfile.LNKTYPE, linkname="a/x_sigma0_vv.tif")
        elif kind == "device":
            add("y.tif", tarfile.CHRTYPE, devmajor=1, devminor=5)
        elif kind == "fifo":
            add("y.tif", tarfile.FIFOTYPE)
        elif kind == "sparse":
            add("y.tif", tarfile.GNUTYPE_SPARSE)
        elif kind == "pax sparse":
            add(
                "y.tif", data=tiff, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.realsize": "9999999999"}
            )
        elif kind == "pax size":
            add("y.tif", data=tiff, pax_headers={"size": "99999999999999"})
        elif kind == "negative":
            add("y.tif", data=tiff, pax_headers={"size": "-512"})
        elif kind == "long name":
            add("y.tif", data=tiff, pax_headers={"path": "y" * 2**17})
        elif kind == "unknown":
            add("y.tif", b"Z", data=tiff)
    data = bytearray(path.read_bytes())
    if kind == "cut":
        data = data[: 512 + len(tiff) // 2]
    elif kind == "flipped":
        data[120] ^= 1  # in the first header
    elif kind == "giant":
        data[124:136] = b"\x80" + (2**60).to_bytes(11, "big")
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
    elif kind == "none":
        data = bytearray(b"no archive" * 100)
    path.write_bytes(data)
    return path


KINDS = [
    "climbs", "absolute", "backslash", "twice", "symlink", "hardlink", "device", "fifo", "sparse", "pax sparse",
    "pax size", "negative", "long name", "unknown", "cut", "flipped", "giant", "none",
]  # fmt: skip


@pytest.fixture(scope="module")
def tiff(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("t") / "x.tif", speckle((2, 30, 30)), names=("VV", "VH"))
    return path.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_tar_is_refused_whole_and_named(tmp_path, kind, tiff):
    archive = hostile(tmp_path / "bad.tar", kind, tiff)
    for options in ({"collection": "x"}, {"scenes": True}):
        with pytest.raises(UnsupportedRasterError, match=r"bad\.tar"):
            sz.plan_ingest(archive, tmp_path / "s.zarr", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.tar"]


@pytest.mark.parametrize("form", FORMATS)
def test_whatever_bytes_a_tar_has_its_files_lie_within_it(tmp_path, form, tiff):
    folder = tmp_path / ("deep" * 20)
    folder.mkdir()
    (folder / "x.tif").write_bytes(tiff[:700])
    whole = tarred(tmp_path / "a.tar", folder, form).read_bytes()
    rng, kinds = np.random.default_rng(3), set()
    for number in range(300):
        data = np.frombuffer(whole, np.uint8).copy()
        data[rng.integers(0, 4000, 1 + number % 3)] = rng.integers(0, 256, 1 + number % 3)
        if number % 2:  # sums that hold, so that more than these are looked at
            for at in range(0, 4096, 512):
                field = f"{int(data[at : at + 148].sum()) + 256 + int(data[at + 156 : at + 512].sum()):06o}"
                data[at + 148 : at + 156] = np.frombuffer(field.encode()[-6:] + b"\0 ", np.uint8)
        path = tmp_path / f"{number}.tar"
        path.write_bytes(data.tobytes()[: len(whole) - int(rng.integers(0, 2)) * int(rng.integers(0, 9000))])
        try:
            found = zips.members(path)
        except UnsupportedRasterError as error:
            kinds.add(f"{path.name} refused" if path.name not in str(error) else "refused")
            continue
        kinds.add("taken")
        size = path.stat().st_size
        assert all(0 <= one.offset <= one.offset + one.file_size <= size for one in found.values())
    assert kinds == {"refused", "taken"}


def test_a_friendly_tar_of_the_same_make_is_taken(tmp_path, tiff):
    archive = hostile(tmp_path / "good.tar", "nothing", tiff)
    plan = sz.plan_ingest(archive, tmp_path / "s.zarr", collection="x", quantity="sigma0")
    assert plan.collections[0].chips.ids == ("x_sigma0",)


def test_a_tar_is_listed_once_and_its_files_are_opened_where_they_lie(tmp_path, monkeypatch):
    tar = tarred(tmp_path / "many.tar", chips(tmp_path / "many", count=5, size=(12, 12)))
    calls = []
    listing = zips._tar_members
    monkeypatch.setattr(zips, "_tar_members", lambda *given: calls.append(1) or listing(*given))
    made = sz.ingest(sz.plan_ingest(tar, tmp_path / "s.zarr", collection="many", layers={"mask": "_mask"}))
    assert len(sz.open_collection(made, "many")) == 5
    assert len(calls) == 1
    info = zips.members(tar)["many/chip_3.tif"]
    assert zips.gdal_name(tar / "many/chip_3.tif") == f"/vsisubfile/{info.offset}_{info.file_size},{tar}"
    with zips.open_file(tar / "many/chip_3.tif") as file:
        assert file.read() == (tmp_path / "many" / "chip_3.tif").read_bytes()
        file.seek(-4, 2)
        assert (len(file.read(99)), file.read(1)) == (4, b"")
