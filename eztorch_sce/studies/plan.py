"""A plan that fits a study into its time: which sets of views are pretrained with, and for how many epochs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_EPOCHS = 200
MIN_STEPS = 60
"""Optimizer steps of a pretraining below which another set of views is left out instead."""
SPARE = 0.06
"""Fraction of the time that is not planned: starts of worker processes, checkpoints and tables take it."""


@dataclass(frozen=True)
class Costs:
    """Seconds that the parts of a study take, as measured on this machine.

    Attributes:
        step_s: Seconds of an optimizer step, by set of views.
        steps_per_epoch: Optimizer steps of an epoch.
        start_s: Seconds from the start of a pretraining to its first step, and from its last step to its end.
        evaluate_s: Seconds to extract the features of a network and to evaluate them, by set of views.
    """

    step_s: Mapping[str, float]
    steps_per_epoch: int
    start_s: float
    evaluate_s: Mapping[str, float]

    def epoch_s(self, name: str) -> float:
        """Return the seconds of an epoch with a set of views."""
        return self.step_s[name] * self.steps_per_epoch


@dataclass(frozen=True)
class Plan:
    """Epochs of each pretraining, and what is left out.

    Attributes:
        epochs: Epochs by set of views, the same for all so that they can be compared, in the order of the runs.
        left_out: Sets of views for which there is no time.
        seconds: Predicted seconds of all that is planned.
        spare_s: Seconds left after it, in which networks can be fine-tuned.
    """

    epochs: Mapping[str, int]
    left_out: tuple[str, ...]
    seconds: float
    spare_s: float


def fit_plan(names: Sequence[str], costs: Costs, seconds: float, fixed_s: float = 0.0) -> Plan:
    """Return the longest pretrainings that fit, with as many sets of views as leave each enough steps to learn.

    The last sets are left out first. The first one always runs, for at least one epoch.

    Args:
        names: Sets of views, those that matter most first.
        costs: What was measured.
        seconds: Seconds that are left.
        fixed_s: Seconds of them that other stages need.

    >>> costs = Costs({"a": 1.0, "b": 1.0}, steps_per_epoch=10, start_s=5, evaluate_s={"a": 20.0, "b": 20.0})
    >>> fit_plan(["a", "b"], costs, seconds=2000).epochs
    {'a': 91, 'b': 91}
    >>> fit_plan(["a", "b"], costs, seconds=160).epochs, fit_plan(["a", "b"], costs, seconds=160).left_out
    ({'a': 12}, ('b',))
    """
    usable = seconds * (1 - SPARE) - fixed_s
    least = max(1, math.ceil(MIN_STEPS / costs.steps_per_epoch))
    for count in range(len(names), 0, -1):
        chosen = names[:count]
        overhead = sum(costs.start_s + costs.evaluate_s[name] for name in chosen)
        epoch_s = sum(costs.epoch_s(name) for name in chosen)
        epochs = min(MAX_EPOCHS, int((usable - overhead) // epoch_s)) if usable > overhead else 0
        if epochs >= least or count == 1:
            epochs = max(1, epochs)
            planned = overhead + epochs * epoch_s + fixed_s
            return Plan(dict.fromkeys(chosen, epochs), tuple(names[count:]), planned, max(0.0, seconds - planned))
    return Plan({}, (), fixed_s, max(0.0, seconds - fixed_s))
