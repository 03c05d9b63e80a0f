"""The stacks of a store, and the choice of those that are delivered.

Two passes see a slope from two sides, and two orbits at two angles: between them backscatter differs where
nothing has changed. So scenes are grouped by grid, mission, mode, relative orbit and pass; what is not known
of a scene is apart from what is known of another, unless the scenes are named.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import reduce
from typing import Any

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.patches.stacks.stack import Member, Stack, View, groups_of, members_of
from sarzarr.store.store import Store
from sarzarr.text import counted, listed


# ------------------------------------------------------------------ stacks
def find_stacks(
    store: Store, *, scenes: Sequence[str] | None = None, polarizations: Sequence[str] | None = None
) -> tuple[Stack, ...]:
    """Return the stacks of at least two scenes that a store holds, by the id of their first scene.

    Scenes of a stack have one grid (every corner within a thousandth of a pixel), one `View` and the same
    arrays of the same quantities. Those without any place in the world are stacked by shape, and ``is_placed``
    is False. Scenes whose time is not known are left out.

    Parameters
    ----------
    scenes
        Ids to choose from; all if left out.
    polarizations
        Polarizations or names of arrays that count; scenes that lack one are left out. Else all arrays do.

    Raises
    ------
    NotInStoreError
        A scene is not in the store, or no scene has these polarizations.
    """
    timed = [m for m in _members(store, scenes, polarizations) if m.stamp]
    stacks = (_stack(group) for group in groups_of(timed) if len(group) > 1)
    return tuple(sorted(stacks, key=lambda s: s.id))


def make_stack(
    store: Store,
    scenes: Sequence[str],
    *,
    times: Sequence[Any] | None = None,
    polarizations: Sequence[str] | None = None,
    mixed: bool = False,
) -> Stack:
    """Return the stack of scenes that are named: what is not known of them is taken as equal.

    Its arrays are those that all of them have, of the same quantity.

    Parameters
    ----------
    scenes
        Ids, in any order.
    times
        The time of each (ISO 8601, `datetime` or ``datetime64``; UTC where no zone is given); the catalog's if
        left out.
    polarizations
        Polarizations or names of arrays, in this order; all if left out.
    mixed
        Allow views that are known to differ. Slopes then change from date to date without any change.

    Raises
    ------
    InvalidInputError
        They are not on one grid, their views differ, a time is not known, two are of one time, or they
        have no array in common.
    NotInStoreError
        A scene or polarization is not in the store.
    """
    words = _words(polarizations)
    if len(set(scenes)) != len(scenes) or not scenes:
        raise InvalidInputError(f"different scenes were expected, got {list(scenes)}. Name each once.")
    members = {m.scene: m for m in _members(store, scenes, words)}
    for scene in scenes:
        if scene not in members:
            raise NotInStoreError(
                f"scenes with {' and '.join(words or ())} were expected, got {scene!r} without. Leave it out."
            )
    some = [members[scene] for scene in scenes]
    if times is not None:
        if len(times) != len(scenes):
            raise InvalidInputError(
                f"one time per scene was expected, got {len(times)} for {len(scenes)}. Give as many."
            )
        some = [replace(m, stamp=_stamp(time)) for m, time in zip(some, times, strict=True)]
    _check_members(some, mixed=mixed)
    common = set.intersection(*(set(m.keys) for m in some))
    kept = tuple(key for key in some[0].keys if key in common)
    if not kept:
        raise InvalidInputError(
            "arrays of one name and quantity in every scene were expected, got none. Name scenes that are alike."
        )
    stack = _stack([replace(m, keys=kept) for m in some])
    stack.check_times()
    return stack


def named_stacks(
    store: Store,
    stack: Stack | str | bool,
    *,
    scenes: Sequence[str] | None = None,
    polarizations: Sequence[str] | None = None,
) -> tuple[Stack, ...]:
    """Return the stacks that a user names, no two of their dates at one time.

    Raises `InvalidInputError` where there is none, or two dates of one are at one time; `NotInStoreError`
    where the named scene is in no stack.

    Parameters
    ----------
    stack
        A `Stack`; the id of any scene of one; or True: with ``scenes`` the stack of those, else every stack
        whose scenes have a place in the world.
    scenes
        Ids to choose from.
    polarizations
        As of `find_stacks`.
    """
    words = _words(scenes)
    if isinstance(stack, Stack):
        arrays = polarizations or stack.arrays
        return (make_stack(store, stack.scenes, times=stack.stamps, polarizations=arrays, mixed=True),)
    if stack is True and words is not None:
        return (make_stack(store, words, polarizations=polarizations),)
    named = _named(store, stack, find_stacks(store, scenes=words, polarizations=polarizations))
    for one in named:
        one.check_times()
    return named


def _named(store: Store, stack: str | bool, stacks: tuple[Stack, ...]) -> tuple[Stack, ...]:
    """Return the stack that holds a scene, or those whose scenes have a place in the world."""
    near = ", ".join(repr(s.id) for s in stacks[:5])
    if stack is not True:
        named = tuple(s for s in stacks if stack in s.scenes)
        if not named:
            raise NotInStoreError(
                f"a scene of a stack was expected, got {stack!r}; stacks of {store.place.name} begin with "
                f"{near or 'none'}. See `sarzarr stacks`, or make one with make_stack."
            )
        return named
    placed = tuple(s for s in stacks if s.is_placed)
    if not placed:
        remedy = (
            f"stacks by shape alone. Name it: stack= one of {near}."
            if near
            else "none. See `sarzarr stacks`."
        )
        raise InvalidInputError(f"scenes that are known to be on one grid were expected, got {remedy}")
    return placed


def choose_stacks(
    store: Store,
    stack: Stack | str | bool,
    *,
    scenes: Sequence[str] | None = None,
    polarizations: Sequence[str] | None = None,
    length: int | None = None,
) -> tuple[Stack, ...]:
    """Return the stacks that are delivered together: `named_stacks`, or their runs of ``length`` dates in a row.

    Raises what `named_stacks` does; `InvalidInputError` also where they differ in length or arrays, or none is as
    long as ``length``.
    """
    chosen = named_stacks(store, stack, scenes=scenes, polarizations=polarizations)
    if length is not None:
        chosen = tuple(s.window(i, length) for s in chosen for i in range(len(s) - length + 1))
    lengths, channels = {len(s) for s in chosen}, {s.arrays for s in chosen}
    if not chosen:
        raise InvalidInputError(f"a stack of at least {length} dates was expected, got none. Ask for fewer.")
    if len(lengths) > 1:
        listed = ", ".join(f"{s.id!r} of {len(s)}" for s in chosen[:8])
        raise InvalidInputError(
            f"stacks of one length were expected, got {listed}. Name one with stack=, or pass stack_length= for runs "
            "of so many dates."
        )
    if len(channels) > 1:
        listed = ", ".join(sorted("+".join(names) for names in channels))
        raise InvalidInputError(
            f"stacks of the same arrays were expected, got {listed}. Name some with polarizations=."
        )
    return chosen


def catalog_groups(store: Store, stacks: Sequence[Stack]) -> tuple[Array, ...]:
    """Return the rows of the catalog of each stack, (dates * arrays,): those of one date after another."""
    named = zip(store.catalog["scene"].values.tolist(), store.catalog["name"].values.tolist(), strict=True)
    row = {key: i for i, key in enumerate(named)}
    return tuple(np.array([row[scene, name] for scene in s.scenes for name in s.arrays]) for s in stacks)


def _members(
    store: Store, scenes: Sequence[str] | str | None, polarizations: Sequence[str] | str | None
) -> tuple[Member, ...]:
    """Return the scenes that may be stacked; `NotInStoreError` where there is none, or one is not in the store."""
    scenes, words = _words(scenes), _words(polarizations)
    for scene in scenes or ():
        store.rows(scene)  # raises, and says which there are
    members = members_of(store, scenes=scenes, polarizations=words)
    if not members:
        raise NotInStoreError(
            f"scenes with {' and '.join(words or ['an array'])} were expected, got none in {store.place.name}. "
            "Ask for arrays that `sarzarr info` shows."
        )
    return members


def _stack(members: Iterable[Member]) -> Stack:
    by_time = sorted(members, key=lambda m: (np.datetime64(m.stamp, "ns"), m.scene))
    first = by_time[0]
    return Stack(
        scenes=tuple(m.scene for m in by_time),
        stamps=tuple(m.stamp for m in by_time),
        arrays=tuple(name for name, _ in first.keys),
        grid=first.grid,
        view=reduce(View.common, (m.view for m in by_time)),
        is_placed=first.is_placed,
    )


def _check_members(members: Sequence[Member], *, mixed: bool) -> None:
    """Raise `InvalidInputError` for the first member that cannot be stacked with the first one."""
    first = members[0]
    for member in members:
        if not member.stamp:
            raise InvalidInputError(
                f"a time was expected, got none for {member.scene!r}. Give it: make_stack(store, scenes, times=...)."
            )
        if not first.shares_grid(member):
            remedy = f"the second with --grid like:{first.scene}"
            if first.points and not first.grid.is_georeferenced:
                remedy = "one with --crs and --pixel-size, and others with --grid like: it"
            raise InvalidInputError(
                f"scenes on one grid were expected, got {first.scene!r} and {member.scene!r} on two. "
                f"Ingest {remedy}."
            )
        against = next((m for m in members if m.view.contradicts(member.view)), None)
        if against is not None and not mixed:
            raise InvalidInputError(
                f"scenes seen from one side were expected, got {member.scene!r} ({member.view}) and "
                f"{against.scene!r} ({against.view}). Leave some out, or take make_stack(..., mixed=True)."
            )


def _words(given: Sequence[str] | str | None) -> Sequence[str] | None:
    return (given,) if isinstance(given, str) else given


def _stamp(time: Any) -> str:
    """Return a time that a user gives as `Stack.stamps` has it."""
    if isinstance(time, np.datetime64):
        return str(time)
    try:
        when = time if isinstance(time, datetime) else datetime.fromisoformat(str(time))
    except ValueError:
        raise InvalidInputError(
            f"a time in ISO 8601 was expected, got {time!r}. Write it as 2026-01-31T05:00:00."
        ) from None
    return (when if when.tzinfo is None else when.astimezone(UTC).replace(tzinfo=None)).isoformat()


# ------------------------------------------------------------------ for people
def describe_stacks(store: Store) -> str:
    """Return the text of `sarzarr stacks`: the stacks of a store, and the scenes that are in none."""
    stacks = find_stacks(store)
    lines = [f"{store.place.name}: {counted(len(store.scenes), 'scene')}, {counted(len(stacks), 'stack')}"]
    lines += [f"  {stack}" for stack in stacks]
    stacked = {scene for stack in stacks for scene in stack.scenes}
    alone = [scene for scene in store.scenes if scene not in stacked]
    if alone:
        lines.append(f"  in no stack: {listed(alone, most=8)}")
    untimed = [m.scene for m in _members(store, None, None) if not m.stamp]
    if untimed:
        lines.append(f"  without a time: {', '.join(untimed[:8])}")
    return "\n".join(lines)
