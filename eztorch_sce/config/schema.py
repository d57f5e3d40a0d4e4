"""The settings of a run: one dataclass per command, made of `parts` and of what sits beside what it builds."""

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from eztorch_sce.augment.policies import policy
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.parts import EvaluationViewsConfig, batch_conflicts, clip_conflicts
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.linear import LinearConfig
from eztorch_sce.losses.sce import SCEConfig
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.optim.ramp import Ramp, ramp_conflicts
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.planning.devices import DEVICES
from eztorch_sce.settings import choice, invalid_settings, setting
from eztorch_sce.training.config import Machine, RunConfig, TrainerConfig, this_machine
from eztorch_sce.training.online import OnlineConfig


@dataclass
class PretrainConfig:
    """`eztorch-sce pretrain`: a backbone from unlabeled videos or images."""

    recipe: str | None = None
    seed: int = 0
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    views: list[ViewConfig] = field(default_factory=lambda: policy("kinetics_baseline_112"))
    backbone: Any = choice("backbone", SmallR2Plus1DConfig(), help="Network to pretrain.")
    method: Any = choice("method", MomentumContrastConfig(), help="Method: which views are compared, and how.")
    loss: Any = choice("loss", SCEConfig(), help="Loss on the embeddings of two views.")
    optimizer: Any = choice("optimizer", SGDConfig(), help="Optimizer.")
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(warmup_epochs=5))
    ramps: list[Ramp] = setting([], help="Settings of the loss or the method that move during training.")
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per rule across settings that is broken."""
        messages = []
        if len(self.views) < 2:
            messages.append(f"views has {len(self.views)} view: pretraining compares two or more")
        elif len(self.views) < self.method.num_global_views:
            messages.append(
                f"method.num_global_views={self.method.num_global_views} is more than the {len(self.views)} views"
            )
        if not self.method.has_negatives and getattr(self.loss, "needs_negatives", True):
            messages.append(
                "method has neither queue nor batch_keys: set method.queue_size or method.batch_keys=true, or use a "
                "loss without negatives (loss=cosine)"
            )
        for name in ("size", "stats", "input"):
            messages += [
                f"views.{number}.{name} is not set: pretraining has no weights file to take it from"
                for number, view in enumerate(self.views)
                if getattr(view, name) is None
            ]
        messages += self._batch_norm_conflicts()
        messages += ramp_conflicts(self.ramps, {"loss": self.loss, "method": self.method}, "ramps")
        return messages + batch_conflicts(self.data, self.trainer) + clip_conflicts(self.data, len(self.views))

    def _batch_norm_conflicts(self) -> list[str]:
        """Return one message per conflict between split or shuffled batch norm and the devices."""
        world_size, num_splits = self.trainer.world_size, getattr(self.method, "bn_splits", 1)
        if world_size is None:
            return []
        messages = []
        num_chunks = num_splits * world_size * self.trainer.accumulate
        if num_splits > 1 and self.data.batch_size < 2 * num_chunks:
            messages.append(
                f"method.bn_splits={num_splits} leaves fewer than 2 samples per split: data.batch_size="
                f"{self.data.batch_size} must be at least 2 x bn_splits x devices x num_nodes x accumulate = "
                f"{2 * num_chunks}"
            )
        chunks_differ = num_splits > 1 or getattr(self.method, "shuffle_bn", False)
        if chunks_differ and world_size > 1 and self.trainer.sync_batchnorm:
            messages.append(
                "trainer.sync_batchnorm=true normalizes the batches of all devices as one, so method.bn_splits and "
                "method.shuffle_bn would have no effect: set trainer.sync_batchnorm=false"
            )
        return messages


@dataclass
class PlanConfig(PretrainConfig):
    """`eztorch-sce plan`: the cost of a `pretrain` with these settings. The data need not exist: nothing is read."""

    device: str = setting("A100-80G", choices=lambda: list(DEVICES), help="Device to plan for.")
    devices: int | None = setting(
        None, at_least=1, help="Devices per machine; sets trainer.devices, which is 1 if neither is set."
    )
    num_records: int | None = setting(
        None, at_least=1, help="Records in the train split; null is the publisher's count."
    )
    throughput: float | None = setting(
        None, above=0, help="Measured clips/s on all devices (clips_per_s of a run); null estimates it."
    )
    utilization: float = setting(
        0.5,
        above=0,
        at_most=1,
        help="Fraction of the peak rates the estimate assumes; ResNet-50 trainings reach 0.5 (TF32 on an A100; MoCo on "
        "V100s) to 0.9 (NVIDIA's, float32 on a V100).",
    )
    memory_share: float = setting(0.9, above=0, at_most=1, help="Fraction of the device memory available to tensors.")

    def __post_init__(self) -> None:
        if self.devices is not None:
            self.trainer.devices = self.devices

    def planned_machine(self) -> Machine:
        """Return the machine to plan for."""
        return Machine(num_gpus=0 if self.device == "cpu" else self.trainer.devices or 1)


@dataclass
class FinetuneConfig:
    """`eztorch-sce finetune`: a classifier, from weights or from scratch (`weights=null backbone=...`).

    Attributes:
        weights: A weights file, or the run directory it is in.
        untrained: The network of the weights, but as initialized: training from scratch.
        backbone: The network where there are no weights.
        dropout: Before the classifier.
        probe_first: Start the classifier as a linear probe of the features leaves it, rather than at random: features
            that were learned are then not undone while it finds its way (Kumar et al., ICLR 2022, arXiv:2202.10054).
        layer_decay: Of the learning rate from each block of the network to the one before it; 1 is the same for all.
        mixup: Parameter of the beta distribution that pairs of samples are mixed by; 0 is off.
    """

    recipe: str | None = None
    seed: int = 0
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    weights: str | None = None
    untrained: bool = False
    backbone: Any = choice("backbone", None, help="Network to train from scratch, in place of weights.")
    dropout: float = 0.8
    probe_first: bool = False
    layer_decay: float = 1.0
    mixup: float = 0.0
    views: list[ViewConfig] = field(default_factory=lambda: policy("finetune_video"))
    optimizer: Any = choice("optimizer", SGDConfig(), help="Optimizer.")
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    test: EvaluationViewsConfig = field(default_factory=EvaluationViewsConfig)

    def problems(self, prefix: str) -> list[str]:
        """Name what does not fit together."""
        found = []
        if (self.weights is None) == (self.backbone is None):
            found.append("give either weights=... (a pretrained network) or backbone=... (a new one), and not both")
        if len(self.views) != 1:
            found.append(f"views has {len(self.views)} views: a classifier is trained on one")
        if not 0 <= self.dropout < 1:
            found.append(f"dropout={self.dropout} must be at least 0 and below 1")
        if not 0 < self.layer_decay <= 1:
            found.append(f"layer_decay={self.layer_decay} must be above 0 and at most 1 (the same rate for all)")
        if self.mixup < 0:
            found.append(f"mixup={self.mixup} must be 0 (off) or more")
        return found + batch_conflicts(self.data, self.trainer) + clip_conflicts(self.data, len(self.views))


@dataclass
class ClassifierTestConfig:
    """`eztorch-sce test`: a fine-tuned classifier on clips x crops."""

    recipe: str | None = None
    seed: int = 0
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    weights: str | None = None
    test: EvaluationViewsConfig = field(default_factory=EvaluationViewsConfig)
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
    """`eztorch-sce show-views`: an image of what the network would see.

    Attributes:
        num_samples: Records to show.
        epoch: Whose draws to show; 0 is the first.
    """

    recipe: str | None = None
    seed: int = 0
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    views: list[ViewConfig] = field(default_factory=lambda: policy("kinetics_baseline_112"))
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


C = TypeVar("C")


def validate(config: C) -> C:
    """Validate a config recursively and return it as it applies to this machine.

    In the returned copy of the config of a training, `trainer.accelerator`, `devices`, `num_nodes` and `sync_batchnorm`
    have the values that they come to here, so that every user of the config sees the same number of processes.

    Raises:
        ConfigError: With one message per invalid setting.
    """
    if isinstance(config, PlanConfig):
        config = replace(config, data=replace(config.data, root=config.data.root or "."))  # nothing is read
    machine, messages = _machine_of(config), list[str]()
    if machine is not None:
        trainer: TrainerConfig = config.trainer  # type: ignore[attr-defined]
        if not invalid_settings(trainer):
            messages += trainer.conflicts_on(machine)
            config = replace(config, trainer=trainer.on(machine))  # type: ignore[type-var]
    messages += invalid_settings(config)
    if messages:
        raise ConfigError(messages)
    return config


def _machine_of(config: Any) -> Machine | None:
    """Return the machine that a config trains on, or None if it does not train."""
    if isinstance(config, PlanConfig):
        return config.planned_machine()
    trains = isinstance(config, (PretrainConfig, FinetuneConfig)) or (isinstance(config, LinearConfig) and config.views)
    return this_machine() if trains else None
