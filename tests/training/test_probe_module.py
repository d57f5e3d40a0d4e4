"""Tests of linear evaluation on random views."""

import csv
from pathlib import Path

import pytest
import torch

from eztorch_sce import api
from eztorch_sce.augment.policies import policy
from eztorch_sce.augment.views import Views
from eztorch_sce.data.config import DataConfig
from eztorch_sce.evaluation.linear import LinearConfig, LinearHeads
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.weights import load_weights
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.training.probe_module import ProbeModule, ValidationHeads


def test_the_backbone_stays_frozen_in_every_mode() -> None:
    backbone = SmallR2Plus1DConfig(width=4, num_blocks=1).build()
    module = ProbeModule(backbone, LinearHeads(32, 2, [0.1]), Views([], 0, None), SGDConfig(), ScheduleConfig(), 4)
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
    assert report.metrics["linear_validation_top1@10"] == report.metrics["linear_validation_top1"] == 1
    assert report.metrics["linear_lr"] == 10
    assert "linear_top1@10" not in report.metrics  # the test split is scored once
    assert report.protocol["training"]["select_on"] == "validation"
    assert report.protocol["training"]["views"][0]["flip"] == 0.5
    assert load_weights(weights).sha256 == report.protocol["weights"]["sha256"]
    with (tmp_path / "run/metrics.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) > 1


def test_heads_that_choose_a_rate_train_without_the_held_out_records() -> None:
    torch.manual_seed(0)
    heads, features, labels = LinearHeads(4, 3, [0.1, 1.0]), torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    validation = ValidationHeads(heads, torch.tensor([False, True, False, False, True, False, False]))
    losses = validation.losses(features, labels, torch.tensor([6, 1, 0, 4, 2]))  # rows 1 and 3 are held out
    torch.testing.assert_close(losses, heads.losses(features[[0, 2, 4]], labels[[0, 2, 4]]))
    alone = validation.losses(features[:1], labels[:1], torch.tensor([4]))
    assert alone.tolist() == [0, 0]
    alone.sum().backward()
    assert all(not parameter.grad.any() for parameter in validation.parameters() if parameter.grad is not None)


def test_choosing_on_held_out_records_leaves_the_probe_of_each_rate_unchanged(
    images: Path, weights: str, tmp_path: Path
) -> None:
    reports = []
    for name, lrs, select_on in (
        ("alone", [], "validation"),
        ("chosen", [1e-6], "validation"),
        ("test", [1e-6], "test"),
    ):
        config = LinearConfig(
            data=DataConfig(root=str(images), batch_size=4, num_workers=0),
            weights=weights,
            views=policy("linear_image"),
            lrs=lrs,
            select_on=select_on,
        )
        config.run.dir, config.trainer.accelerator = str(tmp_path / name), "cpu"
        config.trainer.max_epochs, config.optimizer.lr = 2, 10
        reports.append(api.linear(config).metrics)
    alone, chosen, on_test = reports
    assert alone["linear_top1"] == chosen["linear_top1"] == on_test["linear_top1@10"]


@pytest.mark.parametrize("own_test_split", [True, False])
def test_the_records_that_choose_a_rate_are_whole_groups(images: Path, own_test_split: bool) -> None:
    """Images whose numbers have the same remainder by three are one group, as the clips of a video are."""
    for file in images.rglob("*.png"):
        file.rename(file.with_name(f"{file.parts[-3]}{int(file.stem) % 3}-{file.name}"))
    root = images if own_test_split else images / "train"
    config = LinearConfig(data=DataConfig(root=str(root), group=r"(\w+\d)-"), lrs=[1.0], validation_fraction=0.4)
    train = config.data.open_with_test(seed=0).train
    held_out = config.held_out(train)
    names = [
        [Path(path).name.split("-")[0] for path in train.records.where(part).paths()]
        for part in (held_out.numpy(), ~held_out.numpy())
    ]
    assert names[0]
    assert names[1]
    assert not set(names[0]) & set(names[1])
