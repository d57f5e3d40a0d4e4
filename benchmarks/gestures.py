"""Comparison of objectives on hand gestures by kNN, linear probe, retrieval and fine-tuning, with several seeds each.

    python benchmarks/gestures.py GESTURES [--seeds 0 1 2] [--jobs 2] [--runs runs/gestures] [--json FILE]

GESTURES contains train.csv and test.csv (path, label). Every number comes from an `eztorch-sce` command, which is
printed. Finished runs are not repeated.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

from common import finish, row

from eztorch_sce.cores import num_usable_cores

_BASELINE = "untrained, or trained from scratch"
OBJECTIVES: dict[str, list[str]] = {
    "SCE": [],
    "MoCo v2 (InfoNCE)": ["loss.positive_weight=1"],
    "ReSSL": ["loss=ressl"],
}
COLOR = [
    "views.*.input=rgb", "views.*.stats=video", "views.*.brightness=0.4", "views.*.contrast=0.4",
    "views.*.saturation=0.2", "views.*.hue=0.1", "views.*.gray=0.2",
]  # fmt: skip
SHOWN = {
    "knn": {"knn_top1": "kNN"},
    "linear": {"linear_top1": "linear"},
    "retrieve": {"R@1": "R@1", "R@1_uncentered": "R@1 uncentered", "R@5": "R@5", "mAP": "mAP"},
    "finetune": {"test_top1": "fine-tuned"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gestures", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=num_usable_cores())
    parser.add_argument("--runs", type=Path, default=Path("runs/gestures"))
    parser.add_argument("--color", action="store_true", help="also pretrain on color views, for comparison")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    objectives = OBJECTIVES | ({"SCE, color views": COLOR} if options.color else {})
    metrics: dict[str, list[dict[str, float]]] = {_BASELINE: []}
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = {
            (name, seed): pool.submit(pretrained, options.gestures, options.runs, name, words, seed)
            for seed in options.seeds
            for name, words in objectives.items()
        }
        baselines = []
        for (name, seed), job in jobs.items():
            metrics.setdefault(name, []).append(job.result())
            if name == "SCE":  # its weights file describes the untrained network
                baselines.append(pool.submit(untrained, options.gestures, options.runs, seed))
        metrics[_BASELINE] += [job.result() for job in baselines]
    rows = [
        row(f"gestures, {name}: {metric}", "eztorch_sce", mean(seed[metric] for seed in seeds), "rate")
        for name, seeds in metrics.items()
        for metric in seeds[0]
    ]
    finish(rows, ["torch", "eztorch-sce"], options.json, [f"mean of seeds {options.seeds}", *table(metrics)])


def pretrained(gestures: Path, runs: Path, name: str, words: list[str], seed: int) -> dict[str, float]:
    """Pretrain with an objective and return its metrics."""
    folder = runs / f"{''.join(c if c.isalnum() else '_' for c in name)}-{seed}"
    run = folder / "pretrain"
    lists = [f"data.list={gestures / 'train.csv'}", f"data.test_list={gestures / 'test.csv'}"]
    command("pretrain", run, "recipe=small_motion", *lists, "trainer.precision=bf16-mixed", *words, seed=seed)
    return evaluated(gestures, folder, run, [], seed)


def untrained(gestures: Path, runs: Path, seed: int) -> dict[str, float]:
    """Return the metrics of the untrained network of the SCE run. Its fine-tuning uses a learning rate tuned for it."""
    weights, scratch = runs / f"SCE-{seed}" / "pretrain", ["optimizer.lr=0.007", "probe_first=false"]
    return evaluated(gestures, runs / f"untrained-{seed}", weights, ["untrained=true"], seed, scratch)


def evaluated(
    gestures: Path, folder: Path, weights: Path, words: list[str], seed: int, tuning: Sequence[str] = ()
) -> dict[str, float]:
    """Return the metrics of a backbone; `tuning` holds additional settings of its fine-tuning."""
    lists = [f"data.list={gestures / 'train.csv'}", f"data.test_list={gestures / 'test.csv'}", f"weights={weights}"]
    features = folder / "features"
    command("extract", features, *lists, "test.num_clips=1", "test.num_crops=3", *words, seed=seed)
    for name in ("knn", "linear", "retrieve"):
        command(name, folder / name, f"features={features}", seed=seed)
    command("finetune", folder / "finetune", "recipe=small_motion_finetune", *lists, *words, *tuning, seed=seed)
    reports = {name: json.loads((folder / name / "report.json").read_text())["metrics"] for name in SHOWN}
    return {shown: reports[name][key] for name, keys in SHOWN.items() for key, shown in keys.items()}


def command(name: str, run_dir: Path, *words: str, seed: int) -> None:
    """Run a command on one core unless its run directory has a report."""
    if (run_dir / "report.json").exists():
        return
    full = ["eztorch-sce", name, *words, f"run.dir={run_dir}", f"seed={seed}", "data.num_workers=0"]
    print(" ".join(full), flush=True)
    full[0] = str(Path(sys.executable).with_name("eztorch-sce"))
    done = subprocess.run(full, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def table(metrics: dict[str, list[dict[str, float]]]) -> list[str]:
    """Return the lines of a Markdown table: the mean of each objective, and the value of each seed in parentheses."""
    names = list(next(iter(metrics.values()))[0])
    lines = [f"| mean (each seed) | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for name, seeds in metrics.items():
        cells = []
        for metric in names:
            values = [seed[metric] for seed in seeds]
            each = " ".join(f"{value:.2f}".removeprefix("0") for value in values)
            cells.append(f"{mean(values):.2f} ({each})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
