"""`PredictOptions`: the keywords of a prediction, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from sarzarr.errors import InvalidInputError
from sarzarr.reader.options import Clip, ReadOptions
from sarzarr.scenes.names import check_layer_name
from sarzarr.store.store import AnyStore

KINDS: Final = ("continuous", "normalized", "classes")
MAX_CHANNELS: Final = 64
"""Channels that a model returns, at most: each is a layer, and its files are open together."""
NO_CLASS: Final = 255
"""The value of pixels of a layer of classes that were not measured."""
Kind = Literal["continuous", "normalized", "classes"]
Blend = Literal["cosine", "linear", "nearest"]


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The keywords of `sarzarr.predict_scene`, with their defaults."""

    polarizations: Sequence[str] | None = None
    """Polarizations or names of arrays that become the channels, in this order; may be left out where a scene has one
    array."""
    layers: Sequence[str] = ()
    """Layers of the scene that are further channels, behind those: as stored, made float32, their nodata too."""
    clip: Clip | None = None
    """(vmin, vmax) in dB that 0 and 1 of the channels stand for, or such a pair for each group (``vv/sigma0``), as
    the model was trained with; the store's own recommended ones if left out."""
    patch_size: int = 256
    """Rows and columns of a window, pixels."""
    overlap: int = 32
    """Pixels that neighbouring windows share; more at the right and bottom edge, where the last ones are shifted."""
    batch_size: int | None = None
    """Windows of a batch: 8, or what an ONNX file fixes."""
    blend: Blend = "cosine"
    """Weights over the overlap: ``cosine`` or ``linear``; ``nearest`` takes each pixel from the window whose centre
    is nearest, as it is always done with classes that a model returns as whole numbers."""
    kind: Kind | None = None
    """``continuous`` (float32, NaN where not measured); ``normalized``, the same in [0, 1] of the channels' own clip,
    which is stored with it, so that `sarzarr.denormalize` makes dB; ``classes`` (uint8, 255 where not measured): the
    number of the highest of K scores, after blending, or the whole numbers that a model returns. Floats are
    continuous and whole numbers classes if left out."""
    classes: Sequence[str] | Mapping[int, str] | None = None
    """Names of classes, from 0, or by number; stored with the layer."""
    units: str | None = None
    """The unit of continuous values: ``dB``, ``m``."""
    names: Sequence[str] | str = "prediction"
    """The name of the layer, followed by ``_1``, ``_2``, ... where a model returns several; or a name for each."""
    model_name: str | None = None
    """Name and version of the model, stored with the layer. Of a function it is also what an interrupted prediction
    goes on by: without it, it begins anew."""
    out: Any = None
    """Another store that has the scene on the same grid, which the layers are written into; or a writable array,
    (rows, columns) or (K, rows, columns). The store itself if left out."""
    overwrite: bool = False
    """Whether a prediction of that name that is there, of another model, made otherwise or damaged, is replaced."""

    def __post_init__(self) -> None:
        for name in ("polarizations", "layers"):
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, (given,))
            elif given is not None:
                object.__setattr__(self, name, tuple(given))
        if self.polarizations is not None and not self.polarizations:
            raise InvalidInputError("polarizations must name at least one, got none. Leave it out.")
        object.__setattr__(self, "clip", ReadOptions(clip=self.clip).clip)
        if self.batch_size is not None and not (isinstance(self.batch_size, int) and self.batch_size > 0):
            raise InvalidInputError(
                f"batch_size must be a whole number, at least 1, got {self.batch_size!r}."
            )
        if self.kind not in (None, *KINDS):
            raise InvalidInputError(f"kind must be {', '.join(KINDS)}, got {self.kind!r}. Name one of these.")
        if self.classes is not None:
            self._take_classes(self.classes)
        if self.kind in ("classes", "normalized") and self.units is not None:
            raise InvalidInputError(
                f"units= of continuous values were expected, got kind={self.kind!r}. Leave one out."
            )
        names = (self.names,) if isinstance(self.names, str) else tuple(self.names)
        if not names or len({name.lower() for name in names}) < len(names):
            raise InvalidInputError(f"names that differ were expected, got {list(names)}. Mend names=.")
        for name in names:
            check_layer_name(name)
        if not isinstance(self.names, str):
            object.__setattr__(self, "names", names)

    def _take_classes(self, given: Sequence[str] | Mapping[int, str]) -> None:
        if self.kind not in (None, "classes"):
            raise InvalidInputError(f"classes= needs kind='classes', got {self.kind!r}. Leave one out.")
        pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
        table = {int(number): str(name) for number, name in pairs}
        if isinstance(given, str) or not table or not set(table) <= set(range(NO_CLASS)):
            raise InvalidInputError(
                f"names of classes 0 to {NO_CLASS - 1} were expected, got {given!r:.80}. Number them so."
            )
        object.__setattr__(self, "classes", table)
        object.__setattr__(self, "kind", "classes")

    def layer_names(self, channels: int) -> tuple[str, ...]:
        """Return the name of the layer of each of so many channels."""
        if isinstance(self.names, str):
            return (self.names,) if channels == 1 else tuple(f"{self.names}_{i + 1}" for i in range(channels))
        if len(self.names) != channels:
            raise InvalidInputError(
                f"{channels} names were expected, one for each channel that the model returns, got "
                f"{len(self.names)}: {', '.join(self.names)}. Mend names=."
            )
        return tuple(self.names)


class PredictKeywords(TypedDict, total=False):
    """Fields of `PredictOptions`: sizes in pixels, clips in dB."""

    polarizations: Sequence[str] | None
    layers: Sequence[str]
    clip: Clip | None
    patch_size: int
    overlap: int
    batch_size: int | None
    blend: Blend
    kind: Kind | None
    classes: Sequence[str] | Mapping[int, str] | None
    units: str | None
    names: Sequence[str] | str
    model_name: str | None
    out: AnyStore | Any
    overwrite: bool
