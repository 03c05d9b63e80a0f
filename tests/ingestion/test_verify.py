"""A store is held against itself: every damage is found and named, and what has a source is repaired to the byte."""

import json
import shutil

import numpy as np
import pytest
import zarr
from chip_folders import chip_folder
from conftest import TRIALS, speckle, write_band
from damages import SOURCES, contents, damage, east, files_of, make_store, restore
from memory_place import MemoryPlace
from safes import Safe, write_safe

import sarzarr as sz
from sarzarr.errors import (
    NotInStoreError,
    RasterNotFoundError,
    StoreChangedError,
    StoreNotFoundError,
)
from sarzarr.store.catalog import write_histogram
from sarzarr.store.copies import consolidate
from sarzarr.store.documents import read_node, update_node
from sarzarr.store.tables import read_table, write_table

WHOLE = ("scenes", "histograms", "patches", "catalog", "samples", "boxes/chips", "splits", "overviews")
QUICK, SLOW = range(40), [range(first, first + 10) for first in range(40, 560, 10)]
MANY = SLOW[:: max(1, round(26 / TRIALS))]
"""Some of 520 damages; all of them with ``SARZARR_TRIALS=26``."""
FOUND_ONLY = "boxes/default", "classes/source"
"""The parts of the store that nothing else in it, and no source that `repair` takes, tells."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a store of all kinds, its sources, and the store's bytes."""
    folder = tmp_path_factory.mktemp("made")
    store = make_store(folder)
    return folder, store, contents(store)


@pytest.fixture
def root(made):
    """The store, which is as it was made again after the test."""
    _, store, wanted = made
    yield store
    restore(store, wanted)


@pytest.fixture
def sources(made):
    return [made[0] / name for name in SOURCES]


def names(result):
    return [finding.file for finding in result.findings]


def is_named(key, result):
    """Whether a finding is of a file, of a folder that it is in, or of something in that folder."""
    return any(key == f or key.startswith(f"{f}/") or f.startswith(f"{key}/") for f in names(result))


# ------------------------------------------------------------------ nothing is wrong
def test_an_undamaged_store_has_no_finding(root):
    done = []
    result = sz.verify(root, progress=done.append)
    assert result
    assert not result.findings
    assert "nothing is wrong" in str(result)
    sizes = [p.stat().st_size for key in files_of(root) if "/c/" in key for p in [root / key]]
    assert 0.8 * sum(sizes) < result.size <= sum(sizes)
    assert [p.done for p in done] == sorted(p.done for p in done)
    assert done[-1].done == done[-1].total == result.size
    assert sz.verify(root, deep=True).findings == ()
    assert sz.verify(MemoryPlace.of(root)).findings == ()


@pytest.mark.slow
def test_nor_after_all_that_changes_a_store(tmp_path):
    files = [
        write_band(tmp_path / f"{name}_vv.tif", speckle((520, 530), seed=i), transform=east(90_000 * i))
        for i, name in enumerate("abd")
    ]
    store = tmp_path / "s.zarr"

    def ingest(some, **options):
        sz.ingest(sz.plan_ingest(some, store, representation="power", **options))

    def check():
        assert sz.verify(store, deep=True).findings == ()

    ingest(files[:1], bounds="fixed")
    check()
    ingest(files[1:])
    check()
    sz.set_clip(store := sz.open_store(store), method="fixed", vmin=-20, vmax=2)
    store = store.root
    check()
    sz.index_patches(store, size=100, stride=50, edge="shift", name="other")
    sz.make_split(store, by="scene", val_fraction=0.4)
    check()
    sz.remove_scene(store, "a")
    check()
    ingest(files[:1], border=2)
    sz.extend_split(store)
    check()
    plan = sz.plan_ingest(cut := write_band(tmp_path / "cut_vv.tif", speckle((520, 530)), tiles=256), store)
    cut.write_bytes(cut.read_bytes()[:300_000])
    with pytest.raises(sz.errors.IngestError):
        sz.ingest(plan)
    check()  # what waits beside the store is none of its affairs
    zarr.open_group(store / "scenes" / "b", mode="r+").attrs["mine"] = {"of": 1}
    zarr.open_array(store / "scenes" / "b" / "vv", mode="r+").attrs["mine"] = 2
    zarr.create_group(store / "theirs")
    check()
    copy = sz.copy_store(store, tmp_path / "copy.zarr", dtype="float32", shard=256).root
    assert sz.verify(copy, deep=True).findings == ()
    bare = sz.copy_store(store, tmp_path / "bare.zarr", shard=0).root
    assert sz.verify(bare, deep=True).findings == ()


def test_of_what_is_no_store_the_reason_is_raised(tmp_path, root):
    with pytest.raises(StoreNotFoundError, match="a sarzarr store was expected"):
        sz.verify(tmp_path)
    with pytest.raises(NotInStoreError, match=r"scenes of s\.zarr were expected, got nowhere"):
        sz.verify(root, scenes=["nowhere"])
    with pytest.raises(RasterNotFoundError, match="a file or a folder of sources"):
        sz.repair(root, tmp_path / "nowhere")


# ------------------------------------------------------------------ what is wrong is found
def check_found(root, wanted, seed):
    kind, keys = damage(root, seed)
    result = sz.verify(root)
    assert all(is_named(key, result) for key in keys), (kind, keys, result)
    assert len(names(result)) <= 40
    restore(root, wanted)


@pytest.mark.parametrize("seed", QUICK)
def test_every_damage_is_found_and_named(made, root, seed):
    check_found(root, made[2], seed)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", MANY, ids=str)
def test_many_damages_are_found_and_named(made, root, seeds):
    for seed in seeds:
        check_found(root, made[2], seed)


def test_scenes_limit_whose_pixels_are_read(root):
    for name in ("b", "d"):
        shard = next((root / "scenes" / name / "vv").rglob("c/0/0"))
        shard.write_bytes(shard.read_bytes()[:-9] + b"123456789")
    assert {name.split("/")[1] for name in names(sz.verify(root))} == {"b", "d"}
    assert {name.split("/")[1] for name in names(sz.verify(root, scenes=["d", "a"]))} == {"d"}
    assert sz.verify(root, scenes=["a"]).size < sz.verify(root, scenes=["a", "e"]).size


def test_deep_counts_again_what_agrees_with_itself(made, root, sources):
    store = sz.open_store(root)
    histogram = store.histogram("b", "vv")
    write_histogram(store.place, "histograms/b/vv", type(histogram)(counts=np.roll(histogram.counts, 2)))
    table = read_table(store.place, "patches/small")
    table["mean_db"] = table["mean_db"] + 1
    write_table(store.place, "patches/small", table)
    flags = read_table(store.place, "patches/default")
    flags["valid_fraction"] = flags["valid_fraction"] * 0.5
    write_table(store.place, "patches/default", flags)
    consolidate(store)
    assert sz.verify(root).findings == ()
    assert names(sz.verify(root, deep=True)) == [
        "histograms/b/vv",
        "patches/default",
        "patches/small",
    ]
    assert sz.repair(root, sources, deep=True).findings == ()
    assert contents(root) == made[2]


def sealed_otherwise(store, node, **attributes):
    update_node(store.place, node, attributes)


@pytest.mark.parametrize(
    ("change", "file"),
    [
        (lambda s: sealed_otherwise(s, "scenes/a/vv", clip_vmin=-50.0), "scenes/a/vv/zarr.json"),
        (lambda s: sealed_otherwise(s, "scenes/a/vv", quantity="beta0"), "catalog/quantity"),
        (lambda s: sealed_otherwise(s, "scenes/b", source_hash="sha256:0"), "catalog/source_hash"),
        (lambda s: sealed_otherwise(s, "", vmin=-50.0), "zarr.json"),
        (lambda s: sealed_otherwise(s, "boxes/default", on="samples/chips"), "boxes/default"),
        (lambda s: sealed_otherwise(s, "splits", last_version=4), "splits/v4"),
        (lambda s: sealed_otherwise(s, "patches/small", stride=95), "patches/small"),
    ],
)  # fmt: skip
def test_documents_that_are_sealed_and_do_not_agree_are_found(root, change, file):
    change(sz.open_store(root))
    consolidate(sz.open_store(root))
    assert file in names(sz.verify(root))


def test_files_that_nothing_lists_are_found(root):
    (root / "scenes" / "a" / "notes.txt").write_text("mine")
    shutil.copy(
        root / "scenes" / "a" / "vv" / "c" / "0" / "0", root / "scenes" / "a" / "vv" / "c" / "0" / "7"
    )
    (root / "scenes" / "a" / "vv" / "c" / "0" / ".0.abc.partial").write_bytes(b"half")
    result = sz.verify(root)
    assert names(result) == [
        "scenes/a/notes.txt",
        "scenes/a/vv/c/0/.0.abc.partial",
        "scenes/a/vv/c/0/7",
    ]
    assert "sarzarr clean" in str(result)


def test_a_store_that_is_written_to_meanwhile_is_not_blamed(root):
    (root / "scenes" / "d" / "vv" / "c" / "0" / "0").unlink()
    store = sz.open_store(root)
    with pytest.raises(StoreChangedError, match="Run this again"):
        sz.verify(root, progress=lambda _: update_node(store.place, "catalog", {}))


# ------------------------------------------------------------------ repair
def check_repaired(root, wanted, sources, seed):
    """What is not as it was is of a part without sources, and is named; the root holds no copy of it then."""
    kind, keys = damage(root, seed)
    result, now = sz.repair(root, sources), contents(root)
    differ = {key for key in wanted.keys() | now.keys() if now.get(key) != wanted.get(key)}
    assert all(key.startswith(FOUND_ONLY) and is_named(key, result) for key in differ), (kind, keys, result)
    assert bool(differ) == bool(result.findings), (kind, keys, result)
    restore(root, wanted)


@pytest.mark.parametrize("seed", range(0, 10 * 37, 37))
def test_what_has_a_source_is_repaired_to_the_byte(made, root, sources, seed):
    check_repaired(root, made[2], sources, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", MANY, ids=str)
def test_many_damages_are_repaired_to_the_byte(made, root, sources, seeds):
    for seed in seeds:
        check_repaired(root, made[2], sources, seed)


@pytest.mark.parametrize("part", [*WHOLE, "scenes/a", "scenes/d/vv_flags", "samples/chips/image/c/0/0/0"])
def test_folders_and_files_are_repaired_to_the_byte(made, root, sources, part):
    shutil.rmtree(root / part) if (root / part).is_dir() else (root / part).write_bytes(b"short")
    assert names(sz.verify(root)) == [part]
    result = sz.repair(root, sources)
    assert result.findings == ()
    assert result.mended == (part,)
    assert contents(root) == made[2]


def test_the_roots_document_is_made_of_those_of_arrays(made, root):
    for damaged in (b"{", b"", made[2]["zarr.json"].replace(b'"clip_vmin": -', b'"clip_vmin": 0', 1)):
        (root / "zarr.json").write_bytes(damaged)
        assert sz.repair(root).findings == ()
        assert contents(root) == made[2]
    (root / "zarr.json").unlink()
    assert sz.repair(root).findings == ()
    assert contents(root) == made[2]


def test_without_sources_it_is_said_which_files_are_asked_for(made, root, tmp_path):
    (root / "scenes" / "b" / "vv" / "c" / "0" / "0").unlink()
    (root / "scenes" / "d" / "zarr.json").unlink()
    result = sz.repair(root)
    assert names(result) == ["scenes/b/vv/c/0/0"]
    assert result.mended == ("scenes/d/zarr.json",)
    assert "b_vv.tif were expected among the files given with --from" in result.left[0]
    write_band(tmp_path / "b_vv.tif", speckle((513, 600), seed=9))
    assert "got others of these names" in sz.repair(root, tmp_path).left[0]


def test_intact_files_are_not_written(root, sources):
    (root / "scenes" / "a" / "vv" / "c" / "0" / "0").unlink()
    before = {key: (root / key).stat().st_mtime_ns for key in files_of(root)}
    assert sz.repair(root, sources).mended == ("scenes/a/vv/c/0/0",)
    after = {key: (root / key).stat().st_mtime_ns for key in files_of(root)}
    assert {key for key, when in after.items() if before.get(key) != when} <= {
        "scenes/a/vv/c/0/0",
        "zarr.json",
    }


def test_what_is_lost_is_still_known_after_a_repair(root, sources):
    shutil.rmtree(root / "boxes" / "default")
    (root / "scenes" / "d" / "vv" / "manifest.json").unlink()
    for _ in range(2):
        result = sz.repair(root, sources)
        assert names(result) == ["boxes/default"]
        assert "sarzarr import boxes FILE" in str(result)


def test_of_splits_and_samples_only_the_same_is_taken(root, made, tmp_path):
    write_band(tmp_path / "more_vv.tif", speckle((520, 600), seed=8), transform=east(900_000))
    sz.ingest(sz.plan_ingest(tmp_path / "more_vv.tif", root, representation="power", quantity="sigma0"))
    chip_folder(tmp_path / "others", count=3, seed=5)
    for lost in ("splits/v1/code", "samples/chips/image/c"):
        shutil.rmtree(root / lost)
    result = sz.repair(root, tmp_path / "others")
    assert names(result) == ["samples/chips/image/c", "splits/v1/code"]
    assert "splits/v1: what can be made again is not what was there" in result.left[0]
    shutil.rmtree(root)
    root.mkdir()


SAID = [
    {"bounds": "percentile"},
    {"crs": "EPSG:32632", "pixel_size": 15},
    {"crs": "EPSG:32632", "pixel_size": 25, "exact": True, "resampling": "bilinear"},
    {"nodata": 0.0},
    {"representation": "amplitude"},
    {"quantity": "gamma0", "full_hash": True},
    {"polarizations": ["hh"]},
    {"border": 7, "shard": 0},
    {"id": "other", "codec": "zstd"},
]


@pytest.mark.parametrize("options", SAID)
def test_scenes_are_planned_as_they_were_asked_for(tmp_path, options):
    pixels = speckle((640, 700), seed=1)
    pixels[:50, :60] = 0
    path = write_band(tmp_path / "raw_vv.tif", pixels, tiles=128)
    asked = {"representation": "power", "quantity": "sigma0", "shard": 512} | options
    root = sz.ingest(sz.plan_ingest([path], tmp_path / "s.zarr", **asked)).root
    wanted = contents(root)
    for lost in ("scenes", "histograms"):
        shutil.rmtree(root / lost)
    result = sz.repair(root, path)
    assert (result.findings, result.left) == ((), ())
    assert contents(root) == wanted


def test_of_products_calibration_noise_and_annotation_are_as_they_were(tmp_path):
    product = write_safe(tmp_path / "raw", Safe())
    fields = ("incidence_angle", "nesz")
    root = sz.ingest(sz.plan_ingest(product, tmp_path / "s.zarr", denoise=True, annotation=fields)).root
    wanted = contents(root)
    shutil.rmtree(root / "scenes")
    assert sz.repair(root, product).findings == ()
    assert contents(root) == wanted


@pytest.mark.slow
def test_a_copy_is_repaired_from_the_same_files(root, sources, tmp_path):
    copy = sz.copy_store(root, tmp_path / "copy.zarr", codec="zstd", shard=256).root
    wanted = contents(copy)
    shutil.rmtree(copy / "scenes" / "a")
    assert sz.repair(copy, sources).findings == ()
    assert contents(copy) == wanted
    shutil.rmtree(copy)
    copy = sz.copy_store(root, copy, dtype="float32").root  # of codes: no file gives these floats
    shutil.rmtree(copy / "scenes" / "a" / "vv" / "c")
    result = sz.repair(copy, sources)
    assert names(result) == ["scenes/a/vv/c"]
    assert "its sources give other pixels" in result.left[0]


# ------------------------------------------------------------------ what was changed on purpose
def test_documents_that_were_changed_on_purpose_are_sealed(root):
    path = root / "scenes" / "a" / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["datetime"] = "2020-01-01T00:00:00Z"
    document["attributes"]["geolocation"] = "none"
    path.write_text(json.dumps(document, indent=1))
    assert names(sz.verify(root)) == ["scenes/a/zarr.json"]
    result = sz.accept_changes(root)
    assert result.mended == ("scenes/a/zarr.json",)
    assert names(result) == ["catalog/geolocation", "catalog/time"]
    assert sz.repair(root).findings == ()
    assert sz.open_store(root).rows("a")["time"].values.tolist() == ["2020-01-01T00:00:00Z"] * 2
    about = read_node(sz.open_store(root).place, "scenes/a")["attributes"]
    assert (about["datetime"], about["geolocation"]) == ("2020-01-01T00:00:00Z", "none")
    assert sz.accept_changes(root).mended == ()


def test_a_clip_that_was_changed_on_purpose_is_taken_over(root):
    path = root / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["bounds"]["vv/sigma0"]["clip_vmin"] = -33.0
    path.write_text(json.dumps(document))
    assert sz.accept_changes(root).mended == ("zarr.json",)
    assert sz.repair(root).findings == ()
    store = sz.open_store(root)
    assert store.bounds["vv/sigma0"].clip_vmin == store.node_attrs("a", "vv")["clip_vmin"] == -33.0
    assert sz.verify(root, deep=True).findings == ()


def test_pixels_are_never_accepted(root):
    shard = root / "scenes" / "b" / "vv" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[::-1])
    result = sz.accept_changes(root)
    assert (result.mended, names(result)) == ((), ["scenes/b/vv/c/0/0"])


def test_a_document_without_a_seal_where_one_was_is_damage(root):
    place = sz.open_store(root).place
    document = json.loads(place.get("scenes/a/vv/zarr.json"))
    del document["attributes"]["sarzarr_seal"]
    (root / "scenes" / "a" / "vv" / "zarr.json").write_text(json.dumps(document))
    assert names(sz.verify(root)) == ["scenes/a/vv/zarr.json"]


def test_the_result_says_itself_as_json(root):
    (root / "scenes" / "b" / "vv" / "c" / "0" / "0").unlink()
    document = sz.verify(root).document()
    (finding,) = json.loads(json.dumps(document))["findings"]
    assert finding["file"] == "scenes/b/vv/c/0/0"
    assert "--repair b --from FILES" in finding["remedy"]
