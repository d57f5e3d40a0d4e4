"""Tests of activation checkpointing: the same training with fewer activations kept."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eztorch_sce.models.backbones.base import Backbone, as_backbone
from eztorch_sce.models.batch_norm import split_batch_norms
from eztorch_sce.models.checkpointing import checkpointed, repeated_blocks
from eztorch_sce.registry import choices


class Stateful(nn.Module):
    """Blocks with random numbers and buffers of every kind, which share a list of maps as those of DenseNet do."""

    class Block(nn.Module):
        def __init__(self, num_in: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.utils.parametrizations.spectral_norm(nn.Conv2d(num_in, 4, 3, padding=1)),
                nn.InstanceNorm2d(4, track_running_stats=True),
                nn.Dropout(0.3),
                nn.BatchNorm2d(4, momentum=None),
                nn.ReLU(),
            )

        def forward(self, maps: list[Tensor]) -> Tensor:
            result: Tensor = self.body(torch.cat(maps, dim=1))
            return result

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Stateful.Block(3 + 4 * number) for number in range(4))

    def forward(self, images: Tensor) -> Tensor:
        maps = [images]
        for block in self.blocks:
            maps.append(block(maps))
        return maps[-1].mean(dim=(2, 3))


def build(name: str) -> Backbone:
    torch.manual_seed(0)
    if name == "own":
        return as_backbone(Stateful(), num_frames=1, size=32)
    backbone: Backbone = choices("backbone")[name.removesuffix(", split")]().build()
    if name.endswith("split"):
        split_batch_norms(backbone, 2)
    return backbone


def training_step(backbone: Backbone, clips: Tensor) -> dict[str, Any]:
    """Return what a forward and backward pass leaves, and the bytes kept between them."""
    kept = set()
    known = {tensor.untyped_storage() for tensor in (*backbone.parameters(), *backbone.buffers(), clips)}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage() not in known:
            kept.add(tensor.untyped_storage())
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        features = backbone(clips)
    features.square().sum().backward()
    gradients = {f"{name}.grad": weight.grad for name, weight in backbone.named_parameters()}
    result = {"features": features, "random": torch.rand(1), **backbone.state_dict(), **gradients}
    return result | {"kept": sum(storage.nbytes() for storage in kept)}


@pytest.mark.parametrize("name", ["resnet18", "resnet18, split", "r2plus1d_small", "x3d_xs", "own"])
def test_checkpointing_changes_only_what_is_kept(name: str) -> None:
    backbone = build(name)
    other = copy.deepcopy(backbone)
    clips = torch.randn(4, 3, 2 if backbone.takes_clips else 1, 32, 32)
    expected = training_step(backbone, clips)
    with checkpointed(other) as blocks:
        assert blocks
        result = training_step(other, clips)
    assert result.pop("kept") < 0.6 * expected.pop("kept")
    assert result.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in result.items())
    assert not any("forward" in vars(block) for block in other.modules())  # nothing stays behind


@pytest.mark.parametrize(
    ("name", "block", "count"),
    [("resnet50", "Bottleneck", 16), ("r3d18", "_ResidualBlock", 8), ("x3d_s", "ResBlock", 26)],
)
def test_the_blocks_are_those_of_the_papers(name: str, block: str, count: int) -> None:
    with torch.device("meta"):
        blocks = repeated_blocks(choices("backbone")[name]().build())
    assert [type(module).__name__ for module in blocks] == [block] * count


def test_a_network_without_repetitions_has_no_blocks() -> None:
    assert repeated_blocks(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))) == []
