"""Parameter groups: weight decay and learning rates per group."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

LR_HELP = "Learning rate for a batch of 256; scaled linearly with the global batch."


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Return two parameter groups: weights with decay, and norms and biases (one dimension) without."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    return [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]


def with_rates(config: Any, parts: Sequence[tuple[Iterable[nn.Parameter], float]]) -> Optimizer:
    """Return one optimizer with a learning rate per set of parameters.

    Args:
        config: A registered optimizer config.
        parts: Sets of parameters and their effective learning rates; empty sets are skipped.
    """
    built = [config.build(given, lr) for parameters, lr in parts if (given := list(parameters))]
    for other in built[1:]:
        for group in other.param_groups:
            built[0].add_param_group(group)
    merged: Optimizer = built[0]
    return merged


def blocks_in_order(net: nn.Module) -> list[nn.Module]:
    """Return the children of a network that have parameters, first to last; sequences are flattened."""
    blocks: list[nn.Module] = []
    for child in net.children():
        blocks += blocks_in_order(child) if isinstance(child, nn.Sequential | nn.ModuleList) else [child]
    return [block for block in blocks if any(True for _ in block.parameters())]
