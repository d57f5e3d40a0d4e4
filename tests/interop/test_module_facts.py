"""Tests of pickled modules: what their layers compute must be what ours do, whatever their tensors are called."""

from typing import Any

import pytest
import torch
from torch import nn

from eztorch_sce import registry
from eztorch_sce.errors import ConfigError
from eztorch_sce.interop.containers import Container, read_container
from eztorch_sce.interop.import_weights import import_container
from eztorch_sce.models.backbones.base import as_backbone, build_network

pytestmark = pytest.mark.xdist_group("pickled module")


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return as_backbone(build_network(registry.choices("backbone")["resnet18"]()))


@pytest.fixture(scope="module")
def container(module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Container:
    """A file with a whole module in it."""
    path = tmp_path_factory.mktemp("module") / "file"
    torch.save({"model": nn.DataParallel(module), "epoch": 1}, path)
    return read_container(path)


def test_a_pickled_module_is_imported_as_its_state_dict(container: Container, module: nn.Module) -> None:
    imported = import_container(container, "file")
    assert imported.found.network.backbone == "resnet18"
    assert all(torch.equal(imported.state[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"conv1.padding.0": 2, "conv1.padding.1": 2}, "conv1.padding=2 instead of 3"),
        ({"conv1.padding.1": 2}, r"conv1.padding=\(3, 2\) instead of 3"),
        ({"layer2.0.bn1.eps": 1e-3}, "layer2.0.bn1.eps=0.001 instead of 1e-05"),
        ({"layer4.1.conv2.dilation.0": 2, "layer4.1.conv2.dilation.1": 2}, "layer4.1.conv2.dilation=2 instead of 1"),
        ({"layer1.0.conv1.padding_mode": "reflect"}, "layer1.0.conv1.padding_mode=reflect instead of zeros"),
    ],
)
def test_a_pickled_module_whose_layers_compute_something_else_is_refused(
    container: Container, stored: dict[str, Any], message: str
) -> None:
    values = {**container.values, **{f"model.module.{name}": value for name, value in stored.items()}}
    assert len(values) == len(container.values)
    with pytest.raises(ConfigError, match=f"its layers are not those of resnet18: {message}"):
        import_container(container._replace(values=values), "file")
