"""Scenes of a store that were found whole, remembered between plans while all their files are the same.

A plan over scenes that are there asks whether their files are, and what they were stored as: three documents and two
manifests of each. They are the same while each file that was looked at, shards too, has its size, number and both its
times (last change of its bytes, and of its inode). So a second plan takes a look at each file, and reads none.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sarzarr.scenes.memory import SETTLED, kept_at, remember, remembered
from sarzarr.store.documents import Document

_KIND: Final = "scenes"
Look = Callable[[], tuple[list[str], dict[str, Document]] | None]
"""Reads a scene: the keys of its files, and attributes by array, "" for its group; None where it is damaged."""


class SceneMemory:
    """Scenes of one store that were found whole, by id; `save` keeps those that are new for the next plan."""

    def __init__(self, root: Path) -> None:
        self.root = str(root.resolve())
        self._document = kept_at(_KIND, self.root)
        self._texts = {} if self._document is None else remembered(self._document)
        self._found: dict[str, dict[str, Document] | None] = {}
        self._new: dict[str, str] = {}
        self._began = time.time()

    def of(self, scene: str) -> dict[str, Document] | None:
        """Return the attributes of a whole scene by array; None where it is not known to be whole as it now is."""
        if scene not in self._found:
            self._found[scene] = self._as_it_is(scene)
        return self._found[scene]

    def _as_it_is(self, scene: str) -> dict[str, Document] | None:
        try:
            stamps, attributes = json.loads(self._texts[scene])
            if stamps and all(self._stamp(key) == stamp for key, stamp in stamps.items()):
                held: dict[str, Document] = dict(attributes)
                return held
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError, OSError):
            pass
        return None

    def look(self, scene: str, look: Look) -> None:
        """Remember a scene that was found whole: it is looked at again, between two looks at its files' stamps."""
        if self._document is None or (seen := look()) is None:
            return
        try:
            stamps = {key: self._stamp(key) for key in seen[0]}
            is_settled = all(max(times) < (self._began - SETTLED) * 1e9 for _, _, *times in stamps.values())
            if is_settled and look() == seen and stamps == {key: self._stamp(key) for key in stamps}:
                self._new[scene] = json.dumps([stamps, seen[1]])
        except OSError:
            pass  # it is being replaced

    def _stamp(self, key: str) -> list[int]:
        stat = os.lstat(f"{self.root}/{key}")
        return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]

    def save(self) -> None:
        """Keep what is new, where that is possible."""
        if self._document is not None and self._new:
            remember(self._document, self._texts | self._new)
            self._new = {}
