"""Projector and predictor: the multi-layer perceptrons between a backbone and a loss."""

from dataclasses import dataclass
from itertools import pairwise

from torch import nn


@dataclass
class ProjectorConfig:
    """From backbone features to the space of the loss.

    Attributes:
        hidden_dim: Width of the hidden layers; null is twice the backbone's features (4096 for 2048, 1024 for 512).
        num_hidden: Hidden layers, each linear without bias, batch norm, ReLU.
        output_dim: Dimensions of the space of the loss.
        output_norm: A batch norm without affine after the last layer, which then has no bias.
    """

    hidden_dim: int | None = None
    num_hidden: int = 2
    output_dim: int = 256
    output_norm: bool = True

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        values = {"hidden_dim": self.hidden_dim or 1, "num_hidden": self.num_hidden + 1, "output_dim": self.output_dim}
        return [f"{prefix}.{name} must be positive" for name, value in values.items() if value < 1]

    def build(self, num_features: int) -> nn.Sequential:
        """Return the projector, (B, num_features) -> (B, output_dim)."""
        hidden_dim = self.hidden_dim or 2 * num_features
        return _perceptron([num_features] + [hidden_dim] * self.num_hidden, self.output_dim, self.output_norm)


@dataclass
class PredictorConfig:
    """From the online projections to the momentum encoder's: linear, batch norm, ReLU, linear, no biases.

    Attributes:
        hidden_dim: Width of the hidden layer; null is twice the backbone's features, as in the projector.
    """

    hidden_dim: int | None = None

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        return [f"{prefix}.hidden_dim must be positive"] if (self.hidden_dim or 1) < 1 else []

    def build(self, num_features: int, dim: int) -> nn.Sequential:
        """Return the predictor, (B, dim) -> (B, dim)."""
        layers = _perceptron([dim, self.hidden_dim or 2 * num_features], dim, output_norm=False)
        layers[-1].register_parameter("bias", None)
        return layers


def _perceptron(widths: list[int], output_dim: int, output_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(widths[-1], output_dim, bias=not output_norm))
    if output_norm:
        layers.append(nn.BatchNorm1d(output_dim, affine=False))
    return nn.Sequential(*layers)
