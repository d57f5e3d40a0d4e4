"""Loggers of experiment trackers: Weights & Biases, and MLflow."""

import os
import re
import secrets
import shutil
import sys
import time
from abc import abstractmethod
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from eztorch_sce.errors import ConfigError, counted, first_line
from eztorch_sce.progress import print_above
from eztorch_sce.training.metrics_file import METRICS, read_rows
from eztorch_sce.waiting import announced

_PROJECT = "eztorch_sce"
_CONNECTS_WITHIN_S = 30.0


class Tracker(Logger):
    """A logger of an experiment tracker, which gets each step once after any number of interruptions.

    A process that goes on with a run uses the same run of the tracker, and first logs what this lacks of `metrics.csv`,
    if there is one. A failure to log, as of a network, does not end the training: rows are kept in memory and logged
    with a later one.

    Args:
        run_dir: Run directory.
    """

    title = ""
    """What messages call the tracker."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.run_dir = run_dir
        self._id: str | None = None
        self._is_open = False
        self._waiting: list[tuple[int, dict[str, float]]] = []
        self._complained = False

    @property
    def name(self) -> str:
        """Return the name of the run directory."""
        return self.run_dir.name

    @property
    def version(self) -> str:
        """Return the id of the run."""
        return self._id or ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing, since config.yaml holds the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log a row."""
        self._waiting.append((step or 0, {name: float(value) for name, value in metrics.items()}))
        self._send()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Log the rows that wait, and close the run of the tracker."""
        self._send()
        if self._waiting:
            print_above(f"warning: {self.title} lacks {counted(len(self._waiting), 'row')}, which could not be logged")
        if self._is_open:
            self._is_open = False
            self._close(status == "success")

    def position(self) -> dict[str, Any]:
        """Return the id of the run."""
        return {"id": self._id}

    def rewind(self, position: Mapping[str, Any] | None) -> None:
        """Open the run of a position, or a new one, and log the rows of `metrics.csv` that it lacks.

        Raises:
            ConfigError: If it cannot be opened.
        """
        self._id = position["id"] if position else None
        rows = read_rows(self.run_dir / METRICS)
        numbers = [{name: float(text) for name, text in row.items() if name != "step"} for row in rows]
        self._waiting = [(int(row.get("step", 0)), values) for row, values in zip(rows, numbers, strict=True)]
        with announced(f"{self.title}: opening the run"):
            try:
                self._open()
            except Exception as error:  # whatever the package raises
                raise ConfigError([f"{self.title} cannot be used: {first_line(error)}. {self._cure()}"]) from error
            self._is_open = True
            self._send()

    def _send(self) -> None:
        try:
            while self._waiting:
                self._log(*self._waiting[0])
                del self._waiting[0]
        except Exception as error:  # whatever the package raises
            if not self._complained:
                self._complained = True
                print_above(
                    f"warning: {self.title} cannot log ({first_line(error)}): training goes on, and its rows are kept "
                    "in memory until it can"
                )

    @abstractmethod
    def _open(self) -> None:
        """Open the run `self._id`, or a new one if it is None."""

    @abstractmethod
    def _log(self, step: int, numbers: dict[str, float]) -> None:
        """Log the numbers of a step, unless the run has them."""

    @abstractmethod
    def _close(self, is_finished: bool) -> None: ...

    @abstractmethod
    def _cure(self) -> str: ...


class WandbRun(Tracker):
    """Log to Weights & Biases: to `wandb/` of the run directory or, with WANDB_MODE=online, to its server.

    It never asks for a login: without one, or without a network, it stays offline and says so.

    Its process writes late, so that a killed training loses rows. Offline, a process that goes on replaces what the
    earlier ones wrote by the rows of `metrics.csv`.
    """

    title = "wandb"

    def _open(self) -> None:
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode != "online":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
            self._remove_earlier()
        wandb: Any = import_module("wandb")
        if self._id is None:
            self._id = secrets.token_hex(4)
        quiet = wandb.Settings(silent=True, console="off", save_code=False, disable_git=True, x_disable_stats=True)
        quiet.init_timeout = _CONNECTS_WITHIN_S
        place: dict[str, Any] = {"dir": str(self.run_dir), "id": self._id, "resume": "allow", "settings": quiet}
        place |= {"project": os.environ.get("WANDB_PROJECT", _PROJECT), "name": self.run_dir.name}
        try:
            with _without_terminal():
                self._run = wandb.init(mode=mode, **place)
        except wandb.Error as error:
            if mode != "online":
                raise
            print_above(f"note: wandb stays offline: {first_line(error)}")
            wandb.teardown()  # its process holds the run
            self._remove_earlier()
            self._run = wandb.init(mode="offline", **place)
        self._first_step = self._run.step  # a server that has earlier ones would refuse them

    def _remove_earlier(self) -> None:
        """Remove what earlier processes wrote offline, if all of it can be written again."""
        if self._id is None or self._waiting:
            for folder in (self.run_dir / "wandb").glob(f"offline-run-*-{self._id or '*'}"):
                shutil.rmtree(folder, ignore_errors=True)

    def _log(self, step: int, numbers: dict[str, float]) -> None:
        if step >= self._first_step:
            self._run.log(numbers, step=step)

    def _close(self, is_finished: bool) -> None:
        self._run.finish(exit_code=0 if is_finished else 1)
        if self._run.settings.mode == "offline" and is_finished:
            print_above(f"wandb was offline: wandb sync {self._run.settings.sync_dir} uploads the run")

    def _cure(self) -> str:
        return "Set WANDB_MODE=offline, or leave wandb out of run.loggers"


class MlflowRun(Tracker):
    """Log to MLflow: to `mlflow.db` in the run directory, or to the store of MLFLOW_TRACKING_URI."""

    title = "mlflow"

    def _open(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would use the network
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        mlflow: Any = import_module("mlflow")
        file = self.run_dir / "mlflow.db"
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None and self._id is None:
            file.unlink(missing_ok=True)
        self._client = mlflow.MlflowClient(uri or f"sqlite:///{file.resolve()}")
        self._metric = mlflow.entities.Metric
        if self._id is not None:
            try:
                self._client.update_run(self._id, status="RUNNING")
            except mlflow.MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self._id = None  # the store was removed: a new one gets all rows
        if self._id is None:
            self._id = str(self._client.create_run(self._experiment(), run_name=self.run_dir.name).info.run_id)
        names = self._client.get_run(self._id).data.metrics
        histories = {name: self._client.get_metric_history(self._id, name) for name in names}
        self._last = {name: max(each.step for each in history) for name, history in histories.items()}

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if experiment is None else experiment.experiment_id)

    def _log(self, step: int, numbers: dict[str, float]) -> None:
        named = {re.sub(r"[^\w\-. :/]", "_", name): value for name, value in numbers.items()}
        new = {name: value for name, value in named.items() if step > self._last.get(name, -1)}
        now = int(1000 * time.time())
        if new:
            metrics = [self._metric(name, value, now, step) for name, value in new.items()]
            self._client.log_batch(self._id, metrics=metrics)
        self._last |= dict.fromkeys(new, step)

    def _close(self, is_finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if is_finished else "KILLED")

    def _cure(self) -> str:
        return "Correct or unset MLFLOW_TRACKING_URI, or leave mlflow out of run.loggers"


@contextmanager
def _without_terminal() -> Iterator[None]:
    """Let nothing be asked of the user."""
    terminal = sys.stdin
    with open(os.devnull) as sys.stdin:
        try:
            yield
        finally:
            sys.stdin = terminal
