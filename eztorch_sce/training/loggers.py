"""The loggers of a training, and how those that keep files go on after an interruption."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pytorch_lightning.loggers import Logger

from eztorch_sce.training.event_file import EventFile
from eztorch_sce.training.metrics_file import MetricsFile
from eztorch_sce.training.trackers import MlflowRun, WandbRun


@runtime_checkable
class Resumable(Protocol):
    """A logger whose files have no doubled and no lost row after an interruption. Called in the first process only."""

    def position(self) -> dict[str, Any]:
        """Return plain values that say what has been logged, which is on the disk then.

        Called when the state of a training is saved, after all that belongs to earlier steps has been logged.
        """

    def rewind(self, position: dict[str, Any] | None) -> None:
        """Drop what was logged after a position, all if it is None. Called once, before anything is logged."""


# In this order: trackers read metrics.csv when they are rewound.
_BUILDERS: Mapping[str, Callable[[Path], Logger]] = {
    "csv": MetricsFile,
    "tensorboard": EventFile,
    "wandb": WandbRun,
    "mlflow": MlflowRun,
}


def build_loggers(names: Sequence[str], run_dir: Path) -> list[Logger]:
    """Return the loggers of `run.loggers`, each once."""
    return [build(run_dir) for name, build in _BUILDERS.items() if name in names]


class LogPositions:
    """The positions of all resumable loggers of a training.

    Those of loggers that a continued run no longer has are kept, for a later one that has them again.

    Args:
        loggers: The loggers of the trainer, others included.
    """

    def __init__(self, loggers: Iterable[Logger]) -> None:
        self._loggers: dict[str, Resumable] = {}
        self._positions: dict[str, Any] = {}
        for logger in loggers:
            if isinstance(logger, Resumable):
                name = type(logger).__qualname__
                number = sum(each.split(" ")[0] == name for each in self._loggers)
                self._loggers[f"{name} {number}" if number else name] = logger

    def position(self) -> dict[str, Any]:
        """Return the position of each logger by the name of its class."""
        self._positions |= {name: logger.position() for name, logger in self._loggers.items()}
        return dict(self._positions)

    def rewind(self, positions: Mapping[str, Any] | None) -> None:
        """Let each logger drop what was logged after its position; without one, it starts over."""
        self._positions = dict(positions or {})
        for name, logger in self._loggers.items():
            logger.rewind(self._positions.get(name))
