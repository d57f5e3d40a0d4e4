"""Trainings by Lightning on the fake GPU: what the host waits for in each step."""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from fake_gpu import CUDA, FakeGPU, on_fake_gpu
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch.utils.data._utils.pin_memory import pin_memory

from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.data.collate import collate
from eztorch_sce.data.datamodule import TrainingData
from eztorch_sce.training.callbacks import OwnDraws, RunProgress, StopTogether
from eztorch_sce.training.config import TrainerConfig
from eztorch_sce.training.nonfinite import StepGuard
from eztorch_sce.training.nonfinite_files import NonFiniteFiles
from eztorch_sce.types import Batch, Sample

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass
class Step:
    """What happened from the end of a training step to the end of the next: loading, views, step and logging."""

    waits: dict[str, int]
    kernels: dict[str, int]
    failures: dict[str, int]
    collectives: dict[str, int]


@dataclass
class Frames:
    """Shape of the batches of a training."""

    batch_size: int = 4
    num_frames: int = 1
    canvas: int | None = None
    num_classes: int = 2

    def batches(self, views: Sequence[ViewConfig], count: int) -> list[Batch]:
        """Return batches as a loader makes them, in pinned memory."""
        sides = [self.canvas or view.size or 32 for view in views]
        return [
            pin_memory(collate([self._sample(sides, number * self.batch_size + row) for row in range(self.batch_size)]))
            for number in range(count)
        ]

    def _sample(self, sides: Sequence[int], record: int) -> Sample:
        frames = [torch.zeros(3, self.num_frames, side, side, dtype=torch.uint8) for side in sides]
        return Sample(frames, label=record % self.num_classes, record=record, epoch=0, aspect=1.0)


class _Data(pl.LightningDataModule):
    """Batches that are made in advance; they move to the device as those of any training."""

    transfer_batch_to_device = TrainingData.transfer_batch_to_device

    def __init__(self, batches: Sequence[Batch]) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> Any:
        return _Loader(self.batches)


class _Loader:
    """Iterate over batches. Lightning would take a list for several loaders."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Record(pl.Callback):
    """Set the counts of each step aside. It comes first, so that what other callbacks do counts for the next step."""

    def __init__(self, counts: FakeGPU) -> None:
        self.counts = counts
        self.steps: list[Step] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.counts.clear()

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        counts = self.counts
        counters: list[Counter[str]] = [counts.waits, counts.kernels, counts.failures, counts.collectives]
        self.steps.append(Step(*(dict(counter) for counter in counters)))
        counts.clear()


class _Accelerator(CPUAccelerator):
    """Accelerator that accepts the fake GPU."""

    def setup_device(self, device: torch.device) -> None:
        """Do nothing: there is no device to set up."""


class _FakeDevice(SingleDeviceStrategy):
    """Strategy for the fake GPU."""

    def model_to_device(self) -> None:
        """Move the module without its values."""
        module = self.lightning_module
        assert module is not None
        on_fake_gpu(module)
        module._device = CUDA

    def teardown(self) -> None:
        """Leave the module there: it has no values to bring back."""


def _precision(name: str) -> Precision:
    return Precision() if name == "32-true" else MixedPrecision(name, "cuda")  # type: ignore[arg-type]


def train_on_fake_gpu(
    module: pl.LightningModule,
    batches: Sequence[Batch],
    precision: str,
    log_every: int,
    counts: FakeGPU,
    on_nonfinite: str = "stop",
) -> list[Step]:
    """Train on batches for one epoch, and return what happened in each step; to be called in `fake_gpu`."""
    record = _Record(counts)
    settings = TrainerConfig(accelerator="gpu", on_nonfinite=on_nonfinite)
    guard = StepGuard(NonFiniteFiles(Path("run"), str, {}), settings)
    trainer = pl.Trainer(
        strategy=_FakeDevice(CUDA, _Accelerator(), precision_plugin=_precision(precision)),
        max_epochs=1,
        log_every_n_steps=log_every,
        logger=False,
        callbacks=[record, RunProgress(log_every), OwnDraws(0), guard, StopTogether()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on a trainer of one's own
        trainer.fit(module, datamodule=_Data(batches))
    return record.steps
