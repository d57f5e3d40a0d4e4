"""Checkpoints for resuming (`last.ckpt`) and intermediate weights files for sharing."""

from functools import cached_property
from pathlib import Path
from typing import cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from eztorch_sce.data.sources.provenance import Provenance
from eztorch_sce.data.sources.splits import Splits
from eztorch_sce.models.backbones.base import Backbone, BackboneConfig
from eztorch_sce.models.weights import save_weights
from eztorch_sce.types import InputSpec


def resumable_checkpoint(run_dir: Path) -> ModelCheckpoint:
    """Return the callback that writes `last.ckpt` after every epoch."""
    return ModelCheckpoint(dirpath=run_dir, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)


class SaveBackbone(pl.Callback):
    """Write the backbone every few epochs, to `backbone-epoch-0010.pt` and so on.

    Args:
        run_dir: Run directory.
        every: Epochs between two files.
        config: Registered config of the backbone.
        spec: Input of the backbone.
        splits: The data, which the files remember.
    """

    def __init__(self, run_dir: Path, every: int, config: BackboneConfig, spec: InputSpec, splits: Splits) -> None:
        self.run_dir, self.every, self.config, self.spec, self.splits = run_dir, every, config, spec, splits

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file, in the first process only."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every == 0 and trainer.is_global_zero:
            backbone = cast(Backbone, pl_module.method.backbone)  # type: ignore[union-attr]
            file = self.run_dir / f"backbone-epoch-{epoch:04d}.pt"
            save_weights(file, backbone, self.config, self.spec, None, [], self.provenance)

    @cached_property
    def provenance(self) -> Provenance:
        """The records of the training."""
        return Provenance.of(self.splits, labeled=False)
