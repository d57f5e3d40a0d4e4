"""The Lightning data module of training."""

import pytorch_lightning as pl
import torch

from eztorch_sce import distributed
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.dataset import EpochSampler, TrainingClips
from eztorch_sce.data.loading import TimedLoader, clip_loader
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.types import Batch, InputSpec


class TrainingData(pl.LightningDataModule):
    """Random clips for pretraining and fine-tuning.

    Args:
        config: Settings of the data.
        manifest: The records.
        views: Settings of the views.
        spec: Frames and length of a clip.
        seed: Seed of the run.
        accumulate: Loader batches per optimizer step.
    """

    def __init__(
        self,
        config: DataConfig,
        manifest: Manifest,
        views: list[ViewConfig],
        spec: InputSpec,
        seed: int,
        accumulate: int = 1,
    ) -> None:
        super().__init__()
        self.config, self.accumulate = config, accumulate
        self.dataset = TrainingClips(
            manifest, views, spec, config.build_decoder(), seed, config.canvas, config.near_power
        )
        self.sampler = EpochSampler(len(manifest.records), seed, shuffle=True)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move frames and labels to the device; the other columns are used on the host and stay there."""
        frames = [clips.to(device, non_blocking=True) for clips in batch.frames]
        return batch._replace(frames=frames, label=batch.label.to(device, non_blocking=True))

    def train_dataloader(self) -> TimedLoader:
        """Return the loader of the batches of this process."""
        batch_size = self.config.samples_per_step // (distributed.world_size() * self.accumulate)
        return clip_loader(self.dataset, self.sampler, batch_size, self.config.workers(), drop_last=True)
