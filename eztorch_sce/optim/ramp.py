"""A setting of a loss that changes during training."""

import math
from dataclasses import dataclass


@dataclass
class Ramp:
    """Go from `start` to the value of the setting over the first part of training, then stay.

    Attributes:
        start: Value at the first step, in the range of the setting; null is no ramp.
        over: Share of training that it takes, in (0, 1].
        shape: "linear", or "cosine" for half a cosine.
    """

    start: float | None = None
    over: float = 1.0
    shape: str = "cosine"

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        found = []
        if not 0 < self.over <= 1:
            found.append(f"{prefix}.over={self.over} must be above 0 and at most 1")
        if self.shape not in ("linear", "cosine"):
            found.append(f"{prefix}.shape={self.shape} must be one of linear, cosine")
        return found

    def at(self, progress: float, end: float) -> float:
        """Return the value at `progress` in [0, 1] of training of a setting whose value is `end`.

        >>> Ramp(start=1.0, over=0.5, shape="linear").at(progress=0.25, end=0.0)
        0.5
        """
        if self.start is None:
            return end
        share = min(1.0, progress / self.over)
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + (end - self.start) * share


NO_RAMP = Ramp()
