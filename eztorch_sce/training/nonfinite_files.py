"""Steps that were not finite, as a run keeps them: `nonfinite/step-0000000123/` with the state before the step, and
`step.json` with its records and seeds."""

import hashlib
import json
import math
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from eztorch_sce import __version__, distributed, tensor_file
from eztorch_sce.errors import first_line
from eztorch_sce.files import write_text
from eztorch_sce.progress import print_above
from eztorch_sce.transfers import to_host
from eztorch_sce.types import ViewBatch

FOLDER = "nonfinite"  # in the run directory
_STATE, _FACTS = "state.safetensors", "step.json"
_NAME = re.compile(r"step-(?P<step>\d+)")
_NUM_KEPT = 3  # the first and the latest


class KeptBatch(NamedTuple):
    """A batch of a step in one process.

    Attributes:
        records: Indices into the manifest.
        loss: The loss of this process; None if it was not computed.
        views: Digest of the pixels of all views, see `digest_of`.
        unreadable: Paths of records that could not be read.
    """

    records: list[int]
    loss: float | None
    views: str
    unreadable: list[str]

    @classmethod
    def of(cls, batch: ViewBatch, loss: float | None) -> "KeptBatch":
        """Return what is kept of a batch."""
        unreadable = [failure.path for failure in batch.failures]
        return cls(batch.record.tolist(), loss, digest_of(batch), unreadable)


class Problem(NamedTuple):
    """A step that is not finite.

    Attributes:
        step: Number of optimizer steps before it.
        epoch: Number of epochs before it.
        words: What is not finite.
        loss: The first loss that is not finite; if all are finite, the first.
        batches: The batches of each process.
    """

    step: int
    epoch: int
    words: str
    loss: float
    batches: list[list[KeptBatch]]

    @classmethod
    def together(cls, step: int, epoch: int, reason: str, batches: list[KeptBatch]) -> "Problem":
        """Return the problem of all processes, from the reason and the batches of each.

        A loss that is not finite explains the gradients of all processes, so that it is the reason if there is one.
        """
        gathered = distributed.all_objects((reason, batches))
        losses = [
            (batch.loss, rank) for rank, (_, each) in enumerate(gathered) for batch in each if batch.loss is not None
        ]
        wrong = [(loss, rank) for loss, rank in losses if not math.isfinite(loss)]
        with_reason = next(rank for rank, (each, _) in enumerate(gathered) if each)
        loss, rank = wrong[0] if wrong else (losses[0][0], with_reason)
        words = gathered[rank][0] + (f" in process {rank}" if len(gathered) > 1 else "")
        return cls(step, epoch, words, loss, [each for _, each in gathered])


class NonFiniteFiles:
    """The steps that a run keeps: the first that was not finite, and the latest.

    Args:
        run_dir: Run directory.
        path_of: Function that returns the path of a record.
        facts: Settings that decide the numbers of a step, such as the seed and the precision.
    """

    def __init__(self, run_dir: Path, path_of: Callable[[int], str], facts: dict[str, Any]) -> None:
        self.run_dir, self.path_of, self.facts = run_dir, path_of, facts

    def keep(self, problem: Problem, state: dict[str, Any], action: str) -> None:
        """Write the state before a step and what is known of it, in the first process.

        A disk without room is reported, and changes nothing else.
        """
        if distributed.rank() > 0:
            return
        folder = folder_of(self.run_dir, problem.step)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tensor_file.write(folder / _STATE, state)
            write_text(folder / _FACTS, json.dumps(self._facts(problem, action), indent=1) + "\n")
            self._remove_old()
        except OSError as error:
            print_above(f"note: step {problem.step} cannot be kept in {folder} ({first_line(error)})")

    def hint(self, problem: Problem) -> str:
        """Return how to find out where the numbers came from."""
        return replay_hint(self.run_dir, problem.step)

    def _facts(self, problem: Problem, action: str) -> dict[str, Any]:
        processes = [
            [
                {
                    "records": batch.records,
                    "paths": [self.path_of(record) for record in batch.records],
                    "loss": number_text(batch.loss),
                    "views": batch.views,
                    "unreadable": batch.unreadable,
                }
                for batch in batches
            ]
            for batches in problem.batches
        ]
        return {
            "step": problem.step,
            "epoch": problem.epoch,
            "what": problem.words,
            "loss": number_text(problem.loss),
            "action": action,
            "world_size": len(problem.batches),
            **self.facts,
            "versions": {"eztorch_sce": __version__, "torch": torch.__version__},
            "processes": processes,
        }

    def _remove_old(self) -> None:
        steps = kept_steps(self.run_dir)
        for step in steps[1 : 1 + len(steps) - _NUM_KEPT]:
            shutil.rmtree(folder_of(self.run_dir, step), ignore_errors=True)


def folder_of(run_dir: Path, step: int) -> Path:
    """Return where a step is kept."""
    return run_dir / FOLDER / f"step-{step:010d}"


def state_file(run_dir: Path, step: int) -> Path:
    """Return the file that keeps the state from before a step."""
    return folder_of(run_dir, step) / _STATE


def kept_steps(run_dir: Path) -> list[int]:
    """Return the numbers of the steps that a run keeps with their state, in order."""
    folder = run_dir / FOLDER
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    steps = sorted(int(match["step"]) for match in map(_NAME.fullmatch, names) if match)
    return [step for step in steps if state_file(run_dir, step).is_file()]


def facts_of(run_dir: Path, step: int) -> dict[str, Any] | None:
    """Return the content of `step.json` of a step; None if the run keeps none."""
    file = folder_of(run_dir, step) / _FACTS
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def replay_hint(run_dir: Path, step: int) -> str:
    """Return a sentence with the command that replays a step."""
    return f"Find where it came from: eztorch-sce replay {shlex.quote(str(run_dir))} step={step}"


def digest_of(batch: ViewBatch) -> str:
    """Return a digest of all views of a batch, the same for the same bits.

    >>> digest_of(ViewBatch([torch.zeros(2)], torch.zeros(2), torch.zeros(2), []))
    'ca08ea5bca49cc18'
    """
    digest = hashlib.blake2b(digest_size=8)
    for view in to_host(batch.views):
        digest.update(view.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def number_text(value: float | None) -> float | str | None:
    """Return a number as JSON can hold it: text if it is not finite.

    >>> number_text(0.5), number_text(float("-inf"))
    (0.5, '-inf')
    """
    return value if value is None or math.isfinite(value) else str(value)


def numbers_equal(first: Sequence[float], second: Sequence[float]) -> bool:
    """Return whether numbers are equal bit for bit; NaN equals NaN."""
    return [repr(number) for number in first] == [repr(number) for number in second]
