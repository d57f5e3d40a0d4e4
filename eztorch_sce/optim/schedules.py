"""Learning rate schedules, per optimizer step."""

import math
from dataclasses import dataclass

from eztorch_sce.settings import Settings, setting, show


@dataclass
class ScheduleConfig(Settings):
    """Linear warm-up from 0, then a cosine decay to 0, or a drop to a tenth at each milestone."""

    warmup_epochs: float | None = setting(
        0.0, at_least=0, help="Epochs of linear warm-up; may be fractional; null chooses from the data, or is 0."
    )
    milestones: list[float] = setting(
        [],
        above=0,
        help="Epochs after which the rate drops to a tenth, in ascending order; empty for the cosine decay.",
    )

    def conflicts(self, prefix: str) -> list[str]:
        """Return a message if the milestones are out of order."""
        if sorted(self.milestones) != list(self.milestones):
            return [f"{prefix}.milestones={show(self.milestones)} must be in ascending order"]
        return []

    def factor(self, step: int, num_steps: int, max_epochs: int) -> float:
        """Return the factor that multiplies the learning rate.

        Args:
            step: Optimizer step, from 0.
            num_steps: Optimizer steps of the whole training.
            max_epochs: Epochs of the whole training.
        """
        steps_per_epoch = num_steps / max_epochs
        warmup_steps = round((self.warmup_epochs or 0) * steps_per_epoch)
        if self.milestones and step >= warmup_steps:
            return float(0.1 ** sum(step >= round(epoch * steps_per_epoch) for epoch in self.milestones))
        return warmup_cosine(step, warmup_steps, num_steps)


def warmup_cosine(step: int, warmup_steps: int, num_steps: int) -> float:
    """Return the factor at `step` of `num_steps`: linear warm-up from 0 to 1, then a cosine decay to 0.

    >>> [round(warmup_cosine(step, warmup_steps=2, num_steps=6), 2) for step in range(6)]
    [0.0, 0.5, 1.0, 0.85, 0.5, 0.15]
    """
    if step < warmup_steps:
        return step / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
