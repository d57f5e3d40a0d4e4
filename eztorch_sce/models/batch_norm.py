"""Split batch norm: normalize each chunk of the batch separately, as separate devices would."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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
