"""The contract of backbones: clips in, one pooled feature vector per clip out."""

from abc import ABC, abstractmethod
from dataclasses import Field
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """A network without a classifier. An image is a clip with T = 1.

    A subclass implements `features`, and sets `takes_clips = False` if it only takes images. Parameters keep the public
    names of their architecture, so that public checkpoints load unchanged.

    Args:
        name: Name in error messages.
        num_features: Width F of the features.

    Attributes:
        takes_clips: Whether T may be larger than 1.
    """

    takes_clips: bool = True

    def __init__(self, name: str, num_features: int) -> None:
        super().__init__()
        self.name = name
        self.num_features = num_features

    # `clips` has no shape annotation: the type check in the tests would preempt the errors below.
    def forward(self, clips: Tensor) -> Float[Tensor, "B F"]:
        """Return pooled features of normalized clips (B, C, T, H, W).

        Raises:
            ValueError: If the input does not have five axes, or has T > 1 for a backbone that only takes images.
        """
        if clips.ndim != 5:
            raise ValueError(
                f"backbone {self.name} takes (B, C, T, H, W), got shape {tuple(clips.shape)}; "
                "a batch of images has T = 1: images.unsqueeze(2)"
            )
        if not self.takes_clips and clips.shape[2] != 1:
            raise ValueError(
                f"backbone {self.name} takes images (T = 1), got clips of T = {clips.shape[2]} frames; "
                "set data.num_frames=1, or choose a video backbone such as backbone=r3d18"
            )
        return self.features(clips)

    @abstractmethod
    def features(self, clips: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B F"]:
        """Return pooled features of normalized clips."""


@runtime_checkable
class BackboneConfig(Protocol):
    """A config dataclass that builds a backbone; `@register("backbone", name)` makes it a choice."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # weights files store the fields

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        ...


class BlockBackbone(Backbone):
    """A sequence of blocks, averaged over time and space. State-dict keys are `blocks.0...`, as in pytorchvideo.

    Args:
        name: Name in error messages.
        num_features: Channels of the last block.
        blocks: Modules that map (B, C, T, H, W) to (B, C', T', H', W').
    """

    def __init__(self, name: str, num_features: int, blocks: nn.ModuleList) -> None:
        super().__init__(name, num_features)
        self.blocks = blocks

    def features(self, clips: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B F"]:
        """Return pooled features of normalized clips."""
        x = clips
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3, 4))


class NetworkBackbone(Backbone):
    """Any network as a backbone.

    Args:
        name: Name in error messages.
        num_features: Width F of the network's output.
        network: Maps clips (B, C, T, H, W), or images (B, C, H, W) if `takes_clips` is false, to (B, F).
        takes_clips: Whether the network takes clips.
    """

    def __init__(self, name: str, num_features: int, network: nn.Module, takes_clips: bool = True) -> None:
        super().__init__(name, num_features)
        self.network, self.takes_clips = network, takes_clips

    def features(self, clips: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B F"]:
        """Return pooled features of normalized clips."""
        features: Tensor = self.network(clips if self.takes_clips else clips.squeeze(2))
        return features


def init_convolutions(net: nn.Module) -> None:
    """Initialize every convolution with the Kaiming normal distribution by fan-out (He et al., arXiv:1502.01852)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def zero_batch_norm(num_channels: int) -> nn.BatchNorm3d:
    """Return a batch norm with zero weights, so that a residual branch that ends in it is initially zero."""
    norm = nn.BatchNorm3d(num_channels)
    nn.init.zeros_(norm.weight)
    return norm
