"""Checkpoints for resuming (`last.ckpt`) and intermediate weights files for sharing."""

from functools import cached_property
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from eztorch_sce.data.sources.provenance import Provenance
from eztorch_sce.data.sources.splits import Splits
from eztorch_sce.distributed import rank
from eztorch_sce.models.backbones.base import Backbone, BackboneConfig
from eztorch_sce.models.weights import save_weights
from eztorch_sce.types import InputSpec


def resumable_checkpoint(run_dir: Path) -> ModelCheckpoint:
    """Return the callback that writes `last.ckpt` after every epoch."""
    return ModelCheckpoint(dirpath=run_dir, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)


class SaveBackbone(pl.Callback):
    """Write the backbone every few epochs, to `backbone-epoch-0010.pt` and so on, and whenever asked to.

    Args:
        run_dir: Run directory.
        every: Epochs between two files, or None to write only when asked.
        backbone: The backbone in training.
        config: Config of the backbone.
        spec: Input of the backbone.
        splits: The data, which the files remember.
    """

    def __init__(
        self,
        run_dir: Path,
        every: int | None,
        backbone: Backbone,
        config: BackboneConfig,
        spec: InputSpec,
        splits: Splits,
    ) -> None:
        self.run_dir, self.every, self.backbone = run_dir, every, backbone
        self.config, self.spec, self.splits = config, spec, splits

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file of this epoch, if there is one."""
        epoch = trainer.current_epoch + 1
        if self.every and epoch % self.every == 0:
            self.write(f"backbone-epoch-{epoch:04d}.pt")

    def write(self, name: str) -> None:
        """Write a weights file to the run directory, in the first process only."""
        if rank() == 0:
            classes = self.splits.train.classes
            save_weights(self.run_dir / name, self.backbone, self.config, self.spec, None, classes, self.provenance)

    @cached_property
    def provenance(self) -> Provenance:
        """The records of the training."""
        return Provenance.of(self.splits, labeled=False)
