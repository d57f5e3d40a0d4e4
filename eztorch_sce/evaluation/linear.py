"""The linear probe: a linear classifier on frozen features."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from eztorch_sce.evaluation.metrics import top_accuracies
from eztorch_sce.optim.schedules import warmup_cosine
from eztorch_sce.seeding import generator_for
from eztorch_sce.types import FeatureBank


@dataclass
class LinearProbeConfig:
    """Settings of the linear probe.

    Attributes:
        epochs: Passes over the training features.
        lr: Learning rate for a batch of 256, falling to 0 along half a cosine.
        momentum, weight_decay: Of SGD.
        batch_size: Features per step.
        standardize: Shift and scale each feature by its mean and deviation over the training features first.
    """

    epochs: int = 100
    lr: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 256
    standardize: bool = True

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        return [
            f"{prefix}.{name}={getattr(self, name)} must be greater than 0"
            for name in ("epochs", "lr", "batch_size")
            if getattr(self, name) <= 0
        ]


def linear_probe(train: FeatureBank, test: FeatureBank, config: LinearProbeConfig, seed: int) -> dict[str, float]:
    """Train a linear classifier (weight N(0, 0.01), bias 0) by SGD; return its accuracies in [0, 1]."""
    mean = train.features.mean(dim=0) if config.standardize else torch.zeros(train.features.shape[1])
    deviation = train.features.std(dim=0).clamp_min(1e-6) if config.standardize else torch.ones_like(mean)
    x, x_test = (train.features - mean) / deviation, (test.features - mean) / deviation  # (N, F)
    num_classes = int(max(train.labels.max(), test.labels.max())) + 1

    generator = generator_for(seed, 0, 0, 0, "linear")
    classifier = nn.Linear(x.shape[1], num_classes)
    nn.init.normal_(classifier.weight, std=0.01, generator=generator)
    nn.init.zeros_(classifier.bias)
    batch_size = min(config.batch_size, len(x))
    optimizer = torch.optim.SGD(
        classifier.parameters(),
        config.lr * batch_size / 256,
        config.momentum,
        weight_decay=config.weight_decay,
    )
    num_steps = config.epochs * -(-len(x) // batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, 0, num_steps))
    for _ in range(config.epochs):
        for rows in torch.randperm(len(x), generator=generator).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(classifier(x[rows]), train.labels[rows]).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return {
            **top_accuracies(classifier(x_test), test.labels, "linear"),
            "linear_train_top1": top_accuracies(classifier(x), train.labels, "train")["train_top1"],
        }
