"""Tests of fine-tuning: learning rates by block, initialization from a linear probe, and mixup."""

import csv
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eztorch_sce import api
from eztorch_sce.augment.policies import policy
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.augment.views import Views
from eztorch_sce.config.parts import EvaluationViewsConfig
from eztorch_sce.config.schema import FinetuneConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.linear import LinearConfig
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.models.weights import load_weights
from eztorch_sce.optim.groups import blocks_in_order
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.registry import choices
from eztorch_sce.training.classify_module import ClassifyModule
from eztorch_sce.types import ViewBatch

TINY = SmallR2Plus1DConfig(width=4, num_blocks=1)


def data(images: Path) -> DataConfig:
    return DataConfig(root=str(images), batch_size=4, num_workers=0)


@pytest.mark.parametrize("name", choices("backbone"))
def test_blocks_in_order_cover_every_parameter_of_a_backbone(name: str) -> None:
    with torch.device("meta"):
        backbone = choices("backbone")[name]().build()
    in_blocks = [id(parameter) for block in blocks_in_order(backbone) for parameter in block.parameters()]
    assert in_blocks == [id(parameter) for parameter in backbone.parameters()]


def test_layer_decay_lowers_the_learning_rates_of_early_blocks(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    original = ClassifyModule.configure_optimizers

    def recorded(self: ClassifyModule) -> Any:
        optimization = original(self)
        calls.append((self, optimization))
        return optimization

    monkeypatch.setattr(ClassifyModule, "configure_optimizers", recorded)
    config = FinetuneConfig(
        data=data(images), backbone=TINY, views=[ViewConfig(size=32)], layer_decay=0.5, optimizer=SGDConfig(lr=64)
    )
    config.run.dir, config.trainer.max_epochs, config.trainer.accelerator = str(tmp_path / "run"), 1, "cpu"
    config.test = EvaluationViewsConfig(num_clips=1, num_crops=1)
    api.finetune(config)
    ((module, optimization),) = calls
    rates = {id(p): group["initial_lr"] for group in optimization["optimizer"].param_groups for p in group["params"]}
    classifier = module.classifier
    assert len(rates) == len(list(classifier.parameters()))
    assert rates[id(classifier.linear.weight)] == 1  # 64 x 4 / 256
    last, before = blocks_in_order(classifier.backbone)[-1], blocks_in_order(classifier.backbone)[-2]
    assert {rates[id(p)] for p in last.parameters()} == {0.5}
    assert {rates[id(p)] for p in before.parameters()} == {0.25}
    with (tmp_path / "run/metrics.csv").open() as stream:
        logged = [float(value) for name, value in next(csv.DictReader(stream)).items() if name.startswith("lr_")]
    assert len(logged) == len(set(rates.values()))
    assert [high / low for low, high in itertools.pairwise(logged)] == pytest.approx([2] * (len(logged) - 1))


def test_probe_first_starts_from_a_trained_linear_layer_and_keeps_training_batch_norm(
    images: Path, weights: str, tmp_path: Path
) -> None:
    config = FinetuneConfig(data=data(images), weights=weights, views=policy("linear_image"), probe_first=True)
    config.run.dir, config.trainer.max_epochs, config.trainer.accelerator = str(tmp_path / "run"), 1, "cpu"
    config.optimizer.lr, config.dropout = 1e-9, 0.0
    report = api.finetune(config)
    assert report.protocol["training"]["probe_first"]
    before, after = load_weights(weights).state, load_weights(str(tmp_path / "run")).state
    statistics = [name for name in before if name.endswith("num_batches_tracked")]
    assert all(int(after[name]) == int(before[name]) + 3 for name in statistics)  # 12 images, 4 per step
    head = load_weights(str(tmp_path / "run")).head
    assert head is not None
    assert float(head["weight"].norm()) > 0.1  # a randomly initialized head has 2 x 32 weights from N(0, 0.01)


def test_mixup_mixes_clips_and_labels_with_the_same_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a linear network, the logits of a mixed clip are the mixed logits."""

    class MeanValue(Backbone):
        def __init__(self) -> None:
            super().__init__("mean", num_features=1)

        def features(self, clips: Tensor) -> Tensor:
            return clips.flatten(1).mean(dim=1, keepdim=True)

    classifier = Classifier(MeanValue(), 2)
    with torch.no_grad():
        classifier.linear.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    module = ClassifyModule(classifier, Views([], 0, None), SGDConfig(), ScheduleConfig(), 2, mixup=1.0)
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self: torch.tensor(0.75))
    clips = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1, 1)
    batch = ViewBatch([clips], label=torch.tensor([0, 1]), record=torch.arange(2), failures=[])
    loss = module.training_step(batch, 0)
    assert loss is not None
    # Each mixed clip is 0.75 of one and 0.25 of the other: logits +-(0.5, -0.5), so the log odds of its label are 1.
    own, other = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    assert loss.item() == pytest.approx(0.75 * own + 0.25 * other)


def test_conflicts_of_linear_and_finetune_are_reported_together(images: Path) -> None:
    two_views = [ViewConfig(), ViewConfig()]
    config = LinearConfig(data=data(images), features="x", views=two_views, lrs=[-1])
    config.data.train_share = 0.1
    with pytest.raises(ConfigError) as caught:
        api.linear(config)
    assert len(caught.value.problems) == 5
    with pytest.raises(ConfigError, match="layer_decay=2"):
        api.finetune(FinetuneConfig(data=data(images), backbone=TINY, layer_decay=2))
