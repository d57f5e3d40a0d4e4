"""`eztorch-sce demo`: pretraining and evaluation on synthetic videos, in minutes on a laptop."""

import time
from pathlib import Path
from typing import Any

from rich.table import Table

from eztorch_sce import api, signals
from eztorch_sce.config.compose import compose
from eztorch_sce.config.overrides import quoted
from eztorch_sce.config.schema import DemoConfig, validate
from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.synthetic import MovingShapes, write_moving_shapes
from eztorch_sce.launch import refuse_several
from eztorch_sce.opening import saying_once
from eztorch_sce.pages import report_page
from eztorch_sce.printing import PlainConsole, lines
from eztorch_sce.progress import console
from eztorch_sce.report.run_directory import check_run, open_run, write_report
from eztorch_sce.report.run_session import in_run_directory
from eztorch_sce.report.tables import value_text
from eztorch_sce.types import Report

_COLUMNS = {"knn_top1": "kNN top-1", "R@1": "retrieval R@1", "R@5": "retrieval R@5"}  # by metric


@signals.watched()
@in_run_directory
def demo(config: DemoConfig) -> Report:
    """Write videos of moving shapes, pretrain on them without labels, and compare the features before and after.

    The run directory contains the videos, the run of each command, `report.json` and the page `report.html`.
    """
    refuse_several("demo")
    config = check_run("demo", validate(config))
    run_dir = open_run("demo", config)
    started = time.perf_counter()
    _announce(1, f"writing {config.num_train + config.num_test} mp4 files to {run_dir / 'videos'}")
    _write_videos(run_dir, config)
    with saying_once():
        return _train_and_evaluate(run_dir, config, started)


def _train_and_evaluate(run_dir: Path, config: DemoConfig, started: float) -> Report:
    _announce(2, "pretraining on the train split, without labels")
    pretrained = _pretrain(run_dir, config)
    _announce(3, "extracting features of both splits, untrained and pretrained")
    evaluated = {
        "untrained": _evaluate(run_dir, config, untrained=True),
        "pretrained": _evaluate(run_dir, config, untrained=False),
    }
    metrics, chance, intervals = (_flat(evaluated, name) for name in ("metrics", "chance", "intervals"))
    metrics["minutes"] = (time.perf_counter() - started) / 60
    protocol = pretrained.protocol | {"seed": config.seed}
    report = write_report(Report("demo", metrics, protocol, run_dir, chance, intervals))
    _announce(4, "writing the page")
    report_page([run_dir])
    _print_table(evaluated)
    return report


def _announce(step: int, text: str) -> None:
    console.print(f"{step}/4  {text}", soft_wrap=True)


def _write_videos(run_dir: Path, config: DemoConfig) -> None:
    shapes = MovingShapes(config.num_train, config.num_test, seed=config.seed)
    write_moving_shapes(run_dir / "videos", shapes, num_processes=num_usable_cores())


def _data(run_dir: Path) -> list[str]:
    videos = run_dir / "videos"
    return [_path("data.list", videos / "train.csv"), _path("data.test_list", videos / "test.csv")]


def _path(key: str, path: Path) -> str:
    """Return an override that holds for any name of the run directory."""
    return f"{key}={quoted(str(path))}"


def _pretrain(run_dir: Path, config: DemoConfig) -> Report:
    overrides = [f"seed={config.seed}", "recipe=demo", *_data(run_dir), _path("run.dir", run_dir / "pretrain")]
    overrides.append("trainer.devices=1")  # further processes would repeat the whole demo
    if config.max_epochs is not None:
        overrides.append(f"trainer.max_epochs={config.max_epochs}")
    return api.pretrain(compose("pretrain", overrides))


def _evaluate(run_dir: Path, config: DemoConfig, untrained: bool) -> list[Report]:
    """Return the reports of kNN and retrieval on the features of the untrained or the pretrained backbone."""
    name = "untrained" if untrained else "pretrained"
    features = run_dir / f"extract_{name}"
    overrides = [_path("weights", run_dir / "pretrain"), f"untrained={untrained}", f"seed={config.seed}"]
    overrides += [*_data(run_dir), "test.num_clips=4", "test.num_crops=1", _path("run.dir", features)]
    api.extract(compose("extract", overrides))
    return [
        api.knn(compose("knn", [_path("features", features), _path("run.dir", run_dir / f"knn_{name}")])),
        api.retrieve(
            compose("retrieve", [_path("features", features), _path("run.dir", run_dir / f"retrieve_{name}")])
        ),
    ]


def _flat(evaluated: dict[str, list[Report]], attribute: str) -> dict[str, Any]:
    """Return the metrics, chance levels or intervals of all reports, with names such as "untrained_knn_top1"."""
    return {
        f"{name}_{metric}": value
        for name, reports in evaluated.items()
        for report in reports
        for metric, value in getattr(report, attribute).items()
    }


def _print_table(evaluated: dict[str, list[Report]]) -> None:
    metrics, chance, intervals = (_flat(evaluated, name) for name in ("metrics", "chance", "intervals"))
    num_records = chance["untrained_knn_top1"].records
    title = f"moving shapes, eight motions, {num_records} test videos"
    explained = lines(title, "higher is better; in brackets: 95% confidence interval")
    table = Table("features", *_COLUMNS.values(), title=explained)
    table.add_row("chance", *(f"{chance[f'untrained_{metric}'].level:.3f}" for metric in _COLUMNS))
    for name in evaluated:
        names = [f"{name}_{metric}" for metric in _COLUMNS]
        table.add_row(name, *(value_text(metrics[each], intervals[each]) for each in names))
    PlainConsole().print(table)
