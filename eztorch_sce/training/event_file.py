"""TensorBoard logger whose files hold every event once after any number of interruptions."""

import io
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from eztorch_sce.errors import counted
from eztorch_sce.progress import print_above
from eztorch_sce.training.appended import AppendedFile

_PREFIX = "events.out.tfevents."


class EventFile(TensorBoardLogger):
    """Log scalars to `tensorboard/`. They are in the file when `log_metrics` returns.

    Each process writes a file of its own. If it cannot, as on a full disk, the numbers are kept in memory and written
    with later ones. `experiment` is Lightning's writer for images and other things; it has its own file.

    Args:
        run_dir: Run directory.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__(str(run_dir), name="", version="tensorboard")
        self.folder = run_dir / "tensorboard"
        self._appended: AppendedFile | None = None
        self._waiting: list[tuple[int, dict[str, float]]] = []  # to be written
        self._last: tuple[int, set[str]] = (-1, set())  # the last step, and what has been logged of it
        self._resumed_at = 0
        self._complained = False

    @property
    def experiment(self) -> Any:
        """Lightning's writer, whose file begins when it is used: Lightning asks for it in every training."""
        return _WhenUsed(lambda: super(EventFile, self).experiment)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing, since config.yaml holds the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one event with all the numbers, except those that have been logged for this step before."""
        step = 0 if step is None else int(step)
        known = self._last[1] if step == self._last[0] else set()
        numbers = {name: float(value) for name, value in metrics.items() if name not in known}
        self._last = (step, known | set(numbers))
        if numbers:
            self._waiting.append((step, numbers))
        self._write()

    @rank_zero_only
    def save(self) -> None:
        """Flush what was logged through `experiment`; numbers are written when they are logged."""
        if self._experiment is not None:
            self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the numbers that still wait; say how many are lost if it fails."""
        self._write()
        if self._waiting:
            print_above(f"warning: the numbers of {counted(len(self._waiting), 'step')} are not in {self.folder}")
        if self._experiment is not None:
            self.experiment.close()

    def position(self) -> dict[str, Any]:
        """Return what `rewind` needs to drop later events: the sizes of all files, which are on the disk then.

        Numbers that could not be written are part of it.
        """
        self._write()
        files = self._files()
        try:
            self.save()
            for file in files:
                AppendedFile(file).sync()
        except OSError as error:
            self._complain(error)
        sizes = {file.name: file.stat().st_size for file in files}
        waiting = [[step, dict(numbers)] for step, numbers in self._waiting]
        return {"step": self._last[0], "names": sorted(self._last[1]), "files": sizes, "waiting": waiting}

    def rewind(self, position: Mapping[str, Any] | None) -> None:
        """Drop the events that were logged after a position, and one that is incomplete.

        Args:
            position: Result of `position`; None removes all files.
        """
        sizes: Mapping[str, int] = position["files"] if position else {}
        self._waiting = [(step, dict(numbers)) for step, numbers in position["waiting"]] if position else []
        self._last = (position["step"], set(position["names"])) if position else (-1, set())
        self._resumed_at, self._appended = self._last[0] + 1, None
        found = {file.name: file for file in self._files()}
        for name, file in found.items():
            if name not in sizes:
                file.unlink()
            elif file.stat().st_size > sizes[name]:
                os.truncate(file, sizes[name])
        changed = [name for name, size in sizes.items() if name not in found or found[name].stat().st_size < size]
        if changed:
            print_above(
                f"warning: {counted(len(changed), 'file')} in {self.folder} were changed or removed after the "
                "checkpoint: TensorBoard shows what is left"
            )

    def _write(self) -> None:
        """Write the numbers that wait, or keep them if that fails."""
        if not self._waiting:
            return
        try:
            if self._appended is None or not self._appended.is_as_left():
                self._begin()
            assert self._appended is not None
            now = time.time()
            self._appended.append(b"".join(_record(_event(now, *each)) for each in self._waiting))
        except OSError as error:
            self._complain(error)
            return
        self._waiting = []

    def _begin(self) -> None:
        """Begin a new file, behind the existing ones in the order in which TensorBoard reads them."""
        self.folder.mkdir(exist_ok=True)
        times = [file.name.removeprefix(_PREFIX).split(".")[0] for file in self._files()]
        later = max([int(time.time()), *(int(text) + 1 for text in times if text.isdigit())])  # clocks are set back
        self._appended = AppendedFile(self.folder / f"{_PREFIX}{later:010d}.{socket.gethostname()}.{os.getpid()}.0")
        events = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        if self._resumed_at:  # a TensorBoard that is running forgets what was logged after the checkpoint
            start = SessionLog(status=SessionLog.START)
            events.append(Event(wall_time=time.time(), step=self._resumed_at, session_log=start))
        self._appended.append(b"".join(map(_record, events)))

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{_PREFIX}*"))

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            print_above(
                f"warning: {self.folder} cannot be written ({error.strerror}): training goes on, and its numbers are "
                "kept in memory until they can"
            )


class _WhenUsed:
    """An object that is built when an attribute of it is used."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build

    def __getattr__(self, name: str) -> Any:
        return getattr(self._build(), name)


def _event(wall_time: float, step: int, numbers: Mapping[str, float]) -> Event:
    values = [Summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
    return Event(wall_time=wall_time, step=step, summary=Summary(value=values))


def _record(event: Event) -> bytes:
    stream = io.BytesIO()
    RecordWriter(stream).write(event.SerializeToString())
    return stream.getvalue()
