"""The classes of a store: one table of numbers and names, which all that has labels reads.

A number, once given, is never another class's, whatever comes later and in whatever order. Numbers are from 1: 0 is
what detectors call background.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.store.documents import has_node, named, nodes_below
from sarzarr.store.limits import check_within
from sarzarr.store.place import Place
from sarzarr.store.store import AnyStore, open_store
from sarzarr.store.tables import read_table, write_table

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MovedClass:
    """A class that has another number in a list than in the store that it is in."""

    name: str
    """Its name."""
    among: str
    """The list: a file's name, or a table's."""
    there: int
    """Its number in the list, counted from 1; of a set of labels on chips from 0."""
    here: int
    """Its number in the store, or in the set of labels."""

    def __str__(self) -> str:
        return f"class {self.there} of {self.among} is {self.name!r}, {self.here} here"


@dataclass(frozen=True)
class Classes:
    """Classes in the order of their numbers: (n,) names, of 1 to n."""

    names: tuple[str, ...] = ()
    """Name of class 1, 2, ..."""
    sources: tuple[str, ...] = ()
    """What each came from: a list of classes, a file of boxes, a set."""

    def number(self, name: str) -> int:
        """Return the number of a class, from 1; `NotInStoreError` where there is none of that name."""
        try:
            return self.names.index(name) + 1
        except ValueError:
            known = ", ".join(self.names) or "none"
            raise NotInStoreError(f"a class among {known} was expected, got {name!r}.") from None

    def having(self, names: Iterable[str], source: str) -> "Classes":
        """Return these, and then those of ``names`` that are new, in their order."""
        fresh = tuple(dict.fromkeys(name for name in map(str, names) if name not in {*self.names}))
        return Classes((*self.names, *fresh), (*self.sources, *(source for _ in fresh)))

    def numbers_of(self, names: Iterable[str]) -> Array:
        """Return (n + 1,) int32: 0, and then the number here of each of n names: index it with labels from 1."""
        numbers = {name: i for i, name in enumerate(self.names, 1)}
        return np.array([0, *(numbers[name] for name in names)], np.int32)

    def moved(self, names: Iterable[str], among: str) -> tuple[MovedClass, ...]:
        """Return the classes of a list whose place in it, from 1, is not their number here."""
        pairs = enumerate(map(str, names), 1)
        known = ((name, there, self.number(name)) for there, name in pairs)
        return tuple(MovedClass(name=n, among=among, there=t, here=h) for n, t, h in known if t != h)

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return ", ".join(f"{number} {name}" for number, name in enumerate(self.names, 1)) or "none"


def stored_classes(place: Place) -> Classes | None:
    """Return the table of a store's classes; None where it has none, as stores of before.

    Raises `CorruptStoreError` as `read_table`, and where its numbers are not 1 to n, or a name stands twice.
    """
    if not has_node(place, cv.CLASS_TABLE):
        return None
    table = read_table(place, cv.CLASS_TABLE)
    with named(place, f"{cv.CLASS_TABLE}/zarr.json"):
        numbers = table["number"].values
        names, sources = (tuple(map(str, table[column].values.tolist())) for column in ("name", "source"))
        check_within(numbers - np.arange(1, len(names) + 1), 0, 0, "number less its row")
        if len({*names}) != len(names):
            raise InvalidInputError("names that differ were expected, got one twice")
    return Classes(names, sources)


def read_classes(place: Place, *, first: str = "") -> Classes:
    """Return the classes of a store in the order of their numbers.

    They are those of the table, and then those that tables of boxes know besides, as stores of before have them:
    the table of the key ``first`` before the others, which are sorted.
    """
    return boxed_classes(place, stored_classes(place) or Classes(), first=first)


def boxed_classes(place: Place, known: Classes | None = None, *, first: str = "") -> Classes:
    """Return ``known`` classes, and then those of tables of boxes, as of `read_classes`."""
    known = known or Classes()
    for table in sorted(_tables(place), key=lambda key: (key != first, key)):
        known = known.having(listed_classes(place, table), table)
    return known


def _tables(place: Place) -> Iterator[str]:
    """Yield the keys of a store's tables of boxes: on scenes and samples, and on the chips of each collection."""
    of_chips = (f"{cv.COLLECTIONS}/{name}/{cv.BOXES}" for name in nodes_below(place, cv.COLLECTIONS))
    for group in (cv.BOXES, *of_chips):
        yield from (f"{group}/{name}" for name in nodes_below(place, group))


def store_classes(store: AnyStore) -> Classes:
    """Return the classes of a store, or of the store at a path: (n,) names, of 1 to n, and what each came from."""
    return read_classes(open_store(store).place)


def listed_classes(place: Place, table: str) -> list[str]:
    """Return the names of classes, 1 to n, in the order in which a table of boxes numbers them, by its key."""
    column = read_table(place, table, columns=("class_name",))["class_name"]
    return [str(name) for name in column.values.tolist()]


def moved_tables(place: Place) -> tuple[MovedClass, ...]:
    """Return the classes that tables of boxes of before number otherwise than the store: readers map them."""
    known = read_classes(place)
    return tuple(one for table in _tables(place) for one in known.moved(listed_classes(place, table), table))


def enter_classes(place: Place, names: Iterable[str], source: str, *, first: str = "") -> Classes:
    """Have classes enter the table of a draft, and return all: those that it has keep their numbers, others follow.

    ``source`` says where names come from; a draft without the table gets it, with what its tables of boxes know,
    ``first`` before the others.
    """
    before = stored_classes(place)
    known = read_classes(place, first=first).having(names, source)
    if known.names and (before is None or known.names != before.names):
        write_classes(place, known)
        if before is None:
            for moved in moved_tables(place):
                log.warning("%s: %s", place.name, moved)
    return known


def write_classes(place: Place, classes: Classes) -> None:
    """Put a table of classes, a row each, in the place of the one of a store."""
    columns = {
        "number": np.arange(1, len(classes) + 1, dtype=np.int32),
        "name": np.array(classes.names, dtype=object),
        "source": np.array(classes.sources, dtype=object),
    }
    write_table(
        place, cv.CLASS_TABLE, xr.Dataset({name: ("class", column) for name, column in columns.items()})
    )
