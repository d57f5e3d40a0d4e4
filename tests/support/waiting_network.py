"""A plugin for tests of signals: a backbone that waits in one of its calls, as on a busy machine or a slow disk."""

import sys
import time
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

import eztorch_sce as sce


class WaitingNetwork(nn.Module):
    """A linear layer on the mean color of clips.

    Args:
        seconds: Time of the wait.
        call: Call that waits, counted from 1, of those in training or in evaluation mode.
        training: Count the calls in training mode.
    """

    num_features = 8

    def __init__(self, seconds: float, call: int, training: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(3, self.num_features)
        self.seconds, self.call, self.waits_in_training, self.num_calls = seconds, call, training, 0

    def forward(self, clips: Tensor) -> Tensor:
        if clips.any() and self.training == self.waits_in_training:  # zeros find out the number of features
            self.num_calls += 1
            if self.num_calls == self.call:
                print("the network waits", file=sys.stderr, flush=True)
                time.sleep(self.seconds)
        return F.relu(self.layer(clips.mean(dim=(2, 3, 4))))


@sce.register("backbone", "waiting")
@dataclass
class WaitingNetworkConfig:
    """A network that waits once."""

    seconds: float = 1.0
    call: int = 5
    training: bool = True

    def build(self) -> sce.Backbone:
        """Return the network, which maps clips (B, 3, T, H, W) to features (B, 8)."""
        return sce.as_backbone(WaitingNetwork(self.seconds, self.call, self.training))
