"""From samples to a batch."""

import torch

from eztorch_sce.types import Batch, Failure, Sample


def collate(items: list[Sample | Failure]) -> Batch:
    """Stack what was read; what was not travels beside the tensors. A batch of failures alone has no views."""
    samples = [item for item in items if isinstance(item, Sample)]
    views = zip(*(sample.views for sample in samples), strict=True)
    return Batch(
        views=[torch.stack(view) for view in views],
        label=torch.tensor([sample.label for sample in samples], dtype=torch.long),
        record=torch.tensor([sample.record for sample in samples], dtype=torch.long),
        epoch=torch.tensor([sample.epoch for sample in samples], dtype=torch.long),
        aspect=torch.tensor([sample.aspect for sample in samples], dtype=torch.float32),
        failures=[item for item in items if isinstance(item, Failure)],
    )
