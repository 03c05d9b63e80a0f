"""Every error a user can meet; each also inherits the builtin that a caller would catch.

Messages read ``<expected>, got <value>. <remedy>.``: what was needed, what came, what to do.
"""

from enum import IntEnum
from typing import Final


class SarzarrError(Exception):
    """The root of every error that sarzarr raises on purpose."""


class InvalidInputError(SarzarrError, ValueError):
    """An argument is outside of what the function accepts."""


class NothingChosenError(InvalidInputError):
    """No patch of a store meets the conditions that were given."""


class UnsupportedRasterError(SarzarrError, ValueError):
    """A raster was understood, and is not something that can be ingested as asked."""


class RasterNotFoundError(SarzarrError, FileNotFoundError):
    """There is no raster, or no folder or file of what goes with rasters, at that path."""


class SceneIdError(SarzarrError, ValueError):
    """A scene id is malformed, or two scenes claim the same one."""


class SceneExistsError(SarzarrError, FileExistsError):
    """A store already holds another scene of that id."""


class StoreNotFoundError(SarzarrError, FileNotFoundError):
    """There is no sarzarr store at that path."""


class StoreExistsError(SarzarrError, FileExistsError):
    """A store is to be made where there is something already."""


class StoreSchemaError(SarzarrError, ValueError):
    """A store was written by a schema that this version cannot read."""


class NotInStoreError(SarzarrError, KeyError):
    """A scene, array, patch index or split that was asked for is not in the store."""

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0]) if self.args else ""


class MissingKeyError(SarzarrError, KeyError):
    """A file of arrays has none of that name."""

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0]) if self.args else ""


class WrongDtypeError(SarzarrError, TypeError):
    """An array has another dtype than what takes it can hold without loss."""


class CorruptStoreError(SarzarrError, OSError):
    """Stored bytes are absent, short, fail their checksum, or are not those that belong there."""


class MissingFileError(CorruptStoreError, FileNotFoundError):
    """A file that a store must have is not there."""


class StoreChangedError(SarzarrError, RuntimeError):
    """A store was changed since it was opened: what was read then no longer says what there is."""


class MixedBoundsError(SarzarrError, ValueError):
    """A selection spans groups whose clip bounds differ, so that no single pair describes it."""


class SplitLeakError(SarzarrError, ValueError):
    """A split would put the same ground on two sides."""


class SplitNotFoundError(SarzarrError, FileNotFoundError):
    """There is no split of these samples, or none of that version."""


class SplitExistsError(SarzarrError, FileExistsError):
    """A split of that version, or of another recipe, is already there; versions never change."""


class IngestError(SarzarrError, RuntimeError):
    """A run could write nothing, or something of a strict one."""


class PartialIngestError(IngestError):
    """Some scenes of a strict run failed while they were written; the others are in the store."""


class NoRoomError(SarzarrError, OSError):
    """A disk is full, or fails; or has less free space than what is to be written."""


class MissingExtraError(SarzarrError, ImportError):
    """An optional dependency that this call needs is not installed."""


class Exit(IntEnum):
    """The exit codes of every command."""

    DONE = 0
    """All that was asked for; companions of rasters that are taken may be left out."""
    NOTHING = 1
    """Nothing of it."""
    USAGE = 2
    """Nothing, since an option or an argument cannot be what it is."""
    PARTLY = 3
    """Some of it: the rest is listed with reasons."""
    DAMAGE = 4
    """Stored bytes are absent, short or fail their checksum."""


_CODES: Final = (
    (CorruptStoreError, Exit.DAMAGE),
    (PartialIngestError, Exit.PARTLY),
    (InvalidInputError, Exit.USAGE),
)


def exit_code(error: Exception) -> Exit:
    """Return the exit code (0 to 4) of a command that ended with an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.NOTHING)
