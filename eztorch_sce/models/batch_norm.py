"""Batch norm with the statistics of all processes, or of each chunk of the batch as separate processes have them."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eztorch_sce.distributed import world_size
from eztorch_sce.models.batch_statistics import (
    global_statistics,
    gradient_of_input,
    gradient_sums,
    local_statistics,
    normalize,
    statistics_dtype,
)


class SplitBatchNorm(_BatchNorm):
    """In training, normalize each of `num_splits` chunks of the batch by its own statistics; in eval, plain batch norm.

    If the batch does not divide evenly, the last chunks have one sample fewer. The running statistics are those of the
    first chunk, as distributed training keeps those of the first device.

    Source: the CIFAR recipe of He et al., CVPR 2020, arXiv:1911.05722.

    Args:
        num_features, settings: As in `torch.nn.BatchNorm2d`.
        num_splits: Number of chunks; >= 1.
    """

    def __init__(self, num_features: int, num_splits: int, **settings: Any) -> None:
        super().__init__(num_features, **settings)
        self.num_splits = num_splits

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions."""

    def forward(self, x: Float[Tensor, "B C *size"]) -> Float[Tensor, "B C *size"]:
        """Normalize each channel."""
        if not self.training:
            return super().forward(x)
        first, *others = x.tensor_split(min(self.num_splits, len(x)))
        chunks = [super().forward(first)]
        for chunk in others:
            chunks.append(F.batch_norm(chunk, None, None, self.weight, self.bias, training=True, eps=self.eps))
        return torch.cat(chunks)


def split_batch_norms(module: nn.Module, num_splits: int) -> nn.Module:
    """Return the module with each batch norm replaced by a `SplitBatchNorm` of the same weights and name."""
    if isinstance(module, _BatchNorm):
        split = SplitBatchNorm(
            module.num_features,
            num_splits,
            eps=module.eps,
            momentum=module.momentum,
            affine=module.affine,
            track_running_stats=module.track_running_stats,
        )
        split.load_state_dict(module.state_dict())
        return split
    for name, child in module.named_children():
        setattr(module, name, split_batch_norms(child, num_splits))
    return module


class SyncBatchNorm(_BatchNorm):
    """In training, normalize by the statistics of the batches of all processes; in eval, plain batch norm.

    It is exact if the batches differ in size, works on CPUs and GPUs, and never makes the host wait for the device.
    Each layer gathers 2 C + 1 numbers in the forward pass, also without gradients, and sums 2 C in the backward pass.
    The statistics are computed in float32 at least, under autocast too.

    Args:
        num_features, settings: As in `torch.nn.BatchNorm2d`.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions from two on.

        Raises:
            ValueError: If there are no channels.
        """
        if input.ndim < 2:
            raise ValueError(f"expected at least 2D input (got {input.ndim}D input)")

    def forward(self, x: Float[Tensor, "B C *size"]) -> Float[Tensor, "B C *size"]:
        """Normalize each channel. In training, every process must call this.

        Raises:
            ValueError: If the batches of all processes together have a single value per channel.
        """
        if not self.training or world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        x, dtype = _dense(x), statistics_dtype(x)
        weight = None if self.weight is None else self.weight.to(dtype)
        bias = None if self.bias is None else self.bias.to(dtype)
        with torch.no_grad():
            mean, invstd, counts = self._global_statistics(x, dtype)
        normalized: Tensor = _Normalize.apply(x, weight, bias, mean, invstd, counts)  # type: ignore[no-untyped-call]
        return normalized

    def _global_statistics(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean, inverse deviation and counts over all processes, and update the running statistics."""
        gathered = _gather(local_statistics(x, self.eps))
        mean, var = self.running_mean, self.running_var
        if not self.track_running_stats or mean is None or var is None:
            unused = gathered.new_zeros(x.shape[1]), gathered.new_zeros(x.shape[1])
            return global_statistics(x, gathered, unused, 1.0, self.eps)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if self.momentum is not None and mean.dtype == dtype:
            return global_statistics(x, gathered, (mean, var), self.momentum, self.eps)
        latest = gathered.new_zeros(x.shape[1]), gathered.new_zeros(x.shape[1])
        statistics = global_statistics(x, gathered, latest, 1.0, self.eps)
        for average, value in zip((mean, var), latest, strict=True):
            average.lerp_(value.to(average.dtype), self._weight_of_latest(average))
        return statistics

    def _weight_of_latest(self, average: Tensor) -> float | Tensor:
        """Return the momentum; without one, the running statistics are the mean of those of all batches."""
        if self.momentum is not None:
            return self.momentum
        assert self.num_batches_tracked is not None
        return self.num_batches_tracked.reciprocal().to(average.dtype)


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        invstd: Tensor,
        counts: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, invstd, counts)
        return normalize(x, weight, bias, mean, invstd)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, invstd, counts = ctx.saved_tensors
        gradient = _dense(gradient)
        sums, of_weight, of_bias = gradient_sums(gradient, x, weight, mean, invstd)
        of_x = None
        if ctx.needs_input_grad[0]:
            dist.all_reduce(sums)  # those of weight and bias are of this process: who trains averages them
            of_x = gradient_of_input(gradient, x, weight, mean, invstd, sums, counts)
        needs_weight, needs_bias = ctx.needs_input_grad[1:3]
        return of_x, of_weight if needs_weight else None, of_bias if needs_bias else None, None, None, None


# Its older name is deprecated in torch 2.13.
_all_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def _gather(row: Tensor) -> Tensor:
    """Return the rows (N,) of all processes as (processes, N), without gradients."""
    gathered = row.new_empty(world_size() * len(row))
    _all_gather(gathered, row)
    return gathered.view(world_size(), -1)


def _dense(x: Tensor) -> Tensor:
    """Return a tensor in one of the memory formats that the kernels read without a copy."""
    formats = (torch.contiguous_format, torch.channels_last, torch.channels_last_3d)
    return x if any(x.is_contiguous(memory_format=each) for each in formats) else x.contiguous()


def sync_batch_norms(module: nn.Module) -> nn.Module:
    """Make each batch norm of torch in the module a `SyncBatchNorm`, and return the module.

    Only the class changes: names, parameters, buffers and hooks stay. Subclasses, among them `SplitBatchNorm`, are left
    alone, because they normalize in a way of their own; so is a `torch.nn.SyncBatchNorm` with a `process_group`.
    """
    for each in module.modules():
        if type(each) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d) or _is_over_all_processes(each):
            each.__class__ = SyncBatchNorm
    return module


def _is_over_all_processes(module: nn.Module) -> bool:
    return type(module) is nn.SyncBatchNorm and module.process_group is None
