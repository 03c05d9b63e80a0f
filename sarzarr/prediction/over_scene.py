"""A model over one scene: windows read ahead, predicted, put together, and handed on as rows."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.prediction.inputs import AHEAD, SceneInput, ValidRows
from sarzarr.prediction.layers import ModelOutput, RowSink
from sarzarr.prediction.models import Run
from sarzarr.prediction.options import NO_CLASS, PredictOptions
from sarzarr.prediction.windows import WindowBand

log = logging.getLogger(__name__)
BATCH = 8
"""Windows of a batch, unless told otherwise."""


@dataclass(frozen=True)
class WindowCounts:
    """The windows of a scene, by their fate."""

    predicted: int = 0
    """Windows that the model was given."""
    skipped: int = 0
    """Windows without a pixel that was measured."""
    seconds: float = 0.0
    """Seconds that it took."""


def predict_rows(
    run: Run,
    scene: SceneInput,
    options: PredictOptions,
    sink: RowSink,
    tell: Callable[[int], None] = lambda done: None,
) -> WindowCounts:
    """Run a model over every window of a scene that has a valid pixel, and hand rows to ``sink`` from top to bottom.

    What is held is a row of windows, (K, size, columns) float32, and as many rows of flags, whatever the height.
    ``tell`` is told the windows that are done, those of an earlier run among them.

    Raises `InvalidInputError` where the model does not return (n, K, rows, columns) of the rows and columns it is
    given.
    """
    began, grid, valid = time.perf_counter(), scene.grid, ValidRows(scene.flags)
    first = grid.first_from(min(sink.first, grid.shape[0] - 1))
    size = options.batch_size or getattr(run, "batch_size", None) or BATCH
    chosen = deque[Array]()
    made, predicted = list[tuple[ModelOutput, WindowBand]](), 0

    def numbers() -> Iterator[Array]:
        waiting: list[int] = []
        for window in _with_a_valid_pixel(scene, valid, first):
            waiting.append(window)
            if len(waiting) == size:
                chosen.append(np.array(waiting))
                yield chosen[-1]
                waiting.clear()
        if waiting:
            chosen.append(np.array(waiting))
            yield chosen[-1]

    def begin(values: Array) -> tuple[ModelOutput, WindowBand]:
        output = ModelOutput.of(values, len(scene.arrays), options)
        sink.begin(output)
        kind = "uint8" if output.is_labels else "float32"
        return output, WindowBand(output.blended(grid), output.channels, kind, first)

    def hand_on(output: ModelOutput, band: WindowBand) -> None:
        top = band.top
        rows = band.finished()
        sink.write(top, output.made(rows, valid.rows(top, top + rows.shape[1])))
        valid.forget_above(top + rows.shape[1])

    def take(windows: Array, values: Array) -> None:
        """Add up what windows became, and hand on what is done, while the model is at the next ones."""
        output, band = made[0]
        for window, value in zip(windows.tolist(), values, strict=True):
            while band.row < window // len(grid.cols):
                hand_on(output, band)
            band.add(window, value)

    with ThreadPoolExecutor(1, thread_name_prefix="sarzarr-blend") as apart:
        waiting = deque[Future[None]]()
        for batch in scene.batches(numbers()):
            windows, values = chosen.popleft(), _checked(run(batch), batch.shape)
            if not made:
                made.append(begin(values))
            _check_alike(values, made[0][0])
            waiting.append(apart.submit(take, windows, values))
            if len(waiting) > AHEAD:
                waiting.popleft().result()
            predicted += len(windows)
            tell(int(windows[-1]) + 1)
        for future in waiting:
            future.result()
    if not made:  # nothing was measured: what the model returns is asked of an empty window
        channels = len(scene.arrays) + len(scene.layers)
        empty = np.zeros((1, channels, grid.size, grid.size), np.float32)
        made.append(begin(_checked(run(empty), empty.shape)))
    output, band = made[0]
    for _ in range(band.row, len(grid.rows)):
        hand_on(output, band)
    tell(len(grid))
    return WindowCounts(predicted, len(grid) - first - predicted, time.perf_counter() - began)


def _with_a_valid_pixel(scene: SceneInput, valid: ValidRows, first: int) -> Iterator[int]:
    """Yield the windows from ``first`` on that have a valid pixel, by number."""
    grid = scene.grid
    for i in range(first // len(grid.cols), len(grid.rows)):
        row = grid.rows[i]
        columns = np.asarray(valid.rows(row, row + grid.size).any(0))
        for j, col in enumerate(grid.cols):
            if columns[col : col + grid.size].any():
                yield i * len(grid.cols) + j


def _check_alike(values: Array, output: ModelOutput) -> None:
    """Raise `InvalidInputError` where a batch (n, K, rows, columns) is of another kind than the first."""
    if values.shape[1] != output.channels or (values.dtype.kind != "f") != output.is_labels:
        raise InvalidInputError(
            f"{output.channels} channels were expected as of the first batch, got {values.shape[1]} of "
            f"{values.dtype}. A model returns the same of every batch."
        )


def _checked(values: Array, given: tuple[int, ...]) -> Array:
    """Return (n, K, rows, columns) float32, or uint8 of whole numbers; `InvalidInputError` where it is neither."""
    made = np.asarray(values)
    if made.ndim == 3:
        made = made[:, None]
    n, _, rows, cols = given
    if made.ndim != 4 or (made.shape[0], *made.shape[2:]) != (n, rows, cols):
        raise InvalidInputError(
            f"({n}, K, {rows}, {cols}) of {given} was expected of the model, got {np.shape(values)}. Pass a "
            "patch_size that it keeps, or let it crop or resample its output to the size of its input."
        )
    if made.dtype.kind == "f":
        return made.astype(np.float32, copy=False)
    if made.dtype.kind not in "biu":
        raise InvalidInputError(f"floats or whole numbers were expected of the model, got {made.dtype}.")
    if made.dtype.kind != "b" and made.size and not (made.min() >= 0 and made.max() < NO_CLASS):
        raise InvalidInputError(
            f"classes from 0 to {NO_CLASS - 1} were expected of a model that returns {made.dtype}, got "
            f"{made.min()} to {made.max()}. Number them so, or return float32."
        )
    return made.astype(np.uint8, copy=False)
