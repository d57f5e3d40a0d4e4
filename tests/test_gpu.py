"""Tests on a GPU: trainings follow those on the CPU, never wait for the device, and resume; skipped without one."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from eztorch_sce import api
from eztorch_sce.config.compose import compose
from eztorch_sce.config.schema import DemoConfig
from eztorch_sce.curation.synthetic import MovingShapes, write_moving_shapes
from eztorch_sce.demo import demo
from eztorch_sce.registry import choices

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

STEPS = 20
METHODS = {
    "momentum_contrast": ["method.queue_size=64", "method.momentum=0.9"],
    "momentum_predict": ["loss=infonce", "method.momentum=0.9"],
    "simclr": ["loss=ntxent"],
}
VARIANTS = {
    "shuffle BN and split batch norm": ["method=momentum_contrast", "method.shuffle_bn=true", "method.bn_splits=2"],
    "a canvas": ["data.canvas=40"],
    "local views": ["views=image_multicrop", "views.*.size=32", "views.2.size=16", "views.3.size=16", "views.4.size=16",
                    "views.5.size=24", "backbone=resnet18", "backbone.small_input=true", "data.num_frames=1"],
    "images": ["backbone=resnet18", "backbone.small_input=true", "data.num_frames=1", "views=image", "views.*.size=32"],
    "LARS": ["optimizer=lars", "optimizer.lr=0.1"],
    "AdamW": ["optimizer=adamw", "optimizer.lr=0.001"],
}  # fmt: skip


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of short videos in two splits."""
    folder = tmp_path_factory.mktemp("videos")
    write_moving_shapes(folder, MovingShapes(num_train=64, num_test=16, size=48, num_scenes=2, scene_frames=8))
    return folder


def settings(videos: Path, run_dir: Path, *words: str) -> list[str]:
    """Return the settings of a small training; `words` replace those of the same name."""
    data = [f"data.list={videos}/train.csv", f"data.test_list={videos}/test.csv", "data.batch_size=32"]
    clips = ["data.num_frames=4", "data.clip_s=0.4", "data.num_workers=0", "views=motion", "views.*.size=32"]
    networks = ["backbone=r2plus1d_small", "method.projector.hidden_dim=64", "method.projector.output_dim=32"]
    steps = [f"trainer.max_epochs={STEPS // 2}", "run.log_every_n_steps=1", "schedule.warmup_epochs=0"]
    optimizer = ["optimizer=sgd", "optimizer.lr=0.02", f"run.dir={run_dir}"]
    by_name = {word.split("=")[0]: word for word in [*data, *clips, *networks, *steps, *optimizer, *words]}
    return list(by_name.values())


def losses(run_dir: Path) -> list[float]:
    with (run_dir / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


def train(videos: Path, run_dir: Path, *words: str) -> list[float]:
    api.pretrain(compose("pretrain", settings(videos, run_dir, *words)))
    return losses(run_dir)


def variants() -> list[Any]:
    methods = [(name, [f"method={name}", *METHODS.get(name, [])]) for name in choices("method")]
    return [pytest.param(words, id=name) for name, words in [*methods, *VARIANTS.items()]]


@pytest.mark.parametrize("words", variants())
def test_a_training_on_the_gpu_follows_float32_on_the_cpu(videos: Path, tmp_path: Path, words: list[str]) -> None:
    reference = train(videos, tmp_path / "cpu", *words, "trainer.accelerator=cpu", "trainer.precision=32-true")
    exact = train(videos, tmp_path / "fp32", *words, "trainer.precision=32-true", "trainer.tf32=false")
    mixed = train(videos, tmp_path / "bf16", *words, "trainer.precision=bf16-mixed")
    half = train(videos, tmp_path / "fp16", *words, "trainer.precision=16-mixed")
    assert len(reference) == len(exact) == len(mixed) == len(half) == STEPS
    print(f"\nfirst {reference[0]:.5f} {exact[0]:.5f} {mixed[0]:.5f} {half[0]:.5f}")
    print(f"mean  {mean(reference):.5f} {mean(exact):.5f} {mean(mixed):.5f} {mean(half):.5f}")
    assert exact[0] == pytest.approx(reference[0], rel=1e-4)
    for other in (exact, mixed, half):
        assert other[0] == pytest.approx(reference[0], rel=0.02)
        assert mean(other) == pytest.approx(mean(reference), rel=0.05)


class WithoutWaits(pl.Callback):
    """Make every wait for the device an error, except in the first step and in those that are logged."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        next_is_logged = batch_idx + 2 >= trainer.num_training_batches  # the last of an epoch
        torch.cuda.set_sync_debug_mode("default" if next_is_logged else "error")

    def on_train_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        *(pytest.param(*each.values, "bf16-mixed", id=f"{each.id}, bf16") for each in variants()),
        pytest.param(["method=momentum_contrast", "optimizer=lars"], "16-mixed", id="LARS, fp16"),
        pytest.param(["method=momentum_contrast"], "32-true", id="SGD, float32"),
    ],
)
def test_a_step_does_not_wait_for_the_device(videos: Path, tmp_path: Path, words: list[str], precision: str) -> None:
    every = [
        f"trainer.precision={precision}",
        "trainer.max_epochs=2",
        "data.batch_size=8",
        "run.log_every_n_steps=1000",
    ]
    config = compose("pretrain", settings(videos, tmp_path / "run", *words, *every))
    api.pretrain(config, callbacks=[WithoutWaits()])


def test_a_run_resumes_on_the_gpu(videos: Path, tmp_path: Path) -> None:
    whole = train(videos, tmp_path / "whole", "trainer.precision=bf16-mixed")

    class Interrupted(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 6:
                raise RuntimeError("interrupted")

    words = ["trainer.precision=bf16-mixed", "run.save_every_n_steps=1"]
    config = compose("pretrain", settings(videos, tmp_path / "parts", *words))
    with pytest.raises(RuntimeError, match="interrupted"):
        api.pretrain(config, callbacks=[Interrupted()])
    api.pretrain(config)
    resumed = losses(tmp_path / "parts")
    assert len(resumed) == len(whole) == STEPS
    assert mean(resumed[12:]) == pytest.approx(mean(whole[12:]), rel=0.02)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_compiling_changes_no_loss_and_resumes_an_uncompiled_run(videos: Path, tmp_path: Path, precision: str) -> None:
    """In processes of their own, since the tests check array shapes in a way that cannot be compiled."""
    exact = [f"trainer.precision={precision}", "trainer.tf32=false"]
    found = {}
    for name, words in (("eager", []), ("compiled", ["trainer.compile=true"])):
        line = settings(videos, tmp_path / name, *exact, *words)
        subprocess.run([sys.executable, "-m", "eztorch_sce", "pretrain", *line], check=True)
        found[name] = losses(tmp_path / name)
    print(f"\n{found}")
    assert found["compiled"][0] == pytest.approx(found["eager"][0], rel=1e-3 if precision == "32-true" else 0.02)
    assert mean(found["compiled"]) == pytest.approx(mean(found["eager"]), rel=0.05)
    longer = [*exact, "trainer.compile=true", "trainer.max_epochs=12"]
    line = settings(videos, tmp_path / "eager", *longer)
    subprocess.run([sys.executable, "-m", "eztorch_sce", "pretrain", *line], check=True)
    assert len(losses(tmp_path / "eager")) == STEPS + 4


SYNCHRONIZED = """
import sys
import torch, torch.distributed as dist
from torch import nn
from eztorch_sce.models.batch_norm import sync_batch_norms

rank, store = int(sys.argv[1]), dist.FileStore(sys.argv[2], 2)
dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
    for last in (False, True):
        torch.manual_seed(0)
        memory_format = torch.channels_last if last else torch.contiguous_format
        x = (3 + 2 * torch.randn(12, 16, 5, 5)).cuda().to(dtype, memory_format=memory_format)
        weights = torch.randn_like(x)
        alone, own = nn.BatchNorm2d(16).cuda(), sync_batch_norms(nn.BatchNorm2d(16)).cuda()
        whole = x.clone().requires_grad_()
        (alone(whole) * weights).sum().backward()
        rows = slice(0, 4) if rank == 0 else slice(4, 12)
        part = x[rows].clone(memory_format=torch.preserve_format).requires_grad_()
        output = own(part)
        (output * weights[rows]).sum().backward()
        assert output.dtype == dtype and output.is_contiguous(memory_format=memory_format)
        for parameter in own.parameters():
            dist.all_reduce(parameter.grad)
        pairs = [(own.running_mean, alone.running_mean), (own.running_var, alone.running_var)]
        pairs += [(output, nn.BatchNorm2d(16).cuda()(x)[rows]), (part.grad, whole.grad[rows])]
        pairs += [(a.grad, b.grad) for a, b in zip(own.parameters(), alone.parameters())]
        for number, (found, expected) in enumerate(pairs):
            error = (found.float() - expected.float()).norm() / expected.float().norm()
            assert error < tolerance, (dtype, last, number, float(error))
"""


def test_synchronized_batch_norm_on_the_gpu_is_batch_norm_over_both_processes(tmp_path: Path) -> None:
    line = [sys.executable, "-c", SYNCHRONIZED]
    processes = [subprocess.Popen([*line, str(rank), str(tmp_path / "store")]) for rank in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]


@pytest.mark.parametrize("name", choices("optimizer"))
def test_an_optimizer_takes_the_same_steps_on_the_gpu(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(64, 32, 3, 3), (64,), (10, 64), (10,), (1, 1), (7, 7)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    start[-1].zero_()
    on_cpu, on_gpu = ([torch.nn.Parameter(each.clone().to(device)) for each in start] for device in ("cpu", "cuda"))
    optimizers = [choices("optimizer")[name]().build(each, 0.1) for each in (on_cpu, on_gpu)]
    for _ in range(10):
        for one, other in zip(on_cpu, on_gpu, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.cuda()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(on_cpu, on_gpu, strict=True):
        error = float((other.detach().cpu() - one.detach()).norm() / one.detach().norm())
        print(f"\n{name} {tuple(one.shape)}: {error:.1e}")
        assert error < 2e-6


def test_evaluations_on_the_gpu_agree_with_those_on_the_cpu(videos: Path, tmp_path: Path) -> None:
    train(videos, tmp_path / "pretrain")
    data = [f"data.list={videos}/train.csv", f"data.test_list={videos}/test.csv", "data.num_workers=0"]
    for command in ("knn", "retrieve", "linear"):
        found = {}
        for accelerator in ("cpu", "gpu"):
            words = [f"weights={tmp_path / 'pretrain'}", *data, f"accelerator={accelerator}",
                     f"run.dir={tmp_path / command / accelerator}"]  # fmt: skip
            found[accelerator] = getattr(api, command)(compose(command, words)).metrics
        print(f"\n{command} {found}")
        for name, value in found["cpu"].items():
            assert found["gpu"][name] == pytest.approx(value, abs=0.13), name


def test_a_classifier_is_fine_tuned_on_the_gpu(videos: Path, tmp_path: Path) -> None:
    train(videos, tmp_path / "pretrain")
    data = [f"data.list={videos}/train.csv", f"data.test_list={videos}/test.csv", "data.num_workers=0"]
    words = [f"weights={tmp_path / 'pretrain'}", *data, "data.batch_size=16", "trainer.max_epochs=10"]
    api.finetune(compose("finetune", [*words, f"run.dir={tmp_path / 'finetune'}", "run.log_every_n_steps=1"]))
    first, *_, last = losses(tmp_path / "finetune")
    assert last < first


def test_the_demo_learns_on_the_gpu(tmp_path: Path) -> None:
    config = DemoConfig()
    config.run.dir = str(tmp_path / "demo")
    metrics = demo(config).metrics
    print(metrics)
    assert metrics["pretrained_R@1"] > metrics["untrained_R@1"]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
