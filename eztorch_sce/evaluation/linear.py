"""Linear evaluation: linear classifiers on a frozen backbone, several learning rates in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from eztorch_sce.evaluation.metrics import top_accuracies
from eztorch_sce.models.classifier import linear_head
from eztorch_sce.optim.groups import with_rates
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.seeding import generator_for
from eztorch_sce.types import FeatureBank


def probe_sgd() -> SGDConfig:
    """Return the optimizer of a probe where nobody chooses another."""
    return SGDConfig(lr=0.3, weight_decay=1e-4)


class LinearHeads(nn.Module):
    """Linear classifiers side by side on the same features, one per learning rate.

    Args:
        num_features: F.
        num_classes: C.
        lrs: Base learning rate of each head, for a batch of 256.
        generator: Draws the initial weights, the same for every head; None is torch's own.
    """

    def __init__(
        self, num_features: int, num_classes: int, lrs: Sequence[float], generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.lrs = list(lrs)
        first = linear_head(num_features, num_classes, generator)
        self.heads = nn.ModuleList(nn.Linear(num_features, num_classes) for _ in self.lrs)
        for head in self.heads:
            head.load_state_dict(first.state_dict())

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (heads, B, C) of features (B, F)."""
        return torch.stack([head(features) for head in self.heads])

    def losses(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the cross entropy (heads,) of features (B, F) with labels (B,)."""
        return torch.stack([F.cross_entropy(logits, labels) for logits in self(features)])

    @torch.no_grad()
    def undo_standardization(self, mean: Tensor, deviation: Tensor) -> None:
        """Make heads of (x - mean) / deviation into heads of x; mean and deviation are (F,)."""
        for head in self.heads:
            weight, bias = head.parameters()
            weight.div_(deviation)
            bias.sub_(weight @ mean)

    def optimizer(self, config: Any, batch_size: int) -> torch.optim.Optimizer:
        """Return one optimizer whose groups go at the rate of their head, for a global batch of this size.

        Args:
            config: A registered optimizer config; its own `lr` is not used.
            batch_size: Global, of one step.
        """
        rates = [lr * batch_size / 256 for lr in self.lrs]
        return with_rates(config, [(head.parameters(), lr) for head, lr in zip(self.heads, rates, strict=True)])


@dataclass
class Probe:
    """How linear classifiers are trained on features that were made once; the settings of `eztorch-sce linear`.

    Attributes:
        lrs: Base learning rates, for a batch of 256; one classifier each.
        optimizer: A registered optimizer config; its own `lr` is not used.
        schedule: Of the learning rates.
        max_epochs: Passes over the features.
        batch_size: Features per step.
        standardize: Shift and scale each feature by its mean and deviation over the training features first.
        seed: Of the initial weights and the order.
    """

    lrs: list[float] = field(default_factory=lambda: [probe_sgd().lr])
    optimizer: Any = field(default_factory=probe_sgd)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    max_epochs: int = 100
    batch_size: int = 256
    standardize: bool = True
    seed: int = 0


def linear_probe(train: FeatureBank, test: FeatureBank, probe: Probe) -> dict[str, float]:
    """Train linear classifiers on the train part; return their accuracies in [0, 1], see `linear_metrics`."""
    heads = train_heads(train, int(max(train.labels.max(), test.labels.max())) + 1, probe)
    with torch.no_grad():
        metrics = linear_metrics(probe.lrs, heads(test.features), test.labels)
        trained = linear_metrics(probe.lrs, heads(train.features), train.labels)
    return metrics | {"linear_train_top1": trained["linear_top1"]}


def train_heads(train: FeatureBank, num_classes: int, probe: Probe) -> LinearHeads:
    """Return classifiers of the features as they are, whether or not they were trained on standardized ones."""
    mean, deviation = torch.zeros(train.features.shape[1]), torch.ones(train.features.shape[1])
    if probe.standardize:
        mean, deviation = train.features.mean(dim=0), train.features.std(dim=0).clamp_min(1e-6)
    x = (train.features - mean) / deviation  # (N, F)
    generator = generator_for(probe.seed, 0, 0, 0, "linear")
    heads = LinearHeads(x.shape[1], num_classes, probe.lrs, generator)
    batch_size = min(probe.batch_size, len(x))
    optimizer = heads.optimizer(probe.optimizer, batch_size)
    num_steps = probe.max_epochs * -(-len(x) // batch_size)
    scheduler = LambdaLR(optimizer, lambda step: probe.schedule.factor(step, num_steps, probe.max_epochs))
    for _ in range(probe.max_epochs):
        for rows in torch.randperm(len(x), generator=generator).split(batch_size):
            optimizer.zero_grad()
            heads.losses(x[rows], train.labels[rows]).sum().backward()
            optimizer.step()
            scheduler.step()
    heads.undo_standardization(mean, deviation)
    return heads


def linear_metrics(lrs: Sequence[float], scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the accuracies in [0, 1] of scores (heads, N, C): of the best head, and of each where there are several.

    With several, the best one is chosen on these very labels, as published sweeps do: `linear_top1@<lr>` shows how much
    that choice is worth.
    """
    each = [top_accuracies(score, labels, "linear") for score in scores]
    best = max(each, key=lambda metrics: metrics["linear_top1"])
    if len(each) == 1:
        return best
    sweep = {f"linear_top1@{lr:g}": metrics["linear_top1"] for lr, metrics in zip(lrs, each, strict=True)}
    return best | {"linear_lr": lrs[each.index(best)]} | sweep
