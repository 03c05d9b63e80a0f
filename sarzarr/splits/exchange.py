"""Splits checked, and exchanged as JSON documents."""

from pathlib import Path

from sarzarr.errors import CorruptStoreError, InvalidInputError, SplitExistsError
from sarzarr.files import whole_file
from sarzarr.splits.assign import check
from sarzarr.splits.make import pending_of
from sarzarr.splits.versions import from_json, get_split, grounds_of, opened, to_json, write_split
from sarzarr.store.split_table import Split, read_split, versions
from sarzarr.store.store import Store


# ------------------------------------------------------------------ checking, and JSON
def check_split(store: Store | str | Path, split: Split) -> None:
    """Raise `SplitLeakError` unless a split shares no ground between its sides, as the store now is."""
    grounds = grounds_of(opened(store), known=split)
    stale = set(pending_of(grounds, split).changed)
    check(grounds, [s for s in split.scenes if s.scene not in stale])


def export_split(store: Store | str | Path, path: str | Path, version: int | None = None) -> Path:
    """Write a version as a JSON document, the newest if left out; return its path.

    Raises
    ------
    NotInStoreError
        There is no such version.
    InvalidInputError
        Nothing can be written to that path.
    """
    place = Path(path)
    text = to_json(get_split(store, version))
    try:
        with whole_file(place) as partial:
            partial.write_text(text)
    except OSError as error:
        raise InvalidInputError(
            f"a path that a file can be written to was expected, got {str(place)!r} ({error.strerror}). "
            "Give a file in a folder that is there."
        ) from None
    return place


def import_split(store: Store | str | Path, path: str | Path) -> Split:
    """Write the version that a JSON document holds into a store, under its own number; return it.

    Scenes that the store does not hold keep their memberships, should they come.

    Raises
    ------
    SplitExistsError
        The store has another version of that number.
    SplitLeakError
        With the store's scenes, ground would be on two sides.
    InvalidInputError
        There is no such document, or a scene of the store has another grid than it says.
    """
    here = opened(store)
    try:
        split = from_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, CorruptStoreError):
            raise
        raise InvalidInputError(
            f"a split that `sarzarr split STORE export` wrote was expected at {str(path)!r}, got nothing that can be "
            f"read as text ({getattr(error, 'strerror', None) or 'it is not UTF-8'}). Give the path of one."
        ) from None
    if split.version in versions(here.root):
        there = read_split(here.root, split.version)
        if there.fingerprint == split.fingerprint:
            return there
        raise SplitExistsError(
            f"a store without {split.name} was expected, got one with another {split.name}."
        )
    grounds = grounds_of(here)
    if changed := pending_of(grounds, split).changed:
        raise InvalidInputError(
            f"the grid that {split.name} knows was expected for {changed[0]!r}, got another. "
            "Import it into the store that it was made for."
        )
    cells = {g.scene: g.placement.cells for g in grounds.scenes}
    for scene in split.scenes:
        if (wanted := cells.get(scene.scene)) not in (None, scene.codes.shape):
            raise InvalidInputError(
                f"{wanted} cells were expected for {scene.scene!r}, got {scene.codes.shape}. "
                "Export the version anew from the store that it was made in."
            )
    check_split(here, split)
    return write_split(here, split)
