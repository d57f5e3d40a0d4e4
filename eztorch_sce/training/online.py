"""How good the features are while a pretraining goes on: kNN and a linear probe on labeled data, every few epochs."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng

from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.loading import evaluation_loader
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.features import extract_features
from eztorch_sce.evaluation.knn import NUM_NEIGHBORS, TEMPERATURE, knn_accuracy
from eztorch_sce.evaluation.linear import Probe, linear_probe
from eztorch_sce.progress import console
from eztorch_sce.types import FeatureBank, InputSpec


@dataclass
class OnlineConfig:
    """When and on what a pretraining is evaluated; off as it stands.

    Attributes:
        every_n_epochs: Epochs from one evaluation to the next; null is never.
        root, list, test_root, test_list, layout: Labeled data, as in `data`; all null: the data of the pretraining,
            whose labels are then used here alone.
        num_clips, num_crops: Of each record; the features are their mean.
        k: Neighbors that vote.
    """

    every_n_epochs: int | None = None
    root: str | None = None
    list: str | None = None
    test_root: str | None = None
    test_list: str | None = None
    layout: str | None = None
    num_clips: int = 1
    num_crops: int = 1
    k: int = NUM_NEIGHBORS

    def problems(self, prefix: str) -> Sequence[str]:
        """Name each setting that cannot be."""
        found = [
            f"{prefix}.{name}={value} must be at least 1"
            for name in ("every_n_epochs", "num_clips", "k")
            if (value := getattr(self, name)) is not None and value < 1
        ]
        if self.num_crops not in (1, 3):
            found.append(f"{prefix}.num_crops={self.num_crops} must be 1 (center) or 3")
        return found

    def open(self, data: DataConfig, seed: int) -> tuple[Manifest, Manifest]:
        """Find the labeled train and test parts.

        Raises:
            ConfigError: If files are missing, or there are no labels.
        """
        places = {name: getattr(self, name) for name in ("root", "list", "test_root", "test_list")}
        if any(places.values()):
            data = replace(data, **places)
        if self.layout is not None:
            data = replace(data, layout=self.layout)
        train, test = data.open_with_test(seed)
        if not train.classes:
            raise ConfigError(
                [
                    f"online.every_n_epochs={self.every_n_epochs}: {train.source} has no labels; give labeled data by "
                    "online.root or online.list, or leave the evaluation out"
                ]
            )
        return train, test


class OnlineEvaluation(pl.Callback):
    """Log `online_knn_top1`, `online_linear_top1` and the seconds that they took, `online_s`.

    The training does not notice: its random numbers, batch statistics and gradients stay what they would be.

    Args:
        config: When, and on what views.
        data: How to load.
        parts: The labeled train and test parts.
        spec: What the backbone sees.
        seed: Of the probe.
    """

    def __init__(
        self, config: OnlineConfig, data: DataConfig, parts: tuple[Manifest, Manifest], spec: InputSpec, seed: int
    ) -> None:
        self.config, self.data, self.parts, self.spec, self.seed = config, data, parts, spec, seed

    def protocol(self) -> dict[str, Any]:
        """Return what makes the numbers comparable."""
        train, test = self.parts
        return asdict(self.config) | {"data": train.source, "test": test.source, "classifier": "kNN, linear probe"}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate after every n-th epoch."""
        if self.config.every_n_epochs is None or (trainer.current_epoch + 1) % self.config.every_n_epochs:
            return
        started = time.perf_counter()
        backbone: torch.nn.Module = pl_module.method.backbone  # type: ignore[union-attr, assignment]
        modes = [(module, module.training) for module in backbone.modules()]
        with isolate_rng():
            train, test = (self._features(backbone, part, pl_module.device) for part in self.parts)
            metrics = knn_accuracy(train, test, self.config.k, TEMPERATURE, pl_module.device)
            metrics |= linear_probe(train, test, Probe(seed=self.seed), pl_module.device)
        for module, mode in modes:
            module.training = mode
        shown = {f"online_{name}": metrics[name] for name in ("knn_top1", "linear_top1")}
        took_s = time.perf_counter() - started
        pl_module.log_dict(shown | {"online_s": took_s})
        if trainer.is_global_zero:
            knn, linear = shown.values()
            words = f"online evaluation: kNN {knn:.3f}, linear {linear:.3f}, in {took_s:.1f} s"
            console.print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {words}", highlight=False)

    def _features(self, backbone: torch.nn.Module, part: Manifest, device: torch.device) -> FeatureBank:
        views = (self.config.num_clips, self.config.num_crops, self.spec.test_short_side)
        loader = evaluation_loader(self.data, part, self.spec, *views)
        return extract_features(backbone, self.spec, loader, part, device, {}, "online evaluation")
