"""Layers: rasters that are kept beside a scene's backscatter as they are, and the words that ask for them.

A layer is written ``NAME[:WORD...]=FILE``. Every word of ours is before the first ``=``, so no file name can be
taken for one.
"""

import glob
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr.errors import InvalidInputError, RasterNotFoundError
from sarzarr.grids.warp.plan import METHODS
from sarzarr.scenes.names import check_layer_name

KINDS: Final = tuple(kind for kind in METHODS if kind != "backscatter")
"""Kinds of a layer's numbers, which decide how they are resampled."""
_WORDS: Final = (
    "a kind (classes, continuous, counts), a method (nearest, mode, ...), band2, nodata-1 or static"
)
_SUFFIXES: Final = (".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A raster, or several for as many scenes, that is kept as it is."""

    name: str
    """The array's name in its scene group."""
    path: str
    """A GeoTIFF, a folder of them, or a pattern such as ``labels/*.tif``."""
    kind: str | None = None
    """``classes``, ``continuous`` or ``counts``; integers are classes and floats continuous if left out."""
    method: str | None = None
    """The resampling where its pixels are not the scene's: one of ``METHODS[kind]``."""
    band: int | None = None
    """The band, from 1; needed where a file has several."""
    nodata: float | None = None
    """The value that says "no data", where the file has no tag or a wrong one."""
    factor: float = 1.0
    """Factor from the file's pixels, which are floats then, to the layer's: degrees of radians."""
    units: str | None = None
    """CF name of the layer's unit: ``degree``; None where nothing tells."""
    static: bool = False
    """Whether a file holds for scenes of every date, whatever date or scene its name tells."""

    def __post_init__(self) -> None:
        check_layer_name(self.name)
        if self.kind not in (None, *KINDS):
            raise InvalidInputError(
                f"expected layer {self.name!r} to be {', '.join(KINDS)}, got {self.kind!r}. Name one of these."
            )
        suited = METHODS[self.kind] if self.kind else tuple(m for k in KINDS for m in METHODS[k])
        if self.method is not None and self.method not in suited:
            raise InvalidInputError(
                f"expected a method for layer {self.name!r} of {', '.join(dict.fromkeys(suited))}, got "
                f"{self.method!r}. Name one of these."
            )
        if self.band is not None and self.band < 1:
            raise InvalidInputError(
                f"expected a band of layer {self.name!r} from 1 on, got {self.band}. Count them from 1."
            )

    def kind_of(self, dtype: str) -> str:
        """Return the kind of its numbers, given their dtype: float32 and float64 are continuous, others classes."""
        return self.kind or ("continuous" if np.dtype(dtype).kind == "f" else "classes")

    def files(self) -> tuple[Path, ...]:
        """Return its files, sorted: rasters (rows, columns); `RasterNotFoundError` where there is none."""
        place = Path(self.path)
        if place.is_dir():
            files = sorted(p for p in place.iterdir() if p.suffix.lower() in _SUFFIXES)
        elif place.exists():
            files = [place]
        else:
            files = sorted(Path(p) for p in glob.glob(self.path, recursive=True))  # noqa: PTH207 - may be absolute
        if not files:
            raise RasterNotFoundError(
                f"expected a TIFF, a folder of TIFFs or a pattern for layer {self.name!r}, got {self.path!r}, "
                "where there is none. Check the path."
            )
        return tuple(files)


def parse_layer(text: str) -> Layer:
    """Return the layer that ``NAME[:WORD...]=FILE`` says: a raster (rows, columns); words may come in any order.

    Raises `InvalidInputError` where it is not of that form, or the name is taken, or a word is not known.

    >>> parse_layer("mask=labels/a=b.tif").path
    'labels/a=b.tif'
    >>> dem = parse_layer("dem:continuous:cubic:nodata-9999=dem.tif")
    >>> dem.kind, dem.method, dem.nodata
    ('continuous', 'cubic', -9999.0)
    """
    head, _, path = text.partition("=")
    name, *words = head.split(":")
    if not path or not name:
        raise InvalidInputError(f"expected a layer such as mask=FILE, got {text!r}. Give a name and a file.")
    facts: dict[str, Any] = {}
    for word in words:
        key, value = _fact(text, word)
        if key in facts:
            raise InvalidInputError(
                f"expected one {key} in layer {text!r}, got a second: {word!r}. Leave it out."
            )
        facts[key] = value
    return Layer(name=name, path=path, **facts)


def _fact(text: str, word: str) -> tuple[str, Any]:
    """Return the field that a word is for, and its value."""
    if word in KINDS:
        return "kind", word
    if word == "static":
        return "static", True
    if any(word in METHODS[kind] for kind in KINDS):
        return "method", word
    if match := re.fullmatch(r"band(\d+)", word):
        return "band", int(match[1])
    if word.startswith("nodata"):
        try:
            return "nodata", float(word.removeprefix("nodata"))
        except ValueError:
            pass
    raise InvalidInputError(
        f"expected {_WORDS} in layer {text!r}, got {word!r}. Mend the word, or leave it out."
    )


def layers_of(given: Mapping[str, Any] | Iterable[Layer | str]) -> tuple[Layer, ...]:
    """Return layers, rasters (rows, columns), however they are given.

    As ``{"mask": "mask.tif", "dem:cubic": ["north.tif", "south.tif"]}``: names, with words if need be, and a file or
    several each; or as `Layer` objects; or as texts that `parse_layer` takes.
    """
    if isinstance(given, Mapping):
        files = {k: [v] if isinstance(v, str | Path) else v for k, v in given.items()}
        given = [f"{name}={path}" for name, paths in files.items() for path in paths]
    return tuple(one if isinstance(one, Layer) else parse_layer(one) for one in given)
