"""Workers that stand in another folder, see another disk, or run a task twice: the same bytes, or an error."""

import contextlib
import os
import shutil
from pathlib import Path

import dask
import numpy as np
import pytest
from chip_folders import chip_folder
from conftest import speckle, tree_hash, write_band
from elsewhere import Elsewhere, working_elsewhere
from older_store import as_schema_1, samples_as_schema_1
from safes import Safe, write_safe, zip_product

import sarzarr as sz
from sarzarr.errors import IngestError, InvalidInputError, SarzarrError, StoreChangedError
from sarzarr.export.copy_store import copy_store
from sarzarr.ingestion.chips.find import ChipOptions
from sarzarr.splits.make import make_split

KNOWN = {"quantity": "sigma0", "representation": "power"}
RASTERS = ["raw/a_vh.tif", "raw/a_vv.tif", "raw/b_vv.tif"]
LAYERS = {"cover": "raw/cover.tif", "full": "raw/full.tif"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """All that a worker may have to find: rasters, a mask beside one, layers, a product, pictures, stores."""
    root, rng = tmp_path_factory.mktemp("inputs"), np.random.default_rng(0)
    raw = root / "raw"
    raw.mkdir()
    land = speckle((600, 900), seed=5)
    land[:300, :260] = 0
    land[400:420, 500:530] = 0  # dark water
    write_band(raw / "a_vv.tif", land)
    write_band(raw / "a_vh.tif", speckle((600, 900), seed=6, mean=0.01), tiles=256)
    write_band(raw / "b_vv.tif", speckle((400, 500), seed=7), tiles=256)
    write_band(raw / "b_vv.tif.msk", np.where(rng.random((400, 500)) < 0.01, 0, 255).astype(np.uint8))
    write_band(raw / "cover.tif", rng.integers(0, 5, (600, 900)).astype(np.uint8), nodata=4)
    write_band(raw / "full.tif", rng.integers(0, 256, (600, 900)).astype(np.uint8))
    zip_product(write_safe(root / "safe", Safe()), root / "safe.zip")
    chip_folder(root / "chips")
    store = sz.ingest(
        sz.plan_ingest([root / one for one in RASTERS], root / "whole.zarr", shard=256, **KNOWN)
    )
    for seed in range(50):  # little ground: some seeds leave a side without any
        with contextlib.suppress(InvalidInputError):
            make_split(store, val_fraction=0.4, seed=seed, block="3km")
            break
    else:
        raise AssertionError("no seed gave both sides ground")
    layers = {name: root / path for name, path in LAYERS.items()}
    floats = {"dtype": "float32", "layers": layers}
    store = sz.ingest(sz.plan_ingest([root / RASTERS[1]], root / "floats.zarr", **KNOWN, **floats))
    as_schema_1(store, root / "older.zarr")
    samples, _ = sz.import_chips(root / "chips", root / "samples.zarr", options=ChipOptions(name="ships"))
    samples_as_schema_1(samples.store, root / "older_samples.zarr")
    return root


def ingest(**options):
    return lambda: sz.ingest(sz.plan_ingest(RASTERS, "s.zarr", **KNOWN, **options))


def verified(store, **options):
    assert not sz.verify(store, **options).findings


VERBS = {
    "plain": ingest(shard=256),
    "ingest": ingest(shard=256, layers=LAYERS, border=3),
    "warp": ingest(crs="EPSG:32632", pixel_size=20, layers={"cover": LAYERS["cover"]}),
    "classic": ingest(bounds="percentile"),
    "product": lambda: sz.ingest(
        sz.plan_ingest("safe.zip", "s.zarr", annotation=("incidence_angle", "nesz"), denoise=True)
    ),
    "append": lambda: sz.ingest(sz.plan_ingest("safe.zip", "whole.zarr")),
    "layers": lambda: sz.ingest(sz.plan_ingest(RASTERS, "whole.zarr", **KNOWN, layers=LAYERS)),
    "index": lambda: sz.index_patches("whole.zarr", size=128, name="small"),
    "reader": lambda: sz.PatchReader("whole.zarr", patch_size=100),
    "bounds": lambda: sz.set_clip(sz.open_store("whole.zarr"), split="train"),
    "copy": lambda: copy_store("whole.zarr", "s.zarr", dtype="float32", shard=256),
    "older": lambda: copy_store("older.zarr", "s.zarr"),
    "older_samples": lambda: copy_store("older_samples.zarr", "s.zarr"),
    "chips": lambda: sz.import_chips("chips", "s.zarr"),
    "verify": lambda: verified("whole.zarr"),
    "deep": lambda: verified("whole.zarr", deep=True),
}
"""All that sends work to workers, with paths as people type them."""
WRITTEN_ELSEWHERE = {
    "raw": (
        "RasterNotFoundError|expected the file of .* that was planned",
        ("ingest", "warp", "classic", "layers"),
    ),
    "safe.zip": ("that was planned", ("product", "append")),
    "whole.zarr": (
        "was opened was expected, got another or none",
        ("index", "reader", "bounds", "verify", "deep"),
    ),
    "./whole.zarr": ("must see the same file system under the same path", ("copy",)),
    "older.zarr": ("must see the same file system", ("older",)),
    "chips": ("let every worker see the same files|not there", ("chips",)),
    "s.zarr.ingest": ("Workers must see the same file system", ("ingest", "warp", "classic", "product")),
    "whole.zarr.ingest": ("Workers must see the same file system", ("append", "layers")),
    "s.zarr.samples-chips": ("Workers must see the same file system", ("chips",)),
}
"""What workers see elsewhere, what is said then, and of which verbs."""


@pytest.fixture
def here(inputs, tmp_path, monkeypatch):
    """A copy of the inputs, and this process standing in it."""
    shutil.copytree(inputs, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture(scope="module")
def expected(inputs, tmp_path_factory):
    """Return a function that gives the bytes of what a verb makes without a worker elsewhere."""
    known = {}

    def get(verb):
        if verb not in known:
            place = tmp_path_factory.mktemp("expected") / "here"
            shutil.copytree(inputs, place)
            before = Path.cwd()
            os.chdir(place)
            try:
                VERBS[verb]()
            finally:
                os.chdir(before)
            known[verb] = tree_hash(place)
            shutil.rmtree(place)
        return known[verb]

    return get


QUICK = {"plain", "ingest", "index", "copy", "chips"}


def marked(*case):
    """Return a case, slow unless its verb is one of those that stand for the others."""
    return pytest.param(*case, marks=() if case[0] in QUICK and case[-1] != "raw" else pytest.mark.slow)


@pytest.mark.parametrize("verb", [marked(verb) for verb in VERBS])
def test_what_is_sent_is_found_from_another_folder(verb, here, expected):
    with working_elsewhere(here.parent / "elsewhere") as worker:
        VERBS[verb]()
    assert worker.tasks
    assert any(path.startswith(str(here)) for path in worker.paths)
    assert not worker.relative
    assert not list(worker.folder.iterdir())
    assert tree_hash(here) == expected(verb)


@pytest.mark.parametrize(
    ("verb", "where"), [marked(v, w) for w, (_, verbs) in WRITTEN_ELSEWHERE.items() for v in verbs]
)
def test_a_worker_that_sees_another_disk_is_told_and_nothing_it_says_is_kept(verb, where, here, expected):
    there, said = here.parent / "there", WRITTEN_ELSEWHERE[where][0]
    there.mkdir()
    kept = {p: tree_hash(p) for p in here.glob("*.zarr")}
    with (
        working_elsewhere(here.parent / "elsewhere", here=here / where, there=there),
        pytest.raises(SarzarrError, match=said),
    ):
        VERBS[verb]()
    assert not list(there.iterdir())
    assert not list((here.parent / "elsewhere").iterdir())
    for path, before in kept.items():
        assert tree_hash(path) == before
    assert not (here / "s.zarr").exists() or not sz.open_store("s.zarr").scenes
    VERBS[verb]()
    assert tree_hash(here) == expected(verb)


def test_a_scene_is_not_published_before_all_that_workers_claim_is_there(here):
    there = here.parent / "there"
    there.mkdir()
    place = here / "s.zarr.ingest" / "b" / "scene"
    with working_elsewhere(here.parent / "elsewhere", here=place, there=there):
        store = sz.ingest(sz.plan_ingest(RASTERS, "s.zarr", shard=256, layers=LAYERS, border=3, **KNOWN))
    assert store.scenes == ("a",)
    assert list(there.iterdir())
    VERBS["ingest"]()
    files = tree_hash_of_files(here / "s.zarr")
    shutil.rmtree(here / "s.zarr")
    VERBS["ingest"]()
    assert files == tree_hash_of_files(here / "s.zarr")


def test_a_worker_that_sees_another_copy_of_a_store_hides_no_damage(here):
    there = shutil.copytree(here / "whole.zarr", here.parent / "there")
    shard = next(p for p in sorted((here / "whole.zarr" / "scenes").rglob("c/*/*")) if p.is_file())
    shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
    with (
        working_elsewhere(here.parent / "elsewhere", here=here / "whole.zarr", there=there),
        pytest.raises(StoreChangedError, match="was opened was expected, got another or none"),
    ):
        sz.verify("whole.zarr")
    assert len(sz.verify("whole.zarr").findings) == 1


@pytest.mark.parametrize(
    "where",
    [pytest.param("raw", marks=pytest.mark.slow), "whole.zarr", pytest.param("", marks=pytest.mark.slow)],
)
def test_a_repair_by_workers_that_see_another_disk_takes_nothing_of_theirs(where, here):
    """``where`` is what they see elsewhere: sources, the store, or all, the folder beside the store, too."""
    there, store = here.parent / "there", here / "whole.zarr"
    there.mkdir()
    before = tree_hash(store)
    shard = next(p for p in sorted((store / "scenes").rglob("vv/c/*/*")) if p.is_file())
    shard.unlink()
    damaged = tree_hash(store)
    with working_elsewhere(here.parent / "elsewhere", here=here / where, there=there):
        try:
            assert sz.repair("whole.zarr", ["raw"]).left
        except StoreChangedError:
            assert where != "raw"
    assert tree_hash(store) == damaged
    assert not list(there.iterdir())
    with working_elsewhere(here.parent / "elsewhere2") as worker:
        assert not sz.repair("whole.zarr", ["raw"]).findings
    assert worker.tasks
    assert not worker.relative
    assert tree_hash(store) == before
    assert not [p for p in here.iterdir() if "partial" in p.name]


def tree_hash_of_files(root):
    """Return one value for all pixels: a clip is that of the scenes that came first."""
    return [tree_hash(folder) for folder in sorted(root.glob("scenes/*/*/c"))]


def test_copies_of_the_rasters_on_each_machine_are_the_rasters(here, expected):
    there = shutil.copytree(here / "raw", here.parent / "there")
    for path in there.iterdir():
        os.utime(path, (0, 0))
    with working_elsewhere(here.parent / "elsewhere", here=here / "raw", there=there):
        VERBS["ingest"]()
    assert tree_hash(here) == expected("ingest")


def test_a_raster_that_changed_after_it_was_planned_is_refused(here):
    plan = sz.plan_ingest(RASTERS, "s.zarr", **KNOWN)
    write_band(here / "raw" / "b_vv.tif", speckle((400, 500), seed=8), tiles=256)
    store = sz.ingest(plan)
    assert store.scenes == ("a",)
    assert "Plan it again where it changed" in plan.refused[0].reason


def test_an_index_of_a_store_that_changes_meanwhile_is_not_kept(here):
    store, there = sz.open_store("whole.zarr"), here.parent / "there"
    shutil.copytree(store.root, there)
    write_band(here / "b_vv.tif", speckle((400, 500), seed=9))
    sz.ingest(sz.plan_ingest("b_vv.tif", there, replace=True, **KNOWN))
    before = store.patch_indices
    with (
        working_elsewhere(here.parent / "elsewhere", here=store.root.absolute(), there=there),
        pytest.raises(StoreChangedError, match=r"scenes/b/vv(_flags)? as it was when"),
    ):
        VERBS["index"]()
    assert store.anew().patch_indices == before


class Twice(Elsewhere):
    """A worker whose first try of each task ends unheard; ``forgets``: before it could leave a receipt."""

    forgets = False

    def _run(self, sent):
        receipts = list(Path.cwd().glob("*.ingest/*/receipts"))
        before = {path: path.read_bytes() for folder in receipts for path in folder.glob("*.json")}
        super()._run(sent)
        for folder in receipts if self.forgets else ():
            for path in folder.glob("*.json"):
                path.unlink() if path not in before else path.write_bytes(before[path])
        return super()._run(sent)


@pytest.mark.parametrize("forgets", [False, True], ids=["whole", "before its receipt"])
@pytest.mark.parametrize("verb", [marked(verb) for verb in VERBS if verb != "reader"])
def test_tasks_that_are_run_twice_change_no_byte(verb, forgets, here, expected):
    (here.parent / "elsewhere").mkdir()
    worker = Twice(here.parent / "elsewhere")
    worker.forgets = forgets
    with dask.config.set(scheduler=worker.get):
        VERBS[verb]()
    assert tree_hash(here) == expected(verb)


def test_tasks_that_are_left_over_when_a_run_has_ended_do_nothing(here):
    class Late(Elsewhere):
        def _run(self, sent):
            kept.append((super()._run, sent))
            raise KeyboardInterrupt

    kept = []
    (here.parent / "elsewhere").mkdir()
    with dask.config.set(scheduler=Late(here.parent / "elsewhere").get), pytest.raises(KeyboardInterrupt):
        VERBS["ingest"]()
    before = tree_hash(here)
    for run, sent in kept:
        with pytest.raises(IngestError, match=r"\.working was expected"):
            run(sent)
    assert tree_hash(here) == before
