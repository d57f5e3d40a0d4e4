"""`eztorch-sce demo`: the whole line on a data set that it makes, in minutes on a laptop."""

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from eztorch_sce import api
from eztorch_sce.config.compose import compose
from eztorch_sce.config.schema import DemoConfig, validate
from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.synthetic import MovingShapes, write_moving_shapes
from eztorch_sce.data.decoders.pyav.decoder import PyAVConfig
from eztorch_sce.progress import console
from eztorch_sce.report.plots import plot_demo
from eztorch_sce.report.run_directory import open_run, write_report
from eztorch_sce.types import FeatureBank, Report


def demo(config: DemoConfig) -> Report:
    """Make the videos, learn from them without labels, and compare the features before and after.

    The run directory gets the videos, the run of each command, `table.txt`, `demo.png` and `report.json`.
    """
    validate(config)
    run_dir = open_run("demo", config)
    started = time.perf_counter()

    videos = run_dir / "videos"
    shapes = MovingShapes(config.num_train, config.num_test, seed=config.seed)
    console.print(f"1/4  writing {config.num_train + config.num_test} mp4 files to {videos}", soft_wrap=True)
    write_moving_shapes(videos, shapes, num_processes=num_usable_cores())

    console.print("2/4  pretraining on the train part, without labels")
    pretrained = run_dir / "pretrain"
    shared = [f"seed={config.seed}", "recipe=demo"]
    train_list, test_list = f"data.list={videos / 'train.csv'}", f"data.test_list={videos / 'test.csv'}"
    epochs = [] if config.max_epochs is None else [f"trainer.max_epochs={config.max_epochs}"]
    training = api.pretrain(compose("pretrain", [*shared, train_list, f"run.dir={pretrained}", *epochs]))

    console.print("3/4  features of both parts, untrained and pretrained")
    metrics: dict[str, float] = {}
    for name, untrained in (("untrained", True), ("pretrained", False)):
        features = run_dir / f"extract_{name}"
        overrides = [f"weights={pretrained}", f"untrained={untrained}", train_list, test_list]
        overrides += ["test.num_clips=4", "test.num_crops=1", f"seed={config.seed}"]
        api.extract(compose("extract", [*overrides, f"run.dir={features}"]))
        reports = [
            api.knn(compose("knn", [f"features={features}", f"run.dir={run_dir / f'knn_{name}'}"])),
            api.retrieve(compose("retrieve", [f"features={features}", f"run.dir={run_dir / f'retrieve_{name}'}"])),
        ]
        metrics |= {f"{name}_{key}": value for report in reports for key, value in report.metrics.items()}

    console.print("4/4  table and image")
    untrained_test, test, train = (FeatureBank.load(run_dir / f"extract_{name}.pt") for name in _BANKS)
    clip_s = training.protocol["input"]["clip_s"]
    decoder = PyAVConfig().build()
    plot_demo(run_dir / "demo.png", pretrained / "metrics.csv", untrained_test, test, train, decoder, clip_s)
    _write_table(run_dir, metrics)
    metrics["minutes"] = (time.perf_counter() - started) / 60
    return write_report(Report("demo", metrics, training.protocol | {"seed": config.seed}, run_dir))


_BANKS = ("untrained/features_test", "pretrained/features_test", "pretrained/features_train")
_SHOWN = {"knn_top1": "kNN top-1", "R@1": "retrieval R@1", "R@5": "retrieval R@5"}


def _write_table(run_dir: Path, metrics: dict[str, float]) -> None:
    table = Table("features", *_SHOWN.values(), title="moving shapes, eight motions: chance is 0.125")
    for name in ("untrained", "pretrained"):
        table.add_row(name, *(f"{metrics[f'{name}_{key}']:.3f}" for key in _SHOWN))
    Console().print(table)
    with (run_dir / "table.txt").open("w") as stream:
        Console(file=stream, width=100).print(table)
