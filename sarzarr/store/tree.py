"""A store as a tree of scenes, each of which is opened when it is first touched.

xarray makes every node of a `DataTree` when it makes the tree, and a node with no variable takes it a millisecond:
of thousands of scenes most of which nobody looks at, that is all there is to wait for. So the root is a mapping of
its own, made of the catalog, and what it gives for a scene is an `xarray.DataTree`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Literal, cast

import xarray as xr

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.store.html import MOST_ROWS, Section, page_part
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.text import counted

Values = Literal["normalized", "db", "power"]
"""The values of a tree's arrays: in [0, 1], in dB, or linear power."""
VALUES: Final = ("normalized", "db", "power")


@dataclass(frozen=True, eq=False)
class StoreTree(Mapping[str, xr.DataTree]):
    """The scenes of a store by id, as `xarray.DataTree`; one is opened when it is asked for, and kept.

    Length, order, ``in`` and text come from the catalog: no scene is opened for them. `to_datatree` makes a
    `DataTree` of some scenes, or of all, for what xarray does with a whole tree.
    """

    store: Store
    """The store."""
    kind: Values = "normalized"
    """What arrays hold: float32 in [0, 1], in dB, or linear power; NaN where nothing was measured."""
    _opened: dict[str, xr.DataTree] = field(default_factory=dict, init=False, repr=False)

    @property
    def attrs(self) -> dict[str, object]:
        """Attributes of the store's root."""
        return dict(self.store.attrs)

    @property
    def groups(self) -> tuple[str, ...]:
        """The paths of the root and the scenes: ``/``, ``/s1``, ..."""
        return ("/", *(f"/{scene}" for scene in self))

    def __iter__(self) -> Iterator[str]:
        return iter(self.store.scenes)

    def __len__(self) -> int:
        return len(self.store.scenes)

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and path in self.store.by_scene

    def __getitem__(self, path: str) -> xr.DataTree:
        """Return the node of a scene; with ``s1/vv`` an array of it, a `DataArray` (rows, columns).

        A path of the store itself, ``scenes/s1/vv``, is taken, too. `NotInStoreError`, which is a `KeyError`, where
        there is none.
        """
        scene, slash, array = path.strip("/").removeprefix(f"{cv.SCENES}/").partition("/")
        if scene not in self._opened:
            self._opened[scene] = xr.DataTree(self._dataset(scene), name=scene)
        node = self._opened[scene]
        if slash and array not in node.dataset.variables:
            names = ", ".join(map(str, node.dataset.variables))
            raise NotInStoreError(f"array of {scene!r} must be one of {names}, got {array!r}.")
        return cast("xr.DataTree", node[array] if slash else node)

    def _dataset(self, scene: str) -> xr.Dataset:
        if self.kind == "normalized" or not self.store.arrays(scene):
            return self.store.open_scene(scene)
        opened: xr.Dataset = (self.store.db if self.kind == "db" else self.store.power)(scene)
        return opened

    def to_datatree(self, scenes: Iterable[str] | None = None) -> xr.DataTree:
        """Return a `DataTree` of scenes by id, all of them if left out, each of which is opened now.

        Raises `NotInStoreError` where there is no such scene.
        """
        nodes = {scene: self[scene] for scene in (self if scenes is None else scenes)}
        return xr.DataTree(xr.Dataset(attrs=self.attrs), children=nodes, name=self.store.place.name)

    def __repr__(self) -> str:
        lines = [f"<sarzarr.StoreTree {self.store.place.name!r}: {counted(len(self), 'scene')}>"]
        lines += [f"    {line}" for line in islice(self.lines(), MOST_ROWS)]
        return "\n".join(
            [*lines, *([f"    ... and {len(self) - MOST_ROWS:,} more"] if len(self) > MOST_ROWS else [])]
        )

    def _repr_html_(self) -> str:
        rows = [line.split(": ", 1) for line in islice(self.lines(), MOST_ROWS)]
        columns, total = ("scene", "arrays"), len(self)
        scenes = Section(title="Scenes", rows=rows, columns=columns, total=total, is_open=True)
        return page_part("sarzarr.StoreTree", self.store.place.name, counted(total, "scene"), [scenes])

    def lines(self) -> Iterator[str]:
        """Yield a line of text per scene: its arrays, rows and columns, and time."""
        for scene in self.store.scenes:
            first = self.store.facts(scene)[0]
            names = ", ".join(self.store.arrays(scene)) or "layers alone"
            yield f"{scene}: {names} ({first['height']} x {first['width']}) {first['time']}".rstrip()


def open_tree(store: AnyStore, *, values: Values = "normalized") -> StoreTree:
    """Open a store as a tree of scenes by id, each of which is opened lazily when it is first touched.

    ``tree["s1"]`` is an `xarray.DataTree` node, ``tree["s1/vv"]`` a `DataArray` (rows, columns) float32. ``values``
    says what arrays hold: ``normalized`` values in [0, 1] as `Store.open_scene` has them, ``db``, or ``power``; NaN
    where nothing was measured. Layers come with the normalized ones alone.

    Raises `InvalidInputError` for other values; errors of the store are those of `open_store`.
    """
    if values not in VALUES:
        raise InvalidInputError(f"values must be one of {', '.join(VALUES)}, got {values!r}.")
    return StoreTree(open_store(store), values)
