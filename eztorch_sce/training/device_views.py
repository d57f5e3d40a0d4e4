"""The device side of the views: from a uint8 batch to what the network sees."""

from torch import Tensor, nn

from eztorch_sce.augment.view import View, ViewConfig, ViewParameters
from eztorch_sce.seeding import seed_for
from eztorch_sce.types import Batch


class Views(nn.Module):
    """Crop (where the workers did not), augment and normalize each view of a batch.

    Args:
        configs: What each view is.
        seed: Of the run; what a sample draws depends on (seed, epoch, record, view) alone.
        canvas: As in `DataConfig`.
    """

    def __init__(self, configs: list[ViewConfig], seed: int, canvas: int | None) -> None:
        super().__init__()
        self.views = nn.ModuleList(View(config) for config in configs)
        self.seed, self.canvas = seed, canvas

    def forward(self, batch: Batch) -> list[Tensor]:
        """Return one float (B, C, T, S, S) per view."""
        made = []
        for number, clips in enumerate(batch.frames):  # none where nothing of the batch could be read
            view: View = self.views[number]  # type: ignore[assignment]
            if self.canvas is not None:
                clips = view.crop_on_device(clips, batch.aspect, self._seeds(batch, number, "crop"))
            made.append(view(clips, self._seeds(batch, number, "pixels")))
        return made

    def draws(self, batch: Batch) -> list[list[ViewParameters]]:
        """Return what each sample of each view draws in `forward`."""
        return [
            [view.draw(seed) for seed in self._seeds(batch, number, "pixels")]  # type: ignore[operator]
            for number, view in enumerate(self.views)
        ]

    def _seeds(self, batch: Batch, view: int, purpose: str) -> list[int]:
        drawn_for = zip(batch.epoch.tolist(), batch.record.tolist(), strict=True)
        return [seed_for(self.seed, epoch, record, view, purpose) for epoch, record in drawn_for]
