"""Tensors that are sharded over processes: shards, whole tensors and norms. Plain tensors pass through unchanged."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

T = TypeVar("T")


def is_sharded(tensor: object) -> bool:
    """Return whether a tensor is sharded: a `DTensor` of torch, whose module takes long to import."""
    module: Any = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def shard_of(tensor: Tensor) -> Tensor:
    """Return the shard of this process, which shares its memory with the sharded tensor; it may be empty.

    Differentiable.
    """
    sharded: Any = tensor
    local: Tensor = sharded.to_local() if is_sharded(tensor) else tensor
    return local


def whole(tensor: Tensor) -> Tensor:
    """Return the whole tensor, on the device of the shards. Every process must call this."""
    sharded: Any = tensor
    result: Tensor = sharded.full_tensor() if is_sharded(tensor) else tensor
    return result


def whole_on_host(state: T) -> T:
    """Return a nested state (mappings, lists, tuples) with each sharded tensor replaced by the whole one on the host.

    Other values stay as they are. Every process must call this, and one tensor is gathered at a time. Only the first
    process keeps the gathered tensors; the others get empty ones in their place.
    """
    result: Any = state
    if is_sharded(state):
        full = whole(result).detach()
        return full.cpu() if dist.get_rank() == 0 else full.new_empty(0, device="cpu")  # type: ignore[return-value]
    if isinstance(state, Mapping):
        result = {key: whole_on_host(value) for key, value in state.items()}
    elif type(state) in (list, tuple):
        result = type(state)(whole_on_host(value) for value in state)  # type: ignore[call-arg, attr-defined]
    return result  # type: ignore[no-any-return]


def sharded_like(full: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor, the same in all processes, sharded as another one is; or as it is, if that is plain.

    The processes exchange nothing.
    """
    if not is_sharded(like):
        return full
    from torch.distributed.tensor import DTensor

    sharded: Any = like
    mesh, num_rows = sharded.device_mesh, full.shape[0]
    size = -(-num_rows // mesh.size())  # as torch.chunk divides rows: the last processes may have fewer, or none
    start, end = (min(number * size, num_rows) for number in (dist.get_rank(), dist.get_rank() + 1))
    own = full[start:end].to(sharded.device).contiguous()
    stride = torch.empty(full.shape, device="meta").stride()
    result: Tensor = DTensor.from_local(own, mesh, sharded.placements, shape=full.shape, stride=stride)
    return result


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the L2 norm of all numbers of some tensors of one device, of which all are sharded or none is.

    Every process must call this if they are sharded.
    """
    norm = nn.utils.get_total_norm([shard_of(tensor) for tensor in tensors])
    if not any(map(is_sharded, tensors)):
        return norm
    squared = norm.square()
    dist.all_reduce(squared)
    return squared.sqrt()


@contextmanager
def gathered(network: nn.Module) -> Iterator[None]:
    """Within this context, each process holds the whole weights of a network, and calls it at its own pace.

    Every process must enter and leave it. The weights must not change, and a state dict must not be taken.
    """
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    units: list[Any] = [] if fsdp is None else [each for each in network.modules() if isinstance(each, fsdp.FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(True, recurse=False)
            unit.reshard()


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load a state dict of whole tensors into an optimizer whose parameters may be sharded."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def own(value: Any, parameter: Tensor) -> Any:
        has_shape = isinstance(value, Tensor) and value.ndim > 0 and value.shape == parameter.shape
        return sharded_like(value, parameter) if has_shape else value

    states = {
        number: {name: own(value, parameters[number]) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": states})
