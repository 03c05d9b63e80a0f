"""The bounds of groups: what 0 and 1 stand for, in dB, in arrays of one polarization and quantity."""

from collections.abc import Mapping
from dataclasses import dataclass

from sarzarr.errors import CorruptStoreError, MixedBoundsError
from sarzarr.pixels.bounds import ClipBounds


@dataclass(frozen=True, kw_only=True)
class BoundsEntry:
    """The dB that 0 and 1 stand for in one (polarization, quantity) group, stored and delivered."""

    vmin: float
    """dB that 0 stands for in the stored arrays."""
    vmax: float
    """dB that 1 stands for in the stored arrays."""
    clip_vmin: float
    """dB that 0 stands for in a training batch."""
    clip_vmax: float
    """dB that 1 stands for in a training batch."""
    clip_method: str = "percentile"
    """How the clip was found, with its parameters."""

    @property
    def stored(self) -> ClipBounds:
        """The stored range, dB."""
        return ClipBounds(self.vmin, self.vmax)

    @property
    def clip(self) -> ClipBounds:
        """The recommended clip, dB."""
        return ClipBounds(self.clip_vmin, self.clip_vmax)


class GroupBounds(dict[str, BoundsEntry]):
    """Bounds by group; one that a catalog names and that is not there is damage."""

    def __missing__(self, key: str) -> BoundsEntry:
        raise CorruptStoreError(
            f"clip bounds (dB) among those of {', '.join(self) or 'no group'} were expected, got {str(key)[:100]!r}. "
            "Restore the store's zarr.json from a copy."
        )


def bounds_key(array: str, quantity: str) -> str:
    """Return the name of the group that shares clip bounds: ``vv/sigma0``."""
    return f"{array}/{quantity}"


def single_clip(bounds: Mapping[str, BoundsEntry]) -> dict[str, float]:
    """Return the clip that all of ``bounds`` share, ``{"vmin", "vmax"}`` in dB; else `MixedBoundsError`."""
    pairs = {(b.clip_vmin, b.clip_vmax) for b in bounds.values()}
    if len(pairs) != 1:
        listed = "; ".join(
            f"{k}: {b.clip_vmin:.2f} to {b.clip_vmax:.2f} dB" for k, b in sorted(bounds.items())
        )
        raise MixedBoundsError(
            f"one clip for the selection was expected, got {len(pairs)} ({listed}). "
            "Select one group with polarizations= or scenes=, or pass clip=."
        )
    vmin, vmax = pairs.pop()
    return {"vmin": vmin, "vmax": vmax}
