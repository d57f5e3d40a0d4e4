"""Tests of the metrics of a step: the norm of its gradients."""

import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader

from eztorch_sce.training.metrics import StepMetrics, log_numbers, metrics_are_due


class Slope(pl.LightningModule):
    """A weight and a bias of zero, and the loss w x + 2 b."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))])
        self.unused = nn.Parameter(torch.ones(()))
        self.fused, self.metrics = fused, StepMetrics()
        self.logged: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        weight, bias = self.weights
        loss: Tensor = (weight * batch).mean() + 2 * bias
        if metrics_are_due(self, batch_idx):
            self.metrics.keep({"loss": loss})
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if numbers := self.metrics.read(self, optimizer):
            log_numbers(self, numbers)
            self.logged.append(float(numbers["grad_norm"]))

    def configure_optimizers(self) -> Optimizer:
        return SGD(self.parameters(), lr=0.1, fused=self.fused)


def logged_norms(fused: bool, **settings: Any) -> list[float]:
    """Return the norms that are logged in four batches of x = 1, 2, 3, 4."""
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        log_every_n_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    module = Slope(fused)
    trainer.fit(module, DataLoader(torch.arange(1.0, 5.0), batch_size=1))  # type: ignore[arg-type]
    return module.logged


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on a loader without workers
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("scale", [None, 1.0, 1024.0])
def test_the_norm_is_that_of_the_gradients_before_clipping_and_without_the_scale(
    fused: bool, scale: float | None
) -> None:
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    settings: dict[str, Any] = {} if scaler is None else {"plugins": MixedPrecision("16-mixed", "cpu", scaler)}
    if not (fused and scaler):  # Lightning refuses to clip gradients that the optimizer unscales itself
        settings["gradient_clip_val"] = 0.1
    assert logged_norms(fused, **settings) == pytest.approx([math.hypot(x, 2) for x in (1, 2, 3, 4)])


@pytest.mark.filterwarnings("ignore")
def test_the_norm_of_accumulated_batches_is_that_of_their_mean() -> None:
    assert logged_norms(False, accumulate_grad_batches=2) == pytest.approx([math.hypot(1.5, 2), math.hypot(3.5, 2)])
