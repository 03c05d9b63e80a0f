"""Files below a folder, and a disk that is full."""

import resource
from contextlib import contextmanager


def files_below(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {"zarr.json"}


@contextmanager
def no_file_beyond(size):
    """Have writes beyond ``size`` bytes of a file fail, as on a full disk: "File too large"."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
