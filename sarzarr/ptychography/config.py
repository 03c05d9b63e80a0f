"""`PtychoConfig`: the size of frames and the groups that are asked for."""

from dataclasses import dataclass, fields
from typing import Any, Final

from sarzarr.errors import InvalidInputError
from sarzarr.grouping import GroupRecipe, check_count

PHOTONS: Final = 1e9
"""Photons of a frame on average, where nothing says it."""
_NOTHING: Final = object()


@dataclass(frozen=True)
class PtychoConfig:
    """All that groups of a scan depend on, besides the seed of their draw. Nothing else, and nothing global, does."""

    N: int
    """Rows and columns of a frame, pixels."""
    gridsize: int
    """Positions along a side of a group: a group has C = gridsize * gridsize frames, its channels."""
    n_groups: int | None = 512
    """Groups; None is as many as there are positions, for inference."""
    neighbor_count: int = 4
    """Nearest neighbours K that a group is drawn from."""
    n_subsample: int | None = None
    """Positions that are drawn before groups are; all if left out."""
    subsample_seed: int | None = None
    """Of that draw."""
    sequential_sampling: bool = False
    """Take the first positions as seeds of groups, in their order."""
    enable_oversampling: bool = False
    """Allow more groups than there are positions."""
    neighbor_pool_size: int | None = None
    """The K of oversampling; ``neighbor_count`` if left out."""
    nphotons: float | None = None
    """Photons of a frame on average, from which ``norm_Y_I`` follows; if left out what the file says, else 1e9."""

    def __post_init__(self) -> None:
        for name in ("N", "gridsize", "neighbor_count"):
            check_count(name, getattr(self, name))
        for name in ("n_groups", "n_subsample", "neighbor_pool_size"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.nphotons is not None and not self.nphotons > 0:
            raise InvalidInputError(f"expected nphotons above 0, got {self.nphotons}. Mend nphotons=.")

    @classmethod
    def of(cls, config: Any) -> "PtychoConfig":
        """Return the config of an object with these attributes, or of one whose ``model`` has some of them.

        Without ``n_subsample``, an older ``n_images`` stands for it.
        """
        if isinstance(config, cls):
            return config
        found = {
            field.name: value
            for field in fields(cls)
            if (value := _attribute(config, field.name)) is not _NOTHING
        }
        if missing := [name for name in ("N", "gridsize") if name not in found]:
            raise InvalidInputError(
                f"expected a config with {' and '.join(missing)}, got {type(config).__name__} without. "
                "Pass sarzarr.ptychography.PtychoConfig(N=..., gridsize=...)."
            )
        if found.get("n_subsample") is None:
            older = _attribute(config, "n_images")
            found["n_subsample"] = None if older is _NOTHING else older
        return cls(**found)

    def recipe(self, n: int, *, seed: int | None, **changes: Any) -> GroupRecipe:
        """Return the recipe of groups of n positions; ``changes`` are its fields, of which None changes nothing."""
        own: dict[str, Any] = {
            "gridsize": self.gridsize,
            "nsamples": self.n_groups or n,
            "neighbors": self.neighbor_count,
            "sequential_sampling": self.sequential_sampling,
            "enable_oversampling": self.enable_oversampling,
            "neighbor_pool_size": self.neighbor_pool_size,
        }
        return GroupRecipe(**own | {k: v for k, v in changes.items() if v is not None}, seed=seed)


def _attribute(config: Any, name: str) -> Any:
    """Return an attribute of a config, or of its ``model``; `_NOTHING` where neither has it."""
    own = getattr(config, name, _NOTHING)
    return getattr(getattr(config, "model", None), name, _NOTHING) if own is _NOTHING else own
