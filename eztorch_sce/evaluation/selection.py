"""Train records that are held out to choose a learning rate, so that the test split is scored once."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from eztorch_sce.data.sources.groups import merge
from eztorch_sce.data.sources.holdout import held_out
from eztorch_sce.errors import ConfigError
from eztorch_sce.types import FeatureBank

_CHUNK = 1024  # rows compared at once; limits the memory


def validation_rows(
    labels: Int64[Tensor, " N"],
    classes: Sequence[str],
    fraction: float,
    seed: int,
    groups: npt.NDArray[np.int64] | None = None,
) -> Bool[Tensor, " N"]:
    """Return which train records are held out: a fraction of each class, never a part of a group.

    Args:
        labels: Class index of each train record.
        classes: Class names.
        fraction: Fraction of each class.
        seed: Seed of the draw.
        groups: Group of each record, or None if every record stands alone.

    Raises:
        ConfigError: If no class has two records, or two groups.
    """
    mask = held_out(labels.numpy().astype(np.int32), classes, fraction, f"validation {seed}", groups)
    if not mask.any():
        unit = "records" if groups is None else "records that differ"
        raise ConfigError(
            [
                f"lrs: no class of the train split has two {unit}, so none can be held out to choose the learning "
                "rate: remove lrs and set optimizer.lr to one rate, or set select_on=test"
            ]
        )
    return torch.from_numpy(mask)


def groups_of(bank: FeatureBank) -> npt.NDArray[np.int64] | None:
    """Return the group of each record, int64 (N,): the group in the data, joined with that of equal features.

    Records with equal features are one file under two names. Returns None if every record stands alone.
    """
    codes = torch.cat([_hashes(bank.features[start : start + _CHUNK]) for start in range(0, len(bank.labels), _CHUNK)])
    equal = codes.numpy()
    if bank.groups is not None:
        return merge(equal, bank.groups.numpy())
    return equal if len(np.unique(equal)) < len(equal) else None


def _hashes(rows: Tensor) -> Int64[Tensor, " N"]:
    """Return a hash of the bits of each row; additions and multiplications of int64 wrap around."""
    bits = rows.float().contiguous().view(torch.int32).long()
    factors = torch.randint(2**62, (rows.shape[1],), generator=torch.Generator().manual_seed(0))
    return (bits * factors).sum(dim=1)
