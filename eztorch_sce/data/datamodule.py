"""The Lightning data module of training."""

import pytorch_lightning as pl
import torch

from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.augment.views import Views
from eztorch_sce.cores import cores_per_process, num_usable_cores
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.dataset import EpochSampler
from eztorch_sce.data.loading import Division, TrainerSettings, TrainingLoader, training_clips
from eztorch_sce.data.shared_memory import in_units
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.launch import is_first_process
from eztorch_sce.progress import print_above
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
        self.dataset = training_clips(config, manifest, views, spec, seed)
        self.sampler = EpochSampler(len(manifest.records), seed, shuffle=True)
        self._loader: TrainingLoader | None = None
        if trainer is not None:
            self._loader = TrainingLoader(self.dataset, self.sampler, config, Division.of(trainer))
            if config.num_workers is None and is_first_process():
                print_above(f"loading: {self._loader.supply}, {self._resources(trainer.devices or 1)}")

    def _resources(self, num_processes: int) -> str:
        """Return the cores and the shared memory of each process, in words."""
        assert self._loader is not None
        cores = cores_per_process(num_usable_cores(), num_processes)
        each = "" if num_processes == 1 else f" for each of {num_processes} processes"
        noun = "core" if cores == 1 else "cores"
        return f"from {cores} {noun}{each}; at most {in_units(self._loader.bytes_ahead)} of shared memory{each}"

    @property
    def augmentation(self) -> Views:
        """What turns a batch into views on the device; see `TrainingLoader.augment`."""
        return self.train_dataloader().augment

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move frames and labels to the device."""
        return batch.to(device, non_blocking=True)

    def train_dataloader(self) -> TrainingLoader:
        """Return the loader of the batches of this process."""
        if self._loader is None:
            self._loader = TrainingLoader(self.dataset, self.sampler, self.config, Division.launched())
        return self._loader

    def teardown(self, stage: str) -> None:
        """End the worker processes, which would keep their memory during the evaluation that follows."""
        if self._loader is not None:
            self._loader.end_workers()
