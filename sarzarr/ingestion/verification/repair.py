"""The repair of a store: what is damaged is made again, and taken where it is what the store had, to the byte.

Documents come from their copies, and the root's from the documents; catalog, coordinates, patch tables and
overviews from these and from pixels; classes from tables of boxes; manifests from their files, where a patch table
knows their checksum; splits from their recipe; shards, histograms and samples from their sources.
"""

import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, SarzarrError
from sarzarr.ingestion.chips.find import ChipOptions
from sarzarr.ingestion.chips.pictures import import_chips
from sarzarr.ingestion.chips.spectrograms import import_npz
from sarzarr.ingestion.ptychography import import_ptychography
from sarzarr.ingestion.verification.again import Shard, histogram_of_all, records_of, write_again
from sarzarr.ingestion.verification.sources import Files, files_by_name, scene_as_stored
from sarzarr.ingestion.verification.verify import examine, folder_of, gather_documents, verify
from sarzarr.patches.cut import IndexSpec
from sarzarr.patches.index import INDEX_ROWS, measured_table
from sarzarr.splits.assign import assign, fixed_units
from sarzarr.splits.versions import grounds_of
from sarzarr.store.catalog import CATALOG_ROWS, catalog_of, catalog_rows, write_histogram
from sarzarr.store.chunks import ArrayLayout, described_layout
from sarzarr.store.classes import Classes, boxed_classes, listed_classes, stored_classes, write_classes
from sarzarr.store.commit import changing, write_bounds
from sarzarr.store.documents import (
    codec_of_column,
    json_bytes,
    read_small_array,
    root_with_bounds,
    write_coordinates,
    write_node,
)
from sarzarr.store.journal import writing
from sarzarr.store.manifest import Manifest, ShardRecord, read_manifest, write_manifest
from sarzarr.store.overviews.levels import levels_key
from sarzarr.store.overviews.make import write_overviews
from sarzarr.store.place import Folder
from sarzarr.store.seals import sealed
from sarzarr.store.shards import record_of
from sarzarr.store.split_table import Split, recipe_of, to_table
from sarzarr.store.store import AnyStore, Store, create_store
from sarzarr.store.tables import write_table
from sarzarr.store.verify.findings import ROOT, Findings, Verification, scene_in
from sarzarr.store.verify.overviews import overviews_told
from sarzarr.store.verify.pixels import read_manifests
from sarzarr.store.verify.tables import told_row
from sarzarr.store.verify.tree import TAKE_AWAY, Tree
from sarzarr.tasks import Progress

log = logging.getLogger(__name__)


def repair(
    store: AnyStore,
    sources: Iterable[str | Path] | str | Path = (),
    *,
    scenes: Collection[str] | None = None,
    deep: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Verification:
    """Mend what is damaged in a store, and return what is still wrong with it, ``mended`` and ``left``.

    Nothing that is intact is written. A shard takes the place of a damaged one if it is what the manifest lists.

    Parameters
    ----------
    store
        The store, in a folder.
    sources
        Files, folders and archives among which are those that the damaged scenes were made of: they are recognised by
        name and hash. Without them what stands twice in the store is mended.
    scenes
        The scenes that are mended from their sources; all if left out.
    deep
        Whether histograms and patch tables that the pixels do not give are mended, too.
    progress
        Called with the bytes of files that are looked at.

    Raises `RasterNotFoundError` where a source is not there, and as `sarzarr.verify`.
    """
    place = folder_of(store)
    paths = [Path(path) for path in ([sources] if isinstance(sources, str | Path) else sources)]
    files, folders = files_by_name(paths), [path for path in paths if path.is_dir()]
    before = verify(place, scenes=scenes, deep=deep, progress=progress)
    left = list[str]()
    if before.findings:
        with writing(place.path), _room(place) as room:
            _Repair(Folder(place.path.absolute()), Path(room), before, left).go(files, folders, scenes)
    after = verify(place, scenes=scenes, deep=deep)
    wrong = Findings("", {finding.file: finding for finding in after.findings})
    mended = tuple(finding.file for finding in before.findings if not wrong.touches(finding.file))
    return Verification(**{**vars(after), "mended": mended, "left": tuple(dict.fromkeys(left))})


def _room(place: Folder) -> TemporaryDirectory[str]:
    """Return a folder beside a store, which `sarzarr clean` knows if this process is killed."""
    return TemporaryDirectory(dir=place.path.absolute().parent, prefix=f".{place.name}.", suffix=".partial")


@dataclass
class _Repair:
    """A store under repair."""

    place: Folder
    """The store."""
    room: Path
    """A folder beside it."""
    before: Verification
    """What is wrong with it."""
    left: list[str]
    """Sentences on what cannot be repaired."""
    tree: Tree = field(init=False)
    """What is in it."""
    found: Findings = field(init=False)
    """What is still wrong with it."""
    is_stale: bool = True
    """Whether something was written since it was looked at."""
    has_written: bool = False
    """Whether anything was written."""
    rooms: int = 0
    """Folders that were made in the room."""

    def go(self, files: Files, folders: Sequence[Path], scenes: Collection[str] | None) -> None:
        """Mend all that can be mended, each thing after those that it is made of."""
        damaged = {scene_in(finding.file) for finding in self.before.findings} - {""}
        for what, step in (
            ("documents", self._documents),
            ("the root's document", self._root),
            ("the catalog", self._catalog),
            ("coordinates", self._coordinates),
            ("manifests", self._manifests),
            ("clips", self._clips),
            ("splits", self._splits),
            ("classes", self._classes),
            ("samples", lambda: self._samples(folders)),
            ("documents", self._documents),
        ):
            if self.is_stale:
                self._look()
            with self._leaving(what):
                step()
        if damaged or self.before.is_deep or self.is_stale:
            self._look(damaged, deep=self.before.is_deep)
        for scene in sorted({scene_in(file) for file in self.found.by_file} - {""}):
            if scenes is None or scene in scenes:
                with self._leaving(scene):
                    self._scene(scene, files)
        if self.is_stale:
            self._look(deep=self.before.is_deep)
        with self._leaving("patch tables"):
            self._indices()
            self._shares()
        self._unlisted()
        if self.is_stale:
            self._look(deep=self.before.is_deep)
        with self._leaving("overviews"):
            self._overviews()
        if self.has_written or any(map(_is_gathered, self.found.by_file)):
            gather_documents(self.place, self.tree.copies)

    def _look(self, scenes: Collection[str] = (), *, deep: bool = False) -> None:
        """Look at the store as it now is, and at the pixels of some scenes."""
        self.found = Findings(self.place.name)
        self.tree, _ = examine(self.place, self.found, scenes=scenes, deep=deep)
        self.is_stale = False

    @contextmanager
    def _leaving(self, what: str) -> Iterator[None]:
        """Turn an error into a sentence on what is left."""
        try:
            yield
        except (SarzarrError, OSError, LookupError) as error:
            log.debug("%s is left", what, exc_info=True)
            self.left.append(f"{what}: {error}")

    def _folder(self, home: str = "") -> Folder:
        """Return a new folder in the room: a part of a store that is, or will be, at a key."""
        self.rooms += 1
        path = self.room / str(self.rooms)
        path.mkdir()
        return Folder(path, home)

    def _store(self) -> Store:
        return Store(self.place)

    def _documents(self) -> None:
        """Write the documents that are damaged as their copies are."""
        for node, copy in self.tree.copies.items():
            key = f"{node}/{ROOT}"
            is_damaged = not self._is_intact(key)
            if is_damaged and (key in self.found.by_file or node.split("/")[0] in _DERIVED):
                self._put(key, json_bytes(copy))
        if not self._is_intact(f"{cv.DOCUMENTS}/{ROOT}") and self.place.head(cv.DOCUMENTS):
            (self.place.path / cv.DOCUMENTS / ROOT).unlink(missing_ok=True)  # gathering writes it

    def _is_intact(self, key: str) -> bool:
        return key in self.tree.files and not self.found.covers(key)

    def _root(self) -> None:
        """Write the root's document as arrays tell it, where it is damaged; what else stood in it is lost."""
        if "" in self.tree.documents and ROOT not in self.found.by_file:
            return
        self.is_stale = True
        if "" in self.tree.documents:
            return
        bounds: dict[str, Any] = {}
        for row in catalog_rows(self._store().catalog):
            about = self.tree.attributes(f"{cv.SCENES}/{row['scene']}/{row['name']}")
            keys = (cv.VMIN, cv.VMAX, cv.CLIP_VMIN, cv.CLIP_VMAX, cv.CLIP_METHOD)
            bounds[row["bounds_key"]] = {key: about[key] for key in keys}
        old = self._old_root()
        seal, *covered = str(old.get(cv.SEAL, "")).split(" ")
        own = {k: v for k, v in old.items() if k not in {*covered, *_OF_ROOT}}
        whole = root_with_bounds({**old.get(cv.BOUNDS, {}), **bounds}, own)
        if old and sealed(whole, ROOT, own)["attributes"][cv.SEAL].split(" ")[0] != seal:
            whole = root_with_bounds(bounds, own)  # what it says of groups without a scene may be the damage
        write_node(self.place, "", whole, own)
        gather_documents(self.place, self.tree.copies)

    def _old_root(self) -> dict[str, Any]:
        """Return the attributes of the root's document as far as it can be read."""
        try:
            found: dict[str, Any] = dict(json.loads(self.place.get(ROOT))["attributes"])
        except (OSError, ValueError, LookupError, TypeError):
            return {}
        return found if isinstance(found.get(cv.BOUNDS, {}), dict) else {}

    def _catalog(self) -> None:
        """Write the catalog as documents tell it, where a column of it is damaged."""
        if not self.found.touches(cv.CATALOG):
            return
        groups = self.tree.attributes("").get(cv.BOUNDS, {})
        rows = []
        for array in self.tree.arrays:
            top, scene, name = array.split("/", 2)
            if top == cv.SCENES and cv.QUANTITY in self.tree.attributes(array):
                row = told_row(self.tree, scene, name, groups)
                rows.append({"transform": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), **(row or {})})
        scenes = {node.split("/")[1] for node in self.tree.documents if node.startswith(f"{cv.SCENES}/")}
        for scene in sorted(scenes - {row.get("scene") for row in rows}):  # of layers alone
            row = told_row(self.tree, scene, "", groups)
            rows.append({"transform": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), **(row or {})})
        table = self._as_they_came(catalog_of(rows))
        for column in cv.CATALOG_SCHEMA:
            key = f"{cv.CATALOG}/{column}"
            if not self.found.touches(key) and key in self.tree.documents:
                table[column] = table[column].dims, read_small_array(self.place, key)[0]
        new = self._folder()
        write_table(new, cv.CATALOG, table, rows_per_chunk=CATALOG_ROWS)
        columns = {f"{cv.CATALOG}/{column}" for column in cv.CATALOG_SCHEMA}
        is_intact = columns.issuperset(file for file in self.found.by_file if file.startswith(cv.CATALOG))
        self._take_table(new, cv.CATALOG, as_it_was=not is_intact)  # else documents were changed on purpose

    def _as_they_came(self, catalog: xr.Dataset) -> xr.Dataset:
        """Return a catalog with its rows in the order in which the store has its arrays, as far as it is known."""
        columns = [f"{cv.CATALOG}/scene", f"{cv.CATALOG}/name"]
        if not any(map(self.found.touches, columns)):
            came = [read_small_array(self.place, key)[0].tolist() for key in columns]
        else:
            indices = sorted(self.tree.attributes(cv.PATCHES).get(cv.CUTS, {}))
            owners = [f"{cv.PATCHES}/{index}/owner_" for index in indices]
            keys = ([f"{owner}{part}" for part in ("scene", "array")] for owner in owners)
            held = self.tree.documents.keys()  # a column without a row has no file
            known = [both for both in keys if held >= {*both} and not any(map(self.found.touches, both))]
            if not known:
                return catalog
            came = [read_small_array(self.place, key)[0].tolist() for key in known[0]]
        rank = {names: at for at, names in enumerate(zip(*came, strict=True))}
        names = zip(catalog["scene"].values.tolist(), catalog["name"].values.tolist(), strict=True)
        order = np.argsort([rank.get(name, len(rank)) for name in names], kind="stable")
        return catalog.isel(array=order)

    def _take_table(self, new: Folder, key: str, *, as_it_was: bool = True) -> None:
        """Put the files of a table in the place of those that are damaged, if it is the one that was there."""
        known = self.tree.documents.get(key)
        written = json.loads(new.get(f"{key}/{ROOT}"))
        if as_it_was and known is not None and sealed(known, f"{key}/{ROOT}") != written:
            self.left.append(f"{key}: what can be made again is not what was there. {_COPY}")
            return
        self._take(new, key)

    def _take(self, new: Folder, key: str) -> None:
        """Put the files below a key of another store in the place of those that are damaged."""
        for path in sorted(path for path in (new.path / key).rglob("*") if path.is_file()):
            self._put(path.relative_to(new.path).as_posix(), path.read_bytes())

    def _put(self, key: str, content: bytes) -> None:
        if self.place.head(key) is None or self.place.get(key) != content:
            self.place.put(key, content)
            self.is_stale = self.has_written = True

    def _coordinates(self) -> None:
        """Write the chunks of coordinates that are damaged as the grid tells them."""
        store = self._store()
        for scene in store.scenes:
            key = f"{cv.SCENES}/{scene}"
            chunks = [f"{key}/{axis}/c/0" for axis in ("y", "x") if f"{key}/{axis}" in self.tree.documents]
            if all(self._is_intact(chunk) for chunk in chunks):
                continue
            new = self._folder(key)
            codec = codec_of_column(self.tree.documents[chunks[0].rpartition("/c/")[0]])
            write_coordinates(new, store.grid(scene), codec)
            for chunk in chunks:
                axis = chunk.removeprefix(f"{key}/")
                wanted = self.tree.attributes(chunk.rpartition("/c/")[0])[cv.CHUNK_CRC]
                content = new.get(axis) if new.head(axis) else b""
                if int.from_bytes(content[-4:], "little") == wanted:
                    self._put(chunk, content)

    def _manifests(self) -> None:
        """Write the manifests that are damaged as their files tell them, where a patch table knows their checksum."""
        known = self._known_checksums()
        for array in self.tree.arrays:
            key = f"{array}/{cv.MANIFEST}"
            if self._is_intact(key) or array not in known:
                continue
            layout = described_layout(array, self.tree.documents[array])
            new = self._folder(array.rpartition("/")[0])
            name = array.rpartition("/")[2]
            write_manifest(new, name, dict(self._told_by_files(layout)))
            if read_manifest(new, name).crc == known[array]:
                self._put(key, new.get(f"{name}/{cv.MANIFEST}"))

    def _clips(self) -> None:
        """Write the clips of the root onto arrays that say others."""
        store = self._store()
        rows = {
            f"{cv.SCENES}/{row['scene']}/{row['name']}/{ROOT}": row for row in catalog_rows(store.catalog)
        }
        if keys := {str(row["bounds_key"]) for file, row in rows.items() if file in self.found.by_file}:
            write_bounds(store, {key: store.bounds[key] for key in keys})
            self.is_stale = self.has_written = True

    def _splits(self) -> None:
        """Draw the versions of the split that are damaged again; one that extends another cannot be."""
        store = self._store()
        for key in sorted(node for node in self.tree.tables if node.startswith(f"{cv.SPLITS}/v")):
            facts = self.tree.attributes(key)
            if not self.found.touches(key) or facts["parent"] is not None:
                continue
            recipe, grounds = recipe_of(facts), grounds_of(store)
            scenes = assign(grounds, recipe, version=facts["version"])
            told = {name: facts[name] for name in ("version", "parent", "created_at", "notes")}
            units = fixed_units(grounds, scenes, recipe)
            new = self._folder()
            write_table(new, key, to_table(Split(recipe=recipe, scenes=scenes, fixed_units=units, **told)))
            self._take_table(new, key)

    def _classes(self) -> None:
        """Write the table of classes again as tables of boxes number them, with the sources that it still tells."""
        if cv.CLASS_TABLE not in self.tree.documents or not self.found.touches(cv.CLASS_TABLE):
            return
        new = self._folder()
        known = boxed_classes(self.place)
        with suppress(SarzarrError, OSError):
            sources = read_small_array(self.place, f"{cv.CLASS_TABLE}/source")[0]
            known = replace(known, sources=tuple(map(str, sources.tolist())))
        write_classes(new, known)
        self._take_table(new, cv.CLASS_TABLE)

    def _samples(self, folders: Sequence[Path]) -> None:
        """Pack the pictures of folders again; what is damaged comes from one that gives the same documents."""
        names = {node.split("/")[1] for node in self.tree.documents if node.startswith(f"{cv.SAMPLES}/")}
        before = Findings("", {finding.file: finding for finding in self.before.findings})
        for name in sorted(names):
            parts = (f"{cv.SAMPLES}/{name}", f"{cv.BOXES}/{name}")
            if not any(map(before.touches, parts)):
                continue
            nodes = [node for part in parts for node in self._nodes(part)]
            for twin in self._packed(folders, name):
                if all(self._is_same(twin, node) for node in nodes):
                    for part in parts:
                        self._take(twin, part)
                    break
            else:
                self.left.append(
                    f"{parts[0]}: the folder of its pictures was expected with --from, got none."
                )

    def _packed(self, folders: Sequence[Path], name: str) -> Iterator[Folder]:
        """Yield a store of the pictures, spectrograms or scan of each folder that has some."""
        of_folder = partial(import_chips, options=ChipOptions(name=name)), partial(import_npz, name=name)
        ways: list[tuple[Path, Callable[..., object]]] = [*product(folders, of_folder)]
        scans = [file for folder in folders for file in sorted(folder.glob("*.npz"))]
        ways += [(file, partial(import_ptychography, name=name)) for file in scans]
        for source, pack in ways:
            path = self._twin(name)
            with suppress(SarzarrError):
                pack(source, path)
                yield Folder(path)

    def _twin(self, name: str) -> Path:
        """Return the place of another store, with the classes that this one had when its set of that name came."""
        path, column = self._folder().path / "twin.zarr", f"{cv.BOXES}/{name}/class_name"
        with suppress(SarzarrError, OSError):
            known = stored_classes(self.place)
            if known is None:  # a store of before
                known = Classes().having(listed_classes(self.place, f"{cv.BOXES}/{name}"), name)
            if column in self.tree.documents:
                (count,) = self.tree.documents[column]["shape"]
                with changing(create_store(path)) as draft:
                    write_classes(draft.place, Classes(known.names[:count], known.sources[:count]))
        return path

    def _nodes(self, part: str) -> list[str]:
        return [node for node in self.tree.documents if node == part or node.startswith(f"{part}/")]

    def _is_same(self, twin: Folder, node: str) -> bool:
        """Return whether a node has the same document in another store."""
        key = f"{node}/{ROOT}"
        is_there = twin.head(key) is not None
        return is_there and json.loads(twin.get(key)) == sealed(self.tree.documents[node], key)

    def _known_checksums(self) -> dict[str, int]:
        """Return the checksums of manifests that patch tables know, by array."""
        out, store = dict[str, int](), self._store()
        for index in store.patch_indices:
            if self.found.touches(f"{cv.PATCHES}/{index}/owner_stamp"):
                continue
            table = store.patch_columns(index)
            for scene, name, stamp in zip(
                *(table[f"owner_{k}"].values.tolist() for k in ("scene", "array", "stamp")), strict=True
            ):
                array = f"{cv.SCENES}/{scene}/{name}"
                out |= {array: int(stamp[:8], 16), array + cv.FLAGS_SUFFIX: int(stamp[8:16], 16)}
        return out

    def _told_by_files(self, layout: ArrayLayout) -> Iterator[tuple[str, ShardRecord]]:
        grid, keys = layout.encoding.grid, layout.keys()
        for key in keys:
            try:
                yield key, record_of(self.place, f"{layout.path}/{key}", grid)
            except (OSError, ValueError):
                yield key, ShardRecord()

    def _scene(self, scene: str, files: Files) -> None:
        """Write what is damaged of a scene's pixels and histograms again from its sources."""
        group, store = f"{cv.SCENES}/{scene}", self._store()
        arrays = [array for array in self.tree.arrays if array.startswith(f"{group}/")]
        for array in [array for array in arrays if cv.MODEL in self.tree.attributes(array)]:
            arrays.remove(array)
            if self.found.touches(array):
                self.left.append(
                    f"{array}: a model predicted it. Predict it again (--overwrite), with the same options"
                )
        manifests = read_manifests(self.tree, Findings(self.place.name))
        wanted, unknown = self._damaged(arrays, manifests)
        counts = f"{cv.HISTOGRAMS}/{scene}"
        has_counts = not self.found.touches(counts)
        if has_counts and not wanted and not unknown:
            return
        layers = sorted({*unknown, *(name for name, _ in wanted)} & set(store.layers(scene)))
        plan = scene_as_stored(store, scene, files, layers)
        if not ({*unknown, *(name for name, _ in wanted)} - {*layers}) and has_counts:
            plan = replace(plan, only_layers=True)
        everything = bool(unknown) or not has_counts
        made = write_again(plan, self._folder().path, None if everything else wanted)
        for name in unknown:
            self._take_manifest(scene, name, records_of(made, name))
        for name, key in sorted(wanted):
            manifest = manifests.get(f"{group}/{name}")
            told = manifest[1].records[key] if manifest else records_of(made, name)[key]
            self._take_shard(
                made.group / name / key, f"{group}/{name}/{key}", told, records_of(made, name).get(key)
            )
        if not has_counts:
            self._take_histograms(scene, made)

    def _damaged(
        self, arrays: Iterable[str], manifests: dict[str, tuple[ArrayLayout, Manifest]]
    ) -> tuple[set[Shard], list[str]]:
        """Return the files of arrays that are damaged, and the names of arrays whose manifest is."""
        wanted, unknown = set[Shard](), list[str]()
        for array in arrays:
            name = array.rpartition("/")[2]
            if array not in manifests:
                unknown.append(name)
                keys = described_layout(array, self.tree.documents[array]).keys()
                wanted |= {(name, key) for key in keys}
                continue
            listed = manifests[array][1].records
            wanted |= {(name, k) for k, r in listed.items() if r.size and not self._is_intact(f"{array}/{k}")}
        return wanted, unknown

    def _take_shard(self, made: Path, key: str, told: ShardRecord, again: ShardRecord | None) -> None:
        if again != told:
            self.left.append(f"{key}: its sources give other pixels than those that were stored. {_AGAIN}")
        elif told.size:
            self._put(key, made.read_bytes())

    def _take_manifest(self, scene: str, name: str, records: dict[str, ShardRecord]) -> None:
        new, key = self._folder(f"{cv.SCENES}/{scene}"), f"{cv.SCENES}/{scene}/{name}"
        write_manifest(new, name, records)
        known = self._known_checksums().get(key)
        if known is not None and read_manifest(new, name).crc != known:
            raise InvalidInputError(
                f"the pixels of {key} as they were stored were expected, got others. {_AGAIN}"
            )
        self._put(f"{key}/{cv.MANIFEST}", new.get(f"{name}/{cv.MANIFEST}"))

    def _take_histograms(self, scene: str, made: Any) -> None:
        for name in self._store().arrays(scene):
            node = f"{cv.HISTOGRAMS}/{scene}/{name}"
            new = self._folder()
            write_histogram(new, node, histogram_of_all(made, name))
            known, written = self.tree.documents.get(node), json.loads(new.get(f"{node}/{ROOT}"))
            is_intact = node in self.found.by_file  # and another than its pixels give
            if not (is_intact or known is None or sealed(known, f"{node}/{ROOT}") == written):
                self.left.append(f"{node}: its sources give another histogram than was stored. {_AGAIN}")
                continue
            for file in (f"{node}/{ROOT}", f"{node}/c/0"):
                self._put(file, new.get(file))

    def _indices(self) -> None:
        """Measure the patches of tables that are damaged, or are not of these pixels and clips, again."""
        store = self._store()
        names = {node.split("/")[1] for node in self.tree.documents if node.startswith(f"{cv.PATCHES}/")}
        names.update(self.tree.attributes(cv.PATCHES).get(cv.CUTS, {}))
        for name in sorted({*names, cv.DEFAULT_INDEX}):
            key = f"{cv.PATCHES}/{name}"
            if not self.found.touches(key):
                continue
            cut = self.tree.attributes(cv.PATCHES).get(cv.CUTS, {}).get(name) or self.tree.attributes(key)
            spec = IndexSpec(name=name, **{k: cut[k] for k in ("size", "stride", "edge") if k in cut})
            new = self._folder()
            write_table(new, key, measured_table(store, spec), rows_per_chunk=INDEX_ROWS)
            self._take_table(new, key, as_it_was=False)

    def _shares(self) -> None:
        """Take away tables of layers' shares that are damaged: they are found again when they are asked for."""
        nodes = {*self.tree.documents, *self.tree.copies}
        for table in [node for node in nodes if re.fullmatch(f"{cv.SHARES}/[^/]+/[^/]+", node)]:
            if self.found.touches(table):
                for node in [node for node in nodes if node == table or node.startswith(f"{table}/")]:
                    self.tree.copies.pop(node, None)
                if (self.place.path / table).exists():
                    self.place.delete(table)
                self.has_written = True

    def _overviews(self) -> None:
        """Make damaged overviews again of scenes that are intact; take away those of scenes that are not there."""
        store = self._store()
        # Looks since the first one saw no pixels: it knows of shards that are whole and another's.
        first = {"/".join(finding.file.split("/")[:2]) for finding in self.before.findings}
        damaged = [
            scene
            for scene in overviews_told(self.tree)
            if self.found.touches(levels_key(scene)) or levels_key(scene) in first
        ]
        broken = [scene for scene in damaged if self.found.touches(f"{cv.SCENES}/{scene}")]
        if broken:  # they may have been mended meanwhile
            found = Findings(self.place.name)
            examine(self.place, found, scenes=broken)
            broken = [scene for scene in broken if found.touches(f"{cv.SCENES}/{scene}")]
        self.left += [f"{levels_key(scene)}: its scene is damaged, and comes first." for scene in broken]
        for node in [*self.tree.copies]:
            if any(f"{node}/".startswith(f"{levels_key(scene)}/") for scene in damaged):
                del self.tree.copies[node]
        for scene in damaged:
            if scene not in store.scenes and (self.place.path / levels_key(scene)).exists():
                self.place.delete(levels_key(scene))
                self.has_written = True
        again = [scene for scene in damaged if scene in store.scenes and scene not in broken]
        if again:
            write_overviews(store, again, again=True)
            self.has_written = True

    def _unlisted(self) -> None:
        """Take away files among shards that no manifest lists: nothing but sarzarr writes there."""
        for file, finding in self.found.by_file.items():
            if finding.remedy == TAKE_AWAY and self.tree.is_array(file.partition("/c/")[0]):
                (self.place.path / file).unlink(missing_ok=True)


def _is_gathered(file: str) -> bool:
    """Return whether a file holds copies of documents, or may."""
    return file.endswith(ROOT) or file.startswith(cv.DOCUMENTS)


_COPY: Final = "Restore it from a copy of the store."
_AGAIN: Final = "Write the scene anew: `sarzarr remove`, then `sarzarr ingest`."
_DERIVED: Final = (cv.CATALOG, cv.HISTOGRAMS, cv.PATCHES, cv.SCENES)
"""Groups that can be made anew where a whole folder of them is lost."""
_OF_ROOT: Final = (cv.SARZARR, cv.BOUNDS, cv.VMIN, cv.VMAX, cv.SEAL)
