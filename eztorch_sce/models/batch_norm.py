"""Batch norm of a part of the batch, as many small devices would have it, on one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SplitBatchNorm(_BatchNorm):
    """Normalize each of `num_splits` equal parts of the batch by its own statistics in training; else batch norm.

    A batch that does not divide gives its last part fewer samples. Running statistics are those of the first part, as
    they are those of the first device in distributed training.

    Source: the CIFAR recipe of He et al., CVPR 2020, arXiv:1911.05722.

    Args:
        num_features, eps, momentum, affine, track_running_stats: As in `torch.nn.BatchNorm2d`.
        num_splits: Number of parts; >= 1.
    """

    def __init__(self, num_features: int, num_splits: int, **settings: object) -> None:
        super().__init__(num_features, **settings)  # type: ignore[arg-type]
        self.num_splits = num_splits

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, ...)."""
        if not self.training:
            return super().forward(x)
        first, *others = x.tensor_split(min(self.num_splits, len(x)))
        parts = [super().forward(first)]
        parts += [
            F.batch_norm(part, None, None, self.weight, self.bias, training=True, eps=self.eps) for part in others
        ]
        return torch.cat(parts)


def split_batch_norms(module: nn.Module, num_splits: int) -> nn.Module:
    """Return the module with each batch norm in it replaced by a `SplitBatchNorm` of the same weights and names."""
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
