"""Run directories: the run that a command starts or goes on with, its settings and versions, and its results."""

import csv
import datetime
import errno
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from eztorch_sce import distributed
from eztorch_sce.chance import Chance
from eztorch_sce.config.compose import to_yaml
from eztorch_sce.config.parts import CommandConfig, Recorded
from eztorch_sce.config.resumed import resumed
from eztorch_sce.config.saved import saved_settings
from eztorch_sce.data.sources.record_print import RecordPrint
from eztorch_sce.data.sources.records import Records
from eztorch_sce.errors import ConfigError, first_line, typed
from eztorch_sce.files import open_text, remove_all_partials, replacing, write_text
from eztorch_sce.launch import is_first_process
from eztorch_sce.locks import LOCK_FILE, FolderLock
from eztorch_sce.progress import print_above
from eztorch_sce.report.run_changes import batch_norm_note, table_of
from eztorch_sce.report.run_decision import (
    AGAIN,
    FINISHED,
    GOING_ON,
    HEADER,
    NEW,
    Decision,
    check_writable,
    decide,
    hash_of_weights,
)
from eztorch_sce.report.run_history import History
from eztorch_sce.report.run_session import FinishedRun, begin, history_of, hold, lock_of
from eztorch_sce.report.unfinished import where
from eztorch_sce.report.versions import installed_versions
from eztorch_sce.started import remember_run, typed_again
from eztorch_sce.training.checkpoint_files import Progress, checkpoint_files, progress_of
from eztorch_sce.types import EarlierReport, Report

C = TypeVar("C", bound=CommandConfig)

_DIRS_VARIABLE = "EZTORCH_SCE_RUN_DIRS"  # tells processes that Lightning starts the directories of the first so far
_LEFTOVERS = (
    "metrics.csv",
    "unreadable.csv",
    "views.json",
    "views_tiles.webp",
    "tensorboard",
)  # of a run that is started again


class _Place(NamedTuple):
    """A run directory that the first process has opened, and what was decided there."""

    run_dir: str
    kind: str


_opened: list[_Place] = []  # by this process, in order


def check_run(command: str, config: C) -> C:
    """Return the config with which a command starts its run, or goes on with the one in its run directory.

    Open settings are filled in from a run that goes on. Call it before data are opened: nothing is written, except that
    the directory of an earlier run is locked until the command ends, see `run_session.in_run_directory`.

    Args:
        command: The command, such as "pretrain".
        config: Its validated config.

    Raises:
        ConfigError: In every process, if the directory is in use, cannot be used, or holds a run of other settings.
        FinishedRun: In every process, if the directory holds a finished run of these settings.
    """
    place = _repeated(config) if _repeats() else _Place(*json.loads(_decide_together(command, config)))
    if place.kind == FINISHED:
        _opened.append(place)
        raise FinishedRun(_read_report(Path(place.run_dir)))
    return resumed(command, config, Path(place.run_dir)) if place.kind == GOING_ON else config


def open_run(
    command: str,
    config: CommandConfig,
    records: Records | None = None,
    labeled: bool = False,
    chosen: Sequence[object] = (),
) -> Path:
    """Return the run directory, the same in all processes. The first writes config.yaml, versions.json, history.json.

    Args:
        command: The command, such as "pretrain".
        config: Its config, as `check_run` returned it, with everything chosen.
        records: The records of a training, which must be those of the run that goes on.
        labeled: Whether the training uses their labels.
        chosen: The settings of a new run that were chosen from the data, with the reasons, for its report.

    Raises:
        ConfigError: As `check_run`, or if the records are not those of the run, or, in every process, if one of several
            processes could not come this far.
    """
    if _repeats():
        place = _repeated(config)
        if not place.run_dir:
            raise ConfigError(
                ["run.dir is not set: processes on several machines need a common directory (run.dir=...)"]
            )
    else:
        prints = None if records is None or not is_first_process() else RecordPrint.of(records, labeled)
        known = {"records": None if prints is None else asdict(prints), "chosen": list(map(str, chosen))}
        place = _Place(*json.loads(distributed.decide_together(lambda: json.dumps(_open(command, config, known)))))
    _opened.append(place)
    remember_run(Path(place.run_dir))
    return Path(place.run_dir)


def planned_run_dir(command: str, config: CommandConfig) -> tuple[Path, Decision]:
    """Return the directory that a command would use, and what it would do there; locks and writes nothing.

    Raises:
        ConfigError: As `check_run`.
    """
    decision = decide(command, config)
    run_dir = decision.run_dir or _next_free(command)
    if decision.kind != FINISHED:
        check_writable(run_dir)
    return run_dir, decision


def _repeats() -> bool:
    """Return whether this process repeats the commands of a first one, which started it for a training."""
    distributed.join()
    return distributed.world_size() == 1 and not is_first_process()


def _repeated(config: CommandConfig) -> _Place:
    """Return what the first process decided, for a process that repeats its commands."""
    places = [_Place(*each) for each in json.loads(os.environ.get(_DIRS_VARIABLE, "[]"))]
    if len(_opened) < len(places):
        return places[len(_opened)]
    return _Place(str(config.run.dir or ""), NEW)


def _decide_together(command: str, config: CommandConfig) -> str:
    """Return the place of `_check`, in every process."""
    return distributed.decide_together(lambda: json.dumps(_check(command, config)))


def _check(command: str, config: CommandConfig) -> _Place:
    """Decide in the first process, and lock the directory of an earlier run that is used."""
    run_dir = Path(config.run.dir or "")
    is_known = config.run.dir is not None and (run_dir / LOCK_FILE).is_file()
    lock = _lock_if_writable(run_dir) if is_known else None  # before looking at files that its holder may change
    try:
        decision = decide(command, config)
        if decision.kind == FINISHED:
            _say_finished(run_dir, decision)
        if decision.kind in (AGAIN, GOING_ON):
            check_writable(run_dir)
            hold(lock or _lock(run_dir))
            lock = None
    finally:
        if lock is not None:
            lock.release()
    return _Place(str(run_dir), decision.kind)


def _lock_if_writable(run_dir: Path) -> FolderLock | None:
    """Return the lock of a run directory, or None for one that can only be read, in which no process can work."""
    try:
        return FolderLock(run_dir)
    except OSError as error:
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            return None
        raise


def _lock(run_dir: Path) -> FolderLock:
    """Return the lock of a run directory, and raise ConfigError if it cannot be written."""
    try:
        return FolderLock(run_dir)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise ConfigError([f"run.dir={run_dir} cannot be written ({reason}): choose another directory"]) from None


def lock_run(run_dir: Path) -> None:
    """Lock a run directory until the command ends, for a command that goes on with a run by itself.

    Raises:
        ConfigError: If another process holds the lock.
    """
    lock = _lock(run_dir)
    lock.sign()
    hold(lock)


def _open(command: str, config: CommandConfig, known: dict[str, Any]) -> _Place:
    """Open the run directory in the first process.

    Everything is decided again: since `check_run`, another process may have come.
    """
    run_dir = _created(command, config)
    if lock_of(run_dir) is None:
        hold(_lock(run_dir))
    decision = decide(command, config)
    if decision.kind == FINISHED:
        raise ConfigError([f"run.dir={run_dir} now holds a finished run, which another process has started meanwhile"])
    remove_all_partials(run_dir)
    history = History.read(run_dir)
    if decision.kind != GOING_ON:
        history.content = {"sessions": history.sessions}
    notes = _check_inputs(run_dir, config, history, known)
    if history.is_damaged:
        notes.append(f"note: {run_dir}/history.json is damaged: the earlier sessions of the run are not known")
    progress = progress_of(run_dir) if decision.kind == GOING_ON else None
    num_processes = distributed.world_size() or 1
    trainer = getattr(config, "trainer", None)
    if trainer is not None and trainer.world_size:
        num_processes = trainer.world_size
    lock = lock_of(run_dir)
    assert lock is not None
    lock.sign()
    history.begin(typed_again(run_dir), 0 if progress is None else progress.step, decision.changes, num_processes)
    try:
        _write_start(command, config, run_dir, decision, history)
    except OSError as error:  # such as a full disk
        raise ConfigError([f"run.dir={run_dir} cannot be written: {error.strerror or first_line(error)}"]) from None
    begin(run_dir, history)
    for line in [*_going_on(run_dir, progress, decision, config), *notes]:
        print_above(line)
    place = _Place(str(run_dir), decision.kind)
    if num_processes > 1:  # only then; a program may open thousands of runs, and a variable has a limited length
        os.environ[_DIRS_VARIABLE] = json.dumps([*_opened, place])
    return place


def _created(command: str, config: CommandConfig) -> Path:
    """Return the run directory, created if it does not exist: the next free one by this process alone."""
    try:
        if config.run.dir is not None:
            run_dir = Path(config.run.dir)
            check_writable(run_dir)
            run_dir.mkdir(parents=True, exist_ok=True)
            return run_dir
        while True:
            run_dir = _next_free(command)
            run_dir.parent.mkdir(parents=True, exist_ok=True)
            try:
                run_dir.mkdir()
            except FileExistsError:  # by a command that was started at the same time
                continue
            return run_dir
    except OSError as error:
        raise ConfigError([f"run.dir={run_dir} cannot be created: {first_line(error)}"]) from None


def _check_inputs(run_dir: Path, config: CommandConfig, history: History, known: dict[str, Any]) -> list[str]:
    """Remember what a run starts from, or compare records and weights with those remembered; return notes.

    Raises:
        ConfigError: If they are others.
    """
    problems, notes = [], []
    for name, value in known.items():
        if history.content.get(name) is None:
            history.content[name] = value
    if known["records"] is not None:
        before, prints = (RecordPrint(**each["records"]) for each in (history.content, known))
        if difference := before.difference(prints):
            problems.append(f"{_records_setting(config)} has {difference}")
        elif changed := before.num_changed(prints):
            notes.append(f"note: {changed} of {len(before.contents)} compared files have another content than before")
    weights = getattr(config, "weights", None)
    now = None if weights is None else hash_of_weights(weights)
    if (earlier := history.content.setdefault("weights", now)) != now:
        problems.append(f"weights={weights} is another file ({now}) than the run started from ({earlier})")
    if problems:
        start = f"{typed(('config', run_dir), ('run.dir', 'NEW'))} with the settings that changed"
        raise ConfigError([*problems, f"the run in {run_dir} goes on as it started only; for a new one, add {start}"])
    return notes


def _records_setting(config: Any) -> str:
    """Return the setting of the records of a training as it was typed."""
    data = config.data
    names = [name for name in ("list", "root") if getattr(data, name, None)]
    return f"data.{names[0]}={getattr(data, names[0])}" if names and data.source is None else "data.source"


def _write_start(command: str, config: CommandConfig, run_dir: Path, decision: Decision, history: History) -> None:
    """Write the settings and the versions of a session; config.yaml always holds the settings in force."""
    file = run_dir / "config.yaml"
    if decision.kind == NEW:
        try:
            with file.open(
                "x", encoding="utf-8", errors="surrogateescape", newline=""
            ) as stream:  # of two processes, even where a file system has no locks
                stream.write(f"{HEADER}{command}\n{to_yaml(config)}")
        except FileExistsError:
            raise ConfigError([f"run.dir={run_dir}: another process started a run there at the same time"]) from None
        except OSError:
            file.unlink(missing_ok=True)
            raise
        history.save()
    else:
        if decision.kind == AGAIN:
            _clear(run_dir)
        history.save()  # before the settings that it explains
        report = run_dir / "report.json"
        if report.is_file():
            os.replace(report, run_dir / f"report-of-{len(history.sessions) - 1}-sessions.json")
        if decision.kind == AGAIN or decision.changes:
            write_text(file, f"{HEADER}{command}\n{to_yaml(_as_started(config, run_dir, decision))}")
    _write_json(run_dir / "versions.json", installed_versions())


def _as_started(config: CommandConfig, run_dir: Path, decision: Decision) -> CommandConfig:
    """Return a config with the recipe or config that a run that goes on was started from."""
    if decision.kind != GOING_ON:
        return config
    saved, config = saved_settings(run_dir / "config.yaml"), replace(config)
    for key in ("recipe", "config"):
        setattr(config, key, Recorded(saved[key]) if saved.get(key) else None)
    return config


def _clear(run_dir: Path) -> None:
    """Remove what a run that is started again would add to."""
    for name in _LEFTOVERS:
        if (run_dir / name).is_dir():
            shutil.rmtree(run_dir / name)
        else:
            (run_dir / name).unlink(missing_ok=True)


def _going_on(run_dir: Path, progress: Progress | None, decision: Decision, config: Any) -> list[str]:
    """Return what to say about a run that is not new."""
    if decision.kind == AGAIN:
        why = "before its first checkpoint" if hasattr(config, "trainer") else "before it had finished"
        return [f"starting again: the run in {run_dir} ended {why}"]
    if decision.kind == NEW:
        return []
    place = "" if progress is None else f" from {where(progress, config.trainer.epochs)}"
    lines = [f"going on with {run_dir}{place}"]
    if decision.changes:
        lines += ["with settings that have changed (history.json notes them):", *table_of(decision.changes)]
        lines += [] if progress is None else batch_norm_note(decision.changes, config)
    return lines


def _say_finished(run_dir: Path, decision: Decision) -> None:
    """Say that a run is finished, where its results are, and how to train longer."""
    print_above(f"{run_dir} holds a finished run of these settings; its results are in {run_dir / 'report.json'}")
    if checkpoint_files(run_dir):
        changed = [change.before for change in decision.changes if change.setting == "trainer.max_epochs"]
        epochs = changed[0] if changed else decision.config.trainer.epochs
        print_above(f"it trained for {epochs} epochs: to train longer, raise trainer.max_epochs")
    else:
        print_above("to run it again, choose another run.dir")


def _read_report(run_dir: Path) -> EarlierReport:
    """Return the report of a finished run."""
    with open_text(run_dir / "report.json") as stream:
        content = json.load(stream)
    known = {each.name: content[each.name] for each in fields(EarlierReport) if each.name in content}
    known["chance"] = {name: Chance(**each) for name, each in content.get("chance", {}).items()}
    return EarlierReport(**known | {"run_dir": run_dir})


def write_report(report: Report) -> Report:
    """Write `report.json` in the first process, and return the report, in every process with the metrics of the first.

    Processes that choose by a metric, such as the loss of their share of the data, thus choose the same.
    """
    report = replace(report, metrics=distributed.from_first(report.metrics))
    if is_first_process():
        content = {**asdict(report), "run_dir": str(report.run_dir), "versions": installed_versions()}
        content["folder"] = str(Path.cwd())  # which relative paths of config.yaml start from
        content["finished"] = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
        if (history := history_of(report.run_dir)) is not None:
            content["seconds"] = round(history.seconds + time.monotonic() - history.started, 1)
            content["sessions"] = len(history.sessions)
            if content["protocol"].get("chosen") == []:  # by an earlier session
                content["protocol"]["chosen"] = history.content.get("chosen", [])
        _write_json(report.run_dir / "report.json", content)
    return report


def write_by_class(run_dir: Path, by_class: dict[str, dict[str, float]]) -> None:
    """Write the metrics of each class to `by_class.csv` in the first process."""
    if not is_first_process():
        return
    columns = ["class", *next(iter(by_class.values()))]
    with replacing(run_dir / "by_class.csv") as partial, open_text(partial, "w") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows({"class": name, **metrics} for name, metrics in by_class.items())


def _write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def _next_free(command: str) -> Path:
    number = 1
    while (directory := Path("runs") / f"{command}-{number}").exists():
        number += 1
    return directory
