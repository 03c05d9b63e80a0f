"""Frameworks that would deal with whole batches wrongly, known by the object that calls."""

import sys
from collections.abc import Sequence
from typing import Any

from sarzarr.errors import InvalidInputError

_SHARES = ("DataLoaderDispatcher", "IterableDatasetShard")
"""Classes of Accelerate that give each process a part of what they read themselves."""
_STACKS = ("torch", "transformers", "monai")
"""Packages whose ``collate_fn`` stack what they are given."""


def refuse_sharing(ranks: int) -> None:
    """Refuse Accelerate's loaders where ``ranks`` share an epoch; called from a method that they call."""
    name = type(_caller(("accelerate", "transformers"))).__name__
    if ranks > 1 and name in _SHARES:
        raise InvalidInputError(
            f"a loader that leaves batches as they are was expected, got Accelerate's {name} over the share of one "
            f"of {ranks} processes. Pass sarzarr.torch.PatchLoader(dataset) to prepare(), and no DataLoader."
        )


def refuse_stacking() -> None:
    """Refuse to be read by a DataLoader that stacks whole batches, called from an ``__iter__`` that it reads."""
    fetcher = _caller(("torch",))
    collate = getattr(fetcher, "collate_fn", None)
    module = getattr(collate, "__module__", None) or type(collate).__module__
    if getattr(fetcher, "auto_collation", False) and module.split(".")[0] in _STACKS:
        raise InvalidInputError(
            "a DataLoader of batch_size=None was expected, got one that stacks whole batches, an axis too many. Pass "
            "batch_size=None to it and the batch size to the dataset, or take sarzarr.torch.PatchLoader(dataset)."
        )


def _caller(packages: Sequence[str]) -> Any:
    """Return the object whose method called the caller's caller, None where it is of no such package.

    The variables of any other frame are left alone: Python 3.11 and 3.12 keep all of them alive once they are read.
    """
    frame = sys._getframe(3)
    is_theirs = str(frame.f_globals.get("__name__")).split(".")[0] in packages
    return frame.f_locals.get("self") if is_theirs else None
