"""Batch norm over the batches of several processes, in steps between which the processes exchange numbers.

On a GPU, each function is one kernel over the batch, the one that torch's SyncBatchNorm launches, which reads 16-bit
inputs without a copy in float32. On a CPU, and in compiled code, it is plain operators.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from eztorch_sce.compat import declare_shapes

_ALMOST_NONE = 1e-30  # count of a process without rows: the kernel divides by the sum of the first counts


def statistics_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of the statistics of a batch: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def local_statistics(x: Float[Tensor, "B C *size"], eps: float) -> Float[Tensor, " numbers"]:
    """Return the statistics of this process, in one tensor, for `global_statistics`.

    They are the mean (C,), the spread (C,) and the number of values per channel. The spread is the biased variance or,
    where kernels take it, 1 / sqrt(biased variance + eps).
    """
    dtype, num_channels = statistics_dtype(x), x.shape[1]
    if x.numel() == 0:
        mean, spread = x.new_zeros(num_channels, dtype=dtype), x.new_ones(num_channels, dtype=dtype)
        return torch.cat([mean, spread, x.new_full((1,), _ALMOST_NONE, dtype=dtype)])
    count = x.new_full((1,), x.numel() // num_channels, dtype=dtype)
    if _has_kernels(x):
        return torch.cat([*torch.batch_norm_stats(x, eps), count])
    variance, mean = torch.var_mean(x.to(dtype), _all_but_channels(x), correction=0)
    return torch.cat([mean, variance, count])


def global_statistics(
    x: Float[Tensor, "B C *size"],
    gathered: Float[Tensor, "processes numbers"],
    running: tuple[Float[Tensor, " C"], Float[Tensor, " C"]],
    momentum: float,
    eps: float,
) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"], Float[Tensor, " processes"]]:
    """Return the mean and 1 / sqrt(biased variance + eps) over all processes, and their counts.

    The variance is that of each process around the mean of all, so it loses no digits if the mean is large.

    Args:
        x: The batch of this process.
        gathered: Local statistics of all processes, 2 C + 1 numbers of each.
        running: Running mean and variance, to be updated; the variance is unbiased.
        momentum: Weight of the new statistics in the running ones.
        eps: Term that is added to the variance.

    Raises:
        ValueError: If the batches of all processes together have a single value per channel.
    """
    means, spreads, counts = gathered.tensor_split((x.shape[1], 2 * x.shape[1]), dim=1)
    if _has_kernels(x):
        flat = counts.reshape(-1)
        mean, invstd = torch.batch_norm_gather_stats_with_counts(x, means, spreads, *running, momentum, eps, flat)
        return mean, invstd, flat
    total = counts.sum()
    if not torch.compiler.is_compiling() and not x.is_cuda and total <= 1:  # a GPU would have to be waited for
        raise ValueError(
            f"Expected more than 1 value per channel over all processes when training, got input size {tuple(x.shape)}"
        )
    mean = (means * counts).sum(dim=0) / total
    squares = ((spreads + (means - mean).square()) * counts).sum(dim=0)
    running[0].lerp_(mean, momentum)
    running[1].lerp_(squares / (total - 1).clamp_min(1), momentum)
    return mean, (squares / total + eps).rsqrt(), counts.reshape(-1)


def normalize(
    x: Float[Tensor, "B C *size"],
    weight: Float[Tensor, " C"] | None,
    bias: Float[Tensor, " C"] | None,
    mean: Float[Tensor, " C"],
    invstd: Float[Tensor, " C"],
) -> Float[Tensor, "B C *size"]:
    """Return `(x - mean) * invstd * weight + bias` per channel, in the dtype and memory format of `x`."""
    if x.numel() == 0:
        return torch.empty_like(x)
    if _has_kernels(x):
        return torch.batch_norm_elemt(x, weight, bias, mean, invstd, 0.0)
    return F.batch_norm(x, mean, invstd.pow(-2), weight, bias, training=False, eps=0.0)


def gradient_sums(
    gradient: Float[Tensor, "B C *size"],
    x: Float[Tensor, "B C *size"],
    weight: Float[Tensor, " C"] | None,
    mean: Float[Tensor, " C"],
    invstd: Float[Tensor, " C"],
) -> tuple[Float[Tensor, "2 C"], Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Return the sums of `gradient` and of `gradient * (x - mean)`, and the gradients of weight and bias.

    All are those of this process.
    """
    if x.numel() == 0:
        sums = torch.zeros(2, x.shape[1], dtype=mean.dtype, device=x.device)
    elif _has_kernels(x):
        affine = weight is not None
        *both, of_weight, of_bias = torch.batch_norm_backward_reduce(
            gradient, x, mean, invstd, weight, True, affine, affine
        )
        return torch.stack(both), of_weight, of_bias
    else:
        dims, centered = _all_but_channels(x), x.to(mean.dtype) - _per_channel(mean, x)
        sums = torch.stack([gradient.sum(dims, dtype=mean.dtype), (gradient * centered).sum(dims)])
    return sums, sums[1] * invstd, sums[0].clone()


def gradient_of_input(
    gradient: Float[Tensor, "B C *size"],
    x: Float[Tensor, "B C *size"],
    weight: Float[Tensor, " C"] | None,
    mean: Float[Tensor, " C"],
    invstd: Float[Tensor, " C"],
    sums: Float[Tensor, "2 C"],
    counts: Float[Tensor, " processes"],
) -> Float[Tensor, "B C *size"]:
    """Return the gradient of `x`, from the sums of `gradient_sums` over all processes."""
    if x.numel() == 0:
        return torch.empty_like(x)
    if _has_kernels(x):
        numbers = counts.to(torch.int32)
        return torch.batch_norm_backward_elemt(gradient, x, mean, invstd, weight, sums[0], sums[1], numbers)
    mean_gradient, mean_product = sums / counts.sum()
    scale = invstd if weight is None else invstd * weight
    result = x.to(mean.dtype) - _per_channel(mean, x)
    result = result * _per_channel(-mean_product * invstd.square(), x) + gradient - _per_channel(mean_gradient, x)
    return (result * _per_channel(scale, x)).to(x.dtype)


def _has_kernels(x: Tensor) -> bool:
    """Return whether to launch torch's kernels. The compiler does better: it fuses operators with their neighbors."""
    return x.is_cuda and not torch.compiler.is_compiling()


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


def _per_channel(values: Float[Tensor, " C"], x: Tensor) -> Tensor:
    """Return values (C,) in a shape that multiplies `x` (B, C, ...)."""
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _two_of_channels(x: Tensor, *unused: object) -> tuple[Tensor, Tensor]:
    return (x.new_empty(x.shape[1], dtype=statistics_dtype(x)), x.new_empty(x.shape[1], dtype=statistics_dtype(x)))


def _four_of_channels(gradient: Tensor, x: Tensor, *unused: object) -> tuple[Tensor, ...]:
    return (*_two_of_channels(x), *_two_of_channels(x))


declare_shapes("aten::batch_norm_stats", _two_of_channels)
declare_shapes("aten::batch_norm_gather_stats_with_counts", _two_of_channels)
declare_shapes("aten::batch_norm_elemt", lambda x, *unused: torch.empty_like(x))
declare_shapes("aten::batch_norm_backward_reduce", _four_of_channels)
declare_shapes("aten::batch_norm_backward_elemt", lambda gradient, x, *unused: torch.empty_like(x))
