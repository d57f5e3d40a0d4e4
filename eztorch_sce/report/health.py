"""The health of the training of a run, from its files."""

import time
from pathlib import Path
from typing import Any

from eztorch_sce.evaluation.health import Finding, Training, in_words, judge
from eztorch_sce.progress import console
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.training_log import TrainingLog, read_log

METRICS = "metrics.csv"
SILENCE_S = 300.0  # a running training logs more often, unless an epoch has an online evaluation of many records


def say_health(run_dir: Path) -> None:
    """Print the findings about a training that has just ended."""
    run = RunFiles(run_dir, str(run_dir))
    log = read_log(run_dir / METRICS)
    for finding in judge(training_of(run, log, "finished")):
        mark = "health" if finding.kind == "none" else "warning"
        console.print(f"{mark}: {in_words(finding)}", soft_wrap=True)


def health(run: RunFiles, log: TrainingLog) -> list[Finding]:
    """Return the findings about the training of a run."""
    return judge(training_of(run, log, state_of(run)))


def training_of(run: RunFiles, log: TrainingLog, state: str) -> Training:
    """Return what is known of the training of a run."""
    values = {name: curve.values for name, curve in log.curves.items()}
    tested: dict[str, float] = run.report.get("metrics", {})
    return Training(run.command, values, run.settings, state, progress_of(run.settings, log), log.num_steps, tested)


def state_of(run: RunFiles) -> str:
    """Return whether a run is "finished", "running" or "interrupted"; a running one logs every few minutes."""
    if run.is_finished:
        return "finished"
    silence = silence_s(run.directory)
    return "running" if silence is not None and silence < SILENCE_S else "interrupted"


def silence_s(run_dir: Path) -> float | None:
    """Return the seconds since a run last wrote its metrics or settings; None if it has written nothing."""
    times = [file.stat().st_mtime for name in (METRICS, "config.yaml") if (file := run_dir / name).exists()]
    return max(0.0, time.time() - max(times)) if times else None


def progress_of(settings: dict[str, Any], log: TrainingLog) -> float | None:
    """Return the fraction of a training that is done; None if it cannot be told yet."""
    epochs, per_epoch, epoch = settings.get("trainer.max_epochs"), log.steps_per_epoch(), log.epoch
    if not isinstance(epochs, int) or epoch is None:
        return None
    return min(1.0, log.num_steps / (epochs * per_epoch) if per_epoch else epoch / epochs)
