"""ResNets as functions of a state dict in torchvision's names, with the choices that other code bases make."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Source:
    """What a code base computes from RGB pixels in [0, 1].

    Attributes:
        mean, std: Statistics in the order and on the scale of its input.
        scale: Its largest pixel.
        is_bgr: Whether it takes blue first.
        padding: Of the first convolution.
        same: Whether strides are padded as TensorFlow does.
        stride_in_1x1: Whether bottlenecks have their stride in the first convolution.
        eps: Of batch norm.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    scale: float = 1
    is_bgr: bool = False
    padding: int = 3
    same: bool = False
    stride_in_1x1: bool = False
    eps: float = 1e-5

    def features(self, state: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
        """Return pooled features (B, F) of pixels (B, 3, H, W)."""
        x = self.scale * (pixels.flip(1) if self.is_bgr else pixels)
        x = (x - torch.tensor(self.mean).reshape(3, 1, 1)) / torch.tensor(self.std).reshape(3, 1, 1)
        if state["conv1.weight"].shape[-1] == 3:
            x = F.relu(self._norm(F.conv2d(x, state["conv1.weight"], padding=self.padding), state, "bn1"))
        else:
            x = F.relu(self._norm(self._conv(x, state["conv1.weight"], 2, self.padding), state, "bn1"))
            x = F.max_pool2d(_same(x, 3, 2), 3, 2) if self.same else F.max_pool2d(x, 3, 2, 1)
        for stage in range(1, 5):
            block = 0
            while f"layer{stage}.{block}.conv1.weight" in state:
                x = self._block(x, state, f"layer{stage}.{block}.", 2 if stage > 1 and block == 0 else 1)
                block += 1
        return x.mean(dim=(2, 3))

    def _block(self, x: Tensor, state: Mapping[str, Tensor], name: str, stride: int) -> Tensor:
        is_bottleneck = f"{name}conv3.weight" in state
        strides = [stride, 1]
        if is_bottleneck:
            strides = [stride, 1, 1] if self.stride_in_1x1 else [1, stride, 1]
        shortcut = x
        if f"{name}downsample.0.weight" in state:
            shortcut = F.conv2d(x, state[f"{name}downsample.0.weight"], stride=stride)
            shortcut = self._norm(shortcut, state, f"{name}downsample.1")
        for number, step in enumerate(strides, start=1):
            x = self._norm(self._conv(x, state[f"{name}conv{number}.weight"], step), state, f"{name}bn{number}")
            x = F.relu(x) if number < len(strides) else x
        return F.relu(x + shortcut)

    def _conv(self, x: Tensor, weight: Tensor, stride: int, padding: int | None = None) -> Tensor:
        kernel = weight.shape[-1]
        if self.same:
            return F.conv2d(_same(x, kernel, stride), weight, stride=stride)
        return F.conv2d(x, weight, stride=stride, padding=kernel // 2 if padding is None else padding)

    def _norm(self, x: Tensor, state: Mapping[str, Tensor], name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"].reshape(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + self.eps) * weight + bias


def _same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad square images so that the output has ceil(size / stride) pixels, the odd zero to the right and below."""
    size = x.shape[-1]
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    left, right = total // 2, total - total // 2
    return F.pad(x, (left, right, left, right))
