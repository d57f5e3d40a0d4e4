"""The Lightning data module of training."""

import pytorch_lightning as pl
import torch

from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.dataset import EpochSampler, TrainingClips
from eztorch_sce.data.loading import TrainingLoader
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
        """Move frames and labels to the device."""
        return batch.to(device, non_blocking=True)

    def train_dataloader(self) -> TrainingLoader:
        """Return the loader of the batches of this process."""
        return TrainingLoader(self.dataset, self.sampler, self.config, self.accumulate)
