"""The Lightning data module of training."""

import pytorch_lightning as pl
import torch

from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.dataset import EpochSampler, TrainingClips
from eztorch_sce.data.loading import Division, TrainerSettings, TrainingLoader
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
        trainer: Settings of the trainer, resolved for a machine; None is for a use in a single process.

    Raises:
        ConfigError: If shared memory has no room for the batches of the trainer.
    """

    def __init__(
        self,
        config: DataConfig,
        manifest: Manifest,
        views: list[ViewConfig],
        spec: InputSpec,
        seed: int,
        trainer: TrainerSettings | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.dataset = TrainingClips(
            manifest, views, spec, config.build_decoder(), seed, config.canvas, config.near_power
        )
        self.sampler = EpochSampler(len(manifest.records), seed, shuffle=True)
        self._loader: TrainingLoader | None = None
        if trainer is not None:
            self._loader = TrainingLoader(self.dataset, self.sampler, config, Division.of(trainer))

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move frames and labels to the device."""
        return batch.to(device, non_blocking=True)

    def train_dataloader(self) -> TrainingLoader:
        """Return the loader of the batches of this process."""
        return self._loader or TrainingLoader(self.dataset, self.sampler, self.config, Division.launched())
