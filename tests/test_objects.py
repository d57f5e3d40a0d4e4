"""Tests of networks, losses, methods, data and hooks that are passed to the functions as Python objects."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from own_sources import Arrays, noise
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn

import eztorch_sce as ez
from eztorch_sce import ConfigError, DataConfig, PretrainConfig
from eztorch_sce.models.weights import load_weights

TRAIN, TEST = Arrays(noise(16, 3, 32, 32)), Arrays(noise(8, 3, 32, 32, seed=1), "t")
NETWORK = "torch.nn.modules.container.Sequential"


def network(width: int = 4) -> nn.Sequential:
    convolution = nn.Conv2d(3, width, 3, stride=4)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@dataclass
class NetworkConfig:
    """A config that nothing registers."""

    width: int = 4

    def build(self) -> nn.Module:
        return network(self.width)


class NegativeCosine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
        return -self.scale * (query * key).sum(dim=1).mean()


class CountSteps(pl.Callback):
    steps = 0

    def on_train_batch_end(self, *arguments: object) -> None:
        self.steps += 1


def pretraining(run_dir: Path, **settings: Any) -> PretrainConfig:
    return PretrainConfig(
        data=DataConfig(batch_size=8, num_workers=0),
        views="cifar",
        trainer=ez.TrainerConfig(max_epochs=1, accelerator="cpu"),
        run=ez.RunConfig(dir=str(run_dir)),
        **settings,
    )


def evaluation(run_dir: Path, **settings: Any) -> ez.KnnConfig:
    return ez.KnnConfig(data=DataConfig(num_workers=0), run=ez.RunConfig(dir=str(run_dir)), k=3, **settings)


def finetuning(run_dir: Path, **settings: Any) -> ez.FinetuneConfig:
    return ez.FinetuneConfig(
        data=DataConfig(batch_size=8, num_workers=0),
        views="finetune_image",
        trainer=ez.TrainerConfig(max_epochs=1, accelerator="cpu"),
        run=ez.RunConfig(dir=str(run_dir)),
        **settings,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """Return the run directory of a network that was passed as an object, and the network."""
    run_dir, backbone = tmp_path_factory.mktemp("objects") / "run", network()
    ez.pretrain(pretraining(run_dir), backbone=backbone, data=TRAIN, test_data=TEST)
    return run_dir, backbone


def test_a_network_is_trained_in_place_and_named_in_the_run_directory(trained: tuple[Path, nn.Module]) -> None:
    run_dir, backbone = trained
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["backbone"] == {"object": NETWORK}
    assert config["data"]["source"] == {"object": "own_sources.Arrays"}
    loaded = ez.load_backbone(run_dir, backbone=network())
    images = torch.rand(2, 3, 32, 32)
    assert not loaded.training
    assert torch.equal(loaded(images), backbone.eval()(images))
    assert loaded.input_spec is not None
    assert loaded.input_spec.size == 32


def test_commands_that_cannot_build_a_passed_network_refuse_before_any_work(
    trained: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    message = rf"weights=.* holds an object passed in Python, {NETWORK}: pass such an object again"
    weights = str(trained[0])
    commands: list[Callable[[], object]] = [
        lambda: ez.knn(evaluation(tmp_path / "knn", weights=weights), data=TRAIN, test_data=TEST),
        lambda: ez.finetune(finetuning(tmp_path / "tune", weights=weights), data=TRAIN, test_data=TEST),
        lambda: ez.load_backbone(weights),
    ]
    for command in commands:
        with pytest.raises(ConfigError, match=message):
            command()
    assert not list(tmp_path.iterdir())


def test_a_short_side_below_the_crops_is_told_before_any_work(tmp_path: Path) -> None:
    test, data = ez.EvaluationViewsConfig(short_side=20), DataConfig(batch_size=8, num_workers=0)
    linear = ez.LinearConfig(data=data, views="linear_image", test=test, run=ez.RunConfig(dir=str(tmp_path / "linear")))
    commands: list[Callable[[], object]] = [
        lambda: ez.finetune(finetuning(tmp_path / "tune", test=test), backbone=network(), data=TRAIN, test_data=TEST),
        lambda: ez.knn(evaluation(tmp_path / "knn", test=test), backbone=network(), data=TRAIN, test_data=TEST),
        lambda: ez.linear(linear, backbone=network(), data=TRAIN, test_data=TEST),
    ]
    for command in commands:
        with pytest.raises(ConfigError, match=r"test.short_side=20 is less than the crops of \d+ pixels: use at least"):
            command()
    assert not list(tmp_path.iterdir())


def test_a_passed_network_is_evaluated_with_its_weights_and_as_it_is(
    trained: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    run_dir, backbone = trained
    config = evaluation(tmp_path / "loaded", weights=str(run_dir))
    loaded = ez.knn(config, backbone=network(), data=TRAIN, test_data=TEST)
    as_it_is = ez.knn(evaluation(tmp_path / "passed"), backbone=backbone, data=TRAIN, test_data=TEST)
    assert loaded.protocol["weights"]["object"] == as_it_is.protocol["weights"]["object"] == NETWORK
    assert loaded.protocol["seen_in_pretraining"]["seen"] == 0
    assert as_it_is.protocol["seen_in_pretraining"]["seen"] is None  # nobody knows
    baseline = ez.knn(evaluation(tmp_path / "name"), backbone="resnet18", data=TRAIN, test_data=TEST)
    assert baseline.protocol["weights"] == {"file": None, "untrained": True}


def test_weights_that_do_not_fit_a_passed_network_are_refused(trained: tuple[Path, nn.Module], tmp_path: Path) -> None:
    config = evaluation(tmp_path / "run", weights=str(trained[0]))
    with pytest.raises(ConfigError, match=r"do not fit the backbone Sequential: size mismatch for network.0.weight"):
        ez.knn(config, backbone=network(width=6), data=TRAIN, test_data=TEST)
    assert not list(tmp_path.iterdir())


def test_a_passed_network_is_fine_tuned_and_its_classifier_tested(
    trained: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    config = finetuning(tmp_path / "tuned", weights=str(trained[0]))
    tuned = ez.finetune(config, backbone=network(), data=TRAIN, test_data=TEST)
    settings = ez.ClassifierTestConfig(
        weights=str(tmp_path / "tuned"), data=DataConfig(num_workers=0), run=ez.RunConfig(dir=str(tmp_path / "test"))
    )
    tested = ez.test(settings, backbone=network(), data=TRAIN, test_data=TEST)
    assert tested.metrics["test_top1"] == tuned.metrics["test_top1"]


def test_a_config_that_is_not_registered_is_trained_and_named(tmp_path: Path) -> None:
    ez.pretrain(pretraining(tmp_path / "run", backbone=NetworkConfig(width=6)), data=TRAIN)
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["backbone"]
    assert written == {"object": f"{NetworkConfig.__module__}.NetworkConfig", "width": 6}
    with pytest.raises(ConfigError, match=r"passed in Python, .*\.NetworkConfig: pass such an object again"):
        ez.knn(evaluation(tmp_path / "knn", weights=str(tmp_path / "run")), data=TRAIN)
    config = evaluation(tmp_path / "knn", weights=str(tmp_path / "run"))
    assert ez.knn(config, backbone=NetworkConfig(width=6), data=TRAIN).metrics


def test_the_parameters_of_a_passed_loss_are_trained(tmp_path: Path) -> None:
    loss = NegativeCosine()
    ez.pretrain(pretraining(tmp_path / "run"), backbone=network(), loss=loss, data=TRAIN)
    assert loss.scale.item() != 1
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["loss"] == {"object": f"{NegativeCosine.__module__}.NegativeCosine"}


def test_a_passed_method_brings_its_backbone_and_its_loss(tmp_path: Path) -> None:
    backbone = ez.as_backbone(network(), num_frames=1, size=32)
    before = backbone.state_dict()["network.0.weight"].clone()
    ez.pretrain(pretraining(tmp_path / "run"), method=ez.SimCLR(backbone, ez.NTXentLoss()), data=TRAIN)
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["loss"] is None
    assert written["method"] == {"object": "eztorch_sce.methods.simclr.SimCLR"}
    state = load_weights(str(tmp_path / "run")).state
    assert torch.equal(state["network.0.weight"], backbone.state_dict()["network.0.weight"])
    assert not torch.equal(state["network.0.weight"], before)


def test_callbacks_and_loggers_are_called(tmp_path: Path) -> None:
    counter, logger = CountSteps(), CSVLogger(str(tmp_path), name="own")
    config = pretraining(tmp_path / "run")
    ez.pretrain(config, backbone=network(), data=TRAIN, test_data=TEST, callbacks=[counter], loggers=[logger])
    assert counter.steps == 2
    assert "loss" in (Path(logger.log_dir) / "metrics.csv").read_text()
    assert (tmp_path / "run" / "metrics.csv").exists()


def test_mistakes_in_arguments_are_told_at_once(tmp_path: Path) -> None:
    config = pretraining(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"backbone=3 must be a module.*\n- loss=nothing must be one of.*\n- method="):
        ez.pretrain(config, backbone=3, loss="nothing", method="nothing", data=TRAIN)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"backbone=Linear is a class; pass an object, such as Linear\("):
        ez.pretrain(config, backbone=nn.Linear, data=TRAIN)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"method=Sequential: .*it has no backbone"):
        ez.pretrain(config, method=network(), data=TRAIN)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="test_data is set but data is not: pass both"):
        ez.pretrain(config, test_data=TEST)
    with pytest.raises(TypeError, match="callbacks must be a list of objects of pytorch_lightning"):
        ez.pretrain(config, data=TRAIN, callbacks=CountSteps())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="loggers must hold objects of pytorch_lightning"):
        ez.pretrain(config, data=TRAIN, loggers=[True])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"expected a PretrainConfig, such as .*, got an object of KnnConfig"):
        ez.pretrain(ez.KnnConfig())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bakbone is not an argument; did you mean backbone"):
        ez.knn(evaluation(tmp_path / "knn"), bakbone=network())  # type: ignore[call-arg]
    assert not list(tmp_path.iterdir())
