"""Cost of a pretraining, estimated without training: parameters, FLOPs, memory, network traffic and time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from eztorch_sce.errors import ConfigError
from eztorch_sce.losses.contrastive import ContrastiveLoss
from eztorch_sce.losses.streaming import BLOCK_NUMBERS, BLOCK_NUMBERS_GPU
from eztorch_sce.models.backbones.base import as_backbone, build_network
from eztorch_sce.objects import title_of
from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.planning.cost import Flops, NetworkCost, Shape, Size, TrainingSettings, loss_cost, network_cost
from eztorch_sce.planning.devices import DEVICES, Measurement, find_measurement
from eztorch_sce.settings import chosen
from eztorch_sce.types import InputSpec

GIB = 2**30
_FLOAT = 4  # bytes
# A convolution, its norm and its ReLU keep two tensors for the backward pass. They read and write 7 such tensors
# forward (2, 3 and 2: a norm reads its input twice) and 12 backward (4, 5 and 3).
_MOVED_FORWARD, _MOVED_BACKWARD = 7 / 2, 12 / 2  # bytes moved per byte kept


class PlanSettings(TrainingSettings, Protocol):
    """The settings of `PlanConfig`."""

    device: str
    throughput: float | None
    utilization: float
    memory_share: float


@dataclass
class Plan:
    """Estimated cost of a pretraining.

    Attributes:
        title: Description of the training in one line.
        parameters: Number of parameters by component.
        view_flops: Forward FLOPs of the backbone for the first view of one sample.
        flops: FLOPs of a training step per sample, by component.
        memory: Memory per device by component; the peak is the sum of all.
        network: Bytes that each device sends per optimizer step, by content.
        batch: Samples per device and forward pass.
        usable: Bytes of device memory available to tensors.
        largest_batch: Largest batch per device that fits; 0 if none does.
        step_s: Seconds per optimizer step.
        epoch_s, total_s: Seconds per epoch and of the whole training; None if the number of records is unknown.
        assumptions: Assumptions behind the numbers, one sentence each.
    """

    title: str
    parameters: dict[str, int]
    view_flops: float
    flops: dict[str, Flops]
    memory: dict[str, Size]
    network: dict[str, float]
    batch: int
    usable: float
    largest_batch: int
    step_s: float
    epoch_s: float | None
    total_s: float | None
    assumptions: list[str]

    def memory_at(self, batch: int) -> float:
        """Return the bytes that a device needs for a batch."""
        return sum(size.at(batch) for size in self.memory.values())

    def verdict(self) -> list[str]:
        """Return two sentences: whether the batch fits, and how long the training takes."""
        needed, usable = self.memory_at(self.batch) / GIB, self.usable / GIB
        if needed <= usable:
            fit = f"A batch of {self.batch} per device fits: {needed:.1f} of {usable:.1f} GiB."
        else:
            fit = (
                f"A batch of {self.batch} per device does NOT fit: it needs {needed:.1f} GiB of {usable:.1f}. Use "
                "trainer.precision=bf16-mixed, trainer.accumulate=2 or more devices."
            )
        step = f"An optimizer step takes {self.step_s:.3g} s"
        if self.epoch_s is not None and self.total_s is not None:
            step += f", an epoch {self.epoch_s / 60:.1f} minutes, all epochs {self.total_s / 3600:.1f} hours"
        return [f"{fit} The largest batch that fits is {self.largest_batch}.", f"{step}."]


def plan_pretraining(config: PlanSettings, num_records: int | None, chosen: Sequence[str] = ()) -> Plan:
    """Return the estimated cost of a pretraining.

    Args:
        config: A validated config with a resolved number of devices.
        num_records: Number of training records; None if unknown, which leaves out the time per epoch.
        chosen: Settings that were chosen rather than set, one sentence each.

    Raises:
        ConfigError: If the backbone does not accept the views.
    """
    num_devices = config.trainer.world_size
    assert num_devices is not None
    batch = config.data.samples_per_step // (num_devices * config.trainer.accumulate)
    shapes = _view_shapes(config)
    networks = network_cost(config, shapes, batch)
    loss = None if config.loss is None else config.loss.build()
    loss_flops, loss_kept = loss_cost(loss, networks.loss_inputs, global_batch=batch * num_devices)

    flops = networks.flops | {"loss": loss_flops}
    memory = _memory(config, networks, loss_kept, shapes, num_devices)
    network = _network(config, networks, shapes, batch, num_devices)
    usable = config.memory_share * DEVICES[config.device].memory_gib * GIB
    step_s, time_assumptions = _step_seconds(config, shapes, flops, memory, network, num_devices)
    epoch_s = None if num_records is None else num_records // config.data.samples_per_step * step_s
    return Plan(
        title=_title(config, shapes, num_devices),
        parameters=networks.parameters,
        view_flops=networks.view_flops,
        flops=flops,
        memory=memory,
        network=network,
        batch=batch,
        usable=usable,
        largest_batch=_largest(memory, usable),
        step_s=step_s,
        epoch_s=epoch_s,
        total_s=None if epoch_s is None else config.trainer.epochs * epoch_s,
        assumptions=[
            *chosen,
            "FLOPs: convolutions and matrix products only; a multiply-add counts as two.",
            f"Memory: tensors only, measured with {networks.measured_on}. They may use memory_share="
            f"{config.memory_share:g} of the device; the rest is left to the CUDA context, library workspaces and "
            "fragmentation.",
            "Network: in a ring of n devices, each device sends 2 (n - 1) / n times the bytes to sum, and n - 1 times "
            "its own bytes to gather.",
            *time_assumptions,
            "Records: the size of this data set is unknown; set num_records=... for the time per epoch."
            if num_records is None
            else f"Records: {num_records}; an epoch drops the last, incomplete batch.",
        ],
    )


def largest_batch(config: TrainingSettings, usable: float) -> int:
    """Return the largest batch per device and forward pass that fits into `usable` bytes; 0 if none does.

    Args:
        config: A validated config with a resolved number of devices.
        usable: Bytes of memory per device that tensors may use.
    """
    num_devices = config.trainer.world_size or 1
    batch = max(1, config.data.samples_per_step // (num_devices * config.trainer.accumulate))
    shapes = _view_shapes(config)
    networks = network_cost(config, shapes, batch)
    loss = None if config.loss is None else config.loss.build()
    _, loss_kept = loss_cost(loss, networks.loss_inputs, global_batch=batch * num_devices)
    return _largest(_memory(config, networks, loss_kept, shapes, num_devices), usable)


def _largest(memory: dict[str, Size], usable: float) -> int:
    fixed = sum(size.fixed for size in memory.values())
    per_sample = sum(size.per_sample for size in memory.values())
    return max(0, math.floor((usable - fixed) / per_sample))


def _view_shapes(config: TrainingSettings) -> list[Shape]:
    with torch.device("meta"):
        takes_clips = as_backbone(build_network(chosen(config.backbone))).takes_clips
    num_frames = config.data.num_frames or (InputSpec().num_frames if takes_clips else 1)
    if num_frames > 1 and not takes_clips:
        raise ConfigError(
            [
                f"data.num_frames={num_frames}, but backbone={title_of(config.backbone)} takes single images: choose "
                "a video backbone (backbone=r3d18) or data.num_frames=1"
            ]
        )
    sizes = [view.size for view in config.views if view.size is not None]  # validation rejects null
    return [(3, num_frames, size, size) for size in sizes]


def _title(config: PlanSettings, shapes: list[Shape], num_devices: int) -> str:
    choices = [config.backbone, config.method] + ([] if config.loss is None else [config.loss])
    networks = ", ".join(map(title_of, choices))
    sizes = " + ".join(str(size) for *_, size in shapes)
    samples = f"{config.data.samples_per_step} samples per step on {num_devices} x {config.device}"
    kind = "images" if shapes[0][1] == 1 else f"clips of {shapes[0][1]} frames"
    return f"{networks}; views: {kind}, {sizes} px; {samples}, {config.trainer.precision}"


def _memory(
    config: TrainingSettings, networks: NetworkCost, loss_kept: Size, shapes: list[Shape], num_devices: int
) -> dict[str, Size]:
    """Return the bytes per device by component."""
    gradients = _FLOAT * networks.num_trainable
    canvas = config.data.canvas
    pixels = sum(math.prod(shape) for shape in shapes)
    decoded = pixels if canvas is None else sum(channels * frames * canvas**2 for channels, frames, *_ in shapes)
    block = _FLOAT * (BLOCK_NUMBERS if config.trainer.accelerator == "cpu" else BLOCK_NUMBERS_GPU)
    if config.loss is None or not isinstance(config.loss.build(), ContrastiveLoss):
        block = 0
    return {
        "weights": Size(networks.weights),
        "gradients": Size(gradients * (2 if num_devices > 1 else 1)),  # DDP copies them into buckets to send them
        "optimizer state": Size(gradients * _state_per_weight(chosen(config.optimizer))),
        "momentum encoder": Size(networks.momentum_encoder),
        "queue": Size(networks.queue),
        "activations kept": networks.activations,
        "views, float": Size(0, _FLOAT * pixels),
        "views, uint8": Size(0, decoded),
        "loss": loss_kept._replace(fixed=loss_kept.fixed + block),
    }


def _state_per_weight(optimizer: OptimizerConfig) -> float:
    """Return the number of values an optimizer keeps per weight, from one step on a small matrix."""
    weight = nn.Parameter(torch.ones(8, 8))
    weight.grad = torch.ones(8, 8)
    built = optimizer.build([weight], 0.1)
    built.step()
    state = [value for value in built.state[weight].values() if isinstance(value, Tensor)]
    return sum(value.numel() for value in state if value.shape == weight.shape) / weight.numel()


def _network(
    config: PlanSettings, networks: NetworkCost, shapes: list[Shape], batch: int, num_devices: int
) -> dict[str, float]:
    """Return the bytes that each device sends per optimizer step, by content."""
    # Everything except the gradients is sent in every forward pass.
    inputs, times = networks.loss_inputs, config.trainer.accumulate
    gathered, summed = num_devices - 1, 2 * (num_devices - 1) / num_devices  # bytes sent per byte
    keys = _FLOAT * batch * sum(rows.shape[1] for rows in inputs.keys)
    sent = {"gradients": _FLOAT * networks.num_trainable * summed}
    if inputs.negatives is not None or inputs.batch_keys:
        keys_learn = any(rows.requires_grad for rows in inputs.batch_keys or [])  # their gradients are summed too
        sent["keys"] = times * keys * (gathered + keys_learn * num_devices * summed)
    if config.trainer.sync_batchnorm:  # mean, deviation and count forward, two sums backward
        forward = sum(2 * channels + 1 for channels, _ in networks.norms) * gathered
        backward = sum(2 * channels for channels, learns in networks.norms if learns) * summed
        sent["batch norm"] = times * _FLOAT * (forward + backward)
    if getattr(config.method, "shuffle_bn", False):
        pixels = sum(math.prod(shape) for shape in shapes[: len(inputs.keys)])
        sent["shuffled views"] = times * (_FLOAT * batch * pixels + keys) * gathered
    return sent


def _step_seconds(
    config: PlanSettings,
    shapes: list[Shape],
    flops: dict[str, Flops],
    memory: dict[str, Size],
    network: dict[str, float],
    num_devices: int,
) -> tuple[float, list[str]]:
    """Return the seconds per optimizer step, measured if possible, and the assumptions behind them."""
    batch_size = config.data.samples_per_step
    if config.throughput is not None:
        seconds = batch_size * len(shapes) / config.throughput
        return seconds, [f"Time: measured; throughput={config.throughput:g} views/s on all devices together."]
    if (measurement := _measurement(config, shapes)) is not None:
        rate = measurement.samples_per_s
        scaling = f". {num_devices} devices are assumed to be {num_devices} times as fast." if num_devices > 1 else "."
        return batch_size / (rate * num_devices), [
            f"Time: measured; {rate:.3g} samples/s on one device, {measurement.hardware}: {measurement.workload} "
            f"({measurement.source}){scaling}"
        ]
    device = DEVICES[config.device]
    peak = device.peak(chosen(config.trainer.precision))
    # The momentum encoder moves as many bytes as the online encoder does forward, in proportion to its FLOPs.
    online = next(iter(flops.values()))
    momentum = flops["momentum encoder"].forward / online.forward if "momentum encoder" in flops else 0
    moved = memory["activations kept"].per_sample * (_MOVED_FORWARD * (1 + momentum) + _MOVED_BACKWARD)
    computing = sum(map(sum, flops.values())) / (peak * 1e12) + moved / (device.bandwidth_gb_s * 1e9)
    sending = sum(network.values()) / (device.link_gb_s * 1e9)
    seconds = batch_size / num_devices * computing / config.utilization + sending
    return seconds, [
        f"Time: estimated, not measured. Computing runs at utilization={config.utilization:g} of {peak:g} TFLOP/s "
        f"({config.trainer.precision}), then memory traffic at the same fraction of {device.bandwidth_gb_s:g} GB/s; "
        f"activations kept for the backward pass are moved {_MOVED_FORWARD + _MOVED_BACKWARD:g} times.",
        f"Each device sends {device.link_gb_s:g} GB/s, also between machines, and does not compute while sending.",
        "Data loading is never the bottleneck. Set throughput=VIEWS_PER_S (`views_per_s` of a run) to replace the "
        "estimate by a measurement.",
    ]


def _measurement(config: PlanSettings, shapes: list[Shape]) -> Measurement | None:
    """Return a measurement of this training on one device, or None. Only image trainings in float32 were measured."""
    same_images = len(set(shapes)) == 1 and shapes[0][1] == 1
    if not same_images or config.trainer.precision != "32-true" or title_of(config.method) != "momentum_contrast":
        return None
    return find_measurement(config.device, f"{title_of(config.backbone)}, {len(shapes)} views of {shapes[0][2]} px,")
