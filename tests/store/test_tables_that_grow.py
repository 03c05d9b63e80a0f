"""Tables that are appended to: as if they had been written at once, and each append as if it were the first."""

import json
import threading

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError, InvalidInputError
from sarzarr.store import commit
from sarzarr.store.documents import write_node
from sarzarr.store.journal import drafted, writing
from sarzarr.store.place import Folder
from sarzarr.store.store import create_store
from sarzarr.store.tables import append_rows, read_table, write_table


def rows(first, count, owners=0):
    """Return rows of numbers, text and affines, and of a second, shorter dimension."""
    at = np.arange(first, first + count)
    return xr.Dataset(
        {
            "id": ("row", at.astype(np.int64) * 7919),
            "name": ("row", np.array([f"é{i}" * (i % 3) for i in at], dtype=object)),
            "affine": (("row", "six"), at[:, None] + np.arange(6.0)),
            "of": ("owner", np.arange(owners, dtype=np.int32)),
        },
        attrs={"last": int(first)},
    )


def joined(parts):
    whole = {
        name: (parts[0][name].dims, np.concatenate([part[name].values for part in parts]))
        for name in parts[0].data_vars
    }
    return xr.Dataset(whole, attrs=parts[-1].attrs)


@settings(max_examples=25)
@given(
    counts=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=4),
    per=st.sampled_from((1, 3, 4, 100)),
    is_old=st.booleans(),
)
def test_appended_rows_are_the_table_that_is_written_at_once(tmp_path_factory, counts, per, is_old):
    folder, first, parts = tmp_path_factory.mktemp("tables"), 0, []
    place = Folder(folder)
    for count, owners in counts:
        parts.append(rows(first, count, owners))
        first += count
        if is_old and len(parts) == 1:
            write_table(place, "t", parts[0])  # of one chunk a column
        else:
            append_rows(place, "t", parts[-1], rows_per_chunk={"row": per, "owner": 2})
    whole = joined(parts)
    assert read_table(place, "t").identical(whole)
    if is_old and len(parts) == 1:
        return
    write_table(place, "at_once", whole, rows_per_chunk={"row": per, "owner": 2})
    group, files = zarr.open_group(folder / "t", mode="r"), dict[str, set[bytes]]()
    for name, column in whole.data_vars.items():
        if column.size:
            np.testing.assert_array_equal(group[name][...], column.values)
    for path in (p for p in folder.rglob("*") if p.is_file() and p.name != "zarr.json"):
        files.setdefault(path.relative_to(folder).as_posix().partition("/")[2], set()).add(path.read_bytes())
    assert all(len(same) == 1 for same in files.values())  # the bytes do not tell how they came


def test_what_an_append_writes_does_not_depend_on_the_rows_that_are_there(tmp_path):
    root, written = tmp_path / "s.zarr", []
    create_store(root)
    for i in range(16):
        with writing(root), drafted(root) as draft:
            append_rows(draft, "t", rows(4 * i, 4), rows_per_chunk=8)
            written.append((len(draft.units), sum(p.stat().st_size for p in draft.folder.rglob("*"))))
    assert {units for units, _ in written[2:]} == {
        7
    }  # 3 columns and the table; an empty one is told of there
    full = [size for i, (_, size) in enumerate(written) if i % 2 and i > 2]
    assert max(full) < 1.05 * min(full)
    assert read_table(Folder(root), "t").identical(joined([rows(4 * i, 4) for i in range(16)]))


@pytest.mark.parametrize("what", ["columns", "dims", "dtype", "width"])
def test_rows_of_another_kind_are_refused(tmp_path, what):
    place, more = Folder(tmp_path), rows(3, 2)
    append_rows(place, "t", rows(0, 3), rows_per_chunk=4)
    other = {
        "columns": more.drop_vars("id"),
        "dims": more.rename(row="line"),
        "dtype": more.assign(id=more["id"].astype(np.int32)),
        "width": more.isel(six=slice(5)),
    }
    with pytest.raises(InvalidInputError, match="expected"):
        append_rows(place, "t", other[what])
    assert read_table(place, "t").identical(rows(0, 3))


def _chunks(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "zarr.json")


def test_a_damaged_chunk_or_another_one_is_seen_by_who_reads_and_who_appends(tmp_path):
    place = Folder(tmp_path)
    append_rows(place, "t", rows(0, 10), rows_per_chunk=4)
    for path in _chunks(tmp_path):
        right = path.read_bytes()
        others = [p.read_bytes() for p in _chunks(path.parent) if p != path]
        for wrong in (right[:-1], right[:5] + bytes([right[5] ^ 8]) + right[6:], b"", *others[:1]):
            path.write_bytes(wrong)
            with pytest.raises(CorruptStoreError, match=r"t/\w+/c"):
                read_table(place, "t")
        path.unlink()
        with pytest.raises(CorruptStoreError):
            read_table(place, "t")
        path.write_bytes(right)
    last = tmp_path / "t" / "id" / "c" / "2"
    last.write_bytes((tmp_path / "t" / "id" / "c" / "1").read_bytes())
    with pytest.raises(CorruptStoreError):
        append_rows(place, "t", rows(10, 1))


def test_a_document_that_promises_what_no_memory_holds_is_refused(tmp_path):
    place = Folder(tmp_path)
    append_rows(place, "t", rows(0, 10), rows_per_chunk=4)
    document = json.loads((tmp_path / "t" / "id" / "zarr.json").read_text())
    for shape, chunk in (([2**50], [4]), ([10], [2**50]), ([2**50], [2**50 - 1]), ([4, 4], [4, 2])):
        document |= {"shape": shape}
        document["chunk_grid"]["configuration"]["chunk_shape"] = chunk
        write_node(place, "t/id", document)
        with pytest.raises(CorruptStoreError):
            read_table(place, "t")
        with pytest.raises(CorruptStoreError):
            append_rows(place, "t", rows(10, 1))


def test_a_reader_sees_the_table_before_an_append_or_after_it(tmp_path):
    """In the middle of the renames of a change, too: it waits, and of a change whose maker died makes the rest."""
    root = tmp_path / "s.zarr"
    store = create_store(root)
    with commit.changing(store) as draft:
        append_rows(draft.place, "t", rows(0, 5), rows_per_chunk=4)
    stop, seen, errors = threading.Event(), set(), []

    def read():
        while not stop.is_set():
            try:
                table = read_table(Folder(root), "t")
                seen.add(table.sizes["row"])
                assert table.drop_attrs().identical(rows(0, table.sizes["row"]).drop_attrs())
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for i in range(9):
        with commit.changing(store) as draft:
            append_rows(draft.place, "t", rows(5 + i, 1))
    stop.set()
    thread.join()
    assert not errors
    assert len(seen) > 1
    assert cv.CHUNK_ROWS not in read_table(Folder(root), "t").attrs
