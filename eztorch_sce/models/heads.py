"""Projector and predictor: the multi-layer perceptrons between a backbone and a loss."""

from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from eztorch_sce.settings import Settings, setting


@dataclass
class ProjectorConfig(Settings):
    """Projector: a multi-layer perceptron from backbone features to the space of the loss."""

    hidden_dim: int | None = setting(
        None, at_least=1, help="Width of the hidden layers; null means twice the number of backbone features."
    )
    num_hidden: int = setting(
        2, at_least=0, help="Number of hidden layers, each linear without bias, batch norm and ReLU."
    )
    output_dim: int = setting(256, at_least=1, help="Dimension of the projections.")
    output_norm: bool = setting(
        True, help="Apply batch norm without affine parameters after the last layer, which then has no bias."
    )

    def build(self, num_features: int) -> nn.Sequential:
        """Return the projector, which maps (B, num_features) to (B, output_dim)."""
        hidden_dim = 2 * num_features if self.hidden_dim is None else self.hidden_dim
        widths = [num_features, *[hidden_dim] * self.num_hidden]
        return _perceptron(widths, self.output_dim, self.output_norm)


@dataclass
class PredictorConfig(Settings):
    """Predictor: a perceptron with one hidden layer and no biases, from online to momentum projections."""

    hidden_dim: int | None = setting(
        None, at_least=1, help="Width of the hidden layer; null means twice the number of backbone features."
    )

    def build(self, num_features: int, dim: int) -> nn.Sequential:
        """Return the predictor, which maps (B, dim) to (B, dim)."""
        hidden_dim = 2 * num_features if self.hidden_dim is None else self.hidden_dim
        layers = _perceptron([dim, hidden_dim], dim, output_norm=False)
        layers[-1].register_parameter("bias", None)
        return layers


def _perceptron(widths: list[int], output_dim: int, output_norm: bool) -> nn.Sequential:
    """Return a perceptron. `widths` lists the width of the input, then the widths of the hidden layers."""
    layers: list[nn.Module] = []
    for num_in, num_out in pairwise(widths):
        layers += [nn.Linear(num_in, num_out, bias=False), nn.BatchNorm1d(num_out), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(widths[-1], output_dim, bias=not output_norm))
    if output_norm:
        layers.append(nn.BatchNorm1d(output_dim, affine=False))
    return nn.Sequential(*layers)
