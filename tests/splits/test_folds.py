"""Folds: versions whose validations share no ground, and together are all of it that is not test."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import speckle, tree_hash, write_band
from hypothesis import given
from hypothesis import strategies as st
from rasterio import Affine
from tiffs import write
from typer.testing import CliRunner

import sarzarr as sz
from sarzarr.cli.app import app
from sarzarr.conventions import Membership
from sarzarr.errors import InvalidInputError, NotInStoreError, SplitExistsError
from sarzarr.grids.world import Draw
from sarzarr.patches.clips import split_histograms
from sarzarr.splits import make
from sarzarr.splits.assign import check
from sarzarr.splits.exchange import from_json, to_json
from sarzarr.splits.make import extend_split, pending, plan_folds
from sarzarr.splits.versions import get_split, grounds_of
from sarzarr.store.split_table import Recipe, fold_versions, versions

KNOWN = {"quantity": "sigma0", "representation": "power"}
FOLDS = 3


@given(
    st.integers(0, 99), st.integers(2, 12), st.floats(0, 0.6), st.lists(st.integers(0, 2**64 - 1), min_size=1)
)
def test_each_unit_is_test_or_validation_of_one_fold(seed, folds, test, ids):
    ids = np.array(ids, np.uint64)
    options = {"seed": seed, "val_fraction": (1 - test) / folds, "test_fraction": test}
    if not 0 < options["val_fraction"] < 1 - test:
        return
    codes = np.array([Draw(**options, fold=(i, folds))(ids) for i in range(folds)])
    is_test = (codes == Membership.TEST).any(axis=0)
    assert (codes[:, is_test] == Membership.TEST).all()
    assert ((codes == Membership.VAL).sum(axis=0) == ~is_test).all()
    assert ((codes == Membership.TRAIN) | (codes == Membership.VAL))[:, ~is_test].all()


def test_folds_are_alike_in_size():
    ids = np.arange(30_000, dtype=np.uint64)
    draws = [Draw(seed=1, val_fraction=0.16, test_fraction=0.2, fold=(i, 5))(ids) for i in range(5)]
    counts = [int((codes == Membership.VAL).sum()) for codes in draws]
    np.testing.assert_allclose(counts, 0.16 * len(ids), rtol=0.05)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two scenes of one ground in two CRSs, and one beside them that comes later."""
    folder, made = tmp_path_factory.mktemp("raw"), []
    for i, (name, crs, x, side) in enumerate(
        (("one", 32633, 285_000, 1900), ("two", 32632, 712_000, 1700), ("late", 32633, 297_000, 1100))
    ):
        corner = Affine(10, 0, x, 0, -10, 5_550_000)
        pixels = speckle((side, side), seed=i)
        made.append(write_band(folder / f"{name}_vv.tif", pixels, crs=f"EPSG:{crs}", transform=corner))
    return made


@pytest.fixture(scope="module")
def made(files, tmp_path_factory):
    store = sz.ingest(sz.plan_ingest(files[:2], tmp_path_factory.mktemp("made") / "s.zarr", **KNOWN))
    splits = sz.make_split(store, folds=FOLDS)
    return store.root, splits


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "s.zarr")


def assert_no_ground_in_two_folds(store, splits):
    """Hold the validations of every two folds against each other, as two sides of one split are."""
    grounds = grounds_of(sz.open_store(store))
    for i, one in enumerate(splits):
        check(grounds, one.scenes)
        for other in splits[i + 1 :]:
            both = []
            for a, b in zip(one.scenes, other.scenes, strict=True):
                mine, its = (cells.codes == Membership.VAL for cells in (a, b))
                assert not (mine & its).any()
                both.append(replace(a, codes=np.where(mine, 1, np.where(its, 2, 0)).astype(np.uint8)))
            check(grounds, both)


def test_folds_share_no_ground_and_each_is_about_its_share(made):
    root, splits = made
    assert [s.name for s in splits] == ["v1", "v2", "v3"]
    assert [(s.recipe.fold, s.recipe.folds) for s in splits] == [(i, FOLDS) for i in range(FOLDS)]
    assert len({s.recipe.block for s in splits}) == 1
    assert_no_ground_in_two_folds(root, splits)
    for split in splits:
        assert 1 / make.NEAR <= split.val_ratio * FOLDS <= make.NEAR
        assert split.counts["train"] > split.counts["val"] > 0


def test_sides_are_named_by_fold_and_by_version(made):
    root, splits = made
    store = sz.open_store(root)
    known, validated = fold_versions(store.place), []
    assert known == {0: 1, 1: 2, 2: 3}
    for fold, split in enumerate(splits):
        train, val = (store.patches(split=f"fold{fold}:{side}")["id"].values for side in ("train", "val"))
        assert not set(train) & set(val)
        np.testing.assert_array_equal(val, store.patches(split=f"{split.name}:val")["id"].values)
        validated += val.tolist()
    assert len(validated) == len(set(validated)) > 0
    reader = sz.PatchReader(root, split="fold1:val", min_unsaturated=0)
    assert set(reader.selection.id.tolist()) <= set(store.patches(split="v2:val")["id"].values.tolist())
    assert split_histograms(store, "fold2:train").keys() == {"vv/sigma0"}
    with pytest.raises(NotInStoreError, match="a fold among fold0, fold1, fold2 was expected, got 'fold7'"):
        store.patches(split="fold7:val")
    with pytest.raises(InvalidInputError, match="a split such as"):
        store.patches(split="fold1:nothing")


def test_the_same_call_returns_what_is_there_and_goes_on_after_an_interruption(root, made, monkeypatch):
    before = tree_hash(root)
    again = sz.make_split(root, folds=FOLDS)
    assert [s.fingerprint for s in again] == [s.fingerprint for s in made[1]]
    assert tree_hash(root) == before
    shutil.rmtree(root / "splits")
    real, written = make.write_split, []

    def stop(store, split):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(split)
        return real(store, split)

    monkeypatch.setattr(make, "write_split", stop)
    with pytest.raises(KeyboardInterrupt):
        sz.make_split(root, folds=FOLDS)
    monkeypatch.undo()
    whole = sz.make_split(root, folds=FOLDS)
    assert [s.fingerprint for s in whole] == [s.fingerprint for s in made[1]]
    assert not sz.verify(root).findings


def test_another_recipe_is_refused_beside_folds_and_folds_beside_it(root):
    with pytest.raises(SplitExistsError, match="--fresh"):
        sz.make_split(root, val_fraction=0.3)
    with pytest.raises(SplitExistsError, match="--fresh"):
        sz.make_split(root, folds=2)
    fresh = sz.make_split(root, folds=2, fresh=True)
    assert [s.name for s in fresh] == ["v4", "v5"]
    assert fold_versions(sz.open_store(root).place) == {0: 4, 1: 5}
    shutil.rmtree(root / "splits")
    sz.make_split(root, val_fraction=0.3)
    with pytest.raises(SplitExistsError, match="--fresh"):
        sz.make_split(root, folds=2)


def test_extending_extends_every_fold_and_moves_no_cell(root, files, made):
    sz.ingest(sz.plan_ingest(files[2:], root, **KNOWN))
    assert pending(root).new == ("late",)
    last = extend_split(root)
    store = sz.open_store(root)
    assert fold_versions(store.place) == {0: 4, 1: 5, 2: 6}
    assert (last.name, last.recipe.fold) == ("v6", 2)
    splits = [get_split(root, v) for v in (4, 5, 6)]
    assert_no_ground_in_two_folds(root, splits)
    for old, new in zip(made[1], splits, strict=True):
        assert new.parent == old.version
        for cells in old.scenes:
            np.testing.assert_array_equal(new.by_scene[cells.scene].codes, cells.codes)
    assert extend_split(root).version == 6
    assert [s.version for s in sz.make_split(root, folds=FOLDS)] == [4, 5, 6]


def test_versions_go_between_stores_and_are_repaired(root, made, tmp_path):
    split = made[1][1]
    back = from_json(to_json(split))
    assert (back.recipe, back.fingerprint) == (split.recipe, split.fingerprint)
    column = next(p for p in (root / "splits/v2/code/c").rglob("*") if p.is_file())
    column.write_bytes(b"\0" + column.read_bytes()[1:])
    assert sz.verify(root).findings
    assert not sz.repair(root).findings
    assert get_split(root, 2).fingerprint == split.fingerprint


def test_without_a_place_in_the_world_every_cell_validates_once(tmp_path):
    path = write(tmp_path / "lake_vv.tif", speckle((2048, 2048)), crs=None, transform=None)
    store = sz.ingest(sz.plan_ingest(path, tmp_path / "s.zarr", **KNOWN))
    splits = sz.make_split(store, folds=4, pixel_block=256, test_fraction=0.2)
    codes = np.array([split.scenes[0].codes for split in splits])
    is_test = codes[0] == Membership.TEST
    assert is_test.any()
    assert (codes[:, is_test] == Membership.TEST).all()
    assert ((codes == Membership.VAL).sum(axis=0) == ~is_test).all()


def test_versions_without_folds_are_what_they_were():
    assert "folds" not in Recipe().settings
    assert Recipe(folds=2, fold=1).settings["fold"] == 1


@pytest.mark.parametrize("options", [{"folds": 1}, {"folds": 0}, {"folds": 3, "val_fraction": 0.3}])
def test_what_is_no_number_of_folds_is_refused(root, options):
    with pytest.raises(InvalidInputError, match=r"were expected|was expected"):
        sz.make_split(root, **options)


def test_the_command_makes_and_shows_them(root):
    shutil.rmtree(root / "splits")
    run = CliRunner().invoke
    planned = run(app, ["split", "create", str(root), "--folds", "3", "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert planned.output.count("nothing was written") == 1
    assert not versions(sz.open_store(root).place)
    done = run(app, ["split", "create", str(root), "--folds", "3"])
    assert [f"split v{i + 1}: fold {i} of 3" in done.output for i in range(3)] == [True] * 3
    assert run(app, ["split", "list", str(root)]).output.count(" of 3") == 3
    assert len(plan_folds(root, 3)) == 3
