"""What every backbone is: clips in, one pooled feature vector per clip out."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """A network without a head. An image is a clip with T = 1.

    A subclass defines `features`, and sets `takes_clips = False` where it sees images alone. Its parameters have the
    public names of its architecture, so that public checkpoints load as they are.

    Args:
        name: The name that it is chosen by, for messages.
        num_features: Width F of the output.

    Attributes:
        takes_clips: Whether T may be larger than 1.
    """

    takes_clips: bool = True

    def __init__(self, name: str, num_features: int) -> None:
        super().__init__()
        self.name = name
        self.num_features = num_features

    def forward(self, clips: Tensor) -> Tensor:
        """Map float (B, C, T, H, W) to pooled features (B, F).

        Raises:
            ValueError: If the input is not 5-dimensional, or has T > 1 where the backbone takes images.
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
    def features(self, clips: Tensor) -> Tensor:
        """Do the work of `forward` on an input of the right shape."""


class BlockBackbone(Backbone):
    """Blocks one after another, then the mean over time and space; keys `blocks.0...`, as pytorchvideo names them.

    Args:
        name: The name that it is chosen by.
        num_features: Channels out of the last block.
        blocks: Each maps (B, C, T, H, W) to (B, C', T', H', W').
    """

    def __init__(self, name: str, num_features: int, blocks: nn.ModuleList) -> None:
        super().__init__(name, num_features)
        self.blocks = blocks

    def features(self, clips: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to (B, F)."""
        x = clips
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3, 4))


def init_convolutions(net: nn.Module) -> None:
    """Draw every convolution from the Kaiming normal distribution of its outputs (He et al., arXiv:1502.01852)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def silent_norm(num_channels: int) -> nn.BatchNorm3d:
    """Return a norm that starts at 0. An untrained residual block whose branch ends in it is its shortcut."""
    norm = nn.BatchNorm3d(num_channels)
    nn.init.zeros_(norm.weight)
    return norm
