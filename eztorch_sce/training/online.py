"""Online evaluation: kNN and a linear probe on labeled data, every few epochs of pretraining."""

import time
from dataclasses import asdict
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from eztorch_sce.chance import Chance, chance_levels
from eztorch_sce.config.parts import EvaluationViewsConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.provenance import Provenance, seen_card
from eztorch_sce.data.sources.splits import Splits
from eztorch_sce.data.sources.summary import DataSummary
from eztorch_sce.errors import ConfigError, TrainingError
from eztorch_sce.evaluation.features import record_features, record_views
from eztorch_sce.evaluation.knn import TEMPERATURE, knn_accuracy
from eztorch_sce.evaluation.linear import Probe, linear_probe
from eztorch_sce.progress import print_above
from eztorch_sce.shards import gathered
from eztorch_sce.training.online_config import OnlineConfig
from eztorch_sce.types import FeatureBank, InputSpec

_METRICS = ("knn_top1", "linear_top1")


class OnlineEvaluation(pl.Callback):
    """Log `online_knn_top1`, `online_linear_top1`, and the run time in seconds as `online_s`.

    Training is unaffected: random number generators, batch norm statistics and gradients do not change.

    Args:
        config: Settings of the evaluation.
        data: Settings of the loaders.
        splits: The labeled train and test splits.
        spec: Input of the backbone.
        seed: Seed of the linear probe.
    """

    def __init__(self, config: OnlineConfig, data: DataConfig, splits: Splits, spec: InputSpec, seed: int) -> None:
        self.config, self.data, self.splits, self.spec, self.seed = config, data, splits, spec, seed
        self.precision = "32-true"

    def protocol(self, provenance: Provenance) -> dict[str, Any]:
        """Return the settings that make the numbers comparable between runs.

        Args:
            provenance: The records that the pretraining saw.
        """
        train, test = self.splits.train, self.splits.labeled_test
        seen = seen_card(test.records, provenance)
        card = {"data": train.source, "test": test.source, "classifier": "kNN, linear probe"}
        if self.precision != "32-true":
            card["precision"] = self.precision
        return (
            asdict(self.config)
            | card
            | {
                "data_summary": DataSummary.of(self.splits).card(),
                "seen_in_pretraining": seen,
            }
        )

    def chance(self) -> dict[str, Chance]:
        """Return what the accuracies would be by guessing."""
        train, test = self.splits.train, self.splits.labeled_test
        names = (f"online_{name}" for name in _METRICS)
        return chance_levels(names, train.records.labels, test.records.labels, len(train.classes))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take over the precision of the training, in which the features are computed."""
        self.precision = str(trainer.precision)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate after every n-th epoch.

        Raises:
            TrainingError: If the backbone returns NaN or infinite features.
        """
        epoch = trainer.current_epoch + 1
        if self.config.every_n_epochs is None or epoch % self.config.every_n_epochs:
            return
        started = time.perf_counter()
        backbone = cast(nn.Module, pl_module.method.backbone)  # type: ignore[union-attr]
        try:
            metrics = self._evaluate(backbone, pl_module.device)
        except ConfigError as error:  # the splits were checked when they were opened: the features cannot be used
            problems = "; ".join(error.problems)
            raise TrainingError(f"epoch {epoch}: the online evaluation cannot score the backbone: {problems}") from None
        took_s = time.perf_counter() - started
        pl_module.log_dict({f"online_{name}": value for name, value in metrics.items()} | {"online_s": took_s})
        if trainer.is_global_zero:
            numbers = f"kNN {metrics['knn_top1']:.3f}, linear {metrics['linear_top1']:.3f}"
            beside = f"({self.chance()['online_knn_top1']}), in {took_s:.1f} s"
            print_above(f"epoch {epoch}/{trainer.max_epochs}  online evaluation: {numbers} {beside}")

    def _evaluate(self, backbone: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the top-1 accuracies of kNN and of a linear probe."""
        with isolate_rng(), gathered(backbone):
            train = self._features(backbone, self.splits.train, device)
            test = self._features(backbone, self.splits.labeled_test, device)
            metrics = knn_accuracy(train, test, self.config.k, TEMPERATURE, device)
            metrics |= linear_probe(train, test, Probe(seed=self.seed), device).metrics
        torch.cuda.empty_cache()  # blocks of other sizes than those of training; does nothing on a CPU
        return {name: metrics[name] for name in _METRICS}

    def _features(self, backbone: nn.Module, split: Manifest, device: torch.device) -> FeatureBank:
        clips_and_crops = EvaluationViewsConfig(num_clips=self.config.num_clips, num_crops=self.config.num_crops)
        views = record_views(self.data, clips_and_crops, self.spec, split, "online evaluation", self.precision)
        return record_features(backbone, views, device)
