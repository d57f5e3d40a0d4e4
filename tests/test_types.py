"""Tests of what a type checker tells users: each mistake is found, and correct code passes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEADER = """
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

import eztorch_sce as ez
"""
# A line that ends in "# error: code" holds a mistake, which mypy must report with that code, there and nowhere else.
MISTAKES = """
config = ez.PretrainConfig()
config.method.queue_sise = 3  # error: attr-defined
config.loss = "simclr"  # error: assignment
config.backbone = "resnet-50"  # error: assignment
config.views = "cifra"  # error: assignment
config.loss = ez.SCELoss()  # error: assignment
config.optimizer = torch.optim.SGD  # error: assignment
config.trainer.max_epochs = "ten"  # error: assignment
ez.PretrainConfig(seeds=1)  # error: call-arg
ez.PretrainConfig(loss="simclr")  # error: arg-type
ez.PretrainConfig(method=ez.SCEConfig())  # error: arg-type
ez.DataConfig(root=3)  # error: arg-type
ez.SCEConfig(temprature=0.1)  # error: call-arg
ez.views("cifra")  # error: arg-type
ez.Views("cifra")  # error: arg-type
ez.views("cifar", sise=32)  # error: call-arg
ez.pretrain(ez.FinetuneConfig())  # error: arg-type
ez.pretrain(config, loss="simclr")  # error: arg-type
ez.pretrain(config, backbone=torch.zeros(3))  # error: arg-type
ez.pretrain(config, callbacks=[3])  # error: list-item
ez.pretrain(config, bakbone=nn.Flatten())  # error: call-arg
replace(config, loss="simclr")  # error: arg-type
config.loss.temperature = None  # error: assignment
ez.knn(ez.LinearConfig())  # error: arg-type
ez.pretrain(ez.recipe("cifar10_linear"))  # error: arg-type
ez.recipe("cifar10_resnet18").method.queue_sise = 3  # error: attr-defined
ez.pretrian(config)  # error: attr-defined
ez.register("losses", "mine")  # error: arg-type
ez.SCELoss()(torch.zeros(2, 3))  # error: call-arg


@dataclass
class NoNetworkConfig:
    def build(self) -> Tensor:
        return torch.zeros(3)


class NoAfterStep(nn.Module):
    def __init__(self, backbone: ez.Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, views: list[Tensor]) -> ez.StepOutput:
        return ez.StepOutput(views[0].mean(), {}, views[0])


@dataclass
class NoAfterStepConfig:
    def build(self, backbone: ez.Backbone, loss: object) -> NoAfterStep:
        return NoAfterStep(backbone)


class NoLabels:
    def __len__(self) -> int:
        return 3

    def read(self, index: int) -> Tensor:
        return torch.zeros(3, 8, 8, dtype=torch.uint8)

    def name(self, index: int) -> str:
        return str(index)


ez.PretrainConfig(backbone=NoNetworkConfig())  # error: arg-type
ez.PretrainConfig(method=NoAfterStepConfig())  # error: arg-type
ez.PretrainConfig(data=ez.DataConfig().with_source(NoLabels()))  # error: arg-type
ez.pretrain(config, data=NoLabels())  # error: arg-type
"""
CORRECT = """
config = ez.PretrainConfig(loss="ntxent", views="cifar", backbone="resnet18", optimizer=None)
config.method.queue_size = 3
config.method.projector.output_dim = 64
config.loss.temperature = 0.2
config.data = ez.DataConfig(root=Path("videos"), batch_size=32)
config.views[0].size = 64
config.views = ez.views("cifar", size=64)
config.optimizer = ez.LARSConfig(lr=0.1)
config.loss = ez.InfoNCEConfig(temperature=0.1)
config.method = "simclr"
config.schedule.warmup_epochs = None
changed: ez.PretrainConfig = replace(config, loss="cosine", seed=3)
loss: Tensor = ez.SCELoss(temperature=0.1)(torch.zeros(4, 8), torch.zeros(4, 8))
tuned: ez.PretrainConfig = ez.recipe("cifar10_resnet18", "method.queue_size=64", seed=1)
probe: ez.LinearConfig = ez.recipe("cifar10_linear", weights="runs/mine")
of_a_file: ez.PretrainConfig = ez.recipe("my.yaml")
ez.write_moving_shapes("videos", ez.MovingShapes(num_train=8, num_test=8))
backbone: ez.Backbone = ez.load_backbone("runs/mine")
features: Tensor = backbone(torch.zeros(2, 3, 1, 32, 32))
accuracy: float = ez.knn(ez.KnnConfig(weights="runs/mine", k=5)).metrics["knn_top1"]
names: list[str] = ez.FeatureBank.load("features.pt").classes


class MyLoss(nn.Module):
    def forward(self, query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
        return (query - key).square().mean()


@ez.register("loss", "my_loss")
@dataclass
class MyLossConfig:
    weight: float = ez.setting(1.0, above=0, help="Weight.")

    def build(self) -> MyLoss:
        return MyLoss()


@ez.register("backbone", "my_net")
@dataclass
class MyNetConfig:
    width: int = 16

    def build(self) -> ez.Backbone:
        return ez.as_backbone(nn.Flatten())


class MyMethod(nn.Module):
    def __init__(self, backbone: ez.Backbone, loss: ez.Loss) -> None:
        super().__init__()
        self.backbone, self.loss = backbone, loss

    def forward(self, views: list[Tensor]) -> ez.StepOutput:
        h = self.backbone(views[0])
        return ez.StepOutput(h.mean(), {}, h.detach())

    def after_step(self, progress: float) -> None:
        pass


@ez.register("method", "my_method")
@dataclass
class MyMethodConfig:
    def build(self, backbone: ez.Backbone, loss: ez.Loss) -> MyMethod:
        return MyMethod(backbone, loss)


class Arrays:
    def __len__(self) -> int:
        return 3

    def read(self, index: int) -> Tensor:
        return torch.zeros(3, 8, 8, dtype=torch.uint8)

    def label(self, index: int) -> int:
        return index

    def name(self, index: int) -> str:
        return str(index)


config = ez.PretrainConfig(backbone=MyNetConfig(width=8), method=MyMethodConfig(), loss=MyLossConfig(weight=2))
report: ez.Report = ez.pretrain(config, backbone=nn.Flatten(), loss=MyLoss(), data=Arrays())
ez.pretrain(config, loss="ntxent", backbone=MyNetConfig())
config.data = config.data.with_source(Arrays(), test=Arrays())
batch: Sequence[nn.Parameter] = list(ez.SCELoss().parameters())
if isinstance(config.method, ez.SimCLRConfig):
    print(config.method.projector)
"""


def errors_of(folder: Path, *texts: str) -> list[set[tuple[int, str]]]:
    """Return the errors that mypy finds in each text, as line numbers and codes."""
    files = [folder / f"snippet_{number}.py" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    words = [sys.executable, "-m", "mypy", "--hide-error-context", "--no-pretty", *map(str, files)]
    # From here with the options of `make test`, which are strict and whose cache is warm.
    printed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600).stdout
    return [
        {(int(line), code) for line, code in re.findall(rf"{file.name}:(\d+): error: .*\[(.+)\]", printed)}
        for file in files
    ]


@pytest.mark.long
def test_mypy_finds_every_mistake_and_passes_correct_code(tmp_path: Path) -> None:
    mistakes, correct = HEADER + MISTAKES, HEADER + CORRECT
    expected = {
        (number, line.split("# error: ")[1])
        for number, line in enumerate(mistakes.splitlines(), start=1)
        if "# error: " in line
    }
    assert errors_of(tmp_path, mistakes, correct) == [expected, set()]
