"""Waits and launches of a training step per family of recipes, counted on fake CUDA tensors: no GPU is needed.

python benchmarks/launches.py --json benchmarks/results/launches.json
python benchmarks/launches.py --only k400_r3d50

A launch is an operator on the device that is no view and no allocation; some launch more than one kernel, and the
backward pass is that of autograd without its fusions. Steps are counted after the first, in bf16 and channels last.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import eztorch_sce  # noqa: F401  # repairs torchvision before Lightning imports it

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import torch
from common import Row, arguments, finish, row
from fake_gpu import CUDA, FakeGPU, autocast, fake_gpu, fake_processes, on_fake_gpu
from fake_training import Frames
from torch import nn

from eztorch_sce.augment.views import Views
from eztorch_sce.config.compose import compose
from eztorch_sce.distributed import rows_known
from eztorch_sce.methods.base import build_method
from eztorch_sce.models.batch_norm import sync_batch_norms
from eztorch_sce.models.memory_format import to_channels_last
from eztorch_sce.training.optimization import has_samples

RECIPES = {
    "imagenet_resnet50_100ep": ["optimizer=lars"],
    "imagenet_resnet50_multicrop": [],
    "k400_r3d50": [],
    "k400_moco_v3": [],
    "cifar10_resnet18": ["data.canvas=40"],
}
US = "eztorch_sce"
PROCESSES = 8
BATCH = 16


class Counted:
    """Waits and launches of the parts of a step; of a part that runs twice, of the last time."""

    def __init__(self, counts: FakeGPU) -> None:
        self.counts = counts
        self.parts: dict[str, tuple[int, int]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.counts.clear()
        yield
        self.parts[name] = self.counts.num_waits, self.counts.num_kernels


def step(config: Any, processes: int) -> dict[str, tuple[int, int]]:
    """Return the waits and launches of each part of a training step."""
    method, _ = build_method(config.method, config.loss, config.backbone.build())
    assert isinstance(method, nn.Module)
    to_channels_last(method)
    if processes > 1:
        sync_batch_norms(method)
    views = Views(config.views, 0, config.data.canvas)
    views.dtype, views.channels_last = torch.bfloat16, True
    frames = Frames(BATCH, config.data.num_frames or 8, config.data.canvas)
    with fake_processes(processes) if processes > 1 else nullcontext(), fake_gpu() as counts:
        on_fake_gpu(method)
        optimizer = config.optimizer.build(method.parameters(), 0.1)
        vars(method)["with_metrics"] = False  # as in the steps between two that log
        counted = Counted(counts)
        batch = frames.batches(config.views, 1)[0]
        for _ in range(2):
            with counted.part("views"):
                made = views(batch.to(CUDA, non_blocking=True))
            with counted.part("forward, loss and queue"), autocast(torch.bfloat16):
                has_samples(made, 2, CUDA)
                with rows_known():
                    output = method(made.views)
            with counted.part("backward"):
                output.loss.backward()
            with counted.part("optimizer"):
                optimizer.step()
            with counted.part("momentum encoder"):
                method.after_step(0.5)
            optimizer.zero_grad()
    return counted.parts


def rows_of(recipe: str, overrides: list[str]) -> tuple[list[Row], list[str]]:
    """Return the rates of a recipe, on one process and on the first of several, and the counts in words."""
    config = compose("pretrain", [f"recipe={recipe}", "data.root=.", *overrides])
    rows, notes = [], []
    for processes in (1, PROCESSES):
        where = recipe if processes == 1 else f"{recipe}, rank 0 of {processes}"
        parts = step(config, processes)
        for name, (_, launches) in parts.items():
            rows.append(row(f"{where}: {name}", US, 1000 / launches, "passes per 1000 launches"))
        counts = ", ".join(f"{name} {waits} waits and {launches} launches" for name, (waits, launches) in parts.items())
        notes.append(f"{where}: {counts}")
    return rows, notes


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", choices=RECIPES, help="count one recipe")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, notes = [], [f"fake CUDA tensors, bf16, channels last, batch of {BATCH} per process; no GPU was measured"]
    for recipe in [options.only] if options.only else RECIPES:
        rows_of_recipe, notes_of_recipe = rows_of(recipe, RECIPES[recipe])
        rows += rows_of_recipe
        notes += notes_of_recipe
    finish(rows, ["torch", "eztorch-sce"], options.json, notes)


if __name__ == "__main__":
    main()
