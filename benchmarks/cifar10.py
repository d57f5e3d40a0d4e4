"""SCE on CIFAR-10 with `recipe=cifar10_resnet18`: the time of an epoch, and kNN at the end.

    python benchmarks/cifar10.py CIFAR10 --epochs 20 [--device cuda] [--json FILE] [--runs runs/cifar10] [key=value ...]

CIFAR10 is a folder with train/<class>/<image> and test/<class>/<image>. Both numbers come from `eztorch-sce` commands,
which are printed. The schedule is that of a training of this many epochs: a short run is not the start of a long one.
"""

import json
import subprocess
import sys
from pathlib import Path

from common import arguments, finish, row

US = "eztorch_sce"


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar10"))
    options, settings = parser.parse_known_args()
    accelerator = "gpu" if options.device == "cuda" else "cpu"
    epochs = [f"trainer.max_epochs={options.epochs}", f"trainer.accelerator={accelerator}"]
    data = ["data.layout=folder", f"data.root={options.folder}/train", f"data.test_root={options.folder}/test"]
    pretrained = options.runs / "pretrain"
    run("pretrain", pretrained, ["recipe=cifar10_resnet18", *data, *epochs, *settings])
    scores = run("knn", options.runs / "knn", [f"weights={pretrained}", *data, f"accelerator={accelerator}"])
    untrained = [f"weights={pretrained}", "untrained=true", *data, f"accelerator={accelerator}"]
    baseline = run("knn", options.runs / "untrained", untrained)
    training = json.loads((pretrained / "report.json").read_text())["metrics"]
    what = f"CIFAR-10, ResNet-18, {options.epochs} epochs, {options.device}"
    rows = [
        row(f"{what}: kNN top-1", US, scores["knn_top1"], "accuracy"),
        row(f"{what}: kNN top-1", "untrained", baseline["knn_top1"], "accuracy"),
    ]
    if "views_per_s" in training:
        rows.append(row(f"{what}: two views each", US, training["views_per_s"] / 2, "images/s"))
    finish(rows, ["torch", "eztorch-sce"], options.json, [f"settings: {' '.join(settings)}"] if settings else [])


def run(command: str, run_dir: Path, words: list[str]) -> dict[str, float]:
    """Run a command, unless its report exists, and return its metrics."""
    if not (run_dir / "report.json").exists():
        line = [sys.executable, "-m", "eztorch_sce", command, *words, f"run.dir={run_dir}"]
        print(" ".join(line), flush=True)
        subprocess.run(line, check=True)
    metrics: dict[str, float] = json.loads((run_dir / "report.json").read_text())["metrics"]
    return metrics


if __name__ == "__main__":
    main()
