"""Mistakes in Python and in evaluations, each with the answer that a user gets before anything starts."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from image_files import write_two_classes
from torch import Tensor, nn

from eztorch_sce import (
    DataConfig,
    FinetuneConfig,
    KnnConfig,
    LinearConfig,
    PretrainConfig,
    SCELoss,
    finetune,
    knn,
    load_backbone,
    pretrain,
    recipe,
)
from eztorch_sce.config.compose import compose
from eztorch_sce.errors import ConfigError


class Arrays:
    """A source of gray images."""

    def __len__(self) -> int:
        return 16

    def read(self, index: int) -> Tensor:
        """Return an image (C, H, W)."""
        return torch.full((3, 32, 32), index, dtype=torch.uint8)

    def label(self, index: int) -> int:
        """Return one of two classes."""
        return index % 2

    def name(self, index: int) -> str:
        """Return a unique name."""
        return str(index)


class Fractions(Arrays):
    """A source whose pixels are not bytes."""

    def read(self, index: int) -> Tensor:
        """Return an image in [0, 1]."""
        return torch.rand(3, 32, 32)


class NoEmbeddings(nn.Module):
    """A method without a backbone."""


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write 8 images below `images`, in the current folder."""
    monkeypatch.chdir(tmp_path)
    write_two_classes(tmp_path / "images", count=8)


def files() -> PretrainConfig:
    return PretrainConfig(data=DataConfig(root="images"))


def untyped(value: object) -> Any:
    """Return a value that a type checker would refuse as an argument."""
    return value


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "a folder as config": (
        lambda: pretrain(untyped("images")),
        "expected a PretrainConfig, such as PretrainConfig(data=DataConfig(root=...)), got an object of str",
    ),
    "the data as config": (
        lambda: pretrain(untyped(DataConfig(root="images"))),
        "expected a PretrainConfig, such as PretrainConfig(data=DataConfig(root=...)), got an object of DataConfig",
    ),
    "the class of the config": (lambda: pretrain(untyped(PretrainConfig)), "got the class PretrainConfig"),
    "the config of another command": (
        lambda: knn(untyped(LinearConfig(weights="x"))),
        "expected a KnnConfig, such as KnnConfig(data=DataConfig(root=...)), got an object of LinearConfig",
    ),
    "the class of a backbone": (
        lambda: pretrain(files(), backbone=untyped(nn.Linear)),
        "backbone=Linear is a class; pass an object, such as Linear(...)",
    ),
    "a backbone by a wrong name": (lambda: pretrain(files(), backbone=untyped("resnet81")), "did you mean resnet18?"),
    "a method as loss": (
        lambda: pretrain(files(), loss=untyped("simclr")),
        "loss=simclr must be one of cosine, infonce, ntxent, ressl, sce; here, simclr is loss=ntxent with",
    ),
    "a number as loss": (
        lambda: pretrain(files(), loss=untyped(3)),
        "loss=3 must be a module, a config with a build method, or one of cosine, infonce",
    ),
    "the class of a loss": (
        lambda: pretrain(files(), loss=untyped(SCELoss)),
        "loss=SCELoss is a class; pass an object, such as SCELoss(...)",
    ),
    "views by two names": (
        lambda: pretrain(PretrainConfig(data=DataConfig(root="images"), views=untyped(["cifar", "cifar"]))),
        "views=[cifar,cifar] must be a list of ViewConfig",
    ),
    "settings as a dictionary": (
        lambda: pretrain(PretrainConfig(data=DataConfig(root="images"), trainer=untyped({"max_epochs": 1}))),
        "trainer=dict must be a TrainerConfig",
    ),
    "one callback": (
        lambda: pretrain(files(), callbacks=untyped(pl.Callback())),
        "callbacks must be a list of objects of pytorch_lightning.Callback",
    ),
    "loggers switched on": (
        lambda: pretrain(files(), loggers=untyped(True)),
        "loggers must be a list of objects of pytorch_lightning.Logger, got True",
    ),
    "a folder as data": (
        lambda: pretrain(PretrainConfig(), data=untyped("images")),
        "is the text 'images', not the name of a registered source: pass an object, or set data.root to read files",
    ),
    "the settings of data as data": (
        lambda: pretrain(PretrainConfig(), data=untyped(DataConfig(root="images"))),
        "data=DataConfig(...) holds settings: pass it as PretrainConfig(data=...)",
    ),
    "a list as data": (lambda: pretrain(PretrainConfig(), data=untyped([])), "list (train) is not a data source"),
    "the class of a source": (
        lambda: pretrain(PretrainConfig(), data=untyped(Arrays)),
        "Arrays (train) is a class: pass an object, such as Arrays(...)",
    ),
    "a source of fractions": (
        lambda: pretrain(PretrainConfig(), data=Fractions()),
        "(255 * x).round().to(torch.uint8)",
    ),
    "a folder and a source": (
        lambda: pretrain(files(), data=Arrays()),
        "data.root=images is about files and not used with a source: remove it",
    ),
    "test data alone": (
        lambda: knn(KnnConfig(weights="x"), test_data=Arrays()),
        "test_data is set but data is not: pass both",
    ),
    "a backbone for other inputs": (
        lambda: pretrain(PretrainConfig(), data=Arrays(), backbone=nn.Linear(3, 3)),
        "Linear fails on clips (B, C, T, H, W) of shape",
    ),
    "a method without backbone": (
        lambda: pretrain(PretrainConfig(), data=Arrays(), method=untyped(NoEmbeddings())),
        "it has no backbone: an attribute or property with the network to keep after training",
    ),
    "a recipe by a wrong name": (
        lambda: recipe(untyped("cifar10_resnet81")),
        "recipe=cifar10_resnet81 is neither a recipe nor a file such as ./my.yaml; did you mean cifar10_resnet18?",
    ),
    "a missing weights file": (lambda: load_backbone("nope.pt"), "weights=nope.pt does not exist"),
    "an untrained network without weights": (
        lambda: finetune(FinetuneConfig(data=DataConfig(root="images"), backbone="resnet18", untrained=True)),
        "untrained=true has no effect without weights: backbone is always initialized at random",
    ),
}


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered(mistake: str) -> None:
    call, answer = MISTAKES[mistake]
    with pytest.raises((ConfigError, TypeError), match=re.escape(answer)):
        call()
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("command", "setting", "answer"),
    [
        ("knn", "weights=y", "weights=y has no effect on features=x, which were extracted before"),
        ("knn", "untrained=true", "features=x were already extracted from one: run `extract` with untrained=true"),
        ("svm", "test.num_clips=2", "test.num_clips=2 has no effect on features=x"),
        ("retrieve", "data.root=y", "data.root=y has no effect on features=x"),
        ("linear", "trainer.precision=bf16-mixed", "trainer.precision=bf16-mixed has no effect without views"),
    ],
)
def test_settings_that_features_ignore_are_refused(command: str, setting: str, answer: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(answer)):
        compose(command, ["features=x", setting])


@pytest.mark.parametrize("command", ["knn", "test", "extract"])
def test_a_gpu_that_is_missing_is_not_replaced_by_the_cpu(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="accelerator=gpu but torch finds no GPU: use accelerator=cpu"):
        compose(command, ["weights=x", "data.root=.", "accelerator=gpu"])


def test_an_untrained_network_of_a_weights_file_is_a_baseline() -> None:
    config = compose("knn", ["weights=x", "untrained=true", "data.root=."])
    assert (config.weights, config.untrained) == ("x", True)
