"""Configs of the commands, one dataclass each."""

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from eztorch_sce import plugins
from eztorch_sce.augment.policies import policy
from eztorch_sce.config.adjust import ADJUST_HELP, adjust_conflicts
from eztorch_sce.config.choice_types import (
    BackboneChoice,
    LossChoice,
    MethodChoice,
    OptimizerChoice,
    SGDChoice,
    ViewsChoice,
)
from eztorch_sce.config.parts import (
    ACCELERATORS,
    PRECISION_HELP,
    CommandConfig,
    EvaluationViewsConfig,
    accelerator_conflicts,
    batch_conflicts,
    clip_conflicts,
    precision_conflicts,
)
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.home_folders import with_home_folders
from eztorch_sce.losses.sce import SCEConfig
from eztorch_sce.machine import BF16_CAPABILITY, Machine, this_machine
from eztorch_sce.methods.base import has_own_loss, normalizes_apart, own_loss_message
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.objects import title_of
from eztorch_sce.optim.base import check_optimizer
from eztorch_sce.optim.ramp import Ramp, ramp_conflicts
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.planning.devices import DEVICES
from eztorch_sce.precision import PRECISIONS
from eztorch_sce.settings import PathSetting, choice, invalid_settings, setting
from eztorch_sce.training.config import TrainerConfig
from eztorch_sce.training.online_config import OnlineConfig


@dataclass
class PretrainConfig(CommandConfig):
    """Pretrain a backbone on unlabeled videos or images."""

    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsChoice = choice("views", [], help="Views of each record; an empty list chooses from the data.")
    backbone: BackboneChoice = choice("backbone", None, help="Network to pretrain; null chooses from the data.")
    weights: PathSetting = setting(
        None, is_path=True, help="Run, file or checkpoint of other code to start from, with its heads."
    )
    method: MethodChoice = choice(
        "method", MomentumContrastConfig(), help="Method, which determines the pairs of views that the loss compares."
    )
    loss: LossChoice = choice("loss", SCEConfig(), help="Loss on the embeddings of two views.")
    optimizer: OptimizerChoice = choice("optimizer", None, help="Optimizer; null chooses by the length of training.")
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(warmup_epochs=None))
    adjust: dict[str, Any] = setting({}, help=ADJUST_HELP)
    ramps: list[Ramp] = setting([], help="Settings of the loss or the method that change during training.")
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)

    def machine(self) -> Machine:
        """Return this machine, since the command trains."""
        return this_machine()

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per broken rule across settings."""
        messages = adjust_conflicts(self.adjust, self)
        num_views = len(self.views) or 2  # views that are chosen from the data are two
        needed = getattr(self.method, "num_global_views", 1)
        if num_views < needed:
            messages.append(f"method.num_global_views={needed} must be at most {num_views}, the number of views")
        if not getattr(self.method, "has_negatives", True) and getattr(self.loss, "needs_negatives", False):
            messages.append(
                f"loss={title_of(self.loss)} needs negatives, but method.queue_size=0 and method.batch_keys=false give "
                "none: set method.queue_size=4096 or method.batch_keys=true, or use a loss without negatives "
                "(loss=cosine)"
            )
        messages += self._loss_conflicts()
        for name in ("size", "stats", "input"):
            messages += [
                f"views.{number}.{name} is not set, and pretraining has no weights file to take it from"
                for number, view in enumerate(self.views)
                if getattr(view, name) is None and (name != "stats" or self.weights is None)
            ]
        messages += self._batch_norm_conflicts()
        messages += ramp_conflicts(self.ramps, {"loss": self.loss, "method": self.method}, "ramps")
        return messages + batch_conflicts(self.data, self.trainer) + clip_conflicts(self.data, len(self.views))

    def unused_settings(self) -> list[str]:
        """Return the loss, if the method has its own."""
        return ["loss"] if has_own_loss(self.method) else []

    def _loss_conflicts(self) -> list[str]:
        """Return a message if a loss is set although the method has its own."""
        if not has_own_loss(self.method) or self.loss is None:
            return []
        return [own_loss_message(title_of(self.loss), title_of(self.method))]

    def _batch_norm_conflicts(self) -> list[str]:
        """Return one message per conflict between split or shuffled batch norm and the devices."""
        world_size, num_splits = self.trainer.world_size, getattr(self.method, "bn_splits", 1)
        if world_size is None:
            return []
        messages = []
        batch_size = self.data.batch_size
        num_chunks = num_splits * world_size * self.trainer.accumulate
        if num_splits > 1 and batch_size is not None and batch_size < 2 * num_chunks:
            messages.append(
                f"method.bn_splits={num_splits} leaves fewer than 2 samples per split: data.batch_size="
                f"{batch_size} must be at least 2 x bn_splits x devices x num_nodes x accumulate = "
                f"{2 * num_chunks}"
            )
        if normalizes_apart(self.method) and world_size > 1 and self.trainer.sync_batchnorm:
            messages.append(
                "trainer.sync_batchnorm=true normalizes the batches of all devices as one, so method.bn_splits and "
                "method.shuffle_bn would have no effect: set trainer.sync_batchnorm=false or trainer.devices=1"
            )
        return messages


@dataclass
class PlanConfig(PretrainConfig):
    """Estimate the FLOPs, memory and time of a pretraining without reading any data."""

    device: str = setting("A100-80G", choices=lambda: list(DEVICES), help="Device to plan for.")
    devices: int | None = setting(
        None, at_least=1, help="Devices per machine; sets trainer.devices. If neither is set, one device."
    )
    num_records: int | None = setting(
        None, at_least=1, help="Records in the train split; null is the publisher's count."
    )
    throughput: float | None = setting(
        None,
        above=0,
        help="Measured views/s, images or clips, on all devices (views_per_s of a run); null estimates it.",
    )
    utilization: float = setting(
        0.5,
        above=0,
        at_most=1,
        help="Assumed fraction of the peak rates; published ResNet-50 trainings reach 0.5 (TF32 on an A100, MoCo on "
        "V100s) to 0.9 (NVIDIA's in float32 on a V100).",
    )
    memory_share: float = setting(0.9, above=0, at_most=1, help="Fraction of the device memory available to tensors.")

    def __post_init__(self) -> None:
        if self.devices is not None:
            self.trainer.devices = self.devices

    def machine(self) -> Machine:
        """Return the machine to plan for."""
        num_gpus = 0 if self.device == "cpu" else self.trainer.devices or 1
        device = DEVICES.get(self.device)
        return Machine(num_gpus, capability=BF16_CAPABILITY if device is None else device.capability)


@dataclass
class FinetuneConfig(CommandConfig):
    """Train an action or image classifier from a pretrained backbone, or from scratch."""

    data: DataConfig = field(default_factory=DataConfig)
    weights: PathSetting = setting(
        None,
        is_path=True,
        help="Weights file of a pretrained backbone, its run directory, or a checkpoint of other code.",
    )
    untrained: bool = setting(False, help="Initialize the network of the weights at random instead of loading them.")
    backbone: BackboneChoice = choice("backbone", None, help="Network to train from scratch, instead of weights.")
    dropout: float = setting(0.8, at_least=0, below=1, help="Dropout rate before the classifier.")
    probe_first: bool = setting(
        False,
        help="Start the classifier from a linear probe of the frozen features, so that a random classifier does not "
        "distort them (Kumar et al., ICLR 2022, arXiv:2202.10054).",
    )
    layer_decay: float = setting(
        1.0, above=0, at_most=1, help="Ratio of each block's learning rate to that of the next block; 1 is off."
    )
    mixup: float = setting(0.0, at_least=0, help="Parameter of the beta distribution of mixup; 0 is off.")
    views: ViewsChoice = choice("views", policy("finetune_video"), help="The view to train on.")
    optimizer: SGDChoice = choice("optimizer", SGDConfig(), help="Optimizer.")
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    test: EvaluationViewsConfig = field(default_factory=EvaluationViewsConfig)

    def machine(self) -> Machine:
        """Return this machine, since the command trains."""
        return this_machine()

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per broken rule across settings."""
        messages = []
        if self.weights is None and self.backbone is None:
            messages.append(
                "weights is not set: give the run directory of a pretraining, or backbone=... for a new network"
            )
        elif self.weights is not None and self.backbone is not None:
            messages.append(f"weights={self.weights} and backbone are both set: remove one of them")
        if self.weights is None and self.untrained:
            messages.append("untrained=true has no effect without weights: backbone is always initialized at random")
        if len(self.views) != 1:
            messages.append(f"views has {len(self.views)} views: set exactly one, such as views=finetune_video")
        return messages + batch_conflicts(self.data, self.trainer) + clip_conflicts(self.data, len(self.views))


@dataclass
class ClassifierTestConfig(CommandConfig):
    """Test a fine-tuned classifier on several clips and crops of each record."""

    data: DataConfig = field(default_factory=DataConfig)
    weights: PathSetting = setting(
        None, is_path=True, help="Classifier file, the run directory of `finetune`, or a classifier of other code."
    )
    test: EvaluationViewsConfig = field(default_factory=EvaluationViewsConfig)
    accelerator: str = setting("auto", choices=ACCELERATORS, help="Hardware to run on; auto uses a GPU if available.")
    precision: str | None = setting(None, choices=PRECISIONS, help=PRECISION_HELP)

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per conflict: no classifier, or not the hardware to test it on."""
        messages = [*accelerator_conflicts(self.accelerator), *precision_conflicts(self.precision, self.accelerator)]
        if self.weights is None:
            messages.append("weights is not set: give the run directory of `finetune`, or its classifier.safetensors")
        return messages


@dataclass
class DemoConfig(CommandConfig):
    """Generate videos of moving shapes, pretrain on them without labels, and show what was learned."""

    num_train: int = setting(256, at_least=64, help="Number of training videos to generate.")
    num_test: int = setting(128, at_least=8, help="Number of test videos to generate.")
    max_epochs: int | None = setting(None, at_least=1, help="Epochs of pretraining; null is the recipe's number.")


@dataclass
class StudyConfig(CommandConfig):
    """Find out in a given time whether pretraining helps on your data, and with which views."""

    data: DataConfig = field(default_factory=DataConfig)
    minutes: float = setting(
        60.0, above=0, help="Time for the whole study, the time spent before an interruption included."
    )
    accelerator: str = setting("auto", choices=ACCELERATORS, help="Hardware to run on; auto uses a GPU if available.")
    precision: str | None = setting(None, choices=PRECISIONS, help=PRECISION_HELP)

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per conflict with the hardware."""
        return [*accelerator_conflicts(self.accelerator), *precision_conflicts(self.precision, self.accelerator)]


@dataclass
class ShowViewsConfig(CommandConfig):
    """Draw the augmented views of some records as the network receives them."""

    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsChoice = choice("views", [], help="Views to draw; an empty list is chosen as by `pretrain`.")
    adjust: dict[str, Any] = setting({}, help=ADJUST_HELP)
    num_samples: int = setting(4, at_least=1, help="Number of records to show.")
    epoch: int = setting(0, at_least=0, help="Epoch whose random views are shown; 0 is the first.")

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per adjusted setting that does not apply."""
        return adjust_conflicts(self.adjust, self)


C = TypeVar("C", bound=CommandConfig)


def validate(config: C) -> C:
    """Validate a config recursively, and return it with paths and the settings of this machine resolved.

    A leading ~ of a path is the home folder. For a command that trains, the returned copy has resolved values of
    `trainer.accelerator`, `devices`, `num_nodes`, `precision` and `sync_batchnorm`, so that all code that uses the
    config agrees on the number of processes.

    Raises:
        ConfigError: With one message per invalid setting.
    """
    plugins.load(config.plugins)
    config = with_home_folders(config)
    if isinstance(config, PretrainConfig) and has_own_loss(config.method) and config.loss == SCEConfig():
        config = replace(config, loss=None)  # the default, which nobody has set
    if isinstance(config, PlanConfig) and config.data.source is None:  # plan reads no data
        config = replace(config, data=replace(config.data, root=config.data.root or "."))
    machine, messages = config.machine(), list[str]()
    if machine is not None:
        trainer = config.trainer  # type: ignore[attr-defined]
        if isinstance(trainer, TrainerConfig) and not invalid_settings(trainer):
            messages += trainer.conflicts_on(machine)
            if trainer.sync_batchnorm is None and normalizes_apart(getattr(config, "method", None)):
                trainer = replace(trainer, sync_batchnorm=False)
            config = replace(config, trainer=trainer.on(machine))  # type: ignore[call-arg]
    messages += invalid_settings(config)
    if messages:
        raise ConfigError(messages)
    check_optimizer(getattr(config, "optimizer", None))
    return config
