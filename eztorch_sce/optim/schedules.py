"""How the learning rate moves, per optimizer step."""

import math
from dataclasses import dataclass


@dataclass
class ScheduleConfig:
    """Linear warm-up from 0, then half a cosine to 0, both per step.

    Attributes:
        warmup_epochs: Epochs of warm-up; may be a fraction.
    """

    warmup_epochs: float = 0.0

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        return [] if self.warmup_epochs >= 0 else [f"{prefix}.warmup_epochs={self.warmup_epochs} must not be negative"]


def warmup_cosine(step: int, warmup_steps: int, num_steps: int) -> float:
    """Return the factor on the learning rate at `step` of `num_steps`.

    >>> [round(warmup_cosine(step, warmup_steps=2, num_steps=6), 2) for step in range(6)]
    [0.0, 0.5, 1.0, 0.85, 0.5, 0.15]
    """
    if step < warmup_steps:
        return step / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
