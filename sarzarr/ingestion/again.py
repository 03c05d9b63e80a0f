"""Scenes that are in the store already: the same, to be added to, or stored otherwise."""

from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError, InvalidInputError, SceneExistsError
from sarzarr.grids.warp.plan import WarpPlan
from sarzarr.ingestion.known_scenes import SceneMemory
from sarzarr.ingestion.layers.plan import LayerPlan
from sarzarr.ingestion.options import IngestOptions
from sarzarr.ingestion.scene_plan import ScenePlan
from sarzarr.rasters import source_hash
from sarzarr.scenes.calibrate import CalibrationChoice
from sarzarr.scenes.products.table import read_product
from sarzarr.scenes.scene import SceneProbe, scene_hash
from sarzarr.store.catalog import encoding_of
from sarzarr.store.codecs import default_codec
from sarzarr.store.documents import Document, Encoding
from sarzarr.store.manifest import read_manifest
from sarzarr.store.store import Store

_ENCODED: Final = ("dtype", "codec", "shard")


class PlannedStore(Store):
    """A store of which a plan is made: attributes of its documents are read once, as they were then."""

    @cached_property
    def memory(self) -> SceneMemory:
        """The scenes that plans before found whole."""
        return SceneMemory(self.root)

    @cached_property
    def _attributes(self) -> dict[tuple[str, str], Document]:
        return {}

    def node_attrs(self, scene: str, array: str = "") -> Document:
        """Return the attributes of a scene's group, or of an array of it, as `Store.node_attrs` read them first."""
        known = self.memory.of(scene)
        if known is not None and array in known:
            return known[array]
        if (scene, array) not in self._attributes:
            self._attributes[scene, array] = super().node_attrs(scene, array)
        return self._attributes[scene, array]

    def look_at(self, scene: str) -> tuple[list[str], dict[str, Document]] | None:
        """Return the keys of a whole scene's files, and attributes by array; None of one that is damaged."""
        try:
            files, attributes = [f"{cv.SCENES}/{scene}/zarr.json"], {"": super().node_attrs(scene)}
            layers = attributes[""].get(cv.LAYERS, ())
            for name in (*_pixels_of(self, scene), *layers):
                path = self.pixels(scene, name).path
                manifest = read_manifest(self.place, path)
                held = (key for key, size in zip(manifest.keys, manifest.sizes.tolist(), strict=True) if size)
                files += [f"{path}/{key}" for key in ("zarr.json", cv.MANIFEST, *held)]
                attributes[name] = super().node_attrs(scene, name)
        except CorruptStoreError:
            return None
        return files, attributes


def _pixels_of(store: Store, scene: str) -> list[str]:
    """Return the names of a scene's arrays of backscatter and of their flags."""
    return [name for array in store.arrays(scene) for name in (array, array + cv.FLAGS_SUFFIX)]


def known_hash(store: Store | None, scene: str) -> str | None:
    """Return the source hash, of all or of sampled bytes, of a scene that the store has; None where it has none."""
    if store is None or not store.has_scene(scene):
        return None
    return str(store.facts(scene)[0]["source_hash"])


def calibrated_as_stored(store: Store | None, scene: SceneProbe, options: IngestOptions) -> SceneProbe:
    """Return a scene, calibrated to the power that the store holds: what of it is not asked for stays as it is.

    So the quantity stays where noise alone is asked for, noise is subtracted where it was, and border noise marked.
    One that the store holds as digital numbers is calibrated as a new one is.

    Raises `InvalidInputError` where border noise is marked, which needs the image's own edges, and another grid is
    asked for.
    """
    if store is None or not store.has_scene(scene.id):
        return scene
    arrays, held = [], set(store.arrays(scene.id))
    for array in scene.arrays:
        known = store.node_attrs(scene.id, array.name) if array.name in held else {}
        quantity = options.calibrate or str(known.get(cv.QUANTITY))
        denoise = options.denoise or cv.DENOISED_BY in known
        ways = (
            read_product(array.path).calibrations if array.calibration and cv.CALIBRATED_BY in known else {}
        )
        if make := ways.get(quantity):
            own = make(scene.grid.shape, denoise)
            reason = array.reason.replace(str(array.calibration), str(own))
            array = replace(array, calibration=own, quantity=own.quantity, reason=reason)
        if cv.BORDER_NOISE in known and options.has_grid:
            if options.replace and options.border is None:
                raise InvalidInputError(
                    f"expected the own grid of {scene.id!r}, whose border noise is marked by its edges, got another. "
                    "Say how many pixels are border instead with --border N, or take the scene out first "
                    f"(`sarzarr remove {store.place.name} {scene.id}`)."
                )
        elif cv.BORDER_NOISE in known and array.border_noise is None:
            edges = CalibrationChoice(border_noise=True).border_of(read_product(array.path), scene.grid.shape)
            array = replace(array, border_noise=edges)
        arrays.append(array)
    return replace(scene, arrays=tuple(arrays))


def damage_of(store: Store, scene: str) -> str:
    """Return what of a scene's files is not as its manifests say: absent, or short; nothing where all are there.

    Pixels are not read: those that fail their checksum are found when they are. Of a plan's store nothing is read
    where every file is as it was when a plan before found them whole.
    """
    memory = store.memory if isinstance(store, PlannedStore) else None
    if memory is not None and memory.of(scene) is not None:
        return ""
    try:
        for name in (*_pixels_of(store, scene), *store.layers(scene)):
            store.pixels(scene, name)
    except CorruptStoreError as error:
        return str(error)
    if isinstance(store, PlannedStore):
        store.memory.look(scene, partial(store.look_at, scene))
    return ""


def left_to_do(store: Store, planned: ScenePlan, options: IngestOptions) -> ScenePlan | None:
    """Return the plan of what is left of a scene that the store knows: all of it, some layers, or nothing (None).

    All of it is left, too, where its files are damaged.

    Raises `SceneExistsError` where something of it would be written over, which was not asked for, or arrays
    (rows, columns) of it would be lost.
    """
    if bool(held := store.arrays(planned.id)) != bool(planned.probe.arrays):
        got = (
            f"backscatter ({', '.join(held)}); to add layers, give its files, too" if held else "layers alone"
        )
        raise SceneExistsError(
            f"a new scene was expected, got {planned.id!r}, which {store.place.name} holds as {got}. Name the new "
            f"one with --id, or take the other out first (`sarzarr remove {store.place.name} {planned.id}`)."
        )
    source = known_hash(store, planned.id)
    same_pixels = source == _hash_like(str(source), planned.probe, options)
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
    layers_held = store.layers(planned.id)
    if damage := damage_of(store, planned.id):
        _check_arrays(store, planned)
        lost = sorted(set(layers_held) - {layer.name for layer in planned.layers})
        if lost and not options.replace:
            raise SceneExistsError(
                f"whole files of {planned.id!r} were expected, got damage ({damage}). To write it anew, give its "
                f"layers {', '.join(lost)} in the same command, or pass --replace, which loses them."
            )
        return _as_stored(store, planned, options)
    new = [layer for layer in planned.layers if layer.name not in layers_held]
    other = [layer for layer in planned.layers if has_another(store, planned.id, layer)]
    if other and not options.replace:
        raise SceneExistsError(
            f"a new layer was expected, got {other[0].name!r} of {planned.id!r}, which {store.place.name} holds from "
            "another file or in another way. Pass --replace to write the layer anew, or give it another name."
        )
    if not (layers := (*new, *other)):
        return None
    return replace(planned, layers=layers, only_layers=True, encoding=_encoding(store, planned.id))


def has_another(store: Store | None, scene: str, layer: LayerPlan) -> bool:
    """Return whether a store holds a layer of that name of a scene, from another file or in another way."""
    if store is None or not store.has_scene(scene) or layer.name not in store.layers(scene):
        return False
    held = store.layer_attrs(scene, layer.name)
    return any(held.get(key) != value for key, value in layer.attrs.items())


def _check_arrays(store: Store, planned: ScenePlan) -> None:
    given = [array.name for array in planned.probe.arrays]
    lost = [name for name in store.arrays(planned.id) if name not in given]
    if lost:
        raise SceneExistsError(
            f"files for all arrays of {planned.id!r} were expected, got {', '.join(given)} alone: {store.place.name} "
            f"holds {', '.join(lost)} too, which would be lost. Give the files of {', '.join(lost)} in the same "
            f"command, take the scene out first (`sarzarr remove {store.place.name} {planned.id}`), or add it "
            "under another name with --id."
        )


def _encoding(store: Store, scene: str) -> Encoding:
    return encoding_of(store.facts(scene)[0])


def _as_stored(store: Store, planned: ScenePlan, options: IngestOptions) -> ScenePlan:
    """Return the plan of a scene that is written anew: what was not asked for stays as it is stored."""
    old = _encoding(store, planned.id)
    if not planned.probe.arrays:
        return planned if options.shard is not None else replace(planned, encoding=old)
    dtype = options.dtype or old.dtype
    shard = old.shard if options.shard is None else options.shard
    stays = (dtype, bool(shard)) == (old.dtype, bool(old.shard))
    codec = options.codec or (old.codec if stays else default_codec(dtype, shard))
    border = store.node_attrs(planned.id).get(cv.BORDER, 0) if options.border is None else options.border
    return replace(planned, encoding=replace(old, dtype=dtype, codec=codec, shard=shard), border=border)


def stored_otherwise(store: Store, planned: ScenePlan, options: IngestOptions) -> list[str]:
    """Return how a scene differs from what was asked for by name (``dtype uint16, not float32``); its grid apart."""
    compared = (*_ENCODED, cv.BORDER, "nodata", "polarizations", "quantity", "representation", "resampling")
    calibrated = {a.calibration.quantity for a in planned.probe.arrays if a.calibration}
    is_asked = options.exact or any(getattr(options, name) is not None for name in compared)
    is_asked = is_asked or bool(calibrated or options.calibrate or options.border_noise)
    if not (is_asked and planned.probe.arrays):
        return []
    scene, old = planned.id, _encoding(store, planned.id)
    attrs = store.node_attrs(scene, str(store.facts(scene)[0]["name"]))
    named = ("name", "quantity", "source_representation")
    names, quantities, representations = (
        "+".join(sorted({str(row[k]) for row in store.facts(scene)})) for k in named
    )
    # name, as stored, as asked; None where it was not asked for
    pairs: list[tuple[str, Any, Any]] = [(k, getattr(old, k), getattr(options, k)) for k in _ENCODED]
    pairs.append((cv.BORDER, store.node_attrs(scene).get(cv.BORDER, 0), options.border))
    if options.polarizations is not None:
        pairs.append(("arrays", names, "+".join(sorted(a.name for a in planned.probe.arrays))))
    if calibrated or options.calibrate:
        pairs.append(
            ("quantity", quantities, "+".join(sorted({str(a.quantity) for a in planned.probe.arrays})))
        )
    else:
        pairs.append(("quantity", quantities, options.quantity))
    if any(array.border_noise for array in planned.probe.arrays) and options.border_noise:
        pairs.append(("border noise", "marked" if cv.BORDER_NOISE in attrs else "kept", "marked"))
    if options.denoise:
        pairs.append(("noise", "subtracted" if cv.DENOISED_BY in attrs else "kept", "subtracted"))
    pairs.append(("representation", representations, options.representation))
    told = options.nodata  # attributes spell NaN
    asked = told if told is None or np.isfinite(told) else str(told)
    pairs.append(("nodata", attrs.get(cv.SOURCE_NODATA), asked))
    if warped := next((plan for plan in planned.onto if isinstance(plan, WarpPlan)), None):
        keys = {cv.RESAMPLING: options.resampling, cv.RESAMPLING_TOLERANCE: options.exact}
        pairs += [(k, attrs.get(k, "none"), warped.attrs[k]) for k, is_asked in keys.items() if is_asked]
    return [f"{name} {old}, not {new}" for name, old, new in pairs if new is not None and old != new]


def changed_unasked(store: Store, planned: ScenePlan, options: IngestOptions) -> list[str]:
    """Return what was said of a scene's files when it was stored, ``quantity sigma0``, and nothing says any more."""
    held, changed = set(store.arrays(planned.id)), []
    for array in (array for array in planned.probe.arrays if array.name in held):
        known = store.node_attrs(planned.id, array.name)
        facts = [
            ("representation", known.get(cv.SOURCE_REPRESENTATION), array.representation),
            ("nodata", known.get(cv.SOURCE_NODATA), array.nodata),
        ]
        if not (array.calibration or options.calibrate):
            facts.append(("quantity", known.get(cv.QUANTITY), array.quantity))
        unsaid = (fact for fact in facts if getattr(options, fact[0]) is None)
        changed += [f"{name} {old}" for name, old, new in unsaid if old not in (None, "nan", new)]
    return list(dict.fromkeys(changed))


def _hash_like(known: str, scene: SceneProbe, options: IngestOptions) -> str:
    """Return the scene's hash of the kind that the store knows it by: sampled, or of every byte."""
    if known.split(":")[0] == scene.source_hash.split(":")[0]:
        return scene.source_hash
    return scene_hash(source_hash(file.path, full=not options.full_hash) for file in scene.files)
