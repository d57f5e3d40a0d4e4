"""Tests of linear evaluation on random views."""

import csv
from pathlib import Path

import torch

from eztorch_sce import api
from eztorch_sce.augment.policies import policy
from eztorch_sce.data.config import DataConfig
from eztorch_sce.evaluation.linear import LinearConfig, LinearHeads
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.weights import load_weights
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.training.augmentation import BatchAugmentation
from eztorch_sce.training.probe_module import ProbeModule


def test_the_backbone_stays_frozen_in_every_mode() -> None:
    backbone = SmallR2Plus1DConfig(width=4, num_blocks=1).build()
    module = ProbeModule(
        backbone, LinearHeads(32, 2, [0.1]), BatchAugmentation([], 0, None), SGDConfig(), ScheduleConfig(), 4
    )
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    for mode in (True, False, True):  # as around a validation in the middle of an epoch
        module.train(mode)
        assert not any(layer.training for layer in backbone.modules())
        assert module.heads.training == mode
        module(torch.randn(3, 3, 1, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_linear_evaluation_on_random_views(images: Path, weights: str, tmp_path: Path) -> None:
    config = LinearConfig(
        data=DataConfig(root=str(images), batch_size=4, num_workers=0),
        weights=weights,
        views=policy("linear_image"),
        lrs=[1e-6],
    )
    config.run.dir, config.trainer.accelerator, config.trainer.max_epochs = str(tmp_path / "run"), "cpu", 30
    config.optimizer.lr = 10
    report = api.linear(config)
    assert report.metrics["linear_top1"] == 1  # the classes differ in color
    assert report.metrics["linear_top1@10"] == 1
    assert report.metrics["linear_lr"] == 10
    assert report.protocol["training"]["views"][0]["flip"] == 0.5
    assert load_weights(weights).sha256 == report.protocol["weights"]["sha256"]
    with (tmp_path / "run/metrics.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) > 1
