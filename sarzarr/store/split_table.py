"""One version of a split in its two forms: a table in the store, and a JSON document.

A version never changes. Its fingerprint covers the recipe and every cell, so that two stores can tell
whether they were split alike.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, InvalidInputError, MissingFileError, NotInStoreError
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.grid import Grid
from sarzarr.grids.world import Draw, WorldLattice
from sarzarr.store.documents import has_node, named, nodes_below, read_node
from sarzarr.store.html import MOST_ROWS, Section, page_part
from sarzarr.store.limits import MAX_CHUNKS, check_within
from sarzarr.store.membership import CellTable, count_memberships, parse_choice, patch_mask
from sarzarr.store.place import Place
from sarzarr.store.tables import read_table
from sarzarr.text import counted

BY: Final = ("ground", "scene", "site")
_FOLDS: Final = ("folds", "fold")
"""Fields of a recipe that versions without folds do not have."""
LAST: Final = "last_version"
"""Attribute of ``splits``: the highest version there ever was."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings that, with the ground, decide membership."""

    val_fraction: float = 0.1
    """Share of the lattice's blocks, of the scenes or of the sites that are validation."""
    test_fraction: float = 0.0
    """Share of them that is test."""
    seed: int = 42
    """Another seed is another split."""
    by: str = "ground"
    """What is drawn: blocks of the ``ground`` lattice, whole ``scene`` or whole ``site``."""
    block: float = 10_000.0
    """Metres of a block of the ground lattice."""
    pixel_block: int = 1024
    """Pixels of a block where scenes have no place in the world; a multiple of a cell."""
    guard: float | None = None
    """Metres of margin about a cell; two pixels where None. Doubtful geolocation adds its doubt."""
    fixed_val: bool = False
    """Whether ground that arrives later may not become validation or test."""
    drawn: float | None = None
    """Share of the units that is drawn for validation where it is not ``val_fraction``: little ground loses more."""
    folds: int | None = None
    """Number of folds that the units which are not test are cut into; None where there are none."""
    fold: int | None = None
    """The fold, from 0, that is validation here."""

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise InvalidInputError(f"by must be one of {', '.join(BY)}, got {self.by!r}.")
        if self.pixel_block < cv.CELL or self.pixel_block % cv.CELL:
            raise InvalidInputError(
                f"a pixel_block in multiples of {cv.CELL} pixels was expected, got {self.pixel_block}."
            )
        if self.guard is not None and not 0 <= self.guard < 1e6:
            raise InvalidInputError(f"a guard of 0 m to 1000 km was expected, got {self.guard}.")
        is_fold = self.folds is not None and self.fold is not None and 0 <= self.fold < self.folds >= 2
        if not is_fold and (self.folds, self.fold) != (None, None):
            raise InvalidInputError(
                f"at least 2 folds, one of which is meant, were expected, got {self.folds}."
            )
        _ = self.draw, self.lattice  # they check the rest

    @property
    def settings(self) -> dict[str, Any]:
        """Its fields by name; those of folds where there are some."""
        return {
            name: value for name, value in asdict(self).items() if name not in _FOLDS or value is not None
        }

    @property
    def draw(self) -> Draw:
        """The rule that gives each unit its membership."""
        drawn = self.val_fraction if self.drawn is None else self.drawn
        fold = None if self.fold is None or self.folds is None else (self.fold, self.folds)
        return Draw(seed=self.seed, val_fraction=drawn, test_fraction=self.test_fraction, fold=fold)

    @property
    def lattice(self) -> WorldLattice:
        """The ground blocks, metres."""
        return WorldLattice(block=self.block)


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneCells:
    """The membership of one scene's cells."""

    scene: str
    """The scene's id."""
    grid: str
    """Fingerprint of its placement: memberships hold for this one alone."""
    place: str
    """The lattice that its cells are on: ``world``, or a name shared by scenes that may share ground."""
    site: str = ""
    """Its site, where one was named."""
    since: int
    """Version in which it came in."""
    codes: Array
    """(rows, columns) uint8 of `sarzarr.conventions.Membership`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """One version of a split."""

    version: int
    """1, 2, ...; never used again."""
    recipe: Recipe
    """What decided it."""
    scenes: tuple[SceneCells, ...]
    """Its scenes, sorted by id; among them those that have since left the store."""
    fixed_units: Array = field(default_factory=lambda: np.empty(0, np.uint64))
    """(n,) uint64, ascending: the units that validation and test lie in."""
    parent: int | None = None
    """The version that this one extends."""
    created_at: str
    """UTC, ISO 8601 with Z."""
    notes: str = ""
    """What its maker wrote."""

    @property
    def name(self) -> str:
        """``v1``."""
        return f"v{self.version}"

    @cached_property
    def counts(self) -> dict[str, int]:
        """Cells of each membership, by name."""
        return count_memberships([s.codes for s in self.scenes])

    @property
    def val_ratio(self) -> float:
        """Share of validation among the cells that are used, float in [0, 1]; NaN where none is used."""
        used = sum(self.counts.values()) - self.counts["held_back"]
        return self.counts["val"] / used if used else float("nan")

    @property
    def held_back_share(self) -> float:
        """Share of all cells that is held back, float in [0, 1]."""
        return self.counts["held_back"] / max(sum(self.counts.values()), 1)

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """The sides of the blocks that were drawn, for people: ``("10 km",)``; ``"256 px"`` on lattices of pixels.

        Both where scenes of both kinds are there; none where whole scenes or sites were drawn.
        """
        if self.recipe.by != "ground":
            return ()
        places = {s.place for s in self.scenes}
        side = self.recipe.block
        said = f"{side / 1000:g} km" if side >= 1000 else f"{side:g} m"
        in_world = (said,) if "world" in places else ()
        is_on_pixels = any(p.startswith("pixels/") for p in places)
        return (*in_world, f"{self.recipe.pixel_block} px") if is_on_pixels else in_world

    @cached_property
    def by_scene(self) -> Mapping[str, SceneCells]:
        """Its scenes by id."""
        return {s.scene: s for s in self.scenes}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the recipe, the units and every cell."""
        digest = sha256(json.dumps(self.recipe.settings, sort_keys=True).encode())
        digest.update(np.ascontiguousarray(self.fixed_units, "<u8").tobytes())
        for s in self.scenes:
            digest.update(
                json.dumps([s.scene, s.grid, s.place, s.site, s.since, list(s.codes.shape)]).encode()
            )
            digest.update(np.ascontiguousarray(s.codes).tobytes())
        return digest.hexdigest()

    def patch_mask(self, table: xr.Dataset, wanted: int, grids: Mapping[str, str]) -> Array:
        """Return (n,) bool: the patches of a `Store.patch_columns` table that are of one membership.

        ``grids`` has the fingerprint of each scene's placement, as the store now is: patches of a scene
        that is on another grid than this version knows, or that it does not know, are of none.
        """
        number = {s.scene: i for i, s in enumerate(self.scenes) if grids.get(s.scene) == s.grid}
        owners = np.array([number.get(s, -1) for s in table["owner_scene"].values.tolist()], np.int64)
        return patch_mask(
            CellTable(codes=[s.codes for s in self.scenes]),
            scene=owners[table["owner"].values],
            row=table["row"].values,
            col=table["col"].values,
            size=int(table.attrs["size"]),
            wanted=wanted,
        )

    def __repr__(self) -> str:
        said = ", ".join(f"{n} {k.replace('_', ' ')}" for k, n in self.counts.items())
        return f"<sarzarr.Split {self.name}: {counted(len(self.scenes), 'scene')}, cells: {said}>"

    def _repr_html_(self) -> str:
        sides = [(side.replace("_", " "), count) for side, count in self.counts.items()]
        rows = [
            (s.scene, s.place, s.site, *count_memberships([s.codes]).values())
            for s in self.scenes[:MOST_ROWS]
        ]
        columns = ("scene", "place", "site", *(side for side, _ in sides))
        about = [*self.recipe.settings.items(), ("blocks", " and ".join(self.blocks))]
        about += [("extends", f"v{self.parent}" if self.parent else ""), ("made", self.created_at)]
        about += [("notes", self.notes), ("fingerprint", self.fingerprint)]
        sections = [
            Section.of("Cells", sides, is_open=True),
            Section(title="Cells by scene", rows=rows, columns=columns, total=len(self.scenes)),
            Section.of("Recipe", [(name, value) for name, value in about if value not in ("", None)]),
        ]
        shares = f"{self.val_ratio:.1%} validation, {self.held_back_share:.1%} held back"
        return page_part(
            "sarzarr.Split", self.name, f"{counted(len(self.scenes), 'scene')}, {shares}", sections
        )


def to_table(split: Split) -> xr.Dataset:
    """Return a split as columns over ``cell``, ``scene`` and ``unit``; the inverse of `from_table`."""
    rows, cols, codes = [np.empty(0, np.int32)], [np.empty(0, np.int32)], [np.empty(0, np.uint8)]
    for s in split.scenes:
        r, c = np.indices(s.codes.shape, np.int32)
        rows.append(r.reshape(-1))
        cols.append(c.reshape(-1))
        codes.append(s.codes.reshape(-1))
    owner = np.repeat(np.arange(len(split.scenes), dtype=np.int32), [s.codes.size for s in split.scenes])
    shapes = np.array([s.codes.shape for s in split.scenes], np.int32).reshape(-1, 2)
    columns: dict[str, Any] = {
        "owner": ("cell", owner),
        "cell_row": ("cell", np.concatenate(rows)),
        "cell_col": ("cell", np.concatenate(cols)),
        "code": ("cell", np.concatenate(codes)),
        "owner_rows": ("scene", shapes[:, 0]),
        "owner_cols": ("scene", shapes[:, 1]),
        "owner_since": ("scene", np.array([s.since for s in split.scenes], np.int32)),
        "fixed_unit": ("unit", split.fixed_units.astype(np.uint64)),
    }
    for name in ("scene", "grid", "place", "site"):
        columns[f"owner_{name}"] = ("scene", np.array([getattr(s, name) for s in split.scenes], dtype=object))
    return xr.Dataset(columns, attrs=facts_of(split))


def facts_of(split: Split) -> dict[str, Any]:
    """Return what a version says of itself, besides its cells."""
    return {
        "version": split.version,
        "parent": split.parent,
        "created_at": split.created_at,
        "notes": split.notes,
        "cell": cv.CELL,
        "code_meanings": " ".join(m.name.lower() for m in cv.Membership),
        **split.recipe.settings,
        "counts": split.counts,
        "val_ratio": split.val_ratio if split.val_ratio == split.val_ratio else None,
        "fingerprint": split.fingerprint,
    }


def recipe_of(facts: Mapping[str, Any]) -> Recipe:
    """Return the recipe among the facts of a version."""
    names = [name for name in Recipe.__dataclass_fields__ if name in facts or name not in _FOLDS]
    return Recipe(**{name: facts[name] for name in names})


def from_table(table: xr.Dataset) -> Split:
    """Return the split that `to_table` wrote.

    Raises `CorruptStoreError` where it does not have the fingerprint that it says.
    """
    facts = table.attrs
    check_within(table["code"].values, 0, max(cv.Membership), "code")
    check_within(
        np.concatenate([table[k].values for k in ("owner_rows", "owner_cols")]), 0, MAX_CHUNKS, "cells"
    )
    shapes = list(zip(table["owner_rows"].values.tolist(), table["owner_cols"].values.tolist(), strict=True))
    ends = np.cumsum([0, *(r * c for r, c in shapes)])
    codes = table["code"].values
    text = {n: table[f"owner_{n}"].values.tolist() for n in ("scene", "grid", "place", "site", "since")}
    scenes = tuple(
        SceneCells(codes=codes[ends[i] : ends[i + 1]].reshape(shape), **{k: v[i] for k, v in text.items()})
        for i, shape in enumerate(shapes)
    )
    split = Split(
        version=int(facts["version"]),
        recipe=recipe_of(facts),
        scenes=scenes,
        fixed_units=table["fixed_unit"].values,
        parent=facts["parent"],
        created_at=facts["created_at"],
        notes=facts["notes"],
    )
    return with_fingerprint(split, facts["fingerprint"])


def with_fingerprint(split: Split, fingerprint: str) -> Split:
    """Return ``split`` if it has that fingerprint; else `CorruptStoreError`."""
    if split.fingerprint != fingerprint:
        raise CorruptStoreError(
            f"split {split.name} with fingerprint {fingerprint[:16]} was expected, got "
            f"{split.fingerprint[:16]}. It was edited or damaged: import an exported copy, or make a new one."
        )
    return split


def placements(place: Place, catalog: xr.Dataset) -> dict[str, Georeference]:
    """Return how the pixels of each scene of a store are tied to the ground, by scene id."""
    first = {s: i for i, s in reversed(list(enumerate(catalog["scene"].values.tolist())))}
    columns = {
        k: catalog[k].values.tolist() for k in ("height", "width", "crs_wkt", "transform", "geolocation")
    }
    return {s: _placement(place, s, {k: v[i] for k, v in columns.items()}) for s, i in sorted(first.items())}


def _placement(place: Place, scene: str, row: Mapping[str, Any]) -> Georeference:
    attributes: Mapping[str, Any] = {}
    if not row["crs_wkt"] and row["geolocation"] == "gcps":
        attributes = read_node(place, f"{cv.SCENES}/{scene}")["attributes"]
    a, b, c, d, e, f = row["transform"]
    grid = Grid(
        height=row["height"],
        width=row["width"],
        crs_wkt=row["crs_wkt"] or None,
        transform=(a, b, c, d, e, f),
    )
    return Georeference(
        grid=grid,
        geolocation=row["geolocation"],
        gcps=tuple(_gcp(g) for g in np.reshape(np.array(attributes.get(cv.GCPS, ()), object), (-1, 5))),
        gcps_crs=attributes.get(cv.GCPS_CRS) or None,
    )


def _gcp(values: Any) -> tuple[float, float, float, float, float]:
    row, col, x, y, z = (float(v or 0) for v in values)
    return row, col, x, y, z


def versions(place: Place, splits: str = cv.SPLITS) -> tuple[int, ...]:
    """Return the versions of the splits that are kept below a key, ascending."""
    names = map(re.compile(r"v([1-9][0-9]*)").fullmatch, nodes_below(place, splits))
    return tuple(sorted(int(name[1]) for name in names if name))


def read_split(place: Place, version: int | None = None) -> Split:
    """Return a version of a store's split, the newest one if left out.

    Raises `NotInStoreError` where there is no such version, or none at all; `CorruptStoreError` where a column
    fails its checksum, or the whole its fingerprint; `MissingFileError` where the newest is asked for and not there.
    """
    known = versions(place)
    if version is None and (last := last_version(place)) > max(known, default=0):
        raise MissingFileError(
            f"the newest split was expected at {place}/{cv.SPLITS}/v{last}, got none. Restore it from a copy, make "
            "or extend a split, or name a version that is there, as in split='v1:train'."
        )
    if not known:
        raise NotInStoreError(
            "a split must be made before one is read, got a store without one. "
            "Make one with `sarzarr split create STORE`, or leave out split=."
        )
    if version is not None and version not in known:
        names = ", ".join(f"v{v}" for v in known)
        raise NotInStoreError(f"a split version among {names} was expected, got v{version}.")
    key = f"{cv.SPLITS}/v{known[-1] if version is None else version}"
    table = read_table(place, key)
    with named(place, f"{key}/zarr.json"):
        return from_table(table)


def fold_versions(place: Place) -> dict[int, int]:
    """Return the newest version of each fold of the newest recipe with folds, by fold; none where there is none."""
    out: dict[int, int] = {}
    wanted: dict[str, Any] | None = None
    for version in reversed(versions(place)):
        key = f"{cv.SPLITS}/v{version}"
        facts = read_node(place, key)["attributes"]
        if facts.get("fold") is None:
            continue
        with named(place, f"{key}/zarr.json"):
            settings = recipe_of(facts).settings
        fold = settings.pop("fold")
        wanted = settings if wanted is None else wanted
        if settings == wanted:
            out.setdefault(fold, version)
    return dict(sorted(out.items()))


def read_side(place: Place, text: str) -> tuple[Split, cv.Membership]:
    """Return the version and the side that a user asks for: ``train``, ``v2:val``, ``fold0:train``.

    Raises `InvalidInputError` where it is none of these; `NotInStoreError` where there is no such version or fold.
    """
    fold, _, side = text.partition(":")
    if not re.fullmatch(r"fold[0-9]{1,9}", fold):
        version, wanted = parse_choice(text)
        return read_split(place, version), wanted
    known, (_, wanted) = fold_versions(place), parse_choice(side)
    if (number := int(fold.removeprefix("fold"))) not in known:
        names = ", ".join(f"fold{n}" for n in known) or "none"
        raise NotInStoreError(
            f"a fold among {names} was expected, got {fold!r}. Make some with `sarzarr split create STORE --folds 5`."
        )
    return read_split(place, known[number]), wanted


def last_version(place: Place, splits: str = cv.SPLITS) -> int:
    """Return the highest version of the splits below a key that there ever was; 0 where none is known."""
    if not has_node(place, splits) and not versions(place, splits):
        return 0
    last = read_node(place, splits)["attributes"].get(LAST, 0)
    with named(place, f"{splits}/zarr.json"):
        return int(last)
