"""Parameter groups: weight decay and learning rates per group."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from eztorch_sce.optim.base import OptimizerConfig


def effective_lr(base_lr: float, batch_size: int) -> float:
    """Return the learning rate for a global batch of `batch_size` samples; `base_lr` is for 256.

    >>> effective_lr(base_lr=0.3, batch_size=1024)
    1.2
    """
    return base_lr * batch_size / 256


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Return two parameter groups: weights with decay, and norms and biases (at most one dimension) without."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


def with_rates(config: OptimizerConfig, sets: Sequence[tuple[Iterable[nn.Parameter], float]]) -> Optimizer:
    """Return one optimizer that gives each set of parameters its own learning rate.

    Args:
        config: Optimizer config, whose own `lr` is ignored.
        sets: Sets of parameters with their effective learning rates; at least one set must not be empty.
    """
    listed = [(list(parameters), lr) for parameters, lr in sets]
    merged, *others = [config.build(parameters, lr) for parameters, lr in listed if parameters]
    for other in others:
        for group in other.param_groups:
            merged.add_param_group(group)
    return merged


def blocks_in_order(net: nn.Module) -> list[nn.Module]:
    """Return the children of a network that have parameters, from input to output; sequences are flattened."""
    blocks: list[nn.Module] = []
    for child in net.children():
        blocks += blocks_in_order(child) if isinstance(child, nn.Sequential | nn.ModuleList) else [child]
    return [block for block in blocks if len(list(block.parameters())) > 0]
