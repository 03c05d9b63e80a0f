"""Whose a layer's file is: by the scene's id in its name, or the date that its tags, name or folder tell."""

from pathlib import Path

import numpy as np
import pytest
from tiffs import speckle, write

import sarzarr as sz
from sarzarr.errors import InvalidInputError

DATES = ("20260101", "20260113", "20260125")


def layered(folder, scenes, labels, word="water", *, times=None):
    """Return the sum of the pixels that each scene has as its layer; labels are numbered from 1, None is no layer."""
    files = [
        write(folder / f"{name}_vv.tif", speckle(seed=i), tags={"datetime": times[i]} if times else None)
        for i, name in enumerate(scenes)
    ]
    paths = [
        write(folder / "labels" / f"{name}.tif", np.full((1, 120, 130), i, "uint8"))
        for i, name in enumerate(labels, 1)
    ]
    plan = sz.plan_ingest(files, folder / "s.zarr", layers={word: [str(p) for p in paths]})
    names = {path.stem: i for i, path in enumerate(paths, 1)}
    owners = [next((Path(layer.onto.source.path) for layer in s.layers), None) for s in plan.scenes]
    return [None if owner is None else names[owner.stem] for owner in owners], plan


def test_a_label_of_one_date_is_put_on_that_date_alone(tmp_path):
    owners, plan = layered(tmp_path, [f"s1_{d}" for d in DATES], ["s1_20260101_water"])
    assert owners == [1, None, None]
    assert "no file of layer 'water' lies on s1_20260113, s1_20260125 or is of its date" in str(plan)


@pytest.mark.parametrize(
    ("scenes", "labels", "owners"),
    [
        ([f"s1_{d}" for d in DATES], ["s1_20260101_water", "s1_20260113_water"], [1, 2, None]),
        ([f"s1_{d}" for d in DATES], ["2026-01-13", "20260125/mask"], [None, 1, 2]),  # by date
        (["lake", "lake_b", "lake_c"], ["lake_b_water"], [None, 1, None]),  # by name, the longest
        (["lake", "lake_b", "lake_c"], ["water"], [1, 1, 1]),
        ([f"s1_{d}" for d in DATES], ["s1_2026-01-01_2026-02-01"], [1, 1, 1]),  # a range is of no date
        (["am_20260101T051122", "pm_20260101T165802"], ["water_20260101T165800"], [None, 1]),
        (["am_20260101T051122", "pm_20260101T165802"], ["water_20260101"], [1, 1]),
    ],
)
def test_whose_a_file_is_by_name_and_date(tmp_path, scenes, labels, owners):
    (tmp_path / "labels" / "20260125").mkdir(parents=True)
    assert layered(tmp_path, scenes, labels)[0] == owners


def test_a_file_of_no_scenes_date_is_an_error_and_its_remedy_works(tmp_path):
    with pytest.raises(
        InvalidInputError, match=r"cover_20210601\.tif' is of 2021-06-01.* say --layer water:static=FILE"
    ):
        layered(tmp_path, [f"s1_{d}" for d in DATES], ["cover_20210601"])
    assert layered(tmp_path, [f"s1_{d}" for d in DATES], ["cover_20210601"], "water:static")[0] == [1, 1, 1]


def test_a_dated_file_and_scenes_without_a_date_are_an_error_and_its_remedies_work(tmp_path):
    with pytest.raises(
        InvalidInputError, match=r"got 2, and a, b without a date.*\(a_water\.tif\).*water:static=FILE"
    ):
        layered(tmp_path, ["a", "b"], ["water_20260101"])
    assert layered(tmp_path, ["a", "b"], ["water_20260101"], "water:static")[0] == [1, 1]
    assert layered(tmp_path, ["a", "b"], ["a_water"])[0] == [1, None]
    assert layered(tmp_path, ["a"], ["water_20260101"])[0] == [1]


def test_a_files_own_tags_tell_its_date(tmp_path):
    times = ["2026-01-01T05:11:22Z", "2026-01-13T05:11:22Z"]
    (tmp_path / "labels").mkdir()
    label = write(
        tmp_path / "labels" / "mask.tif", np.ones((1, 120, 130), "uint8"),
        tags={"ZERO_DOPPLER_START_TIME": "2026-01-13T05:11:20Z"},
    )  # fmt: skip
    files = [
        write(tmp_path / f"{n}_vv.tif", speckle(seed=i), tags={"datetime": times[i]})
        for i, n in enumerate("ab")
    ]
    plan = sz.plan_ingest(files, tmp_path / "s.zarr", layers={"mask": str(label)})
    assert [len(s.layers) for s in plan.scenes] == [0, 1]
