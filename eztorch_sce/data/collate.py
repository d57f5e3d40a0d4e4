"""Collation of samples into a batch."""

import torch

from eztorch_sce.data.parcel import Parcel
from eztorch_sce.errors import LoadingError
from eztorch_sce.types import Batch, Failure, Sample


def collate(items: list[Sample | Failure] | Parcel | LoadingError) -> Batch | Parcel | LoadingError:
    """Stack samples, unless a worker process has done so already."""
    return stack(items) if isinstance(items, list) else items


def stack(items: list[Sample | Failure]) -> Batch:
    """Stack the samples and list the failures separately. A batch of failures only has no frames."""
    samples = [item for item in items if isinstance(item, Sample)]
    frames_by_view = zip(*(sample.frames for sample in samples), strict=True)
    return Batch(
        frames=[torch.stack(frames) for frames in frames_by_view],
        label=torch.tensor([sample.label for sample in samples], dtype=torch.long),
        record=torch.tensor([sample.record for sample in samples], dtype=torch.long),
        epoch=torch.tensor([sample.epoch for sample in samples], dtype=torch.long),
        aspect=torch.tensor([sample.aspect for sample in samples], dtype=torch.float32),
        failures=[item for item in items if isinstance(item, Failure)],
    )
