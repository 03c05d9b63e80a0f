"""The stacks of a store, and the choice of those that are delivered.

Two passes see a slope from two sides, and two orbits at two angles: between them backscatter differs where
nothing has changed. So scenes are grouped by grid, mission, mode, relative orbit, pass and look side; what is not
known of a scene is apart from what is known of another, unless the scenes are named. Unknown is not equal to unknown:
where no track is told, the time of day tells it, since an orbit that is fixed to the sun passes a place at one time
of day on one track, and some 8 minutes later on the next one (Sentinel-1). What tells neither is a guess.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, reduce
from itertools import groupby
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.grids.crs import is_same_crs, turned
from sarzarr.grids.georeference import in_turn_of
from sarzarr.grids.grid import WHOLE_PIXEL, Grid
from sarzarr.patches.stacks.stack import Stack, View
from sarzarr.scenes.acquisition import ONE_PASS
from sarzarr.store.store import Store
from sarzarr.text import counted, listed

_FACTS: Final = (
    cv.DATETIME, cv.PLATFORM, cv.INSTRUMENT_MODE, cv.ORBIT_STATE, cv.RELATIVE_ORBIT, cv.OBSERVATION_DIRECTION,
)  # fmt: skip
DAY: Final = 86_400.0
"""Seconds of a day."""
_ONE_PASS: Final = ONE_PASS.total_seconds()


@dataclass(frozen=True, kw_only=True)
class _Member:
    """One scene, as far as stacks are concerned."""

    scene: str
    """Its id."""
    stamp: str
    """Its time, as in `Stack.stamps`; empty where that is not known."""
    view: View
    """Its viewing geometry."""
    keys: tuple[tuple[str, str], ...]
    """(name, bounds key) of each array that is asked for."""
    grid: Grid
    """Its grid."""
    points: str
    """Fingerprint of its ground control points; empty where an affine places it, or nothing."""

    @property
    def is_placed(self) -> bool:
        """Whether its pixels are tied to the ground."""
        return self.grid.is_georeferenced or bool(self.points)

    @cached_property
    def seconds(self) -> float:
        """Its time, seconds since 1970."""
        return float(np.datetime64(self.stamp, "ns").astype(np.int64)) / 1e9

    @property
    def clock(self) -> float | None:
        """Its time of day, seconds since midnight UTC; None where only a day is told, which is midnight exactly."""
        return self.seconds % DAY or None

    def contradicts(self, other: "_Member") -> bool:
        """Whether it is known to be of another view, where no track is told by its time of day."""
        if self.view.contradicts(other.view):
            return True
        if (
            self.clock is None
            or other.clock is None
            or (self.view.relative_orbit and other.view.relative_orbit)
        ):
            return False
        apart = abs(self.clock - other.clock)
        return min(apart, DAY - apart) > _ONE_PASS

    def __str__(self) -> str:
        has_clock = self.clock is not None and not self.view.relative_orbit
        return f"{self.view} at {self.stamp[11:16]} UTC" if has_clock else str(self.view)

    def shares_grid(self, other: "_Member") -> bool:
        """Whether each pixel of one is the same pixel of the other: by shape alone where neither is placed."""
        if (self.grid.shape, self.points) != (other.grid.shape, other.points):
            return False
        if not (self.grid.is_georeferenced or other.grid.is_georeferenced):
            return True
        is_one_crs = is_same_crs(self.grid.crs_wkt, other.grid.crs_wkt)
        return is_one_crs and self.grid.whole_pixel_offset(in_turn_of(other.grid, self.grid)) == (0, 0)


def find_stacks(
    store: Store, *, scenes: Sequence[str] | None = None, polarizations: Sequence[str] | None = None
) -> tuple[Stack, ...]:
    """Return the stacks of at least two scenes that a store holds, by the id of their first scene.

    Scenes of a stack have one grid (every corner within a thousandth of a pixel), one `View` and the same
    arrays of the same quantities. Those without a track have one time of day, within 3 minutes; of those that tell
    only a day ``is_one_view`` is False, and of those without any place in the world, which are stacked by shape,
    ``is_placed``. Scenes whose time is not known are left out.

    Scenes of one pass, as two processings of one acquisition are, are no series: one is taken, the earliest, then
    the first by id. Where it is not known that they are one (no place, or days alone), none of them is.

    They are chosen from the ids ``scenes``, all if left out. ``polarizations``, or names of arrays, are those that
    count, else all do; scenes that lack one are left out. Raises `NotInStoreError` where a scene is not in the store,
    or no scene has these polarizations.
    """
    series = (_series(view) for view in _views(_members(store, scenes, polarizations)))
    return tuple(sorted((_stack(taken) for taken, _ in series if len(taken) > 1), key=lambda s: s.id))


def make_stack(
    store: Store,
    scenes: Sequence[str],
    *,
    times: Sequence[Any] | None = None,
    polarizations: Sequence[str] | None = None,
    mixed: bool = False,
) -> Stack:
    """Return the stack of scenes that are named, by id in any order: what is not known of them is taken as equal.

    Its arrays are those that all of them have, of the same quantity; ``polarizations``, or names of arrays, in that
    order. ``times`` are the catalog's if left out; else one of each (ISO 8601, `datetime` or ``datetime64``; UTC
    where no zone is given). ``mixed`` allows views that are known to differ: slopes then change without any change.

    Raises `InvalidInputError` where their grids, (rows, columns) and place, or their views differ, a time is not
    known, two are of one time, or they have no array in common; `NotInStoreError` where a scene or polarization is
    not in the store.
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
    """Return the stacks, (dates,) each, that a user names, no two of their dates at one time.

    ``stack`` is a `Stack`; the id of any scene of one; or True: with ``scenes`` the stack of those, else every stack
    whose scenes are known to be of one grid and view. ``scenes`` and ``polarizations`` are as of `find_stacks`.

    Raises `InvalidInputError` where there is none, or two dates of one are at one time; `NotInStoreError`
    where the named scene is in no stack.
    """
    words = _words(scenes)
    if isinstance(stack, Stack):
        arrays = polarizations or stack.arrays
        return (make_stack(store, stack.scenes, times=stack.stamps, polarizations=arrays, mixed=True),)
    if stack is True and words is not None:
        return (make_stack(store, words, polarizations=polarizations),)
    stacks = find_stacks(store, scenes=words, polarizations=polarizations)
    near = ", ".join(repr(s.id) for s in stacks[:5])
    named = tuple(s for s in stacks if (s.is_certain if stack is True else stack in s.scenes))
    if not named and stack is not True:
        raise NotInStoreError(
            f"a scene of a stack was expected, got {stack!r}; stacks of {store.place.name} begin with "
            f"{near or 'none'}. See `sarzarr stacks`, or make one with make_stack."
        )
    if not named:
        guessed = f"stacks by shape alone or by days alone. Name it: stack= one of {near}."
        remedy = guessed if near else "none. See `sarzarr stacks`."
        raise InvalidInputError(
            f"scenes that are known to be on one grid and of one view were expected, got {remedy}"
        )
    for one in named:
        one.check_times()
    return named


def choose_stacks(
    store: Store,
    stack: Stack | str | bool,
    *,
    scenes: Sequence[str] | None = None,
    polarizations: Sequence[str] | None = None,
    length: int | None = None,
) -> tuple[Stack, ...]:
    """Return the stacks, (dates,) each, that are delivered together: `named_stacks`, or runs of ``length`` dates.

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
) -> tuple[_Member, ...]:
    """Return the scenes of a store, or those of ``scenes``, that have all the polarizations; by id.

    Raises `NotInStoreError` where there is none, or one is not in the store.
    """
    scenes, words = _words(scenes), _words(polarizations)
    for scene in scenes or ():
        store.rows(scene)  # raises, and says which there are
    catalog, known = store.catalog, store.placements
    columns = ("scene", "name", "polarization", "bounds_key", *(cv.CATALOG_COLUMNS[k] for k in _FACTS))
    rows = zip(*(catalog[c].values.tolist() for c in columns), strict=True)
    out = []
    for scene, group in groupby(rows, key=lambda row: str(row[0])):
        arrays = list(group)
        keys = _keys(arrays, words)
        if keys and (scenes is None or scene in scenes):
            place, (*_, time, platform, mode, state, orbit, side) = known[scene], arrays[0]
            mission, track = re.sub(r"(?<=-\d)[a-d]$", "", platform), 0 if math.isnan(orbit) else int(orbit)
            member = _Member(
                scene=scene,
                stamp=str(time).removesuffix("Z"),
                view=View(
                    mission=mission, mode=mode, orbit_state=state, relative_orbit=track, look_side=side
                ),
                keys=keys,
                grid=place.grid,
                points=place.fingerprint if place.is_located and not place.grid.crs_wkt else "",
            )
            out.append(member)
    if not out:
        raise NotInStoreError(
            f"scenes with {' and '.join(words or ['an array'])} were expected, got none in {store.place.name}. "
            "Ask for arrays that `sarzarr info` shows."
        )
    return tuple(out)


def _keys(
    arrays: Iterable[tuple[Any, ...]], polarizations: Sequence[str] | None
) -> tuple[tuple[str, str], ...]:
    """Return (name, bounds key) of each polarization that is asked for, in that order; empty if a scene lacks any."""
    named = {str(name): (str(polarization).lower(), str(key)) for _, name, polarization, key, *_ in arrays}
    if polarizations is None:
        return tuple(sorted((name, key) for name, (_, key) in named.items()))
    out = []
    for word in (p.lower() for p in polarizations):
        names = [n for n in named if n.lower() == word] or [n for n, (p, _) in named.items() if p == word]
        if len(names) != 1:
            return ()
        out.append((names[0], named[names[0]][1]))
    return tuple(out)


def _views(members: Iterable[_Member]) -> Iterator[list[_Member]]:
    """Yield the members of one grid and one view, as far as is known: those that tell only a day are apart."""
    for group in _groups([m for m in members if m.stamp]):
        if group[0].view.relative_orbit:
            yield group
            continue
        yield [m for m in group if m.clock is None]
        yield from _of_one_clock([m for m in group if m.clock is not None])


def _of_one_clock(members: Sequence[_Member]) -> Iterator[list[_Member]]:
    """Yield members within `ONE_PASS` of the first of them, around the clock from its widest gap on."""
    clocks = np.sort([m.seconds % DAY for m in members])
    begin = clocks[np.argmax(np.diff(clocks, prepend=clocks[-1:] - DAY))] if members else 0.0
    after = sorted((round((m.seconds - begin) % DAY, 6), m.scene, m) for m in members)
    while after:
        yield [m for since, _, m in after if since <= after[0][0] + _ONE_PASS]
        after = [one for one in after if one[0] > after[0][0] + _ONE_PASS]


def _series(members: Sequence[_Member]) -> tuple[list[_Member], list[list[_Member]]]:
    """Return a member per pass, and the passes of which there are several. Those of one view are given."""
    passes: list[list[_Member]] = []
    for member in sorted(members, key=lambda m: (m.seconds, m.scene)):
        first = passes[-1][0] if passes else None
        is_day = first is not None and (first.clock is None or member.clock is None)
        is_on = first is not None and (
            member.seconds // DAY == first.seconds // DAY
            if is_day
            else member.seconds - first.seconds <= _ONE_PASS
        )
        if is_on:
            passes[-1].append(member)
        else:
            passes.append([member])
    taken = [min(some, key=lambda m: (m.clock is None, m.seconds, m.scene)) for some in passes]
    is_known = [m.is_placed and bool(m.view.relative_orbit or m.clock) for m in taken]
    kept = [m for m, some, known in zip(taken, passes, is_known, strict=True) if known or len(some) == 1]
    return kept, [some for some in passes if len(some) > 1]


def _groups(members: Sequence[_Member]) -> Iterable[list[_Member]]:
    """Yield the members of one view, one set of arrays and one grid: grids are compared where origins are near."""
    alike: dict[Any, list[_Member]] = {}
    for member in members:
        key = (member.view, member.keys, member.grid.shape, member.points, member.grid.is_georeferenced)
        alike.setdefault(key, []).append(member)
    for some in alike.values():
        groups: list[list[_Member]] = []
        origins = np.empty((len(some), 2))
        at_row: dict[int, list[int]] = {}  # groups by the row of pixels that their origin lies in
        for member in some:
            origin = np.array([member.grid.transform[2], member.grid.transform[5]])
            is_placed, side = member.grid.is_georeferenced, max(member.grid.pixel_size)
            row = math.floor(origin[1] / side) if is_placed else 0
            maybe = np.array(sorted(i for r in (row - 1, row, row + 1) for i in at_row.get(r, ())), np.int64)
            off = origins[maybe] - origin
            off[:, 0] = turned(member.grid.crs_wkt, off[:, 0], near=0.0)
            near = np.abs(off) <= 4 * WHOLE_PIXEL * side
            places = maybe[near.all(1) | (not is_placed)].tolist()
            home = next((groups[i] for i in places if groups[i][0].shares_grid(member)), None)
            if home is None:
                origins[len(groups)] = origin
                at_row.setdefault(row, []).append(len(groups))
                groups.append([member])
            else:
                home.append(member)
        yield from groups


def _stack(members: Iterable[_Member]) -> Stack:
    by_time = sorted(members, key=lambda m: (np.datetime64(m.stamp, "ns"), m.scene))
    first, view = by_time[0], reduce(View.common, (m.view for m in by_time))
    return Stack(
        scenes=tuple(m.scene for m in by_time),
        stamps=tuple(m.stamp for m in by_time),
        arrays=tuple(name for name, _ in first.keys),
        grid=first.grid,
        view=view,
        is_placed=first.is_placed,
        is_one_view=bool(view.relative_orbit) or all(m.clock is not None for m in by_time),
    )


def _check_members(members: Sequence[_Member], *, mixed: bool) -> None:
    """Raise `InvalidInputError` for the first member that cannot be stacked with the first one."""
    first = members[0]
    for member in members:
        if not member.stamp:
            raise InvalidInputError(
                f"a time was expected, got none for {member.scene!r}. Give it: make_stack(store, scenes, times=...)."
            )
        if not first.shares_grid(member):
            remedy = f"the second anew with --grid like:{first.scene} --replace"
            if first.points and not first.grid.is_georeferenced:
                remedy = (
                    "one anew with --crs, --pixel-size and --replace, the others with --grid like: it, too"
                )
            raise InvalidInputError(
                f"scenes on one grid were expected, got {first.scene!r} and {member.scene!r} on two. "
                f"Ingest {remedy}."
            )
        against = next((m for m in members if m.contradicts(member)), None)
        if against is not None and not mixed:
            raise InvalidInputError(
                f"scenes seen from one side were expected, got {member.scene!r} ({member}) and "
                f"{against.scene!r} ({against}). Leave some out, or take make_stack(..., mixed=True)."
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


def describe_stacks(store: Store) -> str:
    """Return the text of `sarzarr stacks`: stacks of (rows, columns) pixels, and the scenes that are in none."""
    stacks = find_stacks(store)
    lines = [f"{store.place.name}: {counted(len(store.scenes), 'scene')}, {counted(len(stacks), 'stack')}"]
    lines += [f"  {stack}" for stack in stacks]
    stacked = {scene for stack in stacks for scene in stack.scenes}
    if alone := sorted({*store.catalog["scene"].values.tolist()} - stacked):
        lines.append(f"  in no stack: {listed(alone, most=8)}")
    members = _members(store, None, None)
    for some in (some for view in _views(members) for some in _series(view)[1]):
        taken = next((f", of which {m.scene} is in its stack" for m in some if m.scene in stacked), "")
        lines.append(f"  of one pass, no series: {listed([m.scene for m in some], most=8)}{taken}")
    if untimed := [m.scene for m in members if not m.stamp]:
        lines.append(f"  without a time: {', '.join(untimed[:8])}")
    return "\n".join(lines)
