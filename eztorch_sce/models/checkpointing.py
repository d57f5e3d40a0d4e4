"""Activation checkpointing: keep the inputs of a network's blocks, and compute the blocks again for the backward pass.

Source: Chen et al., 2016, arXiv:1604.06174.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """Return the blocks that a network repeats: modules of the same class at the same depth.

    Of several kinds (a stage, a residual block, a convolution with its norm), the one is chosen that keeps the fewest
    activations: the inputs of all blocks, everything within one block, and everything outside of blocks. Layers count
    as one activation each. The list is empty if no kind keeps fewer than the network as it is.
    """
    num_layers = _num_layers(network)
    kinds: dict[tuple[type[nn.Module], int], list[nn.Module]] = {}
    for name, module in network.named_modules():
        if name and any(True for _ in module.children()) and not isinstance(module, nn.ModuleList | nn.ModuleDict):
            kinds.setdefault((type(module), name.count(".")), []).append(module)

    def num_kept(blocks: list[nn.Module]) -> int:
        sizes = [_num_layers(block) for block in blocks]
        return len(blocks) + max(sizes) + num_layers - sum(sizes)

    repeated = [blocks for blocks in kinds.values() if len(blocks) > 1]
    best = min(repeated, key=num_kept, default=[])
    return best if best and num_kept(best) < num_layers else []


def _num_layers(module: nn.Module) -> int:
    return sum(1 for layer in module.modules() if not any(True for _ in layer.children()))


@contextmanager
def checkpointed(network: nn.Module) -> Iterator[list[nn.Module]]:
    """Checkpoint the repeated blocks of a network while the context lasts; yield them.

    Losses, gradients, running statistics and random numbers are the same as without. Names of parameters are too.
    """
    blocks = repeated_blocks(network)
    for block in blocks:
        block.forward = partial(_forward, block, block.forward)
    try:
        yield blocks
    finally:
        for block in blocks:
            del block.forward  # the one of the class is below it


def _forward(block: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the forward of a block, checkpointed where it keeps activations."""
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    args, kwargs = tree_map(lambda leaf: leaf, (args, kwargs))  # lists as they are now: a caller may append to them
    if torch.compiler.is_compiling():  # the compiler updates buffers once by itself
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=partial(_contexts, block), **kwargs)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of the first and the second pass, which starts from the same buffers and changes none.

    Batch norm in training does not read its running statistics, so these need no copy.
    """
    buffers = [
        (module, name, buffer.clone())
        for module in block.modules()
        if module.training and not isinstance(module, _BatchNorm)
        for name, buffer in module.named_buffers(recurse=False)
    ]
    return nullcontext(), _second_pass(block, buffers)


@contextmanager
def _second_pass(block: nn.Module, buffers: list[tuple[nn.Module, str, Tensor]]) -> Iterator[None]:
    """Start from these buffers, and from those of batch norms as they are; leave all as they are."""
    norms = [(norm, norm.momentum) for norm in block.modules() if isinstance(norm, _BatchNorm) and norm.training]
    kept = [(module, name, module._buffers[name]) for module, name, _ in buffers]
    kept += [(norm, "num_batches_tracked", norm.num_batches_tracked) for norm, _ in norms]
    for module, name, buffer in buffers:
        module._buffers[name] = buffer
    for norm, _ in norms:  # the statistics are saved for the backward pass, and so must be there
        norm.momentum, norm._buffers["num_batches_tracked"] = 0.0, None
    try:
        yield
    finally:
        for norm, momentum in norms:
            norm.momentum = momentum
        for module, name, original in kept:
            module._buffers[name] = original
