"""Counters of what the operators and modules of torch do: FLOPs, kernel launches, bytes moved and bytes kept."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._C import DispatchKey
from torch._ops import OpOverload
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from eztorch_sce.planning.launches import launches_a_kernel


class Counter(TorchDispatchMode):
    """Count FLOPs, kernel launches on a GPU, and bytes that these kernels read and write, while the context lasts.

    FLOPs are those of torch's `FlopCounterMode`, counted here in one mode with the rest.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops, self.launches, self.moved = 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        result = func(*args, **kwargs)
        self.flops += _flops(func.overloadpacket, args, kwargs, result)
        if launches_a_kernel(func):
            self.launches += 1
            leaves = tree_leaves((args, kwargs, result))
            self.moved += sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))
        return result


@cache
def _is_composite(operator: OpOverload) -> bool:
    """Return whether an operator is defined by others, which are counted in its place."""
    key = DispatchKey.CompositeImplicitAutograd
    if operator.namespace == "prim":  # the dispatcher does not know these
        return False
    return key in operator.py_kernels or torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), key)


def _flops(operator: Any, args: Any, kwargs: Any, result: Any) -> int:
    if operator is torch.ops.aten.addmm_:  # `losses.streaming`; torch has no formula for it
        _, left, right = args
        return 2 * int(left.shape[0] * left.shape[1] * right.shape[1])
    formula = flop_registry.get(operator)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=result))


class Call(NamedTuple):
    """A call of a module: the shape of its input, and the FLOPs of its forward pass."""

    shape: torch.Size
    flops: int


@contextmanager
def calls_of(module: nn.Module | None, counter: Counter) -> Iterator[list[Call]]:
    """Yield a list of the calls of a module with one tensor, which grows while the context lasts."""
    calls, before = list[Call](), list[int]()

    def leave(_: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        flops = counter.flops - before.pop()
        if len(inputs) == 1 and isinstance(inputs[0], Tensor):
            calls.append(Call(inputs[0].shape, flops))

    with ExitStack() as hooks:
        if module is not None:
            hooks.callback(module.register_forward_pre_hook(lambda *_: before.append(counter.flops)).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        yield calls


@contextmanager
def norms_of(network: nn.Module) -> Iterator[list[tuple[int, bool]]]:
    """Yield a list of the batch norm calls: their channels, and whether gradients flow through them."""
    norms = list[tuple[int, bool]]()

    def note(norm: Any, *_: object) -> None:
        norms.append((norm.num_features, torch.is_grad_enabled()))

    with ExitStack() as hooks:
        for norm in (module for module in network.modules() if isinstance(module, _BatchNorm)):
            hooks.callback(norm.register_forward_hook(note).remove)
        yield norms


class Kept:
    """Bytes kept for the backward pass by a forward pass that runs in this context.

    They are the sizes of the storages that autograd saves, each counted once, excluding those of `known` tensors.

    Args:
        known: Tensors that are kept anyway.
        blocks: Modules that activation checkpointing would compute again.
    """

    def __init__(self, known: Iterable[Tensor], blocks: Sequence[nn.Module] = ()) -> None:
        self._known = {tensor.untyped_storage() for tensor in known}
        self._blocks = blocks
        self._storages: set[torch.UntypedStorage] = set()
        self._outside: set[torch.UntypedStorage] = set()  # of blocks, with their inputs
        self._before: list[int] = []  # bytes kept at the beginning of each block that is running
        self._most = 0  # bytes that a block keeps

    @property
    def num_bytes(self) -> int:
        """Bytes kept without checkpointing."""
        return _bytes(self._storages)

    @property
    def num_bytes_checkpointed(self) -> int:
        """Bytes kept with the blocks checkpointed: their inputs, what is outside of them, and the largest block."""
        return _bytes(self._outside) + self._most

    def __enter__(self) -> "Kept":
        self._hooks = ExitStack()
        for block in self._blocks:
            self._hooks.callback(block.register_forward_pre_hook(self._enter_block).remove)
            self._hooks.callback(block.register_forward_hook(self._leave_block).remove)
        self._hooks.enter_context(torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor))
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def _keep(self, tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage()) not in self._known:
            self._storages.add(storage)
            if not self._before:
                self._outside.add(storage)
        return tensor

    def _enter_block(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled():
            self._outside.update(leaf.untyped_storage() for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor))
        self._before.append(self.num_bytes)

    def _leave_block(self, *_: object) -> None:
        self._most = max(self._most, self.num_bytes - self._before.pop())


def _bytes(storages: Iterable[torch.UntypedStorage]) -> int:
    return sum(storage.nbytes() for storage in storages)
