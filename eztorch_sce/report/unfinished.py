"""How far an unfinished run is, and how to go on with it, in words."""

import datetime
import shlex
import time
from pathlib import Path

from eztorch_sce.errors import typed
from eztorch_sce.locks import holder_of, is_locked
from eztorch_sce.progress import in_words
from eztorch_sce.report.run_decision import command_of
from eztorch_sce.report.run_history import History
from eztorch_sce.training.checkpoint_files import Progress, progress_of


def unfinished(run_dir: Path) -> str:
    """Return how far a training is that has not written its weights, and what to do; empty if it is no run.

    Args:
        run_dir: The run directory.
    """
    if not command_of(run_dir):
        return ""
    progress = progress_of(run_dir)
    far = "it has saved nothing yet" if progress is None else f"it is at {where(progress)}"
    if is_locked(run_dir):
        return f"its training is running ({holder_of(run_dir)}), and {far}: wait until it ends"
    texts = [f"its training has not finished; {far}", f"to go on: {command_to_go_on(run_dir)}"]
    if files := sorted(run_dir.glob("backbone-epoch-*")):
        texts.append(f"or use an earlier backbone: {typed(('weights', files[-1]))}")
    return "; ".join(texts)


def where(progress: Progress, epochs: int | None = None) -> str:
    """Return where a training was when it saved its state, and how long ago that is.

    Args:
        progress: What the checkpoint says.
        epochs: Epochs of the training, if it is longer now.
    """
    epochs, per_epoch = epochs or progress.epochs, max(1, progress.total_steps // max(1, progress.epochs))
    epoch = min(progress.step // per_epoch + 1, epochs)
    return f"step {progress.step} of {per_epoch * epochs} (epoch {epoch} of {epochs}), saved {ago(progress.saved_at)}"


def ago(saved_at: float) -> str:
    """Return how long ago something was saved, or when, if the clock has been set back since.

    Args:
        saved_at: Seconds since 1970.
    """
    seconds = time.time() - saved_at
    if seconds < 0:
        return f"at {datetime.datetime.fromtimestamp(saved_at, datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
    return f"{in_words(seconds)} ago"


def command_to_go_on(run_dir: Path) -> str:
    """Return the command that goes on with a run where its directory is now, as one types it."""
    history = History.read(run_dir)
    words = shlex.split(history.command)
    if not any("=" in word for word in words):  # a script, or a history that is lost
        return f"run its command again, with {typed(('run.dir', run_dir))}"
    is_there = history.folder.resolve() == Path.cwd().resolve()
    place = "" if is_there else f" (in {history.folder})"
    directory = run_dir if is_there else run_dir.resolve()
    words = [word for word in words if not word.startswith("run.dir=")]
    return f"{shlex.join([*words, f'run.dir={directory}'])}{place}"
