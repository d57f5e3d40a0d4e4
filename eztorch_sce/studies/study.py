"""`eztorch-sce study FOLDER`: does self-supervised pretraining help on these data, and with which views?"""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from eztorch_sce import signals
from eztorch_sce.config.compose import settings_of
from eztorch_sce.config.schema import StudyConfig, validate
from eztorch_sce.errors import ConfigError
from eztorch_sce.launch import refuse_several
from eztorch_sce.opening import saying_once
from eztorch_sce.pages import report_page
from eztorch_sce.printing import visible
from eztorch_sce.progress import in_words, print_above
from eztorch_sce.report.finished_runs import flat
from eztorch_sce.report.run_directory import lock_run, open_run, write_report
from eztorch_sce.report.run_session import in_run_directory
from eztorch_sce.studies import stages
from eztorch_sce.studies.state import State
from eztorch_sce.studies.tables import print_study
from eztorch_sce.types import Report


@signals.watched()
@in_run_directory
def study(config: StudyConfig) -> Report:
    """Compare pretraining with several sets of views, and no pretraining, on the same test records in a given time.

    The data are divided once. Each set of views gets the same number of epochs, without labels. Every network, trained
    and untrained, is evaluated on the same split; paired confidence intervals say which differences are more than
    chance. The run directory contains the run of each command, `study.json` with all results, and `study.txt`.

    An interrupted study continues when it is called again with the same settings. The time that is spent counts.

    Args:
        config: The settings. `run.dir` is `runs/study-NAME` for a folder NAME unless it is set.

    Returns:
        The metrics of each network, with names such as "motion_knn_top1". `protocol["conclusion"]` has the answer.

    Raises:
        ConfigError: If settings are invalid, files are missing, the data are too few, or the run directory holds a
            study with other settings.
        MediaError: If most files cannot be read.
    """
    refuse_several("study")
    config = validate(config)
    signals.allow(config.run.grace_s)
    directory = Path(config.run.dir or _default_directory(config))
    config = replace(config, run=replace(config.run, dir=str(directory)))
    absent = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    state = State.open(directory, _identity(config))
    _announce(state, config)
    signals.keep(lambda: f"the finished parts are saved in {visible(str(directory))}")
    state.content["starts"] += 1
    if (directory / "config.yaml").exists():
        lock_run(directory)
    else:
        open_run("study", config)
    state.save()
    if "conclusion" not in state.content:
        try:
            with saying_once():
                _run(stages.Study(config, directory, state))
        except ConfigError:
            if absent and "records" not in state.content:  # data that cannot be used, such as an empty folder
                shutil.rmtree(absent[-1])
            raise
    report = write_report(_report(directory, state))
    print_study(directory, state.content)
    print_above(f"report: {visible(str(report_page([directory])))}")
    return report


def _run(study: stages.Study) -> None:
    """Go through the stages; those that an interrupted study has finished return at once."""
    study.look_at_data()
    study.measure()
    study.make_plan()
    study.evaluate_untrained()
    for name in study.planned_sets():
        if study.pretrain(name):
            study.evaluate(name)
    study.finetune()
    study.conclude()


def _default_directory(config: StudyConfig) -> str:
    """Return the directory of the study of a folder or list, the same in every start."""
    place = config.data.root or config.data.list or str(config.data.source)
    return f"runs/study-{Path(os.path.abspath(place)).name or 'root'}"


def _identity(config: StudyConfig) -> dict[str, object]:
    """Return the settings that decide what a study does, flat; paths do not depend on the working directory."""
    settings = flat(settings_of(config))
    for name in ("root", "list", "test_root", "test_list", "annotations"):
        if value := settings.get(f"data.{name}"):
            settings[f"data.{name}"] = os.path.realpath(value)
    return {name: value for name, value in settings.items() if not name.startswith("run.") and name != "config"}


def _announce(state: State, config: StudyConfig) -> None:
    total = f"{config.minutes:g} min"
    if "conclusion" in state.content:
        print_above(f"{visible(str(state.directory))} holds this study, which is finished")
    elif state.is_continued:
        done = ", ".join(name for name, stage in state.content["stages"].items() if stage.get("done")) or "nothing"
        print_above(f"continuing the study in {visible(str(state.directory))}: finished {done}")
        print_above(f"{in_words(state.spent_s)} of {total} are spent")
    else:
        print_above(f"study of {total} in {visible(str(state.directory))}; the same command continues it if it stops")


def _report(directory: Path, state: State) -> Report:
    networks = state.content.get("networks", {})
    metrics = {
        f"{name}_{metric}": value for name, each in networks.items() for metric, value in each["metrics"].items()
    }
    metrics["minutes"] = state.spent_s / 60
    kept: dict[str, Any] = {name: state.content[name] for name in ("conclusion", "records") if name in state.content}
    return Report("study", metrics, {**kept, "settings": state.content["settings"]}, directory)
