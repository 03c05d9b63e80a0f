"""Free values: a fill is a value that no pixel has, in the narrowest dtype that has one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sarzarr.errors import InvalidInputError
from sarzarr.store.free_values import extreme, free_value, values_of

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


@settings(max_examples=200, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(INTEGERS))
def test_a_free_value_is_none_of_the_pixels_however_they_come_in_parts(data, dtype):
    shape = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)
    ends = [np.iinfo(dtype).min, np.iinfo(dtype).max]
    pixels = data.draw(hnp.arrays(dtype, shape, elements=st.integers(*ends)))
    if np.dtype(dtype).itemsize > 2 and {*ends} <= {*pixels.ravel().tolist()}:
        pixels[pixels == ends[1]] = ends[0]  # both is another test
    cut = data.draw(st.integers(0, len(pixels)))
    parts = [values_of(part) for part in (pixels[:cut], pixels[cut:])]
    assert {part.dtype for part in parts} == {np.dtype(dtype)}
    got, fill = free_value(dtype, np.concatenate(parts))
    assert got == dtype
    assert fill not in pixels.ravel().tolist()
    assert np.dtype(got).type(fill) == fill
    if extreme(dtype) not in pixels.ravel().tolist():
        assert fill == extreme(dtype)


@pytest.mark.parametrize(
    ("dtype", "pixels", "right"),
    [
        ("uint8", range(256), ("uint16", 256)),
        ("uint8", [0, 255], ("uint8", 254)),
        ("uint8", range(1, 256), ("uint8", 0)),
        ("int8", range(-128, 128), ("int16", -129)),
        ("int16", [-32768, -32767], ("int16", -32766)),
        ("uint16", range(65536), ("uint32", 65536)),
        ("int16", range(-32768, 32768), ("int32", -32769)),
        ("uint32", [0, 2**32 - 1], ("int64", 2**32)),
        ("uint32", [7, 2**32 - 1], ("uint32", 0)),
        ("int32", [-(2**31), 2**31 - 1], ("int64", -(2**31) - 1)),
        ("int64", [-(2**63)], ("int64", 2**63 - 1)),
    ],
)
def test_the_dtype_grows_only_where_no_value_is_left(dtype, pixels, right):
    assert free_value(dtype, values_of(np.array(list(pixels), dtype))) == right


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_where_there_is_no_wider_dtype_it_says_so(dtype):
    ends = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
    with pytest.raises(InvalidInputError, match=f"among the ends of {dtype}, got pixels of both"):
        free_value(dtype, values_of(ends))


def test_floats_have_nan():
    assert np.isnan(extreme("float32"))
    assert values_of(np.empty((0, 3), np.uint8)).size == 0
