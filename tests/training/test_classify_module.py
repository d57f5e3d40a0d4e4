"""Fine-tuning and linear evaluation: what learns, at which rate, on what."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from eztorch_sce import api
from eztorch_sce.augment.policies import policy
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.parts import EvaluationViewsConfig
from eztorch_sce.config.schema import FinetuneConfig, LinearConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.linear import LinearHeads
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.models.weights import load_weights, save_weights
from eztorch_sce.optim.groups import blocks_in_order
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.registry import choices
from eztorch_sce.training.augmentation import BatchAugmentation
from eztorch_sce.training.classify_module import ClassifyModule
from eztorch_sce.training.probe_module import ProbeModule
from eztorch_sce.types import Batch, InputSpec

TINY = SmallR2Plus1DConfig(width=4, num_blocks=1)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve images of two colors, and three more of each to test."""
    for part, count in (("train", 12), ("test", 6)):
        for number in range(count):
            file = tmp_path / "images" / part / "ab"[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (200, 30 + number, 30) if number % 2 else (30, 30 + number, 200)).save(file)
    return tmp_path / "images"


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.manual_seed(0)
    spec = InputSpec(num_frames=1, size=32, stats="image")
    save_weights(tmp_path / "backbone.pt", TINY.build(), TINY, spec, None, [])
    return str(tmp_path / "backbone.pt")


def data(images: Path) -> DataConfig:
    return DataConfig(root=str(images), batch_size=4, num_workers=0)


@pytest.mark.parametrize("name", choices("backbone"))
def test_the_blocks_of_a_backbone_are_all_of_it(name: str) -> None:
    with torch.device("meta"):
        backbone = choices("backbone")[name]().build()
    in_blocks = [id(parameter) for block in blocks_in_order(backbone) for parameter in block.parameters()]
    assert in_blocks == [id(parameter) for parameter in backbone.parameters()]


def test_early_blocks_learn_more_slowly(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    original = ClassifyModule.configure_optimizers

    def watched(self: ClassifyModule) -> Any:
        seen.append((self, original(self)))
        return seen[-1][1]

    monkeypatch.setattr(ClassifyModule, "configure_optimizers", watched)
    config = FinetuneConfig(
        data=data(images), backbone=TINY, views=[ViewConfig(size=32)], layer_decay=0.5, optimizer=SGDConfig(lr=64)
    )
    config.run.dir, config.trainer.max_epochs, config.trainer.accelerator = str(tmp_path / "run"), 1, "cpu"
    config.test = EvaluationViewsConfig(num_clips=1, num_crops=1)
    api.finetune(config)
    ((module, built),) = seen
    rates = {id(p): group["initial_lr"] for group in built["optimizer"].param_groups for p in group["params"]}
    classifier = module.classifier
    assert len(rates) == len(list(classifier.parameters()))
    assert rates[id(classifier.linear.weight)] == 1  # 64 x 4 / 256
    last, before = blocks_in_order(classifier.backbone)[-1], blocks_in_order(classifier.backbone)[-2]
    assert {rates[id(p)] for p in last.parameters()} == {0.5}
    assert {rates[id(p)] for p in before.parameters()} == {0.25}


def test_a_classifier_that_starts_from_a_probe_knows_the_classes_and_trains_on(
    images: Path, weights: str, tmp_path: Path
) -> None:
    config = FinetuneConfig(data=data(images), weights=weights, views=policy("linear_image"), probe_first=True)
    config.run.dir, config.trainer.max_epochs, config.trainer.accelerator = str(tmp_path / "run"), 1, "cpu"
    config.optimizer.lr, config.dropout = 1e-9, 0.0
    report = api.finetune(config)
    assert report.protocol["training"]["probe_first"]
    before, after = load_weights(weights).state, load_weights(str(tmp_path / "run")).state
    statistics = [name for name in before if name.endswith("num_batches_tracked")]
    assert all(int(after[name]) == int(before[name]) + 3 for name in statistics)  # 12 images, 4 a step
    head = load_weights(str(tmp_path / "run")).head
    assert head is not None
    assert float(head["weight"].norm()) > 0.1  # at random it is N(0, 0.01) of 2 x 32


def batch_of(clips: torch.Tensor, labels: list[int]) -> Batch:
    count = len(labels)
    return Batch([clips], torch.tensor(labels), torch.arange(count), torch.zeros(count), torch.ones(count), [])


def test_mixup_mixes_clips_and_labels_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear network on clips of one value each: logits of a mixed clip are the mixed logits."""

    class Value(nn.Module):
        num_features = 1

        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return clips.flatten(1).mean(dim=1, keepdim=True)

    classifier = Classifier(Value(), 2)  # type: ignore[arg-type]
    with torch.no_grad():
        classifier.linear.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    module = ClassifyModule(classifier, BatchAugmentation([], 0, None), SGDConfig(), ScheduleConfig(), 2, mixup=1.0)
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self: torch.tensor(0.75))
    clips = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1, 1)
    loss = module.training_step(batch_of(clips, [0, 1]), 0)
    assert loss is not None
    # Both are 0.75 of the one and 0.25 of the other: logits +-(0.5, -0.5), so log odds of 1 for the own label.
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    assert loss.item() == pytest.approx(0.75 * right + 0.25 * wrong)


def test_a_probe_leaves_the_backbone_as_it_is_in_every_mode() -> None:
    backbone = TINY.build()
    module = ProbeModule(
        backbone, LinearHeads(32, 2, [0.1]), BatchAugmentation([], 0, None), SGDConfig(), ScheduleConfig(), 4
    )
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    for mode in (True, False, True):  # as a validation in mid-epoch goes
        module.train(mode)
        assert not any(part.training for part in backbone.modules())
        assert module.heads.training == mode
        module(torch.randn(3, 3, 1, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_linear_evaluation_on_random_views(images: Path, weights: str, tmp_path: Path) -> None:
    config = LinearConfig(data=data(images), weights=weights, views=policy("linear_image"), lrs=[1e-6])
    config.run.dir, config.trainer.accelerator, config.trainer.max_epochs = str(tmp_path / "run"), "cpu", 30
    config.optimizer.lr = 10
    report = api.linear(config)
    assert report.metrics["linear_top1"] == 1  # two colors
    assert report.metrics["linear_top1@10"] == 1
    assert report.metrics["linear_lr"] == 10
    assert report.protocol["training"]["views"][0]["flip"] == 0.5
    assert load_weights(weights).sha256 == report.protocol["weights"]["sha256"]
    with (tmp_path / "run/metrics.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) > 1


def test_what_does_not_fit_together_is_said_at_once(images: Path) -> None:
    two_views = [ViewConfig(), ViewConfig()]
    config = LinearConfig(data=data(images), features="x", views=two_views, lrs=[-1])
    config.data.train_share = 0.1
    with pytest.raises(ConfigError) as caught:
        api.linear(config)
    assert len(caught.value.problems) == 4
    with pytest.raises(ConfigError, match="layer_decay=2"):
        api.finetune(FinetuneConfig(data=data(images), backbone=TINY, layer_decay=2))
