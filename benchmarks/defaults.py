"""What `pretrain` chooses for data of several kinds, and what it learns in that way, without any setting by hand.

    python benchmarks/defaults.py DATA [--train cifar gestures] [--runs runs/defaults] [--json FILE]

DATA contains cifar10/ (packed JPEG files), pictures/, gestures/ and kinetics/. The choices are printed for all of them,
and for 40 frame folders that this script makes. 2000 CIFAR-10 images and the gestures are also trained on and
evaluated; every number comes from an `eztorch-sce` command, which is printed. Finished runs are not repeated.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from common import finish, row
from PIL import Image

from eztorch_sce.config.compose import compose
from eztorch_sce.config.fit import fit_to_data
from eztorch_sce.config.schema import validate

_EACH = {"train": 200, "test": 100}  # images per class
_METRICS = (("knn", "knn_top1"), ("knn", "knn_top1_centered"), ("retrieve", "R@1"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--train", nargs="*", default=["cifar", "gestures"], choices=["cifar", "gestures"])
    parser.add_argument("--runs", type=Path, default=Path("runs/defaults"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    cifar, frames = options.runs / "cifar", options.runs / "frames"
    unpack_cifar(options.data / "cifar10", cifar)
    write_frames(frames)
    gestures = options.data / "gestures"
    sources = {
        "2000 CIFAR-10 images": [f"data.root={cifar}"],
        "47 ImageNet images": [f"data.root={options.data / 'pictures'}"],
        "148 gestures": [f"data.list={gestures / 'train.csv'}", f"data.test_list={gestures / 'test.csv'}"],
        "8 Kinetics videos": [f"data.root={options.data / 'kinetics'}"],
        "40 frame folders": [f"data.root={frames}"],
    }
    lines = [line for name, words in sources.items() for line in choices(name, words)]
    names = {"cifar": "2000 CIFAR-10 images", "gestures": "148 gestures"}
    rows = []
    header = [f"{metric}, {kind}" for _, metric in _METRICS for kind in ("untrained", "pretrained")]
    lines += ["", f"| data | minutes | {' | '.join(header)} |", "|---|---|" + "---|" * len(header)]
    for name in options.train:
        minutes, metrics = trained(options.runs / name, sources[names[name]], options.seed)
        values = " | ".join(f"{metrics[column]:.3f}" for column in header)
        lines.append(f"| {name} | {minutes:.1f} | {values} |")
        rows += [row(f"{name}, {metric}", "eztorch_sce", value, "rate") for metric, value in metrics.items()]
    finish(rows, ["torch", "eztorch-sce"], options.json, lines)


def choices(name: str, words: list[str]) -> list[str]:
    """Return the lines that `pretrain` prints about its choices."""
    config = validate(compose("pretrain", words))
    _, made = fit_to_data(config, config.data.open_for_pretraining(config.seed).train)
    return [f"{name}:", *(f"  {choice}" for choice in made)]


def trained(runs: Path, data: list[str], seed: int) -> tuple[float, dict[str, float]]:
    """Pretrain; return the minutes it took, and the metrics of the untrained and the pretrained network."""
    seconds = runs / "seconds.txt"
    started = time.perf_counter()
    if command("pretrain", runs / "pretrain", *data, f"seed={seed}"):
        seconds.write_text(str(time.perf_counter() - started))
    metrics = {}
    for kind, words in (("untrained", ["untrained=true"]), ("pretrained", [])):
        features = runs / f"{kind}-features"
        command("extract", features, *data, f"weights={runs / 'pretrain'}", "test.num_clips=1", *words)
        for name, metric in _METRICS:
            command(name, runs / f"{kind}-{name}", f"features={features}")
            report = json.loads((runs / f"{kind}-{name}" / "report.json").read_text())
            metrics[f"{metric}, {kind}"] = report["metrics"][metric]
    return float(seconds.read_text()) / 60, metrics


def command(name: str, run_dir: Path, *words: str) -> bool:
    """Run a command unless its run directory has a report; return whether it ran."""
    if (run_dir / "report.json").exists():
        return False
    full = ["eztorch-sce", name, *words, f"run.dir={run_dir}"]
    print(" ".join(full), flush=True)
    full[0] = str(Path(sys.executable).with_name("eztorch-sce"))
    subprocess.run(full, check=True)
    return True


def unpack_cifar(packed: Path, folder: Path) -> None:
    """Write the first images of each class to folder/train and folder/test, unless they exist."""
    for part, each in _EACH.items():
        if (folder / part).exists():
            continue
        arrays, partial = np.load(packed / f"{part}.npz"), folder / f"{part}.partial"
        content, offsets, labels = arrays["data"], arrays["offsets"], arrays["labels"]
        for number, name in enumerate(arrays["classes"]):
            (partial / str(name)).mkdir(parents=True, exist_ok=True)
            for index in np.flatnonzero(labels == number)[:each]:
                image = content[offsets[index] : offsets[index + 1]].tobytes()
                (partial / str(name) / f"{index:05d}.jpg").write_bytes(image)
        partial.rename(folder / part)


def write_frames(folder: Path) -> None:
    """Write 40 folders of 12 images, in which a square moves."""
    for number in range(40):
        video = folder / "class" / f"{number:02d}"
        if video.exists():
            continue
        video.mkdir(parents=True)
        for frame in range(12):
            pixels = np.full((96, 128, 3), 40, np.uint8)
            left = (7 * number + 4 * frame) % 100
            pixels[30:60, left : left + 25] = (200, 5 * number, 90)
            Image.fromarray(pixels).save(video / f"{frame:04d}.jpg")


if __name__ == "__main__":
    main()
