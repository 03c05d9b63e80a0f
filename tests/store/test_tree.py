"""The tree of a store is its scenes, each as `Store` opens it, and none before it is touched."""

import pickle
import shutil

import pytest
import xarray as xr
from memory_place import MemoryPlace
from places import store_at

import sarzarr as sz
from sarzarr.errors import InvalidInputError, NotInStoreError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return store_at(tmp_path_factory.mktemp("tree"), [(10, 50), (11, 51), (12, 52)], shape=(256, 300))


def test_nothing_of_a_scene_is_read_before_it_is_touched(store):
    place = MemoryPlace.of(store.root)
    tree = sz.open_tree(place)
    assert list(tree) == list(store.scenes)
    assert len(tree) == 3
    assert tree.groups == ("/", *(f"/{scene}" for scene in store.scenes))
    assert store.scenes[0] in tree
    assert "nowhere" not in tree
    assert "vv (256 x 300)" in repr(tree)
    assert "vv (256 x 300)" in tree._repr_html_()
    assert [line.partition(":")[0] for line in tree.lines()] == list(store.scenes)
    assert not [key for key in place.asked if key.startswith("scenes/")]


@pytest.mark.parametrize("values", ["normalized", "db", "power"])
def test_a_scene_is_as_the_store_opens_it(store, values):
    tree, scene = sz.open_tree(store, values=values), store.scenes[1]
    expected = {"normalized": store.open_scene, "db": store.db, "power": store.power}[values](scene)
    node = tree[scene]
    assert isinstance(node, xr.DataTree)
    assert node.name == scene
    xr.testing.assert_identical(node.to_dataset(), expected)
    name = next(iter(expected.data_vars))  # of values in dB it says so
    for path in (f"{scene}/{name}", f"/scenes/{scene}/{name}"):
        xr.testing.assert_identical(tree[path], expected[name])
    assert tree[scene] is node


def test_a_whole_datatree_of_some_scenes_or_of_all(store):
    tree = sz.open_tree(store.root)
    first, _, last = store.scenes
    assert list(tree.to_datatree([last, first]).children) == [last, first]
    whole = tree.to_datatree()
    assert list(whole.children) == list(store.scenes)
    assert whole.attrs == tree.attrs
    xr.testing.assert_identical(whole[f"{last}/vv"].load(), store.open_scene(last)["vv"].load())
    again = pickle.loads(pickle.dumps(tree))
    xr.testing.assert_identical(again[last].to_dataset().load(), tree[last].to_dataset().load())


def test_what_is_not_there_is_said(store):
    tree = sz.open_tree(store)
    with pytest.raises(NotInStoreError, match="scene must be one of 3"):
        tree["nowhere"]
    with pytest.raises(KeyError, match=r"array of .* must be one of .*vv"):
        tree[f"{store.scenes[0]}/vh"]
    with pytest.raises(InvalidInputError, match="values must be one of normalized, db, power, got 'linear'"):
        sz.open_tree(store, values="linear")


def test_a_store_without_scenes_is_an_empty_tree(store, tmp_path):
    root = shutil.copytree(store.root, tmp_path / "s.zarr")
    sz.remove_scene(root, store.scenes)
    assert list(sz.open_tree(root)) == []
    assert "0 scenes" in repr(sz.open_tree(root))
