"""Tests of `replay`: the same batch and the same loss again, and the first number that is not finite."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn

from eztorch_sce import api
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.cli import main
from eztorch_sce.config.schema import FinetuneConfig, PretrainConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import ConfigError, TrainingError
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.replay_words import lines
from eztorch_sce.replaying import Replay, replay
from eztorch_sce.training.nonfinite import guard_of

pytestmark = pytest.mark.xdist_group("replay")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 12 noisy images and a white one, 7.png."""
    folder = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for number in range(13):
        pixels = torch.randint(0, 200, (20, 20, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray((torch.full_like(pixels, 255) if number == 7 else pixels).numpy()).save(
            folder / f"{number}.png"
        )
    return folder


def config(images: Path, run_dir: Path, **trainer: Any) -> PretrainConfig:
    """Return a training of 3 epochs of 3 steps on 4 images each."""
    config = PretrainConfig(
        data=DataConfig(root=str(images), batch_size=4, num_workers=0),
        views=[ViewConfig(size=16, flip=0.5, brightness=0.1), ViewConfig(size=12)],
        backbone=SmallR2Plus1DConfig(width=4, num_blocks=1),
        method=MomentumContrastConfig(ProjectorConfig(hidden_dim=8, output_dim=8), queue_size=32),
        optimizer=SGDConfig(lr=0.05),
    )
    config.run.dir, config.run.log_every_n_steps, config.run.save_every_n_steps = str(run_dir), 1, 2
    config.trainer.max_epochs, config.trainer.accelerator = 3, "cpu"
    for name, value in trainer.items():
        setattr(config.trainer, name, value)
    return config


def files_in(run_dir: Path) -> dict[str, tuple[int, int]]:
    """Return the size and the time of every file."""
    stats = {str(path): path.stat() for path in run_dir.rglob("*")}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def find_all(of_run: PretrainConfig, **objects: Any) -> Replay:
    """Train until a step is not finite, and replay it."""
    with pytest.raises(TrainingError, match="eztorch-sce replay"):
        api.pretrain(of_run, **objects)
    run_dir = Path(str(of_run.run.dir))
    before = files_in(run_dir)
    found = replay(run_dir, **objects)
    assert files_in(run_dir) == before
    assert [repr(loss) for loss in found.losses] == [repr(float(found.kept["processes"][0][0]["loss"]))]  # type: ignore[index]
    assert found.same_views is True
    return found


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    """Return the config of a run of 9 steps, with checkpoints before step 8 and after the last."""
    run = config(images, tmp_path_factory.mktemp("runs") / "finished")
    api.pretrain(run)
    return run


@pytest.mark.parametrize(("step", "start"), [(8, "step-0000000008.safetensors"), (5, None)])
def test_any_step_is_taken_again_with_its_loss(step: int, start: str | None, finished: PretrainConfig) -> None:
    run_dir = Path(str(finished.run.dir))
    before = files_in(run_dir)
    found = replay(run_dir, step)
    assert files_in(run_dir) == before
    assert found.start == (start and run_dir / "checkpoints" / start)
    with (run_dir / "metrics.csv").open() as file:
        logged = {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file) if row["loss"]}
    assert found.losses == [logged[step]]
    assert (found.logged, found.place, found.notes, found.epoch) == (logged[step], None, [], step // 3)


def test_the_command_takes_a_step_as_a_flag_too(finished: PretrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = str(finished.run.dir)
    printed = []
    for words in (["step=8"], ["--step", "8"]):
        main(["replay", run_dir, *words])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert printed[0].startswith("step 8, epoch 2, from ")
    assert "every number is finite" in printed[0]


def test_mistakes_are_named(finished: PretrainConfig, tmp_path: Path) -> None:
    run_dir = str(finished.run.dir)
    with pytest.raises(ConfigError, match="step=9: the training has 9 steps, from 0 to 8"):
        replay(run_dir, 9)
    with pytest.raises(ConfigError, match="keeps no step that was not finite: say which to replay, as in step=100"):
        replay(run_dir)
    with pytest.raises(ConfigError, match=r"is not a run directory: it has no config\.yaml"):
        replay(tmp_path, 1)


class Reciprocal(nn.Module):
    """Infinite where a view is brighter on average than any noisy image."""

    def forward(self, features: Tensor, clips: Tensor) -> Tensor:
        return features / (clips.mean(dim=(1, 2, 3, 4), keepdim=False)[:, None] < 1.5)


class Fragile(Backbone):
    """A network whose middle layer gives infinity for bright views."""

    def __init__(self) -> None:
        super().__init__("fragile", num_features=4)
        self.stem = nn.Conv3d(3, 4, (1, 3, 3), (1, 2, 2))
        self.reciprocal, self.head = Reciprocal(), nn.Linear(4, 4)

    def features(self, clips: Tensor) -> Tensor:
        features: Tensor = self.head(self.reciprocal(self.stem(clips).mean(dim=(2, 3, 4)), clips))
        return features


def test_the_layer_the_view_and_the_record_are_named(images: Path, tmp_path: Path) -> None:
    found = find_all(config(images, tmp_path / "run"), backbone=Fragile())
    assert found.place is not None
    assert found.place.stage == "output"
    assert found.place.numbers.layer == "momentum_encoder.encoder.backbone.reciprocal"
    assert found.samples == [(0, str(images / "7.png"))]
    assert [each.layer for each in found.place.before] == ["momentum_encoder.encoder.backbone.stem"]
    assert {record.path for record in found.records} >= {str(images / "7.png")}
    text = "\n".join(lines(found))
    assert "  output of momentum_encoder.encoder.backbone.reciprocal (Reciprocal)\n" in text
    assert f"view 0 of {images / '7.png'}" in text
    assert "equal" in text
    assert max(len(line) for line in text.splitlines() if "/" not in line and "backbone." not in line) <= 80


class DividingAtStep(nn.Module):
    """A loss that divides by zero in the fifth step, which it counts in a buffer or in an attribute."""

    calls: Tensor

    def __init__(self, in_buffer: bool) -> None:
        super().__init__()
        self.in_buffer, self.attribute = in_buffer, 0
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
        self.calls += 1
        self.attribute += 1
        calls = int(self.calls) if self.in_buffer else self.attribute
        distance: Tensor = (query - key).square().sum(dim=1).mean()
        return distance / 0 if calls > 2 * 4 else distance  # called for two pairs of views in each step


def test_a_division_in_the_loss_is_named(images: Path, tmp_path: Path) -> None:
    found = find_all(config(images, tmp_path / "run"), loss=DividingAtStep(in_buffer=True))
    assert found.step == 4
    assert found.place is not None
    assert (found.place.stage, found.place.numbers.layer) == ("output", "loss")


def test_a_state_outside_of_buffers_is_suspected_if_the_replay_is_finite(images: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="step 4: the loss is inf"):
        api.pretrain(config(images, tmp_path / "run"), loss=DividingAtStep(in_buffer=False))
    found = replay(tmp_path / "run", loss=DividingAtStep(in_buffer=False))
    assert found.place is None
    assert any("a counter that an own loss or method keeps outside of its buffers" in note for note in found.notes)
    assert "NOT equal" in "\n".join(lines(found))


def dividing(query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
    """A function that divides by zero."""
    return (query - key).square().mean() / (query.detach().sum() * 0)


def test_a_division_in_a_loss_that_is_no_layer_is_named(images: Path, tmp_path: Path) -> None:
    found = find_all(config(images, tmp_path / "run"), loss=dividing)
    assert found.place is not None
    assert found.place.stage == "loss"
    assert "look at the divisions" in "\n".join(lines(found))


def rooted(query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
    """A finite loss whose gradient is infinite."""
    return (query - key).square().mean() + (query - query.detach()).abs().sum().sqrt()


def test_a_gradient_is_named_if_the_loss_is_finite(images: Path, tmp_path: Path) -> None:
    found = find_all(config(images, tmp_path / "run"), loss=rooted)
    assert found.place is not None
    assert found.place.stage == "gradient"
    assert found.place.numbers.layer == "online"


def test_a_divergence_is_traced_to_the_layer_that_overflows(images: Path, tmp_path: Path) -> None:
    diverging = config(images, tmp_path / "run")
    diverging.optimizer, diverging.schedule.warmup_epochs = SGDConfig(lr=1e30), 0
    found = find_all(diverging)
    assert found.step == 1
    assert found.place is not None
    assert found.place.stage == "output"
    assert max(abs(weight.high or 0) for weight in found.place.weights) > 1e20
    again = replay(str(diverging.run.dir), 2)
    assert again.step == 1  # the first step that is not finite


def test_a_weight_that_is_not_finite_is_found_before_the_step(images: Path, tmp_path: Path) -> None:
    class Broken(Fragile):
        def __init__(self) -> None:
            super().__init__()
            with torch.no_grad():
                self.head.weight[1, 2] = float("inf")

    found = find_all(config(images, tmp_path / "run"), backbone=Broken())
    assert found.place is not None
    assert (found.place.stage, found.place.numbers.num_invalid) == ("state", 1)
    assert found.place.numbers.layer == "online.backbone.head.weight"


def test_batches_that_are_accumulated_are_replayed_together(images: Path, tmp_path: Path) -> None:
    run = config(images, tmp_path / "run", accumulate=2)
    with pytest.raises(TrainingError, match=r"step \d+: .*eztorch-sce replay"):
        api.pretrain(run, backbone=Fragile())
    found = replay(tmp_path / "run", backbone=Fragile())
    assert found.kept is not None
    assert [str(loss) for loss in found.losses] == [str(batch["loss"]) for batch in found.kept["processes"][0]]
    assert len(found.losses) == 2
    assert found.same_views is True
    assert {path for _, path in found.samples} == {str(images / "7.png")}
    paths = [path for batch in found.kept["processes"][0] for path in batch["paths"]]
    assert [record.path for record in found.records] == paths


def test_a_step_of_fine_tuning_is_replayed_with_its_dropout_and_mixup(images: Path, tmp_path: Path) -> None:
    for number in range(13):
        file = tmp_path / "labeled" / ("train" if number < 9 else "test") / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images / f"{number}.png", file)
    tuning = FinetuneConfig(
        data=DataConfig(root=str(tmp_path / "labeled"), batch_size=4, num_workers=0),
        views=[ViewConfig(size=16)],
        backbone=SmallR2Plus1DConfig(width=4, num_blocks=1),
        optimizer=SGDConfig(lr=0.1),
        mixup=0.5,
    )
    tuning.run.dir, tuning.run.log_every_n_steps, tuning.run.save_every_n_steps = str(tmp_path / "run"), 1, 1
    tuning.trainer.max_epochs, tuning.trainer.accelerator = 2, "cpu"
    api.finetune(tuning)
    found = replay(tmp_path / "run", 3)
    assert found.start is not None
    assert found.losses == [found.logged]
    assert found.place is None
    diverging = replace(tuning, optimizer=SGDConfig(lr=1e30))
    diverging.run.dir = str(tmp_path / "diverging")
    with pytest.raises(TrainingError, match="the loss is"):
        api.finetune(diverging)
    assert replay(tmp_path / "diverging").place is not None


class CheckingLoggedSteps(pl.Callback):
    """Check the steps that are logged only, as on a GPU."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        guard = guard_of(pl_module)
        assert guard is not None
        guard.checks_every_step = False


class Dividing:
    """A loss that is NaN from the fifth batch on."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
        self.calls += 1
        loss = (query - key).square().sum(dim=1).mean()
        return loss * float("nan") if self.calls > 2 * 4 else loss  # called for two pairs of views in each step


def test_a_step_between_those_that_are_logged_is_found_from_the_checkpoint_before_it(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = config(images, tmp_path / "run")
    run.run.log_every_n_steps = 7
    with pytest.raises(TrainingError, match=r"step 5: the loss is nan.*replay .*step=5"):  # the last of an epoch
        api.pretrain(run, loss=Dividing(), callbacks=[CheckingLoggedSteps()])
    loss = Dividing()
    loss.calls = 2 * 4
    found = replay(tmp_path / "run", loss=loss, step=5)
    assert found.start == tmp_path / "run/checkpoints/step-0000000004.safetensors"
    assert found.step == 4
    assert found.place is not None
    assert found.place.stage == "loss"
    assert "step 4, before step 5, is not finite" in capsys.readouterr().err


def test_a_state_with_nan_is_never_the_newest_checkpoint(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Poison(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
            if trainer.global_step == 4:
                next(pl_module.parameters()).data.fill_(float("nan"))

    run = config(images, tmp_path / "run")
    run.run.save_every_n_steps = 1
    with pytest.raises(TrainingError, match="step 4: "):
        api.pretrain(run, callbacks=[Poison()])
    names = sorted(file.name for file in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["step-0000000002.safetensors", "step-0000000003.safetensors"]
    assert "note: step 4: the weights hold NaN" in capsys.readouterr().err
