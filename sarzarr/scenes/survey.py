"""A survey of files: the scenes that they make, and what is refused of them. `identify` and `ingest` share it."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from sarzarr.errors import SceneIdError, UnsupportedRasterError
from sarzarr.scenes.companions import Companion, companions_of
from sarzarr.scenes.identify import check_said
from sarzarr.scenes.memory import ProbeMemory
from sarzarr.scenes.names import check_given_id, scene_claim
from sarzarr.scenes.probe import RasterProbe
from sarzarr.scenes.refusals import Refusals
from sarzarr.scenes.scene import SceneProbe, group_scenes
from sarzarr.zips.listing import raster_files, without_packed

_MEND: Final = "Mend that file, or give the others without it."


@dataclass(frozen=True, kw_only=True)
class Survey:
    """All that is known of files before a store is thought of."""

    probes: tuple[RasterProbe, ...]
    """The files that could be opened, refused ones and companions too."""
    scenes: tuple[SceneProbe, ...]
    """The scenes that can be taken, of (rows, columns) arrays."""
    refused: Refusals
    """The files and scenes that cannot."""
    companions: Mapping[str, tuple[Companion, ...]]
    """The companions of each scene, by its id, that can be layers of it."""
    notes: tuple[str, ...]
    """One sentence per band or file that is left out beside others that are taken, or was given twice."""


def survey_files(
    paths: Iterable[str | Path],
    *,
    scene_id: str | None = None,
    quantity: str | None = None,
    representation: str | None = None,
    **options: Any,
) -> Survey:
    """Return the scenes that files, and the files of folders, make; what cannot be taken leaves the others alone.

    A scene is taken whole: where one of its files is refused, so are the others of it. Files that are as they were
    in a run before are not read again (`sarzarr.scenes.memory`). ``scene_id`` is as of `group_scenes`, and the other
    options are those of `probe_file`.

    Raises `InvalidInputError` or `SceneIdError` where an option, or ``scene_id``, can hold of no file.
    """
    check_said(quantity, representation)
    if scene_id is not None:
        check_given_id(scene_id)
    refused, notes, files = Refusals(), [], list[Path]()
    for path in without_packed(paths):
        with refused.leaving_out([path]):
            files += raster_files([path])
    probes: dict[Path, RasterProbe] = {}
    unread: dict[Any, list[Path]] = {}
    known = set[Path]()
    memory = ProbeMemory({"quantity": quantity, "representation": representation, **options})
    folders = cache(Path.resolve)
    for path in files:
        is_plain = path.name != ".." and not path.is_symlink()
        place = folders(path.parent) / path.name if is_plain else path.resolve()
        if place in known:
            notes.append(f"{path.name} is given twice, and taken once.")
            continue
        known.add(place)
        with refused.leaving_out([path]):
            probes[place] = memory.probe(path.absolute())
        if place not in probes:
            with suppress(SceneIdError):
                unread.setdefault(scene_claim(path.absolute(), scene_id), []).append(path)
    memory.save()
    opened, taken = tuple(probes.values()), []
    others = [probe for probe in opened if probe.companion]
    kept = _that_may_go_in([probe for probe in opened if not probe.companion], scene_id, refused)
    for scene in _grouped(kept, scene_id, refused):
        reasons = {file.path: file.refusal for file in scene.files if file.refusal}
        broken = [*reasons, *unread.get(scene_claim(scene.files[0].path, scene_id), ())]
        for path, reason in reasons.items():
            refused.add([path], reason, scene=scene.id)
        if not broken:
            taken.append(scene)
        elif good := [path for path in scene.paths if path not in reasons]:
            wanted = f"expected every file of scene {scene.id!r}, got one that is refused: {broken[0].name}. "
            refused.add(good, wanted + _MEND, scene=scene.id)
    notes += [note for scene in taken for file in scene.files for note in file.left_out]
    layers = companions_of(others, taken, refused, notes)
    return Survey(probes=opened, scenes=tuple(taken), refused=refused, companions=layers, notes=tuple(notes))


def _that_may_go_in(
    probes: Sequence[RasterProbe], scene_id: str | None, refused: Refusals
) -> list[RasterProbe]:
    """Return the files without those of which a whole scene is refused: such a scene claims no id of another."""
    claims: dict[Any, list[RasterProbe]] = {}
    for probe in probes:
        with refused.leaving_out([probe.path]):
            claims.setdefault(scene_claim(probe.path, scene_id), []).append(probe)
    whole = [files for files in claims.values() if all(file.refusal for file in files)]
    for probe in (file for files in whole for file in files):
        refused.add([probe.path], str(probe.refusal), scene=scene_claim(probe.path, scene_id)[0])
    out = {probe.path for files in whole for probe in files}
    return [probe for files in claims.values() for probe in files if probe.path not in out]


def _grouped(
    probes: Sequence[RasterProbe], scene_id: str | None, refused: Refusals
) -> tuple[SceneProbe, ...]:
    """Return the scenes of files, without those that make none together: each of these is found by its own files."""
    try:
        return group_scenes(probes, scene_id=scene_id)
    except (SceneIdError, UnsupportedRasterError):
        pass
    claims: dict[str, list[RasterProbe]] = {}
    for probe in probes:
        with refused.leaving_out([probe.path]):
            (scene,) = group_scenes([probe], scene_id=scene_id)
            claims.setdefault(scene.id, []).append(probe)
    fine = set[Path]()
    for name, files in claims.items():
        with refused.leaving_out([file.path for file in files], name):
            group_scenes(files, scene_id=scene_id)
            fine |= {file.path for file in files}
    return group_scenes([probe for probe in probes if probe.path in fine], scene_id=scene_id)
