"""Scenes of layers alone: plain rasters (counts, classes, continuous fields) without backscatter beside them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, SceneIdError
from sarzarr.grids.georeference import Georeference
from sarzarr.ingestion.again import known_hash
from sarzarr.ingestion.layers.match import LayerFile, probe_layers
from sarzarr.ingestion.onto_grid import target_grid
from sarzarr.ingestion.options import STORED, IngestOptions
from sarzarr.ingestion.scene_plan import ScenePlan
from sarzarr.scenes.acquisition import Acquisition
from sarzarr.scenes.names import check_given_id, scene_claim
from sarzarr.scenes.refusals import Refusals
from sarzarr.scenes.scene import SceneProbe
from sarzarr.store.documents import Encoding
from sarzarr.store.store import Store
from sarzarr.text import listed

_OF_BACKSCATTER: Final = (
    "quantity", "representation", "polarizations", "calibrate", "denoise", "annotation", "nodata", "border",
    "border_noise", "dtype", "resampling",
)  # fmt: skip
"""Options of what a scene without backscatter does not have."""


def scenes_of_layers(store: Store | None, options: IngestOptions, refused: Refusals) -> list[ScenePlan]:
    """Return the plans of scenes of layers alone, without their layers: a scene for each file of the first layer.

    It lies on the ground of that file: on its own (rows, columns), or on the grid that is asked for, which covers it.
    Its id is that of the file's name, or ``options.id``. A scene that has no place there is refused.

    Raises `InvalidInputError` where an option is given that backscatter alone has.
    """
    _check_options(options)
    if options.id is not None:
        check_given_id(options.id)
    first = options.layers[0].name
    given = [layer for layer in options.layers if layer.name == first]
    claims: dict[str, list[LayerFile]] = {}
    for file in probe_layers(given, Refusals()).files[
        first
    ]:  # what is refused is told where layers are matched
        claims.setdefault(scene_claim(file.path, options.id)[0], []).append(file)
    plans = []
    for name, files in claims.items():
        with refused.leaving_out([file.path for file in files], name):
            plans.append(_planned(name, files, store, options))
    return plans


def _planned(name: str, files: Sequence[LayerFile], store: Store | None, options: IngestOptions) -> ScenePlan:
    if len(files) > 1:
        raise SceneIdError(
            f"expected one file of layer {files[0].layer.name!r} for scene {name!r}, got {len(files)}: "
            f"{listed(file.path.name for file in files)}. Pass --id with {{name}} in it, or leave it out."
        )
    probe = bare_scene(name, files[0].source.georeference)
    if options.has_grid:
        probe = bare_scene(name, Georeference(grid=target_grid(probe, store, options)))
    return ScenePlan(
        probe=probe,
        encoding=encoding_of_layers(options.encoding),
        bounds={},
        replaces=known_hash(store, name) is not None,
    )


def bare_scene(name: str, place: Georeference) -> SceneProbe:
    """Return a scene without backscatter: (rows, columns) of a place; it has no files, and no hash, of its own."""
    return SceneProbe(
        id=name,
        georeference=place,
        arrays=(),
        acquisition=Acquisition(),
        source_hash="",
        files=(),
        refusal=None,
    )


def encoding_of_layers(encoding: Encoding) -> Encoding:
    """Return the encoding of a scene that has no backscatter: chunks and shards (rows, columns), layers' codec."""
    return replace(encoding, dtype=cv.NO_DTYPE, codec=encoding.codec_beside)


def _check_options(options: IngestOptions) -> None:
    unset = IngestOptions()
    given = [name for name in _OF_BACKSCATTER if getattr(options, name) != getattr(unset, name)]
    given += ["bounds"] if options.bounds != STORED else []
    if given:
        name = given[0].replace("_", "-")
        raise InvalidInputError(
            f"expected scenes for --{name}, got layers alone. Give the scenes, or leave --{name} out; what a layer "
            "is stands in its own words: --layer NAME:counts:nodata-1:average=FILE."
        )
