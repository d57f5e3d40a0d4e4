"""The settings of a run: one dataclass per command, made of the dataclasses that sit beside what they build."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from eztorch_sce.augment.policies import policy
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.data.clip_sampling import COVERS
from eztorch_sce.data.datamodule import DataConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.linear import LinearProbeConfig
from eztorch_sce.losses.sce import SCEConfig
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.optim.sgd import SGDConfig


@dataclass
class RunConfig:
    """Where a run writes, and how often.

    Attributes:
        dir: The run directory; null is the next free runs/<command>-<n>.
        resume: Go on from `last.ckpt` of the directory.
        log_every_n_steps: Steps between two lines of the log.
        save_every_n_epochs: Also keep the backbone every n epochs; null keeps the last alone.
    """

    dir: str | None = None
    resume: bool = False
    log_every_n_steps: int = 10
    save_every_n_epochs: int | None = None


@dataclass
class TrainerConfig:
    """How Lightning runs.

    Attributes:
        max_epochs: Passes over the data.
        accelerator: "auto", "gpu" or "cpu".
        devices: Devices per node; null is all GPUs, or one process without any.
        num_nodes: Machines.
        precision: "32-true", "16-mixed" or "bf16-mixed".
        accumulate: Loader batches per optimizer step; `data.batch_size` is divided by it.
        sync_batchnorm: Batch statistics over all devices; null is true on GPUs. Torch has none for CPUs.
    """

    max_epochs: int = 200
    accelerator: str = "auto"
    devices: int | None = None
    num_nodes: int = 1
    precision: str = "32-true"
    accumulate: int = 1
    sync_batchnorm: bool | None = None

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        found = []
        allowed = {"accelerator": ["auto", "gpu", "cpu"], "precision": ["32-true", "16-mixed", "bf16-mixed"]}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                found.append(f"{prefix}.{name}={getattr(self, name)} must be one of {', '.join(values)}")
        for name in ("max_epochs", "num_nodes", "accumulate"):
            if getattr(self, name) < 1:
                found.append(f"{prefix}.{name}={getattr(self, name)} must be at least 1")
        if self.sync_batchnorm and self.accelerator == "cpu":
            found.append(f"{prefix}.sync_batchnorm=true needs GPUs, and {prefix}.accelerator=cpu: leave it out")
        return found


@dataclass
class TestViewsConfig:
    """What a record is tested on: clips spread over time, crops spread over space.

    Attributes:
        clips: "even" spreads `num_clips` over the video; "half_overlap" (each starts in the middle of the one before)
            and "cover" (as few as can be) take as many as cover it; "whole" spreads the frames of one over all of it.
        num_clips: Clips per video if evenly spaced; a picture has one.
        num_crops: 1 (centre) or 3 along the long side.
        short_side: Pixels of the short side before the crop; null is 8/7 of the crop (256 for 224).
    """

    __test__ = False  # not a test, whatever its name makes pytest think

    clips: str = "even"
    num_clips: int = 10
    num_crops: int = 3
    short_side: int | None = None

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        found = []
        if self.clips not in ("even", *COVERS):
            found.append(f"{prefix}.clips={self.clips} must be one of even, {', '.join(COVERS)}")
        if self.num_clips < 1:
            found.append(f"{prefix}.num_clips={self.num_clips} must be at least 1")
        if self.num_crops not in (1, 3):
            found.append(f"{prefix}.num_crops={self.num_crops} must be 1 (centre) or 3")
        return found


@dataclass
class PretrainConfig:
    """`eztorch-sce pretrain`: a backbone from unlabelled videos or pictures."""

    recipe: str | None = None
    seed: int = 0
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    views: list[ViewConfig] = field(default_factory=lambda: policy("kinetics_112"))
    backbone: Any = field(default_factory=SmallR2Plus1DConfig)
    method: Any = field(default_factory=MomentumContrastConfig)
    loss: Any = field(default_factory=SCEConfig)
    optimizer: Any = field(default_factory=SGDConfig)
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(warmup_epochs=5))
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def problems(self, prefix: str) -> list[str]:
        """Name what does not fit together."""
        found = []
        if len(self.views) < 2:
            found.append(f"views has {len(self.views)} view: contrasting takes two or more")
        elif len(self.views) < self.method.num_global_views:
            found.append(
                f"method.num_global_views={self.method.num_global_views} is more than the {len(self.views)} views"
            )
        if not self.method.has_negatives and getattr(self.loss, "needs_negatives", True):
            found.append(
                "method has neither queue nor batch_keys: set method.queue_size or method.batch_keys=true, or take a "
                "loss without negatives (loss=cosine)"
            )
        num_splits = getattr(self.method, "bn_splits", 1)
        devices = (self.trainer.devices or 1) * self.trainer.num_nodes
        if num_splits > 1 and self.data.batch_size < 2 * num_splits * devices * self.trainer.accumulate:
            found.append(
                f"method.bn_splits={num_splits} leaves less than 2 samples to a part of data.batch_size="
                f"{self.data.batch_size} over {devices} devices x {self.trainer.accumulate} accumulated batches"
            )
        parts_differ = num_splits > 1 or getattr(self.method, "shuffle_bn", False)
        if parts_differ and devices > 1 and self.trainer.sync_batchnorm is not False:
            found.append(
                "trainer.sync_batchnorm=true makes one batch of all devices, so method.bn_splits and method.shuffle_bn "
                "would do nothing: set trainer.sync_batchnorm=false"
            )
        for name in ("size", "stats", "input"):
            found += [
                f"views.{number}.{name} is not set: pretraining has no weights file to take it from"
                for number, view in enumerate(self.views)
                if getattr(view, name) is None
            ]
        return found + _batch_problems(self.data, self.trainer) + _clips_problems(self.data, len(self.views))


@dataclass
class EvaluationConfig:
    """What the commands on frozen features share.

    Attributes:
        weights: A weights file, or the run directory it is in.
        features: The run directory of `extract`, in place of weights and data.
        untrained: Same network and same protocol, but as initialised: the floor to compare with.
    """

    recipe: str | None = None
    seed: int = 0
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    weights: str | None = None
    features: str | None = None
    untrained: bool = False
    test: TestViewsConfig = field(default_factory=TestViewsConfig)
    accelerator: str = "auto"

    def problems(self, prefix: str) -> list[str]:
        """Name what does not fit together."""
        if self.weights is None and self.features is None:
            return ["weights is not set: give the run directory of a pretraining, or its backbone.pt (weights=...)"]
        return []


@dataclass
class ExtractConfig(EvaluationConfig):
    """`eztorch-sce extract`: features of the train and test parts, to files."""


@dataclass
class RetrieveConfig(EvaluationConfig):
    """`eztorch-sce retrieve`: R@k of the test part in the train part."""


@dataclass
class KnnConfig(EvaluationConfig):
    """`eztorch-sce knn`: the vote of the nearest neighbours.

    Attributes:
        k: Neighbours.
        temperature: Of the weights of their votes.
    """

    k: int = 20
    temperature: float = 0.07

    def problems(self, prefix: str) -> list[str]:
        """Name what does not fit together."""
        found = super().problems(prefix)
        if self.k < 1:
            found.append(f"k={self.k} must be at least 1")
        if self.temperature <= 0:
            found.append(f"temperature={self.temperature} must be greater than 0")
        return found


@dataclass
class LinearConfig(EvaluationConfig):
    """`eztorch-sce linear`: a linear classifier on frozen features."""

    probe: LinearProbeConfig = field(default_factory=LinearProbeConfig)


@dataclass
class FinetuneConfig:
    """`eztorch-sce finetune`: a classifier, from weights or from scratch (`weights=null backbone=...`).

    Attributes:
        weights: A weights file, or the run directory it is in.
        untrained: The network of the weights, but as initialised: training from scratch.
        backbone: The network where there are no weights.
        dropout: Before the classifier.
    """

    recipe: str | None = None
    seed: int = 0
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    weights: str | None = None
    untrained: bool = False
    backbone: Any = None
    dropout: float = 0.8
    views: list[ViewConfig] = field(default_factory=lambda: policy("finetune_video"))
    optimizer: Any = field(default_factory=SGDConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    test: TestViewsConfig = field(default_factory=TestViewsConfig)

    def problems(self, prefix: str) -> list[str]:
        """Name what does not fit together."""
        found = []
        if (self.weights is None) == (self.backbone is None):
            found.append("give either weights=... (a pretrained network) or backbone=... (a new one), and not both")
        if len(self.views) != 1:
            found.append(f"views has {len(self.views)} views: a classifier is trained on one")
        if not 0 <= self.dropout < 1:
            found.append(f"dropout={self.dropout} must be at least 0 and below 1")
        return found + _batch_problems(self.data, self.trainer) + _clips_problems(self.data, len(self.views))


@dataclass
class TestConfig:
    """`eztorch-sce test`: a fine-tuned classifier on clips x crops."""

    __test__ = False  # not a test, whatever its name makes pytest think

    recipe: str | None = None
    seed: int = 0
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    weights: str | None = None
    test: TestViewsConfig = field(default_factory=TestViewsConfig)
    accelerator: str = "auto"

    def problems(self, prefix: str) -> list[str]:
        """Name what does not fit together."""
        return ["weights is not set: give the run directory of a finetune, or its classifier.pt"] * (
            self.weights is None
        )


@dataclass
class DemoConfig:
    """`eztorch-sce demo`: make videos of moving shapes, learn from them, show what was learned.

    Attributes:
        num_train, num_test: Videos to make.
        max_epochs: Of pretraining; null is what the recipe says.
    """

    recipe: str | None = None
    seed: int = 0
    run: RunConfig = field(default_factory=RunConfig)
    num_train: int = 256
    num_test: int = 128
    max_epochs: int | None = None

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        return [
            f"{name}={value} must be at least {least}"
            for name, least in (("num_train", 64), ("num_test", 8), ("max_epochs", 1))
            if (value := getattr(self, name)) is not None and value < least
        ]


@dataclass
class ShowViewsConfig:
    """`eztorch-sce show-views`: a picture of what the network would see.

    Attributes:
        num_samples: Records to show.
        epoch: Whose draws to show; 0 is the first.
    """

    recipe: str | None = None
    seed: int = 0
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    views: list[ViewConfig] = field(default_factory=lambda: policy("kinetics_112"))
    num_samples: int = 4
    epoch: int = 0

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        found = [
            f"{name}={value} must be at least {least}"
            for name, value, least in (("num_samples", self.num_samples, 1), ("epoch", self.epoch, 0))
            if value < least
        ]
        return found + ["views is empty: give at least one"] * (not self.views)


def validate(config: Any) -> None:
    """Check every part of a config.

    Raises:
        ConfigError: With all problems at once.
    """
    if problems := _collect(config, ""):
        raise ConfigError(problems)


def _collect(config: Any, prefix: str) -> list[str]:
    if isinstance(config, EvaluationConfig) and config.features is not None:
        return config.problems(prefix)  # data and weights play no part
    found = list(config.problems(prefix)) if hasattr(config, "problems") else []
    for item in fields(config):
        value = getattr(config, item.name)
        path = f"{prefix}.{item.name}" if prefix else item.name
        children = enumerate(value) if isinstance(value, list) else [(None, value)]
        for number, child in children:
            if is_dataclass(child):
                found += _collect(child, path if number is None else f"{path}.{number}")
    return found


def _clips_problems(data: DataConfig, num_views: int) -> list[str]:
    if data.near_power is not None and num_views != 2:
        return [f"data.near_power={data.near_power} draws the distance of two clips, and there are {num_views} views"]
    return []


def _batch_problems(data: DataConfig, trainer: TrainerConfig) -> list[str]:
    parts = (trainer.devices or 1) * trainer.num_nodes * trainer.accumulate
    if parts >= 1 and (data.batch_size % parts or data.batch_size < 2 * parts):
        return [
            f"data.batch_size={data.batch_size} is of one optimizer step: it must divide by devices x nodes x "
            f"accumulate = {parts} and leave 2 or more each"
        ]
    return []
