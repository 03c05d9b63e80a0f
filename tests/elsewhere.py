"""A worker that stands in another folder, as a scheduler of Dask's: what is sent to it is pickled, and looked at."""

import io
import os
import pickle
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import dask


@dataclass
class Elsewhere:
    """A worker in a folder of its own, to which ``here`` is another disk, ``there``, if that is given."""

    folder: Path
    here: Path | None = None
    there: Path | None = None
    paths: set = field(default_factory=set)
    """Every path that was sent."""
    relative: set = field(default_factory=set)
    """Those that mean another file in another folder."""
    tasks: int = 0

    def get(self, graph, keys, **_):
        """Run a graph of Dask's, one task after another."""
        nodes = dict(graph.__dask_graph__() if hasattr(graph, "__dask_graph__") else graph)
        return dask.get({key: (self._run, self._pickled(node)) for key, node in nodes.items()}, keys)

    def _run(self, sent):
        self.tasks += 1
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            node = _Loader(io.BytesIO(sent), self._moved(self.here, self.there)).load()
            result = node({})
            back = self._pickled(result, looks=False)
        finally:
            os.chdir(before)
        return _Loader(io.BytesIO(back), self._moved(self.there, self.here)).load()

    def _pickled(self, value, *, looks=True):
        out = io.BytesIO()
        _Pickler(out, self._look if looks else None).dump(value)
        return out.getvalue()

    def _look(self, text, *, is_path):
        if is_path or text.startswith("/"):
            self.paths.add(text)
        if not text.startswith("/") and (is_path or (text and len(text) < 200 and Path(text).exists())):
            self.relative.add(text)

    def _moved(self, old, new):
        return lambda text: text if old is None else text.replace(str(old), str(new))


class _Pickler(pickle.Pickler):
    def __init__(self, out, look):
        super().__init__(out)
        self.look = look

    def persistent_id(self, value):
        is_path = isinstance(value, PurePath)
        if not is_path and type(value) is not str:
            return None
        if self.look is not None:
            self.look(str(value), is_path=is_path)
        return ("path:" if is_path else "text:") + os.fspath(value)


class _Loader(pickle.Unpickler):
    def __init__(self, file, moved):
        super().__init__(file)
        self.moved = moved

    def persistent_load(self, pid):
        kind, text = pid[:5], self.moved(pid[5:])
        return Path(text) if kind == "path:" else text


@contextmanager
def working_elsewhere(folder, **disks):
    """Have a worker in a new folder do what is computed inside."""
    folder.mkdir()
    worker = Elsewhere(folder, **disks)
    with dask.config.set(scheduler=worker.get):
        yield worker
