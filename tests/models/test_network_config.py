"""Tests of weights files whose network is registered by the user."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest
import torch
from torch import nn

from eztorch_sce import registry, tensor_file
from eztorch_sce.errors import ConfigError
from eztorch_sce.models.backbones.base import Backbone, NetworkBackbone
from eztorch_sce.models.weights import check_savable, load_weights, save_weights
from eztorch_sce.registry import register
from eztorch_sce.types import InputSpec

pytestmark = pytest.mark.usefixtures("own_registrations")


@dataclass
class Head:
    scale: float = 1.0


class Pooling(Enum):
    MEAN = "mean"
    MAX = "max"


@dataclass
class MyNetConfig:
    """A network whose settings are of many kinds."""

    width: int = 4
    head: Head = field(default_factory=Head)
    heads: list[Head] = field(default_factory=list)
    pooling: Pooling | None = None
    folder: Path = Path("tables")

    def build(self) -> Backbone:
        return NetworkBackbone("my_net", self.width, nn.Linear(3, self.width))


def write(path: Path, config: MyNetConfig) -> str:
    register("backbone", "my_net")(type(config))
    save_weights(path, config.build(), config, InputSpec(), None, [])
    return str(path)


def rewrite(path: str, **changes: object) -> None:
    content = tensor_file.read(path)
    content["backbone"] |= changes
    tensor_file.write(path, content, root="state")


def test_a_registered_network_is_rebuilt_with_all_its_settings(tmp_path: Path) -> None:
    config = MyNetConfig(8, Head(scale=2.0), [Head(3.0)], Pooling.MAX, Path("x"))
    assert load_weights(write(tmp_path / "w.safetensors", config)).config() == config


def test_weights_name_the_plugin_of_a_network_that_is_not_registered(tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", MyNetConfig())
    del registry._CHOICES["backbone"]["my_net"]
    with pytest.raises(ConfigError, match=r"holds the network my_net, defined in (\S+): add plugins=\1$") as caught:
        load_weights(path).config()
    assert MyNetConfig.__module__ in str(caught.value)
    rewrite(path, module="__main__")
    with pytest.raises(ConfigError, match="holds the network my_net, defined in an interactive session: run the code"):
        load_weights(path).config()


def test_a_network_that_cannot_be_saved_is_refused_before_a_training() -> None:
    class Remembers(nn.Linear):
        def get_extra_state(self) -> object:
            return {"seen": {1, 2}}

    backbone = NetworkBackbone("my_net", 4, Remembers(3, 4))
    with pytest.raises(ConfigError, match=r"my_net cannot be written: state\.network\._extra_state\.seen: a set"):
        check_savable(backbone, MyNetConfig())
    check_savable(MyNetConfig().build(), MyNetConfig(8, Head(2.0), [Head(3.0)], Pooling.MAX, Path("x")))


def test_weights_of_earlier_versions_ask_for_the_plugin(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    content = tensor_file.read(write(path, MyNetConfig())) | {"format": "eztorch_sce weights 1"}
    torch.save(content | {"backbone": {"name": "my_net", "settings": {"width": 8}}}, path)
    assert load_weights(str(path)).config() == MyNetConfig(width=8)
    del registry._CHOICES["backbone"]["my_net"]
    with pytest.raises(ConfigError, match="the network my_net, which is not registered: add plugins=MODULE, naming"):
        load_weights(str(path)).config()


def test_settings_that_a_network_no_longer_has_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", MyNetConfig())
    rewrite(path, settings={"widht": 4, "depth": 2})
    with pytest.raises(ConfigError, match=r"my_net with widht=4, depth=2, which MyNetConfig of .* does not have; its "):
        load_weights(path).config()


def test_settings_that_a_network_has_gained_take_their_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "w.safetensors", MyNetConfig())
    rewrite(path, settings={"head": {"scale": 2.0}})
    assert load_weights(path).config() == MyNetConfig(head=Head(scale=2.0))
    assert "my_net has gained settings, which take their defaults: width=4, heads=[]" in capsys.readouterr().err
