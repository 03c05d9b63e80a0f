"""A store's bytes in a dictionary: a `Place` without a folder, a file or a descriptor."""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from sarzarr.store.place import Head


@dataclass(frozen=True)
class MemoryPlace:
    """A place to read from, that counts what it is asked for."""

    objects: dict[str, bytes]
    """The bytes of each key."""
    name: str = "memory.zarr"
    """As people call it."""
    home: str = ""
    """A whole store's."""
    is_sealed: bool = True
    """Whether its documents carry seals."""
    asked: Counter = field(default_factory=Counter)
    """How often each key was read whole."""

    @classmethod
    def of(cls, folder):
        """Return the files of a folder."""
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        return cls({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})

    def unsealed(self):
        return replace(self, is_sealed=False)

    def __str__(self):
        return f"memory://{self.name}"

    def head(self, key):
        return Head(len(self.objects[key]), id(self.objects[key])) if key in self.objects else None

    def get(self, key):
        if key not in self.objects:
            raise FileNotFoundError(key)
        self.asked[key] += 1
        return self.objects[key]

    def get_ranges(self, key, ranges):
        if key not in self.objects:
            raise FileNotFoundError(key)
        return [self.objects[key][offset : offset + size] for offset, size in ranges]

    def children(self, key=""):
        below = f"{key}/" if key else ""
        rests = (k.removeprefix(below).partition("/") for k in self.objects if k.startswith(below))
        return sorted({name + slash for name, slash, _ in rests})

    def descriptor(self, key):
        if key not in self.objects:
            raise FileNotFoundError(key)

    def zarr(self):
        to_buffer = default_buffer_prototype().buffer.from_bytes
        return MemoryStore({key: to_buffer(data) for key, data in self.objects.items()}, read_only=True)
