"""Options can be seen: in every signature with their defaults, and in every docstring, from one record each."""

import inspect
import re
from dataclasses import fields
from typing import get_type_hints

import pytest

import sarzarr as sz
from sarzarr.errors import InvalidInputError
from sarzarr.ingestion.options import IngestKeywords
from sarzarr.keywords import field_lines
from sarzarr.reader.options import ItemKeywords, PatchKeywords, ReadKeywords, ReadOptions, SampleKeywords
from sarzarr.splits.make import SplitKeywords
from sarzarr.store.split_table import Recipe

TAKERS = {
    "PatchReader": (ReadOptions, ReadKeywords),
    "SampleReader": (ReadOptions, SampleKeywords),
    "measure_delivery": (ReadOptions, ReadKeywords),
    "make_split": (Recipe, SplitKeywords),
    "plan_ingest": (sz.IngestOptions, IngestKeywords),
    "torch.ZarrPatchDataset": (ReadOptions, ReadKeywords),
    "torch.LazyPatchDataset": (ReadOptions, ItemKeywords),
    "torch.SARDataModule": (ReadOptions, PatchKeywords),
}
OTHER_DEFAULTS = {
    "measure_delivery": {"batch_size": 32, "shuffle": True},
    "make_split": {"block": "auto", "pixel_block": "auto"},
}
WHOLE = ["PatchReader", "measure_delivery", "plan_ingest", "torch.ZarrPatchDataset"]


def taker(name):
    if name.startswith("torch."):
        pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
        return getattr(sz.torch, name.removeprefix("torch."))
    return getattr(sz, name)


@pytest.mark.parametrize("name", TAKERS)
def test_every_option_is_in_the_signature_with_its_default_and_its_type(name):
    record, keywords = TAKERS[name]
    shown = inspect.signature(taker(name)).parameters
    for field in fields(record):
        if field.name in keywords.__annotations__:
            assert shown[field.name].default == OTHER_DEFAULTS.get(name, {}).get(field.name, field.default)
            assert shown[field.name].kind is inspect.Parameter.KEYWORD_ONLY
            assert shown[field.name].annotation == keywords.__annotations__[field.name]
    assert not [p for p in shown.values() if p.kind is p.VAR_KEYWORD]
    if name in WHOLE:
        assert {f.name for f in fields(record)} <= set(shown)


@pytest.mark.parametrize("name", TAKERS)
def test_every_option_has_its_line_in_the_docstring(name):
    parameters = inspect.getdoc(taker(name)).split("Parameters\n----------\n")[1].split("Raises\n------")[0]
    said = dict(re.findall(r"^(\w[\w, ]*)\n((?:    .*\n|\n)+)", parameters + "\n", re.MULTILINE))
    described = {option for names in said for option in names.split(", ")}
    assert described == set(inspect.signature(taker(name)).parameters)
    assert all(line.strip() for line in said.values())


@pytest.mark.parametrize(
    ("record", "keywords"), [(ReadOptions, ReadKeywords), (sz.IngestOptions, IngestKeywords)]
)
def test_what_type_checkers_see_is_the_record(record, keywords):
    own, shown = get_type_hints(record), get_type_hints(keywords)
    assert set(shown) == set(own)
    assert {name for name in own if own[name] != shown[name]} <= {"layers"}  # `layers_of` takes more


@pytest.mark.parametrize("record", [ReadOptions, sz.IngestOptions, Recipe])
def test_every_field_has_a_line(record):
    assert set(field_lines(record)) >= {f.name for f in fields(record)}


@pytest.mark.parametrize("name", TAKERS)
def test_an_unknown_keyword_names_the_nearest(name):
    for wrong, near in (("thread", "threads"), ("nodatta", "nodata"), ("gard", "guard")):
        if near in inspect.signature(taker(name)).parameters:
            with pytest.raises(InvalidInputError, match=f"got '{wrong}'. Did you mean '{near}'?"):
                taker(name)("nowhere.zarr", **{wrong: 1})
    with pytest.raises(InvalidInputError, match=r"got 'xyzzy'\. Choose among \w+, \w+"):
        taker(name)("nowhere.zarr", xyzzy=1)


def test_a_keyword_of_another_reader_is_refused_with_those_there_are():
    with pytest.raises(InvalidInputError, match=r"a keyword of SampleReader was expected, got 'stride'\."):
        sz.SampleReader("nowhere.zarr", "ships", stride=128)
