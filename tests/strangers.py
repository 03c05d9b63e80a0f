"""Stores that a stranger made: one edit each, with every reader of each in one forked child with little memory."""

import base64
import json
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from chip_folders import chip_folder
from conftest import speckle
from crc32c import crc32c
from limited import forked, import_what_it_imports
from numcodecs import zstd
from tiffs import write

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.cli.output import summary
from sarzarr.errors import SarzarrError, exit_code
from sarzarr.store.boxes import read_boxes
from sarzarr.store.codecs import get_codec
from sarzarr.store.documents import read_json, read_node, write_json, write_node, write_small_array
from sarzarr.store.limits import MAX_DOCUMENT, MAX_ROOT
from sarzarr.store.place import Folder
from sarzarr.store.seals import crc_of
from sarzarr.store.split_table import read_split
from sarzarr.store.tables import read_table, write_table

MEMORY = 768 * 2**20
"""Bytes that a reader of a store of less than a megabyte may take."""
ARRAY = "scenes/a/vv"
EDITS = {}


def edit(function):
    """Register an edit, by its name, of a copy of a store."""
    EDITS[function.__name__] = function
    return function


def make_store(folder):
    """Return the folder of a store that has everything: two arrays, a layer, boxes, a split, an index and chips."""
    files = [
        write(folder / f"a_sigma0_{p}.tif", speckle((1, 600, 560), seed=i))
        for i, p in enumerate(("vv", "vh"))
    ]
    mask = write(folder / "mask.tif", (speckle((1, 600, 560)) > 0.05).astype("uint8"))
    store = folder / "s.zarr"
    said = {"representation": "power", "quantity": "sigma0", "id": "a", "layers": {"mask": mask}}
    sz.ingest(sz.plan_ingest(files, store, **said))
    boxes = "scene,x_min,y_min,x_max,y_max\n" + "".join(
        f"a,{i},{i},{i + 20},{i + 30}\n" for i in range(0, 400, 50)
    )
    (folder / "boxes.csv").write_text(boxes)
    sz.import_boxes(sz.open_store(store), folder / "boxes.csv")
    other = write(folder / "b_sigma0_vv.tif", speckle((1, 300, 300), seed=9), crs="EPSG:32635")
    sz.ingest(sz.plan_ingest([other], store, **(said | {"id": "b", "layers": {}})))
    sz.make_split(store, by="scene", val_fraction=0.5, seed=43)
    chip_folder(folder / "chips", count=3)
    sz.import_chips(folder / "chips", store)
    return store


# ------------------------------------------------------------------ how a stranger writes
def document(root, key, change):
    """Change a JSON document, and seal it: a stranger can compute every checksum."""
    place = Folder(root)
    if key.endswith("zarr.json"):
        node = key.removesuffix("zarr.json").rstrip("/")
        told = read_node(place, node)
        change(told)
        write_node(place, node, told)
    else:
        told = read_json(place, key)
        del told["crc32c"]
        change(told)
        write_json(place, key, told | {"crc32c": crc_of(told, told["array"])})


def chunk(root, key, name, data):
    """Put other bytes in the place of a column of a table, and their checksum in all documents."""
    (root / key / name / "c/0").write_bytes(data)
    crc = int.from_bytes(data[-4:], "little")
    document(root, f"{key}/{name}/zarr.json", lambda told: told["attributes"].update({cv.CHUNK_CRC: crc}))

    def take(told):
        told["attributes"][cv.CHUNK_CRC][told["attributes"]["columns"].index(name)] = crc

    document(root, f"{key}/zarr.json", take)


def column(root, key, name, values, dims):
    """Put other values in the place of a column of a table."""
    crc = write_small_array(Folder(root), f"{key}/{name}", values, dims)

    def take(told):
        told["attributes"][cv.CHUNK_CRC][told["attributes"]["columns"].index(name)] = crc

    document(root, f"{key}/zarr.json", take)


def framed(encoded):
    """Return bytes as a chunk, zstd and its checksum."""
    payload, crc = get_codec("zstd").encode(np.frombuffer(encoded, np.uint8))
    return bytes(payload) + crc


def table(root, key, **columns):
    """Change columns of a table: each is a function of its values."""
    told = read_table(Folder(root), key)
    new = {
        name: (told[name].dims, np.asarray(make(told[name].values.copy()))) for name, make in columns.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_table(Folder(root), key, told.assign(new))


def first(value):
    """Return a function that gives the first of some values another value."""

    def put(values):
        values = values.astype(np.result_type(values, np.int64)) if isinstance(value, int) else values
        values[0] = value
        return values

    return put


def array(root, key, **changes):
    document(root, f"{key}/zarr.json", lambda told: told.update(changes))


def grid(*sizes):
    return {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(sizes)}}}


# ------------------------------------------------------------------ documents
@edit
def a_root_of_a_gigabyte(root):
    os.truncate(root / "zarr.json", MAX_ROOT + 1)


@edit
def a_document_of_gigabytes(root):
    os.truncate(root / ARRAY / "zarr.json", 2**35)


@edit
def a_scene_of_megabytes_of_attributes(root):
    os.truncate(root / "scenes/a/zarr.json", MAX_DOCUMENT + 1)


@edit
def a_manifest_of_gigabytes(root):
    os.truncate(root / ARRAY / "manifest.json", 2**35)


@edit
def a_root_of_a_million_levels(root):
    (root / "zarr.json").write_text("[" * 10**6)


@edit
def a_root_that_is_a_list(root):
    (root / "zarr.json").write_text("[]")


@edit
def attributes_that_are_a_list(root):
    write_json(Folder(root), "scenes/a/zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": []})


@edit
def attributes_of_the_root_that_are_a_number(root):
    write_json(Folder(root), "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": 7})


@edit
def bounds_without_numbers(root):
    document(root, "zarr.json", _bounds_gone)


def _bounds_gone(told):
    for value in told["attributes"].values():
        if isinstance(value, dict) and "vv/sigma0" in value:
            value["vv/sigma0"] = {"vmin": "x"}


# ------------------------------------------------------------------ tables
@edit
def a_column_of_exabytes(root):
    array(root, "catalog/height", shape=[2**60], **grid(2**60))


@edit
def a_column_whose_frame_says_exabytes(root):
    payload = bytearray(zstd.compress(b"x" * 1000, 1))
    payload[4] |= 0xC0  # the size takes 8 bytes
    payload[5:13] = (2**50).to_bytes(8, "little")
    data = bytes(payload) + crc32c(bytes(payload)).to_bytes(4, "little")
    array(root, "catalog/height", shape=[2**47], **grid(2**47))
    chunk(root, "catalog", "height", data)


@edit
def a_column_of_texts_whose_frame_says_exabytes(root):
    payload = bytearray(zstd.compress(b"x" * 1000, 1))
    payload[4] |= 0xC0
    payload[5:13] = (2**50).to_bytes(8, "little")
    chunk(root, "catalog", "scene", bytes(payload) + crc32c(bytes(payload)).to_bytes(4, "little"))


@edit
def a_column_of_four_billion_texts(root):
    count = (2**32 - 1).to_bytes(4, "little")
    chunk(root, "catalog", "scene", framed(count + bytes(40)))


@edit
def texts_that_are_no_utf8(root):
    chunk(
        root,
        "catalog",
        "scene",
        framed((3).to_bytes(4, "little") + 3 * ((2).to_bytes(4, "little") + b"\xff\xfe")),
    )


@edit
def an_empty_column_of_exabytes(root):
    empty = ["height float64 array=1152921504606846976"]
    document(root, "catalog/zarr.json", lambda told: told["attributes"].update(empty_columns=empty))


@edit
def columns_that_disagree(root):
    column(root, "catalog", "height", np.arange(1, 8), ("array",))


@edit
def a_catalog_without_a_column(root):
    def take(told):
        at = told["attributes"]["columns"].index("width")
        del told["attributes"]["columns"][at], told["attributes"][cv.CHUNK_CRC][at]

    document(root, "catalog/zarr.json", take)


@edit
def a_catalog_of_objects(root):
    array(root, "catalog/height", data_type="object")


@edit
def a_catalog_that_is_no_table(root):
    document(root, "catalog/zarr.json", lambda told: told.update(attributes={}))


@edit
def a_scene_id_that_climbs(root):
    table(root, "catalog", scene=lambda v: np.array(["../../x"] * len(v), object))


@edit
def an_array_name_that_climbs(root):
    table(root, "catalog", name=lambda v: np.array(["../b", *v[1:]], object))


@edit
def flags_elsewhere(root):
    table(root, "catalog", flags=lambda v: np.array(["/etc/passwd", *v[1:]], object))


@edit
def a_column_called_dots(root):
    def take(told):
        told["attributes"]["columns"].append("../../../x")
        told["attributes"][cv.CHUNK_CRC].append(0)

    document(root, "catalog/zarr.json", take)


@edit
def a_height_of_exabytes(root):
    table(root, "catalog", height=first(2**60))


@edit
def a_width_below_zero(root):
    table(root, "catalog", width=first(-1))


@edit
def a_chunk_of_nothing(root):
    table(root, "catalog", chunk=first(0))


@edit
def a_shard_of_exabytes(root):
    table(root, "catalog", shard=first(2**40))


@edit
def a_dtype_of_objects(root):
    table(root, "catalog", dtype=lambda v: np.array(["object", *v[1:]], object))


@edit
def a_group_without_bounds(root):
    table(root, "catalog", bounds_key=lambda v: np.array(["xx/yy", *v[1:]], object))


# ------------------------------------------------------------------ patches, splits, boxes
@edit
def patches_of_nobody(root):
    table(root, "patches/default", owner=first(99))


@edit
def patches_before_the_first_pixel(root):
    table(root, "patches/default", row=first(-500))


@edit
def patches_behind_the_last_pixel(root):
    table(root, "patches/default", col=first(2**30))


@edit
def patches_of_terabytes(root):
    document(root, "patches/default/zarr.json", lambda told: told["attributes"].update(size=2**20))


@edit
def patches_of_no_size(root):
    document(root, "patches/default/zarr.json", lambda told: told["attributes"].pop("size"))


@edit
def patches_at_fractions(root):
    table(root, "patches/default", row=lambda v: v.astype(np.float32))


@edit
def a_box_around_the_world(root):
    table(root, "boxes/default", x_max=first(np.float32(1e30)))


@edit
def a_box_that_is_no_number(root):
    table(root, "boxes/default", y_min=first(np.float32(np.nan)))


@edit
def a_box_of_nobody(root):
    table(root, "boxes/default", owner=first(50))


@edit
def a_box_of_no_class(root):
    table(root, "boxes/default", label=first(-7))


@edit
def boxes_on_another_folder(root):
    document(root, "boxes/default/zarr.json", lambda told: told["attributes"].update(on="samples/../../../x"))


@edit
def cells_of_no_side(root):
    table(root, "splits/v1", code=lambda v: np.full_like(v, 77))


@edit
def cells_below_zero(root):
    table(root, "splits/v1", owner_rows=first(-1))


@edit
def a_split_without_a_recipe(root):
    document(root, "splits/v1/zarr.json", lambda told: told["attributes"].pop("seed"))


@edit
def a_split_without_counts(root):
    document(root, "splits/v1/zarr.json", lambda told: told["attributes"].pop("counts"))


# ------------------------------------------------------------------ arrays
@edit
def a_codec_that_runs_code(root):
    codecs = [{"name": "numcodecs.pickle", "configuration": {}}]
    table(root, "catalog", codec=lambda v: np.array(["another"] * len(v), object))
    array(root, ARRAY, codecs=codecs)


@edit
def an_array_of_objects(root):
    table(root, "catalog", codec=lambda v: np.array(["another"] * len(v), object))
    array(root, ARRAY, data_type="object")


@edit
def a_chunk_of_terabytes(root):
    table(root, "catalog", codec=lambda v: np.array(["another"] * len(v), object))
    array(
        root, ARRAY, codecs=[{"name": "bytes", "configuration": {"endian": "little"}}], **grid(2**20, 2**20)
    )


@edit
def an_array_of_exabytes(root):
    array(root, ARRAY, shape=[2**60, 2**60])


@edit
def an_array_of_another_shape(root):
    array(root, ARRAY, shape=[600, 561])


@edit
def a_layer_of_exabytes(root):
    array(root, "scenes/a/mask", shape=[2**60, 2**60])


@edit
def a_layer_in_chunks_of_a_pixel(root):
    array(root, "scenes/a/mask", shape=[2**20, 2**20])
    document(root, "scenes/a/mask/zarr.json", _pixel_chunks)


def _pixel_chunks(told):
    told["codecs"][0]["configuration"]["chunk_shape"] = [1, 1]


@edit
def an_array_without_codecs(root):
    array(root, "scenes/a/mask", codecs=[])


@edit
def an_array_of_texts_as_shape(root):
    array(root, "scenes/a/mask", shape=["x", None])


@edit
def a_manifest_of_words(root):
    document(root, f"{ARRAY}/manifest.json", lambda told: told.update(files=["x", None], sizes={}))


@edit
def a_manifest_below_zero(root):
    document(root, f"{ARRAY}/manifest.json", lambda told: told.update(files=[-1, -1]))


@edit
def a_manifest_of_a_billion_files(root):
    document(root, f"{ARRAY}/manifest.json", lambda told: told.update(files=[2**15, 2**15]))


@edit
def a_manifest_whose_frame_says_terabytes(root):
    payload = bytearray(zstd.compress(b"x" * 1000, 1))
    payload[4] |= 0xC0
    payload[5:13] = (2**42).to_bytes(8, "little")
    text = base64.b64encode(bytes(payload)).decode()
    document(root, f"{ARRAY}/manifest.json", lambda told: told.update(chunks=text))


@edit
def chips_of_exabytes(root):
    array(root, "samples/chips/image", shape=[3, 2**40, 2**40])


@edit
def chips_that_are_not_there(root):
    array(root, "samples/chips/image", shape=[10**6, 768, 768])


@edit
def a_chip_larger_than_its_set(root):
    column(root, "samples/chips", "height", np.full(3, 2**31 - 1), ("sample",))


@edit
def a_histogram_of_exabytes(root):
    array(root, "histograms/a/vv", shape=[2**60], **grid(2**60))


@edit
def a_histogram_without_counts(root):
    array(root, "histograms/a/vv", attributes={})


# ------------------------------------------------------------------ links and other files
def _link(root, key):
    outside = root.parent / "outside"
    shutil.rmtree(outside, ignore_errors=True)
    outside.mkdir()
    shutil.move(root / key, outside / Path(key).name)
    (root / key).symlink_to(outside / Path(key).name)


@edit
def a_shard_that_is_a_link(root):
    _link(root, f"{ARRAY}/c/0/0")


@edit
def a_document_that_is_a_link(root):
    _link(root, f"{ARRAY}/zarr.json")


@edit
def a_folder_of_shards_that_is_a_link(root):
    _link(root, f"{ARRAY}/c")


@edit
def a_scene_that_is_a_link(root):
    _link(root, "scenes/a")


@edit
def a_catalog_that_is_a_link(root):
    _link(root, "catalog")


@edit
def coordinates_that_are_a_link(root):
    _link(root, "scenes/a/x/c/0")


@edit
def a_link_among_the_rest(root):
    (root / "notes.txt").symlink_to("/etc/hostname")


@edit
def a_document_that_is_a_pipe(root):
    (root / ARRAY / "manifest.json").unlink()
    os.mkfifo(root / ARRAY / "manifest.json")


@edit
def a_shard_that_is_a_device(root):
    (root / ARRAY / "c/0/0").unlink()
    (root / ARRAY / "c/0/0").symlink_to("/dev/zero")


# ------------------------------------------------------------------ who reads
def _info(store):
    return summary(sz.open_store(store))


def _scene(store):
    for scene in sz.open_store(store).scenes:
        sz.open_store(store).open_scene(scene).isel(x=slice(0, 300)).compute(scheduler="sync")


def _patches(store):
    every = {"min_valid": 0, "min_unsaturated": 0}
    for options in (
        every,
        {**every, "boxes": "default", "layers": ["mask"], "flags": True, "split": "train"},
    ):
        for _ in sz.PatchReader(store, batch_size=2, threads=1, **options):
            pass


def _chips(store):
    for _ in sz.SampleReader(store, samples="chips", boxes=True, batch_size=2, threads=1):
        pass
    sz.open_samples(store, "chips").image(0)


def _copy(store):
    sz.copy_store(store, f"{store}.copy", shard=512)


def _split(store):
    return read_split(Folder(Path(store))).counts


def _verify(store):
    sz.verify(store)


def _boxes(store):
    return len(read_boxes(sz.open_store(store)))


def _histograms(store):
    opened = sz.open_store(store)
    return [opened.histogram(scene, array) for scene in opened.scenes for array in opened.arrays(scene)]


READERS = {
    f.__name__[1:]: f for f in (_info, _scene, _patches, _chips, _copy, _split, _boxes, _histograms, _verify)
}


def read_all(store):
    """Return, by reader, the exit code and what was said; code 0 where it read the store."""
    warnings.simplefilter("ignore")
    said = {}
    for name, reader in READERS.items():
        try:
            reader(store)
            said[name] = 0, ""
        except SarzarrError as error:
            said[name] = int(exit_code(error)), str(error)
        except Exception as error:
            said[name] = 70, repr(error)
    return said


def main():
    """Print, by edit, what each reader said, as JSON; of the edits that are named, or of all."""
    with tempfile.TemporaryDirectory(prefix="sarzarr-strangers-") as text:
        folder = Path(text)
        good = make_store(folder)
        import_what_it_imports(read_all, good)
        shutil.rmtree(f"{good}.copy")
        found = {}
        for name in sys.argv[1:] or ("nothing", *EDITS):
            store = Path(shutil.copytree(good, folder / f"{name}.zarr"))
            if name != "nothing":
                EDITS[name](store)
            outcome = forked(read_all, store, memory=MEMORY)
            found[name] = (
                outcome.said if outcome.kind == "done" else {"all": [99, f"{outcome.kind} {outcome.said}"]}
            )
            for made in folder.glob(f"{name}.zarr*"):
                shutil.rmtree(made)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
