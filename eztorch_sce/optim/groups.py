"""Which parameters decay, and which learn at a rate of their own."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Return two parameter groups: matrices and kernels with weight decay, norms and biases (one dimension) without."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    return [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]


def with_rates(config: Any, parts: Sequence[tuple[Iterable[nn.Parameter], float]]) -> Optimizer:
    """Return one optimizer for several sets of parameters, each at its own learning rate.

    Args:
        config: A registered optimizer config.
        parts: Parameters and their effective learning rate; sets without parameters are passed over.
    """
    built = [config.build(given, lr) for parameters, lr in parts if (given := list(parameters))]
    for other in built[1:]:
        for group in other.param_groups:
            built[0].add_param_group(group)
    merged: Optimizer = built[0]
    return merged


def blocks_in_order(net: nn.Module) -> list[nn.Module]:
    """Return the parts of a network that have parameters, first to last: its children, sequences taken apart."""
    blocks: list[nn.Module] = []
    for child in net.children():
        blocks += blocks_in_order(child) if isinstance(child, nn.Sequential | nn.ModuleList) else [child]
    return [block for block in blocks if any(True for _ in block.parameters())]
