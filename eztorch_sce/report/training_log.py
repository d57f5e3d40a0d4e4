"""The numbers that a training logs, from a `metrics.csv` that it may still be writing."""

import csv
import os
import threading
from array import array
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

_BYTES_AT_ONCE = 1 << 24


class Curve(NamedTuple):
    """A logged number over the training.

    Attributes:
        steps: Optimizer steps in ascending order, each once, from 0.
        values: Its value at each step; NaN or infinite where training logged it so.
    """

    steps: Int64[NDArray[np.int64], " N"]
    values: Float64[NDArray[np.float64], " N"]

    @property
    def finite(self) -> Float64[NDArray[np.float64], " M"]:
        """The values that are numbers."""
        return self.values[np.isfinite(self.values)]


class TrainingLog(NamedTuple):
    """What a training logged.

    Attributes:
        curves: By name, without those that have no value.
        resumed_at: Steps at which a run of an earlier version went on after an interruption, and repeated others.
    """

    curves: Mapping[str, Curve]
    resumed_at: list[int]

    @property
    def num_steps(self) -> int:
        """Optimizer steps up to the last logged one."""
        return max((int(curve.steps[-1]) + 1 for curve in self.curves.values()), default=0)

    @property
    def epoch(self) -> int | None:
        """The last logged epoch, from 0; None before the first."""
        epochs = self.curves.get("epoch")
        return None if epochs is None or not len(epochs.finite) else int(epochs.finite[-1])

    def steps_per_epoch(self) -> float | None:
        """Return the steps of an epoch that fit the logged epochs; None if there are too few to tell.

        Epoch e holds the steps from e times this number to before e + 1 times.
        """
        epochs = self.curves.get("epoch")
        if epochs is None or not epochs.values.max(initial=0) >= 1:
            return None
        least = float((epochs.steps / (epochs.values + 1)).max())  # and not equal
        later = epochs.values >= 1
        most = float((epochs.steps[later] / epochs.values[later]).min())
        whole = np.floor(most)
        return float(whole) if whole > least else (least + most) / 2


class LogReader:
    """Reads a `metrics.csv`, and on later calls only what has been appended since.

    Args:
        file: The file, which need not exist yet.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._log = TrainingLog({}, [])
        self._forget()

    def read(self) -> TrainingLog:
        """Return what has been logged so far. The last line counts once it is complete."""
        with self._lock:
            try:
                with self.file.open("rb") as stream:
                    is_new = self._read_from(stream.fileno())
            except FileNotFoundError:
                self._forget()
                is_new = True
            if is_new:
                self._log = self._made()
            return self._log

    def _forget(self) -> None:
        self._inode, self._position, self._rest = -1, 0, b""
        self._columns: list[tuple[str, array[int], array[float]]] = []  # name, rows that have a value, values
        self._steps = array("q")  # of each row; -1 if it has none

    def _read_from(self, handle: int) -> bool:
        """Read what is new, and return whether there was anything."""
        status = os.fstat(handle)
        if status.st_ino != self._inode or status.st_size < self._position:  # a new column rewrites the file
            self._forget()
            self._inode = status.st_ino
        before = self._position
        os.lseek(handle, before, os.SEEK_SET)
        while content := os.read(handle, _BYTES_AT_ONCE):
            self._position += len(content)
            *lines, self._rest = (self._rest + content).split(b"\n")
            self._add(lines)
        return self._position != before or before == 0

    def _add(self, lines: list[bytes]) -> None:
        for row in csv.reader(line.decode("utf-8", "replace").rstrip("\r") for line in lines):
            if not self._columns:
                self._columns = [(name, array("q"), array("d")) for name in row]
                continue
            step = -1
            for (name, rows, values), text in zip(self._columns, row, strict=False):
                if not text:
                    continue
                try:
                    value = float(text)
                except ValueError:
                    continue
                if name == "step":
                    step = int(value) if np.isfinite(value) else -1
                else:
                    rows.append(len(self._steps))
                    values.append(value)
            self._steps.append(step)

    def _made(self) -> TrainingLog:
        steps = np.array(self._steps, dtype=np.int64)
        is_current, resumed_at = _current_rows(steps)
        curves = {}
        for name, rows_with_value, logged in self._columns:
            rows = np.array(rows_with_value, dtype=np.int64)
            kept = is_current[rows]
            own, values = steps[rows[kept]], np.array(logged, dtype=np.float64)[kept]
            if len(own):
                last = np.append(own[1:] != own[:-1], True)
                curves[name] = Curve(own[last], values[last])
        return TrainingLog(curves, resumed_at)


def read_log(file: Path) -> TrainingLog:
    """Return what has been logged in a `metrics.csv`, nothing if there is no such file.

    Later calls read only what has been appended since.
    """
    return _reader(file.resolve()).read()


@lru_cache(maxsize=64)
def _reader(file: Path) -> LogReader:
    return LogReader(file)


def _current_rows(steps: NDArray[np.int64]) -> tuple[NDArray[np.bool_], list[int]]:
    """Return which rows still hold, and where the run was resumed: from there, it repeats steps logged before."""
    if not len(steps):
        return np.zeros(0, dtype=bool), []
    numbered = np.flatnonzero(steps >= 0)
    own = steps[numbered]
    is_current = np.zeros(len(steps), dtype=bool)
    is_current[numbered] = own <= np.minimum.accumulate(own[::-1])[::-1]
    restarts = numbered[1:][np.diff(own) < 0]
    return is_current, [int(steps[row]) for row in restarts if is_current[row]]


def thinned(curve: Curve, num_points: int) -> Curve:
    """Return a curve of about `num_points` points that keeps the ends, the extremes and everything that is not finite.

    >>> spike = Curve(np.arange(10_000), np.where(np.arange(10_000) == 1234, 9.0, 0.0))
    >>> drawn = thinned(spike, 100)
    >>> len(drawn.steps) <= 110, drawn.values.max()
    (True, np.float64(9.0))
    """
    count = len(curve.steps)
    if count <= num_points:
        return curve
    edges = np.linspace(0, count, num_points // 2 + 1).astype(np.int64)[:-1]
    finite = np.isfinite(curve.values)
    kept = [np.array([0, count - 1])]
    for fill, choose in ((np.inf, np.minimum), (-np.inf, np.maximum)):
        values = np.where(finite, curve.values, fill)
        extremes = np.repeat(choose.reduceat(values, edges), np.diff(np.append(edges, count)))
        rows = np.flatnonzero(finite & (values == extremes))
        buckets = np.searchsorted(edges, rows, side="right")
        kept.append(rows[np.append(True, buckets[1:] != buckets[:-1])] if len(rows) else rows)
    not_finite = np.flatnonzero(~finite)
    kept.append(not_finite[:: max(1, len(not_finite) // 50)])
    rows = np.unique(np.concatenate(kept))
    return Curve(curve.steps[rows], curve.values[rows])
