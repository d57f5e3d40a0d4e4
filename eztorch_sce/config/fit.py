"""Settings that fit the data: every setting of a pretraining that is left open is chosen from the data and the machine.

A setting is open if it is null, or an empty list of views. What is set by hand stays, and what depends on it follows.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from eztorch_sce import registry
from eztorch_sce.augment.policies import policy
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config import schema
from eztorch_sce.config.adjust import adjusted
from eztorch_sce.config.set_where import Origin, naming_origins
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.published import published
from eztorch_sce.data.survey import Survey, survey
from eztorch_sce.errors import ConfigError, counted
from eztorch_sce.launch import is_first_process
from eztorch_sce.losses.pairs import LossConfig
from eztorch_sce.methods.loss_calls import use_of_negatives
from eztorch_sce.methods.momentum_contrast import MomentumConfig
from eztorch_sce.models.backbones.base import BackboneConfig, as_backbone, build_network
from eztorch_sce.models.backbones.resnet2d import ResNet18Config, ResNet50Config
from eztorch_sce.models.backbones.resnet3d import R3D18Config
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.objects import PassedObject, is_ours, title_of
from eztorch_sce.optim.adamw import AdamWConfig
from eztorch_sce.optim.groups import effective_lr
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.planning.devices import DEVICES
from eztorch_sce.planning.plan import GIB, largest_batch
from eztorch_sce.progress import console
from eztorch_sce.settings import show

Training = schema.PretrainConfig | schema.FinetuneConfig
C = TypeVar("C", bound=schema.PretrainConfig)

SIZES = (32, 48, 64, 96, 112, 128, 160, 224)
"""Sides of crops in pixels."""
SMALL_PX = 64  # images up to this size get a ResNet without strides in its stem
CLIP_S = 2.56  # length of a clip in the papers
WHOLE_S = 2 * CLIP_S  # videos up to this length are taken whole: one short action
FEW_VIDEOS = 2000  # fewer are told apart by their appearance, so color teaches nothing about motion
MANY_IMAGES = 100_000
MEMORY_SHARE = 0.85  # of a GPU; the rest is left to the CUDA context, libraries and fragmentation
CPU_STEPS = {"image": 400, "video": 800}  # some ten minutes on two cores, with the networks for small data
MIN_GPU_STEPS, MAX_GPU_STEPS = 5_000, 250_000
SHORT_TRAINING = 10_000  # steps up to which AdamW learns faster than SGD


_UNREAD = {
    "imagenet": Survey("image", 0, 375),
    "imagenet100": Survey("image", 126_689, 375),  # depends on the list of classes
    "tiny_imagenet": Survey("image", 0, 64),
    "cifar10": Survey("image", 0, 32),
    "cifar100": Survey("image", 0, 32),
    "stl10": Survey("image", 0, 96),
    "stl10_unlabeled": Survey("image", 0, 96),
    **{f"kinetics{number}": Survey("video", 0, 240, 10.0, 25.0) for number in (200, 400, 600, 700)},
    "ucf101": Survey("video", 0, 240, 7.2, 25.0),
    "hmdb51": Survey("video", 0, 240, 3.2, 30.0),
    "ssv2": Survey("video", 0, 240, 3.8, 12.0),
}
"""Typical files of public data sets, for a plan that reads no data; most counts are in `published`."""


class Choice(NamedTuple):
    """Settings that were chosen, as one would type them, and the reason in a few words."""

    settings: str
    reason: str

    def __str__(self) -> str:
        return f"{self.settings}: {self.reason}"


def announce(choices: Sequence[Choice]) -> None:
    """Print what was chosen in the first process."""
    if choices and is_first_process():
        console.print("chosen from the data (set any of these yourself to change it):", highlight=False)
        for choice in choices:
            console.print(f"  {choice}", highlight=False, markup=False, soft_wrap=True)


def chosen_origins(choices: Sequence[Choice]) -> dict[str, Origin]:
    """Return the origins of settings that were chosen from the data."""
    pairs = [word.split("=", 1) for choice in choices for word in choice.settings.split() if "=" in word]
    return {path: Origin(value, "was chosen from the data") for path, value in pairs}


def fit_to_data(config: schema.PretrainConfig, manifest: Manifest) -> tuple[schema.PretrainConfig, list[Choice]]:
    """Choose the open settings of a pretraining from the train split; return the validated config and the choices.

    Raises:
        ConfigError: If a setting does not suit the data.
        MediaError: If none of the probed files can be read.
    """
    if not _is_open(config):
        return config, []
    config, choices = fit_to_survey(config, survey(manifest, config.data.build_decoder()), memory_for(config))
    announce(choices)
    with naming_origins(chosen_origins(choices)):
        return schema.validate(config), choices


def memory_for(config: schema.PretrainConfig) -> int | None:
    """Return the bytes of memory of a GPU of this machine, or None for a validated config that trains on a CPU."""
    return torch.cuda.get_device_properties(0).total_memory if _on_gpu(config) else None


def fit_input(config: schema.PretrainConfig, manifest: Manifest) -> schema.PretrainConfig:
    """Return a config with views and clips chosen as `fit_to_data` does, for commands that only read the data."""
    if config.views and (manifest.records.all_images() or not _needs_clip(config.data)):
        return config
    config = copy.deepcopy(config)
    announce(list(_choose_input(config, survey(manifest, config.data.build_decoder()))))
    return config


def fit_network(config: schema.PretrainConfig, manifest: Manifest) -> schema.PretrainConfig:
    """Return a config with views, clips and backbone chosen as `fit_to_data` does, for commands that do not train."""
    if config.backbone is not None:
        return fit_input(config, manifest)
    config = copy.deepcopy(config)
    records = survey(manifest, config.data.build_decoder())
    announce([*_choose_input(config, records), *_choose_backbone(config, records)])
    return config


def fit_finetuning(config: schema.FinetuneConfig, manifest: Manifest) -> schema.FinetuneConfig:
    """Return a validated config of a fine-tuning with its batch and, without weights, its crops and clips chosen.

    Raises:
        ConfigError: If a setting does not suit the data.
        MediaError: If none of the probed files can be read.
    """
    config, choices = copy.deepcopy(config), list[Choice]()
    if config.data.batch_size is None:
        num_records = len(manifest.records)
        passes = (config.trainer.world_size or 1) * config.trainer.accumulate
        batch_size = _rounded(max(min(64, num_records // 4), min(8, num_records // 2)), passes)
        config.data = replace(config.data, batch_size=batch_size)
        choices.append(Choice(f"data.batch_size={batch_size}", f"a quarter of {num_records} records, at most 64"))
    if config.weights is None:
        records = survey(manifest, config.data.build_decoder())
        if records.is_video and _takes_clips(config.backbone):
            choices += _choose_clips(config, records)
        if config.views[0].size is None:
            size = _size(records, _largest_crop(config, records))
            config.views = [replace(view, size=size) for view in config.views]
            choices.append(Choice(f"views.*.size={size}", f"records of {records.short_side} px"))
    announce(choices)
    return schema.validate(config)


def fit_to_plan(config: schema.PlanConfig, num_records: int | None) -> tuple[schema.PlanConfig, list[str]]:
    """Return a config with its open settings chosen without reading data, and a sentence about them.

    Args:
        config: A validated config, with the devices resolved.
        num_records: Number of training records; None if unknown.
    """
    if not _is_open(config):
        return config, []
    name = config.data.layout
    if name not in _UNREAD:
        name = "kinetics400" if _takes_clips(config.backbone) else "imagenet"
    records = _UNREAD[name]
    records = records._replace(num_records=num_records or published(name, 1).train or records.num_records)
    memory = None if config.device == "cpu" else DEVICES[config.device].memory_gib * GIB
    config, choices = fit_to_survey(config, records, memory)
    chosen = "; ".join(map(str, choices))
    return config, [f"Chosen for files like those of {name}, since it was not set: {chosen}."]


def fit_to_survey(config: C, records: Survey, memory: float | None) -> tuple[C, list[Choice]]:
    """Return a config with its open settings chosen, and the choices.

    Args:
        config: A validated config, with the devices resolved.
        records: The data.
        memory: Bytes of memory of each GPU; None on a CPU.
    """
    if records.num_records < 2:
        raise ConfigError(["pretraining compares records: it needs at least 2, and the train split has 1"])
    config = copy.deepcopy(config)
    choices = [*_choose_input(config, records), *_choose_backbone(config, records)]
    choices += [*_choose_batch(config, records, memory), *_choose_length(config, records)]
    choices += [*_choose_negatives(config, records), *_choose_optimization(config, records)]
    return replace(config, adjust={}), choices


def _is_open(config: schema.PretrainConfig) -> bool:
    open_values = (config.backbone, config.optimizer, config.data.batch_size, config.trainer.max_epochs)
    of_method = [getattr(config.method, name, 0) for name in ("queue_size", "momentum") if _is_ours(config.method)]
    is_open = any(value is None for value in (*open_values, *of_method, config.schedule.warmup_epochs))
    return is_open or not config.views or _needs_clip(config.data)


def _is_ours(method: object) -> bool:
    """Return whether null means a value to choose in the settings of a method: in another's it may mean anything."""
    return isinstance(method, MomentumConfig)


def _uses_negatives(loss: LossConfig | None) -> bool:
    """Return whether a loss makes use of a queue: what its config says, or else whether it has a parameter for one."""
    if loss is None:
        return False
    declared: bool | None = getattr(loss, "needs_negatives", None)
    return use_of_negatives(loss.build()) != "none" if declared is None else declared


def _needs_clip(data: DataConfig) -> bool:
    """Return whether the frames or the length of clips are open; a single frame needs no length."""
    return data.num_frames is None or (data.num_frames > 1 and data.clip_s is None and data.frame_stride is None)


def _on_gpu(config: Training) -> bool:
    return config.trainer.accelerator == "gpu"


def _choose_input(config: schema.PretrainConfig, records: Survey) -> Iterator[Choice]:
    """Choose the frames and length of clips, then the views."""
    if records.is_video and _takes_clips(config.backbone):
        yield from _choose_clips(config, records)
    elif config.data.num_frames is None:
        config.data = replace(config.data, num_frames=1)
        if records.is_video:
            yield Choice("data.num_frames=1", f"backbone={title_of(config.backbone)} takes images")
    if not config.views:
        name, views, reason = _views(config, records)
        config.views = [adjusted("views", view, config.adjust) for view in views]
        yield Choice(_as_typed(f"views={name}", "views.*", policy(name), config.views), reason)


def _takes_clips(backbone: BackboneConfig | None) -> bool:
    """Return whether a backbone chosen by hand takes clips; one that is left open will suit the data."""
    if backbone is None:
        return True
    if isinstance(backbone, PassedObject):
        network = build_network(backbone)
    else:
        with torch.device("meta"):
            network = build_network(backbone)
    try:
        return as_backbone(network, num_frames=8, size=SIZES[4]).takes_clips
    except ConfigError:  # it may need an input of another size
        return any(isinstance(layer, nn.Conv3d) for layer in network.modules())


def _choose_clips(config: Training, records: Survey) -> Iterator[Choice]:
    length = f"videos of {records.duration_s:.3g} s"
    data = config.data
    if data.clip_s is None and data.frame_stride is None and data.num_frames != 1:
        whole = 0 < records.duration_s <= WHOLE_S
        clip_s = math.floor(100 * records.duration_s) / 100 if whole else CLIP_S
        data = replace(data, clip_s=max(clip_s, 0.01))
        yield Choice(f"data.clip_s={show(data.clip_s)}", f"{length}{', taken whole' if whole else ''}")
    if data.num_frames is None:
        clip_s = data.clip_s or records.duration_s
        available = max(1, math.floor(clip_s * records.fps + 0.5)) if records.fps else 16
        wanted = 16 if clip_s > CLIP_S else 8
        num_frames = wanted if available >= wanted else 2 ** int(math.log2(available))
        data = replace(data, num_frames=num_frames)
        reason = f"clips of {clip_s:.3g} s" if num_frames == wanted else f"{length} have {available} frames"
        yield Choice(f"data.num_frames={num_frames}", reason)
    config.data = data


def _views(config: schema.PretrainConfig, records: Survey) -> tuple[str, list[ViewConfig], str]:
    """Return the name of a policy, its views with a size that fits, and the reason."""
    on_cpu = "" if _on_gpu(config) else ", on a CPU"
    if not records.is_video or config.data.num_frames == 1:
        size, reason = _size(records, _largest_crop(config, records)), f"images of {records.short_side} px{on_cpu}"
        if records.is_video:
            reason = f"single frames of {records.short_side} px{on_cpu}"
        name = "small_image" if size <= SMALL_PX else "image"
        return name, [replace(view, size=size) for view in policy(name)], reason
    size = _size(records, _largest_crop(config, records))
    pixels = f"of {records.short_side} px{on_cpu}"
    wanted = config.adjust.get("views", {}).get("input")
    if wanted == "difference" or (wanted is None and records.num_records < FEW_VIDEOS):
        # Standardized by clip: the contrast between people and background would identify the video.
        views = [replace(view, size=size, stats="clip") for view in policy("motion")]
        return (
            "motion",
            views,
            f"{records.num_records} videos {pixels}; with so few, appearance alone would tell them apart",
        )
    views = [replace(view, size=size) for view in policy("kinetics_baseline_112")]
    return "kinetics_baseline_112", views, f"{records.num_records} videos {pixels}"


def _largest_crop(config: Training, records: Survey) -> int:
    """Return the largest crop in pixels that the machine trains on in a reasonable time."""
    if records.is_video and config.data.num_frames != 1:
        return 112 if _on_gpu(config) else 64
    if _on_gpu(config):
        return SIZES[-1]
    return 96 if records.short_side >= 96 else 32  # a network for small images is slow on larger ones


def _size(records: Survey, largest: int) -> int:
    """Return the largest crop that is no larger than the records and `largest`, and at least the smallest crop."""
    return max([SIZES[0], *(size for size in SIZES if size <= min(records.short_side, largest))])


def _choose_backbone(config: schema.PretrainConfig, records: Survey) -> Iterator[Choice]:
    if config.backbone is not None:
        return
    size = config.views[0].size or SIZES[-1]
    shown = f"{config.data.num_frames} frames of {size} px" if records.is_video else f"images of {size} px"
    backbone, reason = _image_backbone(config, records, size), shown
    if records.is_video and config.data.num_frames != 1:
        if any(view.input == "difference" for view in config.views):
            # Batch norm subtracts a mean that comes mostly from the still background.
            backbone, reason = SmallR2Plus1DConfig(width=16, num_blocks=3, norm=False), f"{shown}, as differences"
        elif _on_gpu(config) and records.num_records >= FEW_VIDEOS:
            backbone = R3D18Config()
        else:
            backbone = SmallR2Plus1DConfig()
    config.backbone = adjusted("backbone", backbone, config.adjust)
    name = registry.name_of(backbone)
    yield Choice(_as_typed(f"backbone={name}", "backbone", [type(backbone)()], [config.backbone]), reason)


def _image_backbone(config: schema.PretrainConfig, records: Survey, size: int) -> BackboneConfig:
    if size <= SMALL_PX:
        return ResNet18Config(small_input=True)
    return ResNet50Config() if _on_gpu(config) and records.num_records >= MANY_IMAGES else ResNet18Config()


def _choose_batch(config: schema.PretrainConfig, records: Survey, memory: float | None) -> Iterator[Choice]:
    if config.data.batch_size is not None:
        return
    world_size, splits = config.trainer.world_size or 1, getattr(config.method, "bn_splits", 1)
    passes = world_size * config.trainer.accumulate * splits
    most = (64 if records.is_video else 256) * world_size if _on_gpu(config) else 32
    eighth = records.num_records // 8
    batch_size = max(min(most, eighth), min(8, records.num_records // 2))
    where = "a GPU" if _on_gpu(config) else "a CPU"
    reason = f"an eighth of {records.num_records} records" if eighth < most else f"enough on {where}"
    if batch_size > eighth:
        reason = f"the smallest useful size for {records.num_records} records"
    can_be_estimated = all(is_ours(choice) for choice in (config.backbone, config.method, config.loss))
    if memory is not None and can_be_estimated:
        config.data = replace(config.data, batch_size=_rounded(batch_size, passes))
        tried = replace(config, optimizer=config.optimizer or AdamWConfig())  # it keeps the most per weight
        fits = largest_batch(tried, MEMORY_SHARE * memory) * world_size * config.trainer.accumulate
        if fits < batch_size:
            batch_size, reason = fits, f"the largest that fits into {memory / GIB:.0f} GiB"
    config.data = replace(config.data, batch_size=_rounded(batch_size, passes))
    yield Choice(f"data.batch_size={config.data.batch_size}", reason)


def _rounded(batch_size: int, passes: int) -> int:
    """Round down to what the devices can share, and at least 2 samples for each."""
    unit = 8 * passes if batch_size >= 32 * passes else 2 * passes
    return max(batch_size - batch_size % unit, 2 * passes)


def _steps_per_epoch(config: schema.PretrainConfig, records: Survey) -> int:
    return max(1, records.num_records // config.data.samples_per_step)


def _choose_length(config: schema.PretrainConfig, records: Survey) -> Iterator[Choice]:
    if config.trainer.max_epochs is not None:
        return
    steps = _steps_per_epoch(config, records)
    if _on_gpu(config):
        epochs = min(max(200, math.ceil(MIN_GPU_STEPS / steps)), max(1, MAX_GPU_STEPS // steps))
    else:
        epochs = min(max(1, round(CPU_STEPS[records.kind] / steps)), 200)
    config.trainer = replace(config.trainer, max_epochs=epochs)
    where = "" if _on_gpu(config) else ", on a CPU"
    yield Choice(f"trainer.max_epochs={epochs}", f"{counted(epochs * steps, 'step')}{where}")


def _choose_negatives(config: schema.PretrainConfig, records: Survey) -> Iterator[Choice]:
    """Choose the queue and the momentum of the key encoder, which must keep up with the training."""
    method: Any = config.method
    if not _is_ours(method):
        return
    if getattr(method, "queue_size", 0) is None:
        batch = config.data.samples_per_step
        quarter = max(1, round(records.num_records / 4 / batch)) * batch
        largest = max(1, 65536 // batch) * batch
        size, reason = min(quarter, largest), f"a quarter of {records.num_records} records, rounded to whole batches"
        if quarter > largest:
            reason = "as published for large data sets"
        elif quarter == batch:
            reason = f"one batch, for {records.num_records} records"
        if not _uses_negatives(config.loss):
            size, reason = 0, f"loss={title_of(config.loss)} uses no negatives"
        method = replace(method, queue_size=size)
        yield Choice(f"method.queue_size={size}", reason)
    if method.momentum is None:
        steps = _steps_per_epoch(config, records) * config.trainer.epochs
        momentum = round(min(max(1 - 50 / steps, 0.9), 0.99), 2)
        method = replace(method, momentum=momentum)
        yield Choice(f"method.momentum={momentum:g}", counted(steps, "step"))
    config.method = method


def _choose_optimization(config: schema.PretrainConfig, records: Survey) -> Iterator[Choice]:
    steps = _steps_per_epoch(config, records) * config.trainer.epochs
    if config.optimizer is None:
        optimizer: Any = SGDConfig()
        if steps <= SHORT_TRAINING:  # an effective rate of 1e-3
            lr = float(f"{0.256 / config.data.samples_per_step:.3g}")
            optimizer = AdamWConfig(lr=lr, weight_decay=0.01)
        name, chosen = registry.name_of(optimizer), adjusted("optimizer", optimizer, config.adjust)
        config.optimizer = chosen
        typed = _as_typed(f"optimizer={name}", "optimizer", [type(optimizer)()], [chosen])
        batch_size = config.data.samples_per_step
        scaled = f"optimizer.lr is for 256 records, {effective_lr(chosen.lr, batch_size):.3g} for {batch_size}"
        yield Choice(typed, f"{counted(steps, 'step')}; {scaled}")
    if config.schedule.warmup_epochs is None:
        warmup = min(5.0, round(config.trainer.epochs / 10, 2))
        config.schedule = replace(config.schedule, warmup_epochs=warmup)
        yield Choice(
            f"schedule.warmup_epochs={show(warmup)}", f"a tenth of max_epochs={config.trainer.epochs}, at most 5"
        )


def _as_typed(choice: str, path: str, defaults: list[Any], chosen: list[Any]) -> str:
    """Return a choice with its settings that differ from the defaults, as one would type them."""
    pairs = list(zip(defaults, chosen, strict=True))
    names = [name for name in vars(chosen[0]) if any(getattr(a, name) != getattr(b, name) for a, b in pairs)]
    return " ".join([choice, *(f"{path}.{name}={show(getattr(chosen[0], name))}" for name in names)])
