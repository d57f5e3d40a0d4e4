"""Augmentation of a training batch on its device, from raw frames to the views that the network receives."""

from typing import cast

import torch
from torch import nn

from eztorch_sce.augment.draws import ViewParameters
from eztorch_sce.augment.view import View, ViewConfig
from eztorch_sce.seeding import seed_for
from eztorch_sce.types import Batch, ViewBatch


class BatchAugmentation(nn.Module):
    """Crop (unless the workers already did), augment and normalize each view of a batch.

    Args:
        configs: One config per view.
        seed: Seed of the run. The draws of a sample depend only on (seed, epoch, record, view).
        canvas: Value of `data.canvas`: None if the workers crop the frames, or the side in pixels of the square to
            which they stretch them.
    """

    def __init__(self, configs: list[ViewConfig], seed: int, canvas: int | None) -> None:
        super().__init__()
        self.views = nn.ModuleList(View(config) for config in configs)
        self.seed, self.canvas = seed, canvas

    def forward(self, batch: Batch) -> ViewBatch:
        """Return the augmented views, float (B, 3, T, S, S) each; no views if no record of the batch could be read."""
        views = []
        for number, clips in enumerate(batch.frames):
            view = cast(View, self.views[number])
            if self.canvas is not None:
                clips = view.crop_on_device(clips, batch.aspect, self._seeds(batch, number, "crop"))
            views.append(cast(torch.Tensor, view(clips, self._seeds(batch, number, "pixels"))))
        return ViewBatch(views, batch.label, batch.record, batch.failures)

    def parameters_of(self, batch: Batch) -> list[list[ViewParameters]]:
        """Return the parameters that `forward` draws, by view and then by sample."""
        return [
            [cast(View, view).draw(seed) for seed in self._seeds(batch, number, "pixels")]
            for number, view in enumerate(self.views)
        ]

    def _seeds(self, batch: Batch, view: int, purpose: str) -> list[int]:
        samples = zip(batch.epoch.tolist(), batch.record.tolist(), strict=True)
        return [seed_for(self.seed, epoch, record, view, purpose) for epoch, record in samples]
