"""What a pretraining would take, found without training: parameters, FLOPs, memory, network, time."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eztorch_sce.errors import ConfigError
from eztorch_sce.losses.contrastive import ContrastiveLoss
from eztorch_sce.losses.streaming import BLOCK_NUMBERS, BLOCK_NUMBERS_GPU
from eztorch_sce.planning.cost import Flops, NetworkCost, Shape, Size, loss_cost, network_cost
from eztorch_sce.planning.devices import DEVICES, find_measurement
from eztorch_sce.registry import name_of
from eztorch_sce.types import InputSpec

GIB = 2**30
_FLOAT = 4  # bytes
# A convolution, its norm and its ReLU keep two tensors for the backward pass. They read and write 7 such tensors
# forward (2, 3 and 2: a norm reads its input twice) and 12 backward (4, 5 and 3).
_MOVED_FORWARD, _MOVED_BACKWARD = 7 / 2, 12 / 2  # bytes per byte kept


@dataclass
class Plan:
    """What a pretraining would take.

    Attributes:
        title: What is trained, in words.
        parameters: Numbers by part.
        view_flops: Of one sample's first view through the backbone, forward.
        flops: Of a training step, per sample and by part.
        memory: On each device, by part; their sum is the peak.
        network: Bytes that each device sends per optimizer step, by what.
        batch: Samples on a device at a time.
        usable: Bytes of a device that tensors may take.
        largest_batch: Samples on a device at a time that fit in them; 0 where none does.
        step_s: Seconds of an optimizer step.
        epoch_s, total_s: Seconds of an epoch and of all; None where nobody said how many records there are.
        assumptions: What all this rests on, one sentence each.
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
        """Say in words whether it fits, and how long it takes."""
        needed, usable = self.memory_at(self.batch) / GIB, self.usable / GIB
        if needed <= usable:
            fits = f"A batch of {self.batch} on each device fits: {needed:.1f} of {usable:.1f} GiB."
        else:
            fits = (
                f"A batch of {self.batch} on each device does NOT fit: {needed:.1f} GiB, and there are {usable:.1f}. "
                "trainer.precision=bf16-mixed, trainer.accumulate=2 or more devices take less of each."
            )
        largest = f"The largest that does is {self.largest_batch}."
        step = f"An optimizer step takes {self.step_s:.3g} s"
        if self.epoch_s is None or self.total_s is None:
            return [f"{fits} {largest}", f"{step}."]
        hours = f"an epoch {self.epoch_s / 60:.1f} minutes, all epochs {self.total_s / 3600:.1f} hours"
        return [f"{fits} {largest}", f"{step}, {hours}."]


def plan_pretraining(config: Any, num_records: int | None) -> Plan:
    """Return what a pretraining would take.

    Args:
        config: A run-level config of a pretraining, with `device`, `throughput`, `utilization` and `memory_share`.
        num_records: Of the training part; None leaves the time of an epoch open.

    Raises:
        ConfigError: If the backbone does not take what the views would be.
    """
    num_devices = config.trainer.world_size
    batch = config.data.batch_size // (num_devices * config.trainer.accumulate)
    shapes = _view_shapes(config)
    networks = network_cost(config, shapes, batch)
    loss_flops, loss_kept = loss_cost(config, networks.given, everyone=batch * num_devices)

    flops = networks.flops | {"loss": loss_flops}
    memory = _memory(config, networks, loss_kept, shapes, num_devices)
    network = _network(config, networks, shapes, batch, num_devices)
    usable = config.memory_share * DEVICES[config.device].memory_gib * GIB
    fixed, per_sample = (sum(sizes) for sizes in zip(*memory.values(), strict=True))
    step_s, timed_by = _step_seconds(config, shapes, flops, memory, network, num_devices)
    epoch_s = None if num_records is None else num_records // config.data.batch_size * step_s
    return Plan(
        title=_title(config, shapes, num_devices),
        parameters=networks.parameters,
        view_flops=networks.view_flops,
        flops=flops,
        memory=memory,
        network=network,
        batch=batch,
        usable=usable,
        largest_batch=max(0, math.floor((usable - fixed) / per_sample)),
        step_s=step_s,
        epoch_s=epoch_s,
        total_s=None if epoch_s is None else config.trainer.max_epochs * epoch_s,
        assumptions=[
            "FLOPs are those of convolutions and matrix products; a multiply-add is two.",
            f"Memory is that of tensors, counted on {networks.measured_on}. They get memory_share="
            f"{config.memory_share:g} of the device; the rest is for the CUDA context, the workspaces of its libraries "
            "and fragmentation.",
            "Network: in a ring of n devices each sends 2 (n - 1) / n of what is summed, and n - 1 times its part of "
            "what is gathered.",
            *timed_by,
            "Records: how many this data set has is not known here; num_records=... gives the time of an epoch."
            if num_records is None
            else f"Records: {num_records}; an epoch leaves the last, incomplete batch out.",
        ],
    )


def _view_shapes(config: Any) -> list[Shape]:
    with torch.device("meta"):
        takes_clips = config.backbone.build().takes_clips
    num_frames = config.data.num_frames or (InputSpec().num_frames if takes_clips else 1)
    if num_frames > 1 and not takes_clips:
        raise ConfigError(
            [
                f"data.num_frames={num_frames}, and backbone={name_of(config.backbone)} takes single images: choose "
                "a video backbone (backbone=r3d18) or data.num_frames=1"
            ]
        )
    return [(3, num_frames, view.size, view.size) for view in config.views]


def _title(config: Any, shapes: list[Shape], num_devices: int) -> str:
    networks = ", ".join(name_of(part) for part in (config.backbone, config.method, config.loss))
    sizes = " + ".join(str(size) for *_, size in shapes)
    samples = f"{config.data.batch_size} samples a step on {num_devices} x {config.device}"
    kind = "images" if shapes[0][1] == 1 else f"clips of {shapes[0][1]} frames"
    return f"{networks}; views: {kind}, {sizes} px; {samples}, {config.trainer.precision}"


def _memory(
    config: Any, networks: NetworkCost, loss_kept: Size, shapes: list[Shape], num_devices: int
) -> dict[str, Size]:
    """Return the bytes on a device by part."""
    gradients = _FLOAT * networks.num_learning
    canvas = config.data.canvas
    pixels = sum(math.prod(shape) for shape in shapes)
    decoded = pixels if canvas is None else sum(channels * frames * canvas**2 for channels, frames, *_ in shapes)
    block = _FLOAT * (BLOCK_NUMBERS if config.device == "cpu" else BLOCK_NUMBERS_GPU)
    if not isinstance(config.loss.build(), ContrastiveLoss):
        block = 0
    return {
        "weights": Size(networks.weights),
        "gradients": Size(gradients * (2 if num_devices > 1 else 1)),  # the network gets a copy
        "optimizer state": Size(gradients * _state_per_weight(config.optimizer)),
        "momentum encoder": Size(networks.momentum_encoder),
        "queue": Size(networks.queue),
        "activations kept": networks.kept,
        "views, float": Size(0, _FLOAT * pixels),
        "views, uint8": Size(0, decoded),
        "loss": loss_kept._replace(fixed=loss_kept.fixed + block),
    }


def _state_per_weight(optimizer: Any) -> float:
    """Return how many numbers an optimizer keeps per weight, from one step on a small matrix."""
    weight = nn.Parameter(torch.ones(8, 8))
    weight.grad = torch.ones(8, 8)
    built = optimizer.build([weight], 0.1)
    built.step()
    state = [value for value in built.state[weight].values() if isinstance(value, Tensor)]
    return sum(value.numel() for value in state if value.shape == weight.shape) / weight.numel()


def _network(config: Any, networks: NetworkCost, shapes: list[Shape], batch: int, num_devices: int) -> dict[str, float]:
    """Return the bytes that a device sends per optimizer step."""
    given, times = networks.given, config.trainer.accumulate  # gradients go once per optimizer step, the rest each time
    gathered, summed = num_devices - 1, 2 * (num_devices - 1) / num_devices  # bytes sent per byte
    keys = _FLOAT * batch * sum(rows.shape[1] for rows in given.keys)
    sent = {"gradients": _FLOAT * networks.num_learning * summed}
    if given.negatives is not None or given.batch_keys:
        learn = any(rows.requires_grad for rows in given.batch_keys or [])  # then their gradients are summed, too
        sent["keys"] = times * keys * (gathered + learn * num_devices * summed)
    if config.trainer.sync_batchnorm:  # mean, deviation and count forward, two sums backward
        forward = sum(2 * channels + 1 for channels, _ in networks.norms) * gathered
        backward = sum(2 * channels for channels, learns in networks.norms if learns) * summed
        sent["batch norm"] = times * _FLOAT * (forward + backward)
    if getattr(config.method, "shuffle_bn", False):
        pixels = sum(math.prod(shape) for shape in shapes[: len(given.keys)])
        sent["shuffled views"] = times * (_FLOAT * batch * pixels + keys) * gathered
    return sent


def _step_seconds(
    config: Any,
    shapes: list[Shape],
    flops: dict[str, Flops],
    memory: dict[str, Size],
    network: dict[str, float],
    num_devices: int,
) -> tuple[float, list[str]]:
    """Return the seconds of an optimizer step, as measured where they were, and what they rest on."""
    batch_size, precision = config.data.batch_size, config.trainer.precision
    if config.throughput is not None:
        seconds = batch_size * len(shapes) / config.throughput
        return seconds, [f"Time is measured: throughput={config.throughput:g} clips/s on all devices together."]
    if (measurement := _measurement(config, shapes)) is not None:
        samples_per_s = measurement.samples_per_s
        return batch_size / (samples_per_s * num_devices), [
            f"Time is measured: {samples_per_s:.3g} samples/s on one device, {measurement.hardware}: "
            f"{measurement.workload} ({measurement.source})"
            + (f". {num_devices} of them are {num_devices} times as fast." if num_devices > 1 else ".")
        ]
    device = DEVICES[config.device]
    peak = device.peak(precision)
    # The momentum encoder moves as much as the online one does forward, by the share of its FLOPs.
    momentum = flops["momentum encoder"].forward / flops["online encoder"].forward if "momentum encoder" in flops else 0
    moved = memory["activations kept"].per_sample * (_MOVED_FORWARD * (1 + momentum) + _MOVED_BACKWARD)
    computing = sum(map(sum, flops.values())) / (peak * 1e12) + moved / (device.bandwidth_gb_s * 1e9)
    sending = sum(network.values()) / (device.link_gb_s * 1e9)
    seconds = batch_size / num_devices * computing / config.utilization + sending
    return seconds, [
        f"Time is not measured, but estimated from utilization={config.utilization:g} of {peak:g} TFLOP/s "
        f"({precision}) and of {device.bandwidth_gb_s:g} GB/s to memory, one after the other; what is kept for the "
        f"backward pass is moved {_MOVED_FORWARD + _MOVED_BACKWARD:g} times.",
        f"Devices send {device.link_gb_s:g} GB/s each, between machines too, and do not compute meanwhile.",
        "Data arrive as fast as they are used. throughput=CLIPS_PER_S, `clips_per_s` of a run, replaces the estimate.",
    ]


def _measurement(config: PlanSettings, shapes: list[Shape]) -> Measurement | None:
    """Return a measured throughput of this training on one device. There are some of images in float32."""
    same_images = len(set(shapes)) == 1 and shapes[0][1] == 1
    if not same_images or config.trainer.precision != "32-true" or name_of(config.method) != "momentum_contrast":
        return None
    return find_measurement(config.device, f"{name_of(config.backbone)}, {len(shapes)} views of {shapes[0][2]} px,")
