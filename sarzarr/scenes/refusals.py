"""Refusals: the files and scenes that are left out of a run, so that the others go in."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sarzarr.errors import (
    CorruptStoreError,
    InvalidInputError,
    SarzarrError,
    SceneExistsError,
    SceneIdError,
    UnsupportedRasterError,
)
from sarzarr.text import counted, error_text

log = logging.getLogger(__name__)
_REASONS: Final = (OSError, UnsupportedRasterError, InvalidInputError, SceneIdError, SceneExistsError)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A file, or the files of a scene, that are left out."""

    files: tuple[Path, ...]
    """The files, as they were given or found."""
    scene: str | None
    """The scene that they make; None where that is not known, or it is not the scene that is at fault."""
    reason: str
    """Expected, got, remedy."""
    kind: type[SarzarrError] = UnsupportedRasterError
    """The error that it is where nothing else is left."""

    def __str__(self) -> str:
        return f"{_names(self.files)}: {self.reason}"


class Refusals(list[Refusal]):
    """The refusals of a run, in the order in which they were met."""

    @contextmanager
    def leaving_out(self, files: Iterable[str | Path], scene: str | None = None) -> Iterator[None]:
        """Note an error that files or a scene can be refused for; damage, and mistakes of ours, are raised."""
        try:
            yield
        except CorruptStoreError:
            raise
        except _REASONS as error:
            kind = type(error) if isinstance(error, SarzarrError) else UnsupportedRasterError
            self.add(files, error_text(error), scene=scene, kind=kind)

    def add(
        self,
        files: Iterable[str | Path],
        reason: str,
        *,
        scene: str | None = None,
        kind: type[SarzarrError] = UnsupportedRasterError,
    ) -> None:
        """Note that files are left out."""
        paths = tuple(map(Path, files)) or (Path(scene or ""),)  # a scene of layers alone has none of its own
        self.append(Refusal(files=paths, scene=scene, reason=reason, kind=kind))

    def lines(self) -> list[str]:
        """Return a line per reason, with the names of all files that it holds for."""
        files: dict[str, list[Path]] = {}
        for refusal in self:
            files.setdefault(refusal.reason, []).extend(refusal.files)
        return [f"{_names(own)}: {reason}" for reason, own in files.items()]

    def error(self) -> SarzarrError:
        """Return the error that says all of them: of their kind, where they have one."""
        kinds = {refusal.kind for refusal in self}
        return (kinds.pop() if len(kinds) == 1 else UnsupportedRasterError)("\n".join(self.lines()))

    def tell(self) -> None:
        """Log them as one warning, for whoever does not look at them."""
        if self:
            count = counted(sum(len(refusal.files) for refusal in self), "file")
            log.warning("%s refused, and not in the store:\n  %s", count, "\n  ".join(self.lines()))


def _names(files: Iterable[Path]) -> str:
    return ", ".join(dict.fromkeys("/".join(file.parts[-2:]) for file in files))
