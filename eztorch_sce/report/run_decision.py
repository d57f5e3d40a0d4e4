"""What a command does with its run directory: start a run, start it again, go on with it, or leave it as it is."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eztorch_sce.config.resumed import resumed
from eztorch_sce.config.saved import saved_settings
from eztorch_sce.config.starting import OBJECT
from eztorch_sce.errors import ConfigError, first_line, shorten, typed
from eztorch_sce.files import open_text
from eztorch_sce.locks import LOCK_FILE
from eztorch_sce.models.weights import hash_of, is_weights, weights_file
from eztorch_sce.report.finished_runs import flat
from eztorch_sce.report.run_changes import Change, changes_between
from eztorch_sce.report.run_history import History
from eztorch_sce.training.checkpoint_files import checkpoint_files

HEADER = "# eztorch-sce "  # of config.yaml, before the command

NEW = "new"
AGAIN = "again"
"""A run that left nothing to go on from."""
GOING_ON = "going on"
FINISHED = "finished"

SHARDS = ".extract"
"""Folder of the job of an `extract`, in its run directory."""

_LOGS = (".txt", ".log", ".out", ".err")  # files that a job may write into the directory of its run beforehand
_RESULTS = ("report.json", "checkpoints", "last.ckpt", "history.json")


class Decision(NamedTuple):
    """What to do with a run directory.

    Attributes:
        run_dir: The directory; None for the next free one.
        kind: One of `NEW`, `AGAIN`, `GOING_ON` and `FINISHED`.
        config: The config; to go on, with open settings filled in from the run.
        changes: Settings that differ from those of the run. The records or weights behind a changed path are still to
            be compared.
    """

    run_dir: Path | None
    kind: str
    config: Any
    changes: tuple[Change, ...] = ()


def decide(command: str, config: Any) -> Decision:
    """Return what a command does with the directory of its config, from the files in it; writes nothing.

    Args:
        command: The command, such as "pretrain".
        config: Its validated config.

    Raises:
        ConfigError: If the directory cannot be used: by this command, with these settings, or at all.
    """
    if config.run.dir is None:
        return Decision(None, NEW, config)
    run_dir = Path(config.run.dir)
    if not os.path.lexists(run_dir) or not (run_dir / "config.yaml").exists():
        _check_free(run_dir)
        return Decision(run_dir, NEW, config)
    if (earlier := command_of(run_dir)) not in ("", command):
        raise ConfigError([f"run.dir={run_dir} already contains a run of {earlier}: choose another directory"])
    saved, report = settings_or_none(run_dir), _report(run_dir)
    has_checkpoints = bool(checkpoint_files(run_dir))
    has_shards = (run_dir / SHARDS).is_dir() or getattr(config, "out", None) is not None
    if saved is None or (report is None and not has_checkpoints and not has_shards):
        _check_without_results(run_dir, is_damaged=saved is None)
        return Decision(run_dir, AGAIN, config)
    config, history = resumed(command, config, run_dir), History.read(run_dir)
    changes = [change for change in changes_between(saved, config) if not _is_same_place(change, history.folder)]
    refused = [change for change in changes if change.kind == "refused"]
    if report is None:
        _refuse(run_dir, command, refused, changes)
        return Decision(run_dir, GOING_ON, config, tuple(changes))
    if _is_longer(changes):
        _refuse(run_dir, command, refused, changes)
        if not has_checkpoints:
            why = "has no checkpoint that a longer training could go on from"
            raise ConfigError([f"run.dir={run_dir} {why}: {_start_anew(run_dir, command, changes)}"])
        return Decision(run_dir, GOING_ON, config, tuple(changes))
    refused += [change for change in changes if change.kind == "place"]  # whose records nothing will compare
    _refuse(run_dir, command, refused + _other_weights(config, history), changes)
    _check_without_objects(run_dir, saved)
    return Decision(run_dir, FINISHED, config, tuple(changes))


def command_of(run_dir: Path) -> str:
    """Return the command whose run a directory holds, such as "pretrain"; "" without a run, or if it is not known."""
    try:
        with open_text(run_dir / "config.yaml") as stream:
            first = stream.readline()
    except OSError:
        return ""
    return first.removeprefix(HEADER).strip() if first.startswith(HEADER) else ""


def settings_or_none(run_dir: Path) -> dict[str, Any] | None:
    """Return the settings of a run; None if its config.yaml is damaged.

    Raises:
        ConfigError: If the file may not be read.
    """
    try:
        saved = saved_settings(run_dir / "config.yaml")
    except OSError as error:
        raise ConfigError([f"run.dir={run_dir}: config.yaml cannot be read: {first_line(error)}"]) from None
    except Exception:  # whatever YAML and OmegaConf raise
        return None
    return saved if command_of(run_dir) and isinstance(saved, dict) else None


def existing_parent(path: Path) -> Path:
    """Return a path itself, or the nearest folder above it that exists."""
    return next((each for each in (path, *path.absolute().parents) if each.exists()), Path("/"))


def check_writable(run_dir: Path) -> None:
    """Raise ConfigError if a run directory can neither be created nor written to."""
    parent = existing_parent(run_dir)
    if not parent.is_dir():
        raise ConfigError([f"run.dir={run_dir} cannot be created because {parent} is a file: choose another directory"])
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError([f"run.dir={run_dir}: no permission to write to {parent}; choose another directory"])


def _check_free(run_dir: Path) -> None:
    """Raise ConfigError if a directory without the settings of a run holds anything of one, or other files."""
    check_writable(run_dir)
    entries = sorted(run_dir.iterdir()) if run_dir.is_dir() else []
    if left := [entry.name for entry in entries if entry.name in _RESULTS or _is_weights(entry)]:
        cure = "copy config.yaml back, or choose another directory"
        raise ConfigError([f"run.dir={run_dir} holds a run ({shorten(left)}) without its config.yaml: {cure}"])
    files = [entry.name for entry in entries if entry.is_file() and not _is_log(entry)]
    if files:
        raise ConfigError([f"run.dir={run_dir} holds other files ({shorten(files)}): choose a new or empty directory"])


def _is_log(file: Path) -> bool:
    return file.name.startswith(".") or file.suffix in _LOGS


def _is_weights(file: Path) -> bool:
    return file.suffix in (".pt", ".safetensors") and file.name.startswith(("backbone", "classifier"))


def _check_without_results(run_dir: Path, is_damaged: bool) -> None:
    """Raise ConfigError if a run that cannot go on has left results, which a new start would destroy."""
    cure = "choose another directory"
    if is_damaged and not any((run_dir / name).is_file() for name in (LOCK_FILE, "versions.json")):
        raise ConfigError([f"run.dir={run_dir} holds a config.yaml that is not of a run: {cure}"])
    if is_damaged and (checkpoint_files(run_dir) or (run_dir / "report.json").is_file()):
        damaged = "config.yaml is damaged, so it is not known whether the settings are still the same"
        raise ConfigError([f"run.dir={run_dir}: {damaged}: copy it back, or {cure}"])
    if (run_dir / "last.ckpt").is_file():
        start = f"start a new run with `config={run_dir} run.dir=NEW`"
        raise ConfigError([f"run.dir={run_dir} holds the last.ckpt of an earlier version, which cannot go on: {start}"])
    if left := sorted(entry.name for entry in run_dir.iterdir() if _is_weights(entry)):
        raise ConfigError(
            [f"run.dir={run_dir} holds weights ({shorten(left)}) but no checkpoint to go on from: {cure}"]
        )


def _check_without_objects(run_dir: Path, saved: dict[str, Any]) -> None:
    """Raise ConfigError if a finished run was one of Python objects, which may be others now."""
    if objects := [path.removesuffix(f".{OBJECT}") for path in flat(saved) if path.endswith(f".{OBJECT}")]:
        what = f"a finished run of Python objects ({', '.join(objects)}), which cannot be compared"
        raise ConfigError([f"run.dir={run_dir} already contains {what}: choose another directory"])


def _report(run_dir: Path) -> dict[str, Any] | None:
    """Return the report of a run; None if it has not written one, or one that is damaged."""
    try:
        with open_text(run_dir / "report.json") as stream:
            report = json.load(stream)
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and {"command", "metrics", "protocol"} <= report.keys() else None


def _is_same_place(change: Change, folder: Path) -> bool:
    """Return whether a path that was typed differently leads to the same place."""
    if change.kind != "place" or "null" in (change.before, change.now):
        return False
    return os.path.realpath(folder / Path(change.before).expanduser()) == os.path.realpath(change.now)


def _other_weights(config: Any, history: History) -> list[Change]:
    """Return a change if the weights are other ones than those that the run used, although the path is the same."""
    weights, before = getattr(config, "weights", None), history.content.get("weights")
    if weights is None or before is None:
        return []
    now = hash_of_weights(weights)
    return [] if now in (before, None) else [Change(f"content of weights={weights}", before, now, "refused")]


def hash_of_weights(weights: str) -> str | None:
    """Return the hash of a weights file, or None if there is none."""
    file = weights_file(weights)
    return hash_of(file) if is_weights(file) else None


def _is_longer(changes: Sequence[Change]) -> bool:
    """Return whether the number of epochs was raised."""
    epochs = next((change for change in changes if change.setting == "trainer.max_epochs"), None)
    if epochs is None or not (epochs.before.isdigit() and epochs.now.isdigit()):
        return False
    return int(epochs.now) > int(epochs.before)


def _refuse(run_dir: Path, command: str, refused: Sequence[Change], changes: Sequence[Change]) -> None:
    """Raise ConfigError, with all changes that would make another run, if there are any."""
    if not refused:
        return
    messages = [f"{change.setting}={change.now}, but the run in {run_dir} has {change.before}" for change in refused]
    cure = f"to go on with that run, leave {'it' if len(refused) == 1 else 'them'} as before; "
    raise ConfigError([*messages, f"this would be another run: {cure}{_start_anew(run_dir, command, changes)}"])


def _start_anew(run_dir: Path, command: str, changes: Sequence[Change]) -> str:
    """Return how to start a new run from the settings of a run."""
    settings = typed(*((change.setting, change.now) for change in changes if " " not in change.setting))
    words = " ".join(filter(None, [typed(("config", run_dir)), settings, "run.dir=NEW"]))
    return f"to start a new one: eztorch-sce {command} {words}"
