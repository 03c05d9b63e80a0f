"""Copy a store into another dtype, codec or shard size, every byte checked on the way.

A task writes a row of an array's new shards and holds one chunk at a time. The copy is made beside its place, in
``.NEW.<hex>.partial``, and renamed when it is whole; where its process was killed, the next copy to that place, or
`sarzarr.clean`, removes that folder.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, StoreExistsError
from sarzarr.export.recode import Copied, CopyJob, Records, copy_shards, values_in
from sarzarr.export.schema1 import (
    attributes_of,
    layer_encoding,
    rebinned,
    scene_document,
    write_clips,
)
from sarzarr.export.schema1_samples import copy_samples
from sarzarr.files import remove_path, whole_folder
from sarzarr.patches.index import spec_of, update_index
from sarzarr.store.catalog import CATALOG_ROWS, histogram_of, write_histogram
from sarzarr.store.chunks import read_layout
from sarzarr.store.codecs import default_codec
from sarzarr.store.copies import consolidate
from sarzarr.store.documents import (
    Document,
    Encoding,
    array_document,
    cf_attributes,
    ensure_groups,
    file_bytes,
    group_document,
    has_node,
    read_node,
    read_sealed,
    read_small_array,
    write_coordinates,
    write_node,
)
from sarzarr.store.journal import writing
from sarzarr.store.manifest import write_manifest
from sarzarr.store.overviews.levels import levels_key
from sarzarr.store.overviews.make import STAGING as OVERVIEWS_STAGING
from sarzarr.store.overviews.make import built
from sarzarr.store.place import Folder, Place, local_folder
from sarzarr.store.samples import SampleSet, sample_sets
from sarzarr.store.shard_job import check_written
from sarzarr.store.store import AnyStore, Store, open_older, open_store
from sarzarr.store.tables import COLUMNS, read_table, write_table
from sarzarr.tasks import Progress, Task, compute, gather, wave_size, workplace

log = logging.getLogger(__name__)
DTYPES: Final = ("uint16", "float32", "float16")
TOKEN: Final = ".copying"
"""A file in the copy while it goes on: workers stop when it is gone."""


def copy_store(
    store: AnyStore,
    new: str | Path,
    *,
    dtype: str | None = None,
    codec: str | None = None,
    shard: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Store:
    """Write a store anew with another dtype, codec or shard size, and return the copy; one of schema 1 as of today.

    Values are those of `from_codes` and `to_codes`: to float32 and back is the identity, float16 rounds to 11 bits,
    0.04 dB of the stored range at the most. Layers keep their dtype. Patch tables are indexed again where a
    dtype changes, for means of other values; overviews are made again. All else (flags, bounds, splits, boxes,
    samples) is copied as it is.

    Of a store of schema 1 floats become what an ingest writes today, and uint16 codes the nearest of today's; pixels
    that were not measured become fill. Histograms follow, and clips (dB) that they recommended, and patch tables.

    Parameters
    ----------
    store
        The store; it is only read.
    new
        Path of the copy, where there is nothing yet.
    dtype
        ``uint16``, ``float32`` or ``float16``; each array's own if left out.
    codec
        A name in `sarzarr.store.codecs.CODECS`; if left out, the array's own, or the default of a dtype that is new,
        or of shards where there were none, or of none.
    shard
        Rows and columns of a shard, 0 for a file a chunk; each array's own if left out.
    progress
        Called as rows of shards are written, in this thread.

    Raises
    ------
    StoreExistsError, InvalidInputError
        There is something at ``new``, it is no local path or lies in the store, or an option is out of range.
    CorruptStoreError
        Stored bytes are damaged; names scene, array and chunk. There is no copy then.
    """
    if dtype not in (None, *DTYPES):
        raise InvalidInputError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    source = open_older(store).anew()
    place = _new_place(source, new)
    encodings = [_wanted(stored, dtype, codec, shard) for stored in _stored_encodings(source)]
    with writing(place):
        return _copied(source, place, encodings, progress)


def _copied(
    source: Store, place: Path, encodings: list[Encoding], progress: Callable[[Progress], None] | None
) -> Store:
    """Write the copy at its place, where there is nothing, and return it."""
    if place.is_symlink() or place.exists():
        raise _exists(place)
    try:
        with whole_folder(place, once=True) as staging, workplace(staging), _token(staging) as token:
            arrays = list(_arrays(source, staging, encodings))
            _copy_the_rest(source, Folder(staging), _made_anew(source, arrays))
            _write_places(source, staging, encodings)
            for name in sample_sets(source) if source.schema != cv.SCHEMA_VERSION else ():
                copy_samples(SampleSet(source, name), staging)
            _copy_pixels(arrays, token, progress)
            _write_tables(source, staging, encodings)
            _make_overviews(source, staging)
            consolidate(Store(Folder(staging)))
    except FileExistsError:
        raise _exists(place) from None
    log.info("%s copied to %s", source.place.name, place)
    return open_store(place)


@contextmanager
def _token(staging: Path) -> Iterator[Path]:
    """Yield a file that is there while a copy goes on; tasks that run on after an error end when it is gone."""
    token = staging / TOKEN
    token.touch()
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


def _new_place(source: Store, new: str | Path) -> Path:
    place = local_folder(new, "a copy").absolute()
    if isinstance(source.place, Folder) and source.root.resolve() in place.resolve().parents:
        raise InvalidInputError(
            f"a place outside of the store was expected, got {str(new)!r}. Put the copy beside it."
        )
    return place


def _exists(place: Path) -> StoreExistsError:
    return StoreExistsError(
        f"a place where there is nothing was expected, got {str(place)!r}, which exists. "
        "Name another place for the copy, or take away what is there."
    )


def _stored_encodings(source: Store) -> list[Encoding]:
    """Return the encoding of each row of the catalog, those of scenes of layers alone among them."""
    columns = {k: source.listing[k].values.tolist() for k in ("dtype", "codec", "chunk", "shard")}
    return [Encoding(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def _wanted(stored: Encoding, dtype: str | None, codec: str | None, shard: int | None) -> Encoding:
    """Return the encoding of an array in the copy."""
    if stored.dtype == cv.NO_DTYPE:  # layers alone, which keep their dtypes
        kept = replace(stored, shard=stored.shard if shard is None else shard)
        stays = codec is None and bool(kept.shard) == bool(stored.shard)
        own = stored.codec if stays else codec or default_codec("uint16", kept.shard)
        return replace(kept, codec=replace(kept, codec=own).codec_beside)
    dtype, shard = dtype or stored.dtype, stored.shard if shard is None else shard
    if codec is None:
        stays = (dtype, bool(shard)) == (stored.dtype, bool(stored.shard))
        codec = stored.codec if stays else default_codec(dtype, shard)
    return replace(stored, dtype=dtype, codec=codec, shard=shard)


def _arrays(source: Store, staging: Path, encodings: list[Encoding]) -> Iterator[CopyJob]:
    """Yield the arrays to copy: of each row of the catalog the pixels and their flags, and each scene's layers."""
    columns = (source.listing[k].values.tolist() for k in ("scene", "name", "flags", "height", "width"))
    rows = zip(*columns, _stored_encodings(source), encodings, strict=True)
    ranges = zip(*(source.listing[k].values.tolist() for k in ("vmin", "vmax")), strict=True)
    done, is_older = set[str](), source.schema != cv.SCHEMA_VERSION
    for (scene, name, flags, height, width, stored, wanted), stored_range in zip(rows, ranges, strict=True):
        layers = () if scene in done else source.layers(scene)
        done.add(scene)
        of_array = ((name, stored, wanted), (flags, stored.of_flags, wanted.of_flags)) if name else ()
        for array, old, new in (
            *of_array,
            *((layer, *_layer_encodings(source, scene, layer, wanted)) for layer in layers),
        ):
            is_coded = array == name
            job = CopyJob.of(
                (height, width),
                scene=scene,
                folder=str(staging / cv.SCENES / scene),
                encoding=new,
                name=array,
                source=source.place,
                listed="",
                token=str(staging / TOKEN),
                stored=old,
                is_older=is_older,
                old_flags=flags if is_older and is_coded else "",
                is_counted=is_older
                and is_coded
                and (old.dtype, *stored_range) == ("float32", *cv.STORED_RANGE),
            )
            job = replace(job, listed=job.digest)
            yield _with_fill(job, source) if is_older and array in layers else job


def _layer_encodings(source: Store, scene: str, layer: str, wanted: Encoding) -> tuple[Encoding, Encoding]:
    """Return a layer's encoding, and the one in the copy: the same, in shards like the arrays beside it."""
    layout = read_layout(source.place, f"{cv.SCENES}/{scene}/{layer}")
    return layout.encoding, replace(layout.encoding, codec=wanted.codec_beside, shard=wanted.shard)


def _with_fill(job: CopyJob, source: Store) -> CopyJob:
    """Return the job of a layer of schema 1 with the fill value that it has in the copy."""

    def values() -> Array:
        return np.concatenate(gather([(values_in, (part,)) for part in job.parts]))

    attributes = source.node_attrs(job.scene, job.name)
    return replace(job, encoding=layer_encoding(job.encoding, attributes, values))


def _made_anew(source: Store, arrays: list[CopyJob]) -> set[str]:
    """Return the keys of what is made anew, or left out: patch tables, and scenes that the catalog does not know."""
    anew = {cv.CATALOG, "zarr.json", cv.OVERVIEWS, *(array.key for array in arrays)}
    if source.schema != cv.SCHEMA_VERSION:
        anew |= {f"{cv.HISTOGRAMS}/{array.scene}/{array.name}" for array in arrays if array.old_flags}
        anew |= {f"{cv.SCENES}/{scene}/zarr.json" for scene in source.scenes}
    beside = ("y", "x", cv.SPATIAL_REF)
    anew |= {f"{cv.SCENES}/{scene}/{name}" for scene in source.scenes for name in beside}
    for group, kept in ((cv.PATCHES, ()), (cv.SCENES, source.scenes)):
        names = (name[:-1] for name in source.place.children(group) if name.endswith("/"))
        anew |= {f"{group}/{name}" for name in names if name not in kept}
    return anew


def _copy_the_rest(source: Store, copy: Place, anew: set[str], group: str = "") -> None:
    """Copy what is below a group, but for what is made ``anew``, hidden or half made."""
    is_older = source.schema != cv.SCHEMA_VERSION
    for name in source.place.children(group):
        key = f"{group}/{name}".strip("/")
        if name.startswith(".") or key.endswith(".partial") or key in anew:
            continue
        if is_older and name.endswith("/") and COLUMNS in _attributes(source.place, key):
            write_table(copy, key, read_table(source.place, key))
        elif name.endswith("/"):
            _copy_the_rest(source, copy, anew, key)
        else:
            if is_older and name == "zarr.json":
                write_node(copy, group, read_node(source.place, group))
            else:
                copy.put(key, file_bytes(source.place, key))


def _attributes(place: Place, key: str) -> Document:
    """Return the attributes of a group, none of a folder that is no group."""
    attributes: Document = read_node(place, key)["attributes"] if has_node(place, key) else {}
    return attributes


def _write_places(source: Store, staging: Path, encodings: list[Encoding]) -> None:
    """Write the coordinates of each scene beside its arrays, and, of schema 1, the document of its group."""
    of_scene = dict(zip(source.listing["scene"].values.tolist(), encodings, strict=True))
    for scene, encoding in of_scene.items():
        key, grid = f"{cv.SCENES}/{scene}", source.grid(scene)
        group = Folder(staging / key, key)
        write_coordinates(group, grid, encoding.codec_of_coordinates)
        if source.schema != cv.SCHEMA_VERSION:
            write_node(group, "", scene_document(read_node(source.place, key), grid))


def _copy_pixels(arrays: list[CopyJob], token: Path, progress: Callable[[Progress], None] | None) -> None:
    """Copy every array in waves of tasks, and write the documents of each when its files are in.

    The first error has the other tasks of its wave end, and is raised when they have.
    """
    by_target = {array.target: array for array in arrays}
    waiting = {array.target: len(array.parts) for array in arrays}
    files: dict[Path, Records] = {}
    counts: dict[Path, Array] = {}
    errors: list[Exception] = []
    done, total = 0.0, sum(array.stored_bytes for array in arrays)

    def take(result: Copied) -> None:
        nonlocal done
        target, records, counted = result
        if isinstance(records, Exception):
            errors.append(records)
            token.unlink(missing_ok=True)
            return
        files.setdefault(target, {}).update(records)
        if counted is not None:
            counts[target] = counts.get(target, 0) + counted
        waiting[target] -= 1
        array = by_target[target]
        done += array.stored_bytes / len(array.parts)
        if progress is not None:
            progress(Progress(round(done), total, array.scene))
        if not waiting[target] and not errors:
            check_written(target, files[target], array.encoding.grid)
            _write_documents(array, files.pop(target))
            if array.old_flags:
                _write_histogram(array, counts.pop(target, None))

    for array in arrays:
        array.target.mkdir(parents=True)
    tasks: Iterator[Task] = ((copy_shards, (part,)) for array in arrays for part in array.parts)
    while wave := list(islice(tasks, wave_size())):
        compute(wave, take)
        if errors:
            raise errors[0]


def _write_documents(array: CopyJob, records: Records) -> None:
    """Write the manifest and the ``zarr.json`` of an array: its own attributes, but for how codes are scaled."""
    old, free = read_sealed(array.source, array.key)
    attributes, dims = old["attributes"], tuple(old["dimension_names"])
    group = Folder(Path(array.folder), f"{cv.SCENES}/{array.scene}")
    shape = array.height, array.width
    if array.is_older:
        is_coded, is_placed = bool(array.old_flags), has_node(group, cv.SPATIAL_REF)
        if not is_coded and array.encoding.dtype != array.stored.dtype:
            attributes[cv.SOURCE_DTYPE] = array.stored.dtype
        attributes = attributes_of(attributes, array.encoding, is_coded=is_coded, is_placed=is_placed)
    elif array.encoding.dtype != array.stored.dtype:
        attributes = {k: v for k, v in attributes.items() if k not in cv.CODED}
        attributes |= cf_attributes(array.encoding)
    write_manifest(group, array.name, records)
    document = array_document(shape, array.encoding, dims=dims, attributes=attributes)
    write_node(group, array.name, document, free)


def _make_overviews(source: Store, staging: Path) -> None:
    """Make the overviews that scenes had of the copy's pixels, which may be of another dtype, in other shards."""
    if scenes := [scene for scene in source.scenes if source.levels(scene)[1:]]:
        copy, folder = Store(Folder(staging)), staging / OVERVIEWS_STAGING
        ensure_groups(copy.place, cv.OVERVIEWS)
        for scene, made in built(copy, scenes, folder):
            copy.place.swap(made, levels_key(scene))
        remove_path(folder)


def _write_histogram(array: CopyJob, counts: Array | None) -> None:
    """Write the histogram of an array of schema 1: ``counts`` of its pixels, or its own in today's bins if None."""
    key = f"{cv.HISTOGRAMS}/{array.scene}/{array.name}"
    old, document = read_small_array(array.source, key)
    histogram = histogram_of(rebinned(old) if counts is None else counts, document)
    write_histogram(Folder(Path(array.folder).parents[1]), key, histogram)


def _write_tables(source: Store, staging: Path, encodings: list[Encoding]) -> None:
    """Write the catalog, the root's document, clips that are found anew, and the patch tables of the copy."""
    copy, columns = Folder(staging), {"dtype": "O", "codec": "O", "shard": "i8"}
    new = {k: ("array", np.array([getattr(e, k) for e in encodings], kind)) for k, kind in columns.items()}
    write_table(copy, cv.CATALOG, source.listing.assign(new), rows_per_chunk=CATALOG_ROWS)
    document, free = read_sealed(source.place, "")
    about = document["attributes"]
    about[cv.SARZARR] = about[cv.SARZARR] | {"version": cv.SCHEMA_VERSION}
    write_node(copy, "", group_document(about), free)
    if source.schema != cv.SCHEMA_VERSION:
        write_clips(Store(copy))
    for name in source.patch_indices:
        update_index(Store(copy), spec_of(source, name))
