"""The dB that stored values, and those of a batch, stand for, by group."""

from dataclasses import dataclass

from sarzarr.errors import CorruptStoreError
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


class Bounds(dict[str, BoundsEntry]):
    """Bounds by group; one that a catalog names and that is not there is damage."""

    def __missing__(self, key: str) -> BoundsEntry:
        raise CorruptStoreError(
            f"clip bounds (dB) among those of {', '.join(self) or 'no group'} were expected, got {str(key)[:100]!r}. "
            "Restore the store's zarr.json from a copy."
        )
