"""`SplitManager`: splits of samples whose validation is fixed once, over a store or the older folder layout.

The first version shuffles the sorted ids with a seed and takes validation from the front; later ones add to
training alone.
"""

import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from sarzarr.errors import InvalidInputError, SplitExistsError, SplitNotFoundError
from sarzarr.splits.samples import backends
from sarzarr.splits.samples.backends import SampleSplit
from sarzarr.splits.samples.products import PatchOrigins, divide_products, origins_of_table
from sarzarr.splits.versions import utc_now
from sarzarr.store.samples import open_samples, sample_sets
from sarzarr.store.store import Store, open_store

Groups = Mapping[str, str] | Callable[[str], str]
"""The group of each sample, by its id."""
LITTLE: Final = 0.05
"""Share of validation below which extending is worth a word."""
log = logging.getLogger(__name__)


def sample_id(signal: str, source: str, seconds: float) -> str:
    """Return the id of a sample: 16 hexadecimal digits that stand for a signal, a source file and seconds in it.

    >>> sample_id("Creamy_Beef", "recording.cfile", 12.5)
    '35bed5c4f223aa22'
    """
    return sha256(f"{signal}:{source}:{int(seconds * 1000)}".encode()).hexdigest()[:16]


class SplitManager:
    """Make, extend and read the splits of sets of samples.

    ``place`` is a store (or its path), whose sets of samples are the signals; or the folder of the older layout, with
    ``signals/<name>/samples/<id>.npz`` and ``.json`` in it.
    """

    def __init__(self, place: Store | str | Path) -> None:
        self.backend: backends.StoreBackend | backends.FolderBackend
        if isinstance(place, Store) or (Path(place) / "zarr.json").exists():
            self.backend = backends.StoreBackend(open_store(place))
        else:
            self.backend = backends.FolderBackend(Path(place))

    def __repr__(self) -> str:
        return f"<sarzarr.SplitManager: {self.backend!r}>"

    def get_samples(self, signal: str) -> list[str]:
        """Return the ids of the samples there are, sorted; none for a signal that is not there."""
        return self.backend.samples(signal)

    def get_versions(self, signal: str) -> list[int]:
        """Return the versions there are, ascending."""
        return self.backend.versions(signal)

    def get_active_split_version(self, signal: str) -> int:
        """Return the version that is used: the one pointed at, else the highest; 0 where there is none."""
        versions = self.backend.versions(signal)
        active, _ = self.backend.pointer(signal)
        if active and active not in versions:
            log.warning("%s: v%d is active and not there: the highest version is used", signal, active)
        return active if active in versions else max(versions, default=0)

    def get_split(self, signal: str, version: int | None = None) -> tuple[list[str], list[str]]:
        """Return (train, val) ids in their order, as written, of the active version if left out.

        `SplitNotFoundError`, a `FileNotFoundError`, where there is no such version.
        """
        split = self.read(signal, version)
        return list(split.train_samples), list(split.val_samples)

    def read(self, signal: str, version: int | None = None) -> SampleSplit:
        """Return a version with all its facts, its share in [0, 1] too, the active one if left out."""
        versions = self.backend.versions(signal)
        if not versions:
            raise SplitNotFoundError(f"No splits found for {signal!r}. Call create_initial_split.")
        wanted = self.get_active_split_version(signal) if version is None else version
        if wanted not in versions:
            raise SplitNotFoundError(
                f"version {wanted} of the split of {signal!r} was expected, got none of that number. "
                f"Name one of {', '.join(map(str, versions))}."
            )
        return self.backend.read(signal, wanted)

    def get_missing_samples(self, signal: str, version: int | None = None) -> list[str]:
        """Return ids that a version has and that are no longer there, in its order."""
        train, val = self.get_split(signal, version)
        present = set(self.backend.samples(signal))
        return [i for i in train + val if i not in present]

    def get_pending_samples(self, signal: str) -> list[str]:
        """Return the ids that the active version does not know, sorted; all where there is none."""
        known = _known(self.read(signal)) if self.backend.versions(signal) else set()
        return [i for i in self.backend.samples(signal) if i not in known]

    def get_split_summary(self, signal: str) -> dict[str, Any]:
        """Return counts of samples, effective_val_ratio in [0, 1], versions and active_version, None without one."""
        active = self.get_active_split_version(signal)
        train, val = self.get_split(signal) if active else ([], [])
        return {
            "total_samples": len(self.backend.samples(signal)),
            "pending_samples": len(self.get_pending_samples(signal)),
            "train_count": len(train),
            "val_count": len(val),
            "active_version": active or None,
            "missing_samples": len(self.get_missing_samples(signal)) if active else 0,
            "effective_val_ratio": len(val) / max(len(train) + len(val), 1),
            "versions": self.backend.versions(signal),
        }

    def create_initial_split(
        self,
        signal: str,
        val_ratio: float = 0.2,
        random_seed: int = 42,
        *,
        groups: Groups | None = None,
        force: bool = False,
        notes: str = "",
    ) -> int:
        """Split all samples, make that version the active one, and return its number.

        Sorted ids are shuffled by ``random.Random(random_seed)``; the first ``max(1, int(n * val_ratio))``
        are validation. Patches that `sarzarr.import_npy` took in go by product, never by number, as
        `sarzarr.splits.samples.products.divide_products` says; what shares pixels with validation is held back.
        `SplitExistsError` where there is a split, whose validation is fixed; `InvalidInputError`, a
        `ValueError`, where there are fewer than two samples or groups, or the ratio is out of range.

        Parameters
        ----------
        val_ratio
            Share of validation in [0, 1], without the ends.
        groups
            The source of each id: it is groups that are shuffled then, and they are kept whole.
        force
            Begin anew, under a new number and with another validation, where there is a version.
        """
        backends.checked_name(signal, "a signal's name")
        if not 0 < val_ratio < 1:
            raise InvalidInputError(
                f"a val_ratio above 0 and below 1 was expected, got {val_ratio}. Try 0.2."
            )
        with self.backend.alone(signal):
            if self.backend.versions(signal) and not force:
                raise SplitExistsError(
                    f"samples without a split were expected, got {signal!r} with v{self._last(signal)}. Its "
                    "validation is fixed: call extend_split, or pass force=True for a new one beside it."
                )
            return self._write(signal, self._first(signal, val_ratio, random_seed, groups, notes))

    def extend_split(
        self,
        signal: str,
        new_sample_ids: Sequence[str] | None = None,
        *,
        groups: Groups | None = None,
        notes: str = "",
    ) -> int:
        """Add samples to training, as a new version; return its number, or the active one's if none is new.

        Validation stays the same sequence. Without a version the initial one is made. ``new_sample_ids`` are all that
        are pending if left out; those that share one of the ``groups`` with validation are held back instead.
        Processes wait for each other. `InvalidInputError` where an id is not among the samples, or is named twice.
        """
        with self.backend.alone(signal):
            if not self.backend.versions(signal):
                return self._write(signal, self._first(signal, 0.2, 42, groups, notes))
            parent = self.read(signal)
            split = self._extended(signal, parent, self._new(signal, parent, new_sample_ids), groups)
            return parent.version if split is parent else self._write(signal, replace(split, notes=notes))

    def set_active(self, signal: str, version: int) -> None:
        """Use a version that is there; versions after it stay, and their numbers are not used again."""
        with self.backend.alone(signal):
            self.read(signal, version)
            self.backend.activate(signal, version)

    def _last(self, signal: str) -> int:
        return max(self.backend.pointer(signal)[1], *self.backend.versions(signal), 0)

    def _first(
        self, signal: str, val_ratio: float, random_seed: int, groups: Groups | None, notes: str
    ) -> SampleSplit:
        samples = self.backend.samples(signal)
        divided = None if groups is not None else self._by_product(signal, val_ratio, random_seed)
        val, held = divided or (_drawn(samples, val_ratio, random_seed, groups), ())
        chosen = {*val, *held}
        return SampleSplit(
            version=self._last(signal) + 1,
            created_at=utc_now("microseconds"),
            train_samples=[i for i in _shuffled(samples, random_seed) if i not in chosen],
            val_samples=val,
            held_back_samples=held,
            val_ratio=val_ratio,
            random_seed=random_seed,
            notes=notes,
        )

    def _by_product(self, signal: str, val_ratio: float, seed: int) -> tuple[list[str], list[str]] | None:
        """Return the ids of validation and those held back, of patches that say their product; None of others."""
        found = self._patches(signal)
        if found is None:
            return None
        sides = divide_products(found[1], val_fraction=val_ratio, seed=seed)
        val, held = ([found[0][i] for i in rows.tolist()] for rows in (sides.val, sides.left_out))
        return val, held

    def _patches(self, signal: str) -> tuple[Sequence[str], PatchOrigins] | None:
        """Return the ids and origins of the patches of a store's set; None where they do not say their product."""
        if not isinstance(self.backend, backends.StoreBackend) or signal not in sample_sets(
            self.backend.store
        ):
            return None
        made = open_samples(self.backend.store, signal)
        origins = origins_of_table(made.table, (made.layout.height, made.layout.width))
        return None if origins is None else (made.ids, origins)

    def _extended(
        self, signal: str, parent: SampleSplit, new: Sequence[str], groups: Groups | None
    ) -> SampleSplit:
        """Return a version with new samples in training; its parent where there are none."""
        if not new:
            return parent
        if groups is None and (found := self._patches(signal)) is not None:
            groups = dict(zip(found[0], found[1].product.tolist(), strict=True))
            groups = {i: groups.get(i, "") for i in {*groups, *parent.val_samples}}
        closed = set() if groups is None else {_group(groups, i) for i in parent.val_samples}
        held = {i: None for i in new if groups is not None and _group(groups, i) in closed}
        added = [i for i in new if i not in held]
        split = replace(
            parent,
            version=self._last(signal) + 1,
            created_at=utc_now("microseconds"),
            train_samples=[*parent.train_samples, *added],
            held_back_samples=[*parent.held_back_samples, *held],
            parent_version=parent.version,
            samples_added=len(added),
        )
        if split.effective_val_ratio < LITTLE:
            log.warning(
                "%s: validation is %.1f %% of the samples by now; force=True in create_initial_split begins anew",
                signal, 100 * split.effective_val_ratio,
            )  # fmt: skip
        return split

    def _new(self, signal: str, parent: SampleSplit, wanted: Sequence[str] | None) -> list[str]:
        pending = self.get_pending_samples(signal)
        if wanted is None:
            return pending
        chosen = set(wanted)
        known = {*pending, *_known(parent)}
        if strange := [i for i in wanted if i not in known]:
            raise InvalidInputError(
                f"ids of samples of {signal!r} were expected, got {str(strange[0])[:200]!r} "
                f"and {len(strange) - 1} more. get_samples lists them."
            )
        if len(chosen) < len(wanted):
            raise InvalidInputError(
                f"each id once was expected, got {len(wanted) - len(chosen)} twice. Take them out."
            )
        return [i for i in pending if i in chosen]

    def _write(self, signal: str, split: SampleSplit) -> int:
        self.backend.create(signal, split)
        log.info("%s: wrote %r", signal, split)
        return split.version


def _known(split: SampleSplit) -> set[str]:
    return {*split.train_samples, *split.val_samples, *split.held_back_samples}


def _shuffled(samples: Sequence[str], seed: int) -> list[str]:
    out = sorted(samples)
    random.Random(seed).shuffle(out)
    return out


def _drawn(samples: Sequence[str], ratio: float, seed: int, groups: Groups | None) -> list[str]:
    """Return the ids of validation, in the order of the shuffle."""
    if not samples:
        raise InvalidInputError("samples to split were expected, got none. Import some first.")
    shuffled = _shuffled(samples, seed)
    wanted = max(1, int(len(samples) * ratio))
    if groups is None:
        if len(samples) < 2:
            raise InvalidInputError(
                "at least two samples were expected, got one: a side would be empty. Add some."
            )
        return shuffled[: min(wanted, len(samples) - 1)]
    group_of = {i: _group(groups, i) for i in samples}
    sizes = Counter(group_of.values())
    names = _shuffled(list(sizes), seed)[:-1]  # one group at least is training
    before = accumulate((sizes[name] for name in names), initial=0)
    chosen = {name for name, count in zip(names, before, strict=False) if count < wanted}
    if not chosen:
        raise InvalidInputError(
            "samples of at least two groups were expected, got one: a side would be empty. Leave out groups."
        )
    return [i for i in shuffled if group_of[i] in chosen]


def _group(groups: Groups, sample: str) -> str:
    if callable(groups):
        return groups(sample)
    try:
        return groups[sample]
    except KeyError:
        raise InvalidInputError(
            f"a group for each sample was expected, got none for {sample!r}. Name it."
        ) from None
