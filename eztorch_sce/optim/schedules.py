"""How the learning rate moves, per optimizer step."""

import math
from dataclasses import dataclass, field


@dataclass
class ScheduleConfig:
    """Linear warm-up from 0, then half a cosine to 0, or steps down; all per optimizer step.

    Attributes:
        warmup_epochs: Epochs of warm-up; may be a fraction.
        milestones: Empty for the cosine; or the epochs after which the rate falls to a tenth, in rising order.
    """

    warmup_epochs: float = 0.0
    milestones: list[float] = field(default_factory=list)

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        found = []
        if self.warmup_epochs < 0:
            found.append(f"{prefix}.warmup_epochs={self.warmup_epochs} must not be negative")
        if sorted(self.milestones) != list(self.milestones) or any(epoch <= 0 for epoch in self.milestones):
            found.append(f"{prefix}.milestones={list(self.milestones)} must be positive epochs in rising order")
        return found

    def factor(self, step: int, num_steps: int, max_epochs: int) -> float:
        """Return the factor on the learning rate at `step` of the `num_steps` that `max_epochs` take."""
        steps_per_epoch = num_steps / max_epochs
        warmup_steps = round(self.warmup_epochs * steps_per_epoch)
        if self.milestones and step >= warmup_steps:
            return float(0.1 ** sum(step >= round(epoch * steps_per_epoch) for epoch in self.milestones))
        return warmup_cosine(step, warmup_steps, num_steps)


def warmup_cosine(step: int, warmup_steps: int, num_steps: int) -> float:
    """Return the factor on the learning rate at `step` of `num_steps`.

    >>> [round(warmup_cosine(step, warmup_steps=2, num_steps=6), 2) for step in range(6)]
    [0.0, 0.5, 1.0, 0.85, 0.5, 0.15]
    """
    if step < warmup_steps:
        return step / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
