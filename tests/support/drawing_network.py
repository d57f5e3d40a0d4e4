"""A plugin for tests of resuming: a backbone whose output depends on every random state of its process."""

import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eztorch_sce as sce


class DrawingNetwork(nn.Module):
    """Features scaled by draws of Python and NumPy, with dropout, and with a count of its training steps."""

    num_features = 16
    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, 8, 3, stride=2, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 16, 3, padding=1)
        )
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, clips: Tensor) -> Tensor:
        features = F.dropout(self.layers(clips).mean(dim=(2, 3, 4)), p=0.2, training=self.training)
        if self.training:
            self.steps += 1
            features = features * (1 + 0.1 * random.random() + 0.1 * float(np.random.rand()))
        return features


@sce.register("backbone", "drawing")
@dataclass
class DrawingNetworkConfig:
    """A network that draws in every training step."""

    def build(self) -> sce.Backbone:
        """Return the network, which maps clips (B, 3, T, H, W) to features (B, 16)."""
        return sce.as_backbone(DrawingNetwork())
