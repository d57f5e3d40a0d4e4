"""Linear evaluation: linear classifiers on a frozen backbone, several learning rates in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from eztorch_sce.evaluation.metrics import top_accuracies
from eztorch_sce.evaluation.search import CPU
from eztorch_sce.models.classifier import linear_head
from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.optim.groups import with_rates
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.progress import track
from eztorch_sce.seeding import generator_for
from eztorch_sce.types import FeatureBank

_ROWS = 16384  # that are scored at once


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

    def optimizer(self, config: OptimizerConfig, batch_size: int) -> torch.optim.Optimizer:
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
    optimizer: OptimizerConfig = field(default_factory=probe_sgd)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    max_epochs: int = 100
    batch_size: int = 256
    standardize: bool = True
    seed: int = 0


def linear_probe(train: FeatureBank, test: FeatureBank, probe: Probe, device: torch.device = CPU) -> dict[str, float]:
    """Train linear classifiers on the train part; return their accuracies in [0, 1], see `linear_metrics`."""
    heads = train_heads(train, int(max(train.labels.max(), test.labels.max())) + 1, probe, device)
    metrics = linear_metrics(probe.lrs, _accuracies(heads, test, device))
    trained = linear_metrics(probe.lrs, _accuracies(heads, train, device))
    return metrics | {"linear_train_top1": trained["linear_top1"]}


def train_heads(train: FeatureBank, num_classes: int, probe: Probe, device: torch.device = CPU) -> LinearHeads:
    """Return classifiers of the features as they are, whether or not they were trained on standardized ones.

    The features stay where they are, a batch at a time goes to the device: they may be memory-mapped.
    """
    num_records, num_features = train.features.shape
    mean, deviation = torch.zeros(num_features, device=device), torch.ones(num_features, device=device)
    if probe.standardize:
        mean = train.features.mean(dim=0).to(device)
        deviation = train.features.std(dim=0).clamp_min(1e-6).to(device)
    generator = generator_for(probe.seed, 0, 0, 0, "linear")
    heads = LinearHeads(num_features, num_classes, probe.lrs, generator).to(device)
    batch_size = min(probe.batch_size, num_records)
    optimizer = heads.optimizer(probe.optimizer, batch_size)
    num_steps = probe.max_epochs * -(-num_records // batch_size)
    scheduler = LambdaLR(optimizer, lambda step: probe.schedule.factor(step, num_steps, probe.max_epochs))
    for _ in track(range(probe.max_epochs), probe.max_epochs, "linear classifiers, epochs"):
        for rows in torch.randperm(num_records, generator=generator).split(batch_size):
            x = (train.features[rows].to(device) - mean) / deviation  # (B, F)
            optimizer.zero_grad()
            heads.losses(x, train.labels[rows].to(device)).sum().backward()
            optimizer.step()
            scheduler.step()
    heads.undo_standardization(mean, deviation)
    return heads


@torch.no_grad()
def _accuracies(heads: LinearHeads, bank: FeatureBank, device: torch.device) -> list[dict[str, float]]:
    """Return the accuracies of each head, from some rows at a time: the scores of all would not fit in memory."""
    sums: list[dict[str, float]] = [{} for _ in heads.lrs]
    for features, labels in zip(bank.features.split(_ROWS), bank.labels.split(_ROWS), strict=True):
        for total, scores in zip(sums, heads(features.to(device)), strict=True):
            for name, share in top_accuracies(scores, labels.to(device), "linear").items():
                total[name] = total.get(name, 0.0) + share * len(labels) / len(bank.labels)
    return sums


def linear_metrics(lrs: Sequence[float], each: list[dict[str, float]]) -> dict[str, float]:
    """Return the accuracies of the best head, and top-1 of each head where there are several.

    With several, the best one is chosen on these very labels, as published sweeps do: `linear_top1@<lr>` shows how much
    that choice is worth.
    """
    best = max(each, key=lambda metrics: metrics["linear_top1"])
    if len(each) == 1:
        return best
    sweep = {f"linear_top1@{lr:g}": metrics["linear_top1"] for lr, metrics in zip(lrs, each, strict=True)}
    return best | {"linear_lr": lrs[each.index(best)]} | sweep
