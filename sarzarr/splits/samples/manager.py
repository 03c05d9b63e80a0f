"""`SplitManager`: splits of samples whose validation is fixed once, over a store or the older folder layout.

The first version shuffles the sorted ids with a seed and takes validation from the front; later ones add to
training alone. Nothing here is drawn at random but by that seed.
"""

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from sarzarr.errors import InvalidInputError, SplitExistsError, SplitNotFoundError
from sarzarr.splits.samples.keepers import FolderKeeper, Keeper, SampleSplit, StoreKeeper, checked_name
from sarzarr.store.store import Store, open_store

Groups = Mapping[str, str] | Callable[[str], str]
LITTLE: Final = 0.05
"""Share of validation below which extending is worth a word."""
log = logging.getLogger(__name__)


def sample_id(signal: str, source: str, seconds: float) -> str:
    """Return the id of a sample: 16 hexadecimal digits that stand for a signal, a source file and a time.

    >>> sample_id("Creamy_Beef", "recording.cfile", 12.5)
    '35bed5c4f223aa22'
    """
    return sha256(f"{signal}:{source}:{int(seconds * 1000)}".encode()).hexdigest()[:16]


class SplitManager:
    """Make, extend and read the splits of sets of samples.

    Parameters
    ----------
    place
        A store (or its path), whose sets of samples are the signals; or the folder of the older layout, with
        ``signals/<name>/samples/<id>.npz`` and ``.json`` in it.
    """

    def __init__(self, place: Store | str | Path) -> None:
        if isinstance(place, Store):
            self.keeper: Keeper = StoreKeeper(place)
        elif (Path(place) / "zarr.json").exists():
            self.keeper = StoreKeeper(open_store(place))
        else:
            self.keeper = FolderKeeper(Path(place))

    # -------------------------------------------------------------- reading
    def get_samples(self, signal: str) -> list[str]:
        """Return the ids of the samples there are, sorted; none for a signal that is not there."""
        return self.keeper.samples(signal)

    def get_versions(self, signal: str) -> list[int]:
        """Return the versions there are, ascending."""
        return self.keeper.versions(signal)

    def get_active_split_version(self, signal: str) -> int:
        """Return the version that is used: the one pointed at, else the highest; 0 where there is none."""
        return self.keeper.active(signal) or max(self.keeper.versions(signal), default=0)

    def get_split(self, signal: str, version: int | None = None) -> tuple[list[str], list[str]]:
        """Return (train, val) ids in their order, of the active version if left out.

        They are as they were written; `get_missing_samples` says which of them are no longer there.

        Raises
        ------
        SplitNotFoundError
            There is no such version; it is a `FileNotFoundError`.
        """
        split = self.read(signal, version)
        return list(split.train_samples), list(split.val_samples)

    def read(self, signal: str, version: int | None = None) -> SampleSplit:
        """Return all that a version says, of the active one if left out."""
        wanted = self.get_active_split_version(signal) if version is None else version
        if not self.keeper.versions(signal):
            raise SplitNotFoundError(f"No splits found for {signal!r}. Call create_initial_split.")
        return self.keeper.read(signal, wanted)

    def get_missing_samples(self, signal: str, version: int | None = None) -> list[str]:
        """Return ids that a version has and that are no longer there, in its order."""
        train, val = self.get_split(signal, version)
        there = set(self.keeper.samples(signal))
        return [i for i in train + val if i not in there]

    def get_pending_samples(self, signal: str) -> list[str]:
        """Return the ids that the active version does not know, sorted; all where there is none."""
        samples = self.keeper.samples(signal)
        if not self.keeper.versions(signal):
            return samples
        split = self.read(signal)
        known = {*split.train_samples, *split.val_samples, *split.held_back_samples}
        return [i for i in samples if i not in known]

    def get_split_summary(self, signal: str) -> dict[str, Any]:
        """Return total_samples, pending_samples, train_count, val_count, active_version (None without one).

        And missing_samples, effective_val_ratio and versions.
        """
        active = self.get_active_split_version(signal)
        train, val = self.get_split(signal) if active else ([], [])
        return {
            "total_samples": len(self.keeper.samples(signal)),
            "pending_samples": len(self.get_pending_samples(signal)),
            "train_count": len(train),
            "val_count": len(val),
            "active_version": active or None,
            "missing_samples": len(self.get_missing_samples(signal)) if active else 0,
            "effective_val_ratio": len(val) / max(len(train) + len(val), 1),
            "versions": self.keeper.versions(signal),
        }

    # -------------------------------------------------------------- writing
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
        are validation. With ``groups`` (the group of each id) groups are shuffled and kept whole.

        Parameters
        ----------
        signal
            The set of samples.
        val_ratio
            Above 0, below 1.
        random_seed
            Another seed is another split.
        groups
            What comes from one source and may not be on two sides.
        force
            Begin anew, under a new number and with another validation, where there is a version.
        notes
            Kept with the version.

        Raises
        ------
        SplitExistsError
            There is a split: its validation is fixed.
        InvalidInputError
            There are fewer than two samples or groups, or the ratio is out of range; it is a `ValueError`.
        """
        checked_name(signal, "a signal's name")
        if not 0 < val_ratio < 1:
            raise InvalidInputError(f"a val_ratio above 0 and below 1 was expected, got {val_ratio}.")
        with self.keeper.alone(signal):
            return self._create(signal, val_ratio, random_seed, groups, force=force, notes=notes)

    def extend_split(
        self,
        signal: str,
        new_sample_ids: Sequence[str] | None = None,
        *,
        groups: Groups | None = None,
        notes: str = "",
    ) -> int:
        """Add samples to training, as a new version; return its number, or the active one's if none is new.

        Validation stays the same sequence. Without a version the initial one is made. Of processes that extend
        at once, each waits for the one before it, and finds nothing left to add.

        Parameters
        ----------
        signal
            The set of samples.
        new_sample_ids
            Which to add; all that are pending if left out.
        groups
            New samples that share a group with validation are held back instead.
        notes
            Kept with the version.

        Raises
        ------
        InvalidInputError
            An id is not among the samples, or is named twice.
        """
        with self.keeper.alone(signal):
            return self._extend(signal, new_sample_ids, groups, notes)

    def set_active(self, signal: str, version: int) -> None:
        """Use a version that is there; versions after it stay, and their numbers are not used again."""
        self.keeper.read(signal, version)
        self.keeper.activate(signal, version)

    def _create(
        self,
        signal: str,
        val_ratio: float,
        random_seed: int,
        groups: Groups | None,
        *,
        force: bool,
        notes: str,
    ) -> int:
        if self.keeper.versions(signal) and not force:
            raise SplitExistsError(
                f"samples without a split were expected, got {signal!r} with v{self.keeper.last(signal)}. Its "
                "validation is fixed: call extend_split, or pass force=True for a new one beside it."
            )
        samples = self.keeper.samples(signal)
        val = _drawn(samples, val_ratio, random_seed, groups)
        held = set(val)
        shuffled = _shuffled(samples, random_seed)
        train = [i for i in shuffled if i not in held]
        return self._write(
            signal,
            SampleSplit(
                version=self.keeper.last(signal) + 1,
                created_at=_now(),
                total_samples=len(samples),
                train_samples=train,
                val_samples=val,
                train_count=len(train),
                val_count=len(val),
                val_ratio=val_ratio,
                random_seed=random_seed,
                notes=notes,
            ),
        )

    def _extend(self, signal: str, wanted: Sequence[str] | None, groups: Groups | None, notes: str) -> int:
        if not self.keeper.versions(signal):
            return self._create(signal, 0.2, 42, groups, force=False, notes=notes)
        parent = self.read(signal)
        new = self._new(signal, parent, wanted)
        if not new:
            return parent.version
        closed = set() if groups is None else {_group(groups, i) for i in parent.val_samples}
        held = [i for i in new if groups is not None and _group(groups, i) in closed]
        added = [i for i in new if i not in set(held)]
        train = [*parent.train_samples, *added]
        split = replace(
            parent,
            version=self.keeper.last(signal) + 1,
            created_at=_now(),
            total_samples=len(train) + parent.val_count,
            train_samples=train,
            train_count=len(train),
            held_back_samples=[*parent.held_back_samples, *held],
            parent_version=parent.version,
            samples_added=len(added),
            notes=notes,
        )
        if split.val_count < LITTLE * split.total_samples:
            log.warning(
                "%s: validation is %.1f %% of the samples by now; force=True in create_initial_split begins anew",
                signal, 100 * split.val_count / split.total_samples,
            )  # fmt: skip
        return self._write(signal, split)

    def _new(self, signal: str, parent: SampleSplit, wanted: Sequence[str] | None) -> list[str]:
        pending = self.get_pending_samples(signal)
        if wanted is None:
            return pending
        known = {*pending, *parent.train_samples, *parent.val_samples, *parent.held_back_samples}
        if strange := [i for i in wanted if i not in known]:
            raise InvalidInputError(
                f"ids of samples of {signal!r} were expected, got {str(strange[0])[:200]!r} "
                f"and {len(strange) - 1} more."
            )
        if len(set(wanted)) < len(wanted):
            raise InvalidInputError(f"each id once was expected, got {len(wanted) - len(set(wanted))} twice.")
        chosen = set(wanted)
        return [i for i in pending if i in chosen]

    def _write(self, signal: str, split: SampleSplit) -> int:
        self.keeper.create(signal, split)
        self.keeper.activate(signal, split.version)
        return split.version


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
            raise InvalidInputError("at least two samples were expected, got one: a side would be empty.")
        return shuffled[: min(wanted, len(samples) - 1)]
    of = {i: _group(groups, i) for i in samples}
    chosen: set[str] = set()
    count = 0
    names = _shuffled(sorted(set(of.values())), seed)
    for name in names[:-1]:  # one group at least is training
        if count >= wanted:
            break
        chosen.add(name)
        count += sum(g == name for g in of.values())
    if not chosen:
        raise InvalidInputError(
            "samples of at least two groups were expected, got one: a side would be empty."
        )
    return [i for i in shuffled if of[i] in chosen]


def _group(groups: Groups, sample: str) -> str:
    if callable(groups):
        return groups(sample)
    try:
        return groups[sample]
    except KeyError:
        raise InvalidInputError(f"a group for each sample was expected, got none for {sample!r}.") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
