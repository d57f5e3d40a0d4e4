"""Reference bands of the page "Is this normal?": pretrainings that go well, with several seeds each.

    python benchmarks/reference.py [--gestures GESTURES] [--cifar10 CIFAR10] [--seeds 0 1 2 3 4] [--epochs N]
                                   [--runs runs/reference] [--out eztorch_sce/report/reference]

The videos of the demo are written, the other data are used if they are named: GESTURES contains train.csv (path,
label), CIFAR10 images. Every training is an `eztorch-sce` command, which is printed; finished ones are not repeated.
The bands of each kind are written to OUT/<kind>.json.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.synthetic import MovingShapes, write_moving_shapes
from eztorch_sce.files import write_text
from eztorch_sce.report.health import METRICS, health
from eztorch_sce.report.reference import reference_of
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.training_log import read_log

_DEMO_VIDEOS = (256, 8)  # train, as in the demo, and test


class Kind(NamedTuple):
    """A kind of training.

    Attributes:
        title: What is trained on, for readers of the page.
        words: Settings of the command as a reader would type them, without those of the data.
        data: Settings of the data.
    """

    title: str
    words: list[str]
    data: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gestures", type=Path)
    parser.add_argument("--cifar10", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, help="epochs of every training, in place of those of the recipes")
    parser.add_argument("--runs", type=Path, default=Path("runs/reference"))
    parser.add_argument("--out", type=Path, default=Path("eztorch_sce/report/reference"))
    options = parser.parse_args()
    for name, kind in kinds(options).items():
        words = kind.words if options.epochs is None else [*kind.words, f"trainer.max_epochs={options.epochs}"]
        runs = [trained(options.runs / f"{name}-{seed}", [*words, *kind.data], seed) for seed in options.seeds]
        for run in runs:
            print(
                run.name, *(f"{found.title}: {found.text}" for found in health(run, read_log(run.directory / METRICS)))
            )
        logs = [(run, read_log(run.directory / METRICS)) for run in runs]
        content = reference_of(name, kind.title, " ".join(["eztorch-sce pretrain", *words]), logs)
        options.out.mkdir(parents=True, exist_ok=True)
        write_text(options.out / f"{name}.json", json.dumps(content) + "\n")
        print(f"written to {options.out / f'{name}.json'}")


def kinds(options: argparse.Namespace) -> dict[str, Kind]:
    """Return the kinds whose data are there, after writing the videos of the demo."""
    videos = options.runs / "videos"
    if not (videos / "train.csv").exists():
        write_moving_shapes(videos, MovingShapes(*_DEMO_VIDEOS, seed=0), num_processes=num_usable_cores())
    found = {"demo": Kind("the demo's videos of moving shapes", ["recipe=demo"], [f"data.list={videos / 'train.csv'}"])}
    if options.gestures is not None:
        data = [f"data.list={options.gestures / 'train.csv'}"]
        found["gestures"] = Kind("217 videos of hand gestures", ["recipe=small_motion"], data)
    if options.cifar10 is not None:
        found["cifar10"] = Kind(
            "images of CIFAR-10, with the settings chosen from the data", [], [f"data.root={options.cifar10}"]
        )
    return found


def trained(run_dir: Path, words: list[str], seed: int) -> RunFiles:
    """Pretrain with a seed, unless it is done, and return the run."""
    if not (run_dir / "report.json").exists():
        line = ["eztorch-sce", "pretrain", *words, f"run.dir={run_dir}", f"seed={seed}", "trainer.accelerator=cpu"]
        print(" ".join(line), flush=True)
        line[0] = str(Path(sys.executable).with_name("eztorch-sce"))
        subprocess.run(line, check=True, env={**os.environ})
    return RunFiles(run_dir, str(run_dir))


if __name__ == "__main__":
    main()
