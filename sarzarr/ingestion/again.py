"""Scenes that are in the store already: the same, to be added to, or stored otherwise."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sarzarr import conventions as cv
from sarzarr.errors import SceneExistsError
from sarzarr.grids.warp.plan import WarpPlan
from sarzarr.ingestion.options import IngestOptions
from sarzarr.ingestion.scene_plan import ScenePlan
from sarzarr.scenes.probe import probe_file
from sarzarr.scenes.scene import SceneProbe, group_scenes
from sarzarr.store.catalog import catalog_rows, encoding_of
from sarzarr.store.codecs import DEFAULT_CODECS
from sarzarr.store.documents import Encoding
from sarzarr.store.store import Store

_ENCODED: Final = ("dtype", "codec", "shard")
_NAMED: Final = ("name", "quantity", "source_representation")


def known_hash(store: Store | None, scene: str) -> str | None:
    """Return the source hash of a scene that the store has; None where it has none."""
    if store is None or scene not in store.scenes:
        return None
    return str(store.rows(scene)["source_hash"].values[0])


def left_to_do(store: Store, planned: ScenePlan, options: IngestOptions) -> ScenePlan | None:
    """Return the plan of what is left of a scene that the store knows: all of it, some layers, or nothing (None).

    Raises `SceneExistsError` where something of it would be written over, which was not asked for, or arrays of it
    would be lost.
    """
    source = known_hash(store, planned.id)
    same_pixels = source in (planned.probe.source_hash, _hash_like(str(source), planned.probe, options))
    is_same = same_pixels and store.grid(planned.id) == planned.grid
    if not is_same or (options.replace and stored_otherwise(store, planned, options)):
        if not (same_pixels and options.polarizations):  # where names alone are other ones, nothing is lost
            _check_arrays(store, planned)
        if not options.replace:
            raise SceneExistsError(
                f"a new scene was expected, got {planned.id!r}, which {store.place.name} holds "
                f"{'on another grid' if same_pixels else 'with other pixels'}. "
                "Pass --replace to write it anew, or --id to add it under another name."
            )
        return _as_stored(store, planned, options)
    held = {name: store.layer_attrs(planned.id, name) for name in store.layers(planned.id)}
    new = [layer for layer in planned.layers if layer.name not in held]
    known = [layer for layer in planned.layers if layer.name in held]
    other = [a for a in known if any(held[a.name].get(k) != v for k, v in a.attrs.items())]
    if other and not options.replace:
        raise SceneExistsError(
            f"a new layer was expected, got {other[0].name!r} of {planned.id!r}, which {store.place.name} holds from "
            "another file or in another way. Pass --replace to write the layer anew, or give it another name."
        )
    encoding = _encoding(store, planned.id)
    layers = (*new, *other)
    return replace(planned, layers=layers, only_layers=True, encoding=encoding) if layers else None


def _check_arrays(store: Store, planned: ScenePlan) -> None:
    """Refuse to write a scene anew that would lack arrays that the store holds."""
    given = [array.name for array in planned.probe.arrays]
    lost = [name for name in store.rows(planned.id)["name"].values.tolist() if name not in given]
    if lost:
        raise SceneExistsError(
            f"files for all arrays of {planned.id!r} were expected, got {', '.join(given)} alone: {store.place.name} "
            f"holds {', '.join(lost)} too, which would be lost. Give the files of {', '.join(lost)} in the same "
            f"command, take the scene out first (`sarzarr remove {store.place.name} {planned.id}`), or add it "
            "under another name with --id."
        )


def _encoding(store: Store, scene: str) -> Encoding:
    """Return the encoding of a scene's arrays."""
    return encoding_of(catalog_rows(store.rows(scene))[0])


def _border(store: Store, scene: str) -> int:
    """Return the pixels around nodata of a scene that were flagged as border."""
    return int(store.node_attrs(scene).get(cv.BORDER, 0))


def _as_stored(store: Store, planned: ScenePlan, options: IngestOptions) -> ScenePlan:
    """Return the plan of a scene that is written anew: what was not asked for stays as it is stored."""
    old = _encoding(store, planned.id)
    dtype = options.dtype or old.dtype
    codec = options.codec or (old.codec if dtype == old.dtype else DEFAULT_CODECS[dtype])
    shard = old.shard if options.shard is None else options.shard
    border = _border(store, planned.id) if options.border is None else options.border
    return replace(planned, encoding=replace(old, dtype=dtype, codec=codec, shard=shard), border=border)


def stored_otherwise(store: Store, planned: ScenePlan, options: IngestOptions) -> list[str]:
    """Return how a scene differs from what was asked for by name (``dtype uint16, not float32``); its grid apart."""
    compared = (*_ENCODED, cv.BORDER, "nodata", "polarizations", "quantity", "representation", "resampling")
    if not options.exact and all(getattr(options, name) is None for name in compared):
        return []
    scene, old, attrs = planned.id, _encoding(store, planned.id), _first_attrs(store, planned.id)
    rows = {k: sorted(set(store.rows(scene)[k].values.tolist())) for k in _NAMED}
    # name, as stored, as asked; None where it was not asked for
    pairs: list[tuple[str, Any, Any]] = [(k, getattr(old, k), getattr(options, k)) for k in _ENCODED]
    pairs.append((cv.BORDER, _border(store, scene), options.border))
    if options.polarizations is not None:
        pairs.append(
            ("arrays", "+".join(rows["name"]), "+".join(sorted(a.name for a in planned.probe.arrays)))
        )
    pairs.append(("quantity", "+".join(rows["quantity"]), options.quantity))
    pairs.append(("representation", "+".join(rows["source_representation"]), options.representation))
    pairs.append(("nodata", attrs.get(cv.SOURCE_NODATA), options.nodata))
    warped = next((plan for plan in planned.onto if isinstance(plan, WarpPlan)), None)
    if warped is not None:
        keys = {cv.RESAMPLING: options.resampling, cv.RESAMPLING_TOLERANCE: options.exact}
        pairs += [(k, attrs.get(k, "none"), warped.attrs[k]) for k, is_asked in keys.items() if is_asked]
    return [
        f"{what} {stored}, not {asked}"
        for what, stored, asked in pairs
        if asked is not None and stored != asked
    ]


def _first_attrs(store: Store, scene: str) -> Mapping[str, Any]:
    """Return the attributes of a scene's first array."""
    return store.node_attrs(scene, str(store.rows(scene)["name"].values[0]))


def lost_layers(store: Store, planned: ScenePlan) -> list[str]:
    """Return a sentence where a scene that is written anew has layers that are not asked for again."""
    lost = ", ".join(sorted(set(store.layers(planned.id)) - {layer.name for layer in planned.layers}))
    return [f"{planned.id!r} loses its layers {lost}: give them again to keep them."] if lost else []


def _hash_like(known: str, scene: SceneProbe, options: IngestOptions) -> str:
    """Return the scene's hash of the kind that the store knows it by: sampled, or of every byte."""
    if known.split(":")[0] == scene.source_hash.split(":")[0]:
        return scene.source_hash
    again = [
        probe_file(
            file.path,
            quantity=options.quantity,
            representation=options.representation,
            polarizations=options.polarizations,
            full_hash=not options.full_hash,
        )
        for file in scene.files
    ]
    return group_scenes(again, scene_id=scene.id)[0].source_hash
