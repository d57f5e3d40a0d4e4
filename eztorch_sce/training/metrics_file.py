"""CSV logger whose file is the same after any number of interruptions."""

import csv
import io
import math
import re
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from eztorch_sce.errors import counted
from eztorch_sce.files import replacing
from eztorch_sce.progress import print_above
from eztorch_sce.training.appended import AppendedFile

METRICS = "metrics.csv"

Row: TypeAlias = dict[str, str]
"""The cells of a row that are not empty, by column."""


class MetricsFile(Logger):
    """Log to `metrics.csv`: one row per logged step, one column per metric, in the order in which they first appear.

    What is logged for one step in several calls becomes one row. A row is in the file when `log_metrics` returns. If it
    cannot be written, as on a full disk, it is kept in memory and written with a later one.

    Args:
        run_dir: Run directory.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.file = run_dir / METRICS
        self._appended = AppendedFile(self.file)
        self._columns: list[str] = []
        self._last: Row | None = None  # of the file
        self._waiting: list[Row] = []  # to be written
        self._cut: int | None = None  # the rows of the file from this step on are replaced by those that wait
        self._num_rows = 0
        self._complained = False

    @property
    def name(self) -> str:
        """Return an empty string: there is no folder per name."""
        return ""

    @property
    def version(self) -> str:
        """Return an empty string: there is no folder per version."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing, since config.yaml holds the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row, or complete that of the same step. A new metric adds a column, empty in earlier rows."""
        row = {} if step is None else {"step": str(int(step))}
        row |= {name: _text(value) for name, value in metrics.items()}
        if self._waiting and _is_of(step, self._waiting[-1]):
            self._waiting[-1] |= row
        elif self._last is not None and not self._waiting and _is_of(step, self._last):
            self._waiting, self._cut = [self._last | row], step
        else:
            self._waiting.append(row)
            self._num_rows += 1
        self._write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the rows that still wait; say how many are lost if it fails."""
        self._write()
        if self._waiting:
            print_above(f"warning: {counted(len(self._waiting), 'row')} could not be written to {self.file}")

    def position(self) -> dict[str, Any]:
        """Return what `rewind` needs to continue the file behind the rows logged so far, which are on the disk then.

        This is the number of rows, and the last one with those that could not be written.
        """
        self._write()
        try:
            self._appended.sync()
        except OSError as error:
            self._complain(error)
        last = [] if self._last is None or self._cut is not None else [self._last]
        return {"rows": self._num_rows, "tail": [dict(row) for row in [*last, *self._waiting]]}

    def rewind(self, position: Mapping[str, Any] | None) -> None:
        """Drop the rows and columns that were logged after a position, and a line that is incomplete.

        Args:
            position: Result of `position`; None removes the file.
        """
        tail: list[Row] = [dict(row) for row in position["tail"]] if position else []
        self._columns, self._last, self._waiting = [], None, tail
        if position is None or not tail:
            self._num_rows = 0
            self.file.unlink(missing_ok=True)
            return
        self._num_rows, self._cut = position["rows"], _step(tail[0])
        self._write()
        missing = 0 if self._waiting else self._num_rows - len(read_rows(self.file))
        if missing > 0:
            self._num_rows -= missing
            print_above(
                f"warning: {self.file} was changed after the checkpoint: {counted(missing, 'row')} that the training "
                "had logged are not in it"
            )

    def _write(self) -> None:
        """Write the rows that wait, or keep them if that fails."""
        if not self._waiting:
            return
        new = dict.fromkeys(name for row in self._waiting for name in row if name not in self._columns)
        try:
            if not new and self._cut is None and self._appended.is_as_left():
                self._appended.append(_encoded(self._waiting, self._columns))
            else:
                self._rewrite()
        except OSError as error:
            self._complain(error)
            return
        self._last, self._waiting, self._cut = self._waiting[-1], [], None

    def _rewrite(self) -> None:
        """Write the file again, with the rows that wait, and without those that they replace."""
        columns, rows = _read(self.file)
        rows = [*_before(self._cut, rows), *self._waiting]
        used = {"step"}.union(*rows)
        columns = [name for name in dict.fromkeys(["step", *columns, *_names(rows)]) if name in used]
        content = _encoded([{name: name for name in columns}, *rows], columns)
        if not self.file.exists() or self.file.read_bytes() != content:
            with replacing(self.file) as partial:
                partial.write_bytes(content)
        self._columns = columns
        self._appended.remember()

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            print_above(
                f"warning: {self.file} cannot be written ({error.strerror}): training goes on, and its rows are kept "
                "in memory until they can"
            )


def _text(value: Any) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _step(row: Row) -> int | None:
    return int(row["step"]) if "step" in row else None


def _is_of(step: int | None, row: Row) -> bool:
    return step is not None and _step(row) == step


def _names(rows: Iterable[Row]) -> Iterable[str]:
    return (name for row in rows for name in row)


def _before(cut: int | None, rows: Sequence[Row]) -> list[Row]:
    """Return the rows of earlier steps than `cut`; those without a step belong to the step before them."""
    kept, step = [], -math.inf
    for row in rows:
        own = _step(row)
        step = step if own is None else own
        if cut is None or step < cut:
            kept.append(row)
    return kept


def _encoded(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    stream = io.StringIO(newline="")
    csv.DictWriter(stream, columns).writerows(rows)
    return stream.getvalue().encode("utf-8", "surrogateescape")


def read_rows(file: Path) -> list[Row]:
    """Return the complete rows of a `metrics.csv`, none if there is no such file."""
    return _read(file)[1]


def _read(file: Path) -> tuple[list[str], list[Row]]:
    """Return the columns and the complete rows of a file that may have been torn, edited or deleted."""
    content = file.read_bytes() if file.exists() else b""
    *lines, _ = content.replace(b"\0", b"").decode("utf-8", "surrogateescape").split("\n")  # the last one is torn
    cells = [each for line in lines for each in csv.reader([line.rstrip("\r")])]
    if not cells or "step" not in cells[0]:
        return [], []
    columns = cells[0]
    rows = [{name: cell for name, cell in zip(columns, row, strict=False) if cell} for row in cells[1:]]
    return columns, [row for row in rows if row and re.fullmatch(r"\d+", row.get("step", "0"))]
