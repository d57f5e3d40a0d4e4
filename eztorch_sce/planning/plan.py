"""Cost of a pretraining, estimated without training: parameters, FLOPs, memory, network traffic and time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from eztorch_sce.errors import ConfigError
from eztorch_sce.models.backbones.base import built_on_meta
from eztorch_sce.objects import title_of
from eztorch_sce.planning.cost import Flops, Shape, Size, TrainingSettings, loss_cost, network_cost
from eztorch_sce.planning.devices import DEVICES, Measurement, find_measurement
from eztorch_sce.planning.sizes import Costs
from eztorch_sce.planning.step_time import StepTime, step_time
from eztorch_sce.settings import chosen
from eztorch_sce.types import InputSpec

GIB = 2**30
SCALES = (1, 8, 64)  # numbers of devices that every plan for GPUs compares
_FORMS = {"32-true": "float32", "bf16-mixed": "bf16+channels_last"}  # names of benchmarks/step.py
_PER_MACHINE = 8  # devices of a machine in this comparison


class PlanSettings(TrainingSettings, Protocol):
    """The settings of `PlanConfig`."""

    device: str
    throughput: float | None
    utilization: float
    memory_share: float


class Scale(NamedTuple):
    """The same training on another number of devices.

    Attributes:
        num_devices: Number of devices.
        batch: Samples per device and forward pass.
        memory: Bytes that each device needs.
        time: Time of a step.
    """

    num_devices: int
    batch: int
    memory: float
    time: StepTime


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
        step_s: Seconds per optimizer step, measured or estimated.
        time: Estimated time of a step on the device, the host and the network.
        scales: The training on other numbers of devices.
        advice: What would make the step faster or let it fit, one sentence each.
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
    time: StepTime
    scales: list[Scale]
    advice: list[str]
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
            fit = f"A batch of {self.batch} per device does NOT fit: it needs {needed:.1f} GiB of {usable:.1f}."
        step = f"An optimizer step takes {self.step_s:.3g} s"
        if self.epoch_s is not None and self.total_s is not None:
            step += f", an epoch {self.epoch_s / 60:.3g} minutes, all epochs {self.total_s / 3600:.3g} hours"
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
    costs = _measure(config)
    num_devices = config.trainer.world_size or 1
    memory, usable = costs.memory(num_devices), config.memory_share * DEVICES[config.device].memory_gib * GIB
    time = _time(costs, config)
    step_s, time_assumptions = _step_seconds(config, costs.shapes, time)
    epoch_s = None if num_records is None else num_records // config.data.samples_per_step * step_s
    return Plan(
        title=_title(config, costs.shapes, num_devices),
        parameters=costs.networks.parameters,
        view_flops=costs.networks.view_flops,
        flops=costs.flops(),
        memory=memory,
        network={name: traffic.sent for name, traffic in costs.traffic(num_devices).items()},
        batch=_batch(config),
        usable=usable,
        largest_batch=_largest(memory, usable),
        step_s=step_s,
        time=time,
        scales=_scales(costs, config),
        advice=_advice(costs, config, time, usable),
        epoch_s=epoch_s,
        total_s=None if epoch_s is None else config.trainer.epochs * epoch_s,
        assumptions=[
            *chosen,
            "FLOPs: convolutions and matrix products only; a multiply-add counts as two.",
            f"Memory: tensors only, measured with {costs.networks.measured_on}. They may use memory_share="
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
    return _largest(_measure(config, backward=False).memory(config.trainer.world_size or 1), usable)


def needed_memory(config: TrainingSettings) -> float:
    """Return the bytes of memory that each device needs for tensors.

    Args:
        config: A validated config with a resolved number of devices.
    """
    costs = _measure(config, backward=False).memory(config.trainer.world_size or 1)
    return sum(size.at(_batch(config)) for size in costs.values())


def _batch(config: TrainingSettings) -> int:
    """Return the samples per device and forward pass."""
    return max(1, config.data.samples_per_step // ((config.trainer.world_size or 1) * config.trainer.accumulate))


def _measure(config: TrainingSettings, backward: bool = True) -> Costs:
    """Return the costs of a training; without the backward pass, only those of memory are complete."""
    shapes = _view_shapes(config)
    networks = network_cost(config, shapes, _batch(config), backward)
    loss = None if config.loss is None else config.loss.build()
    global_batch = _batch(config) * (config.trainer.world_size or 1)
    return Costs(config, shapes, networks, loss_cost(loss, networks.loss_inputs, global_batch))


def _time(costs: Costs, config: PlanSettings) -> StepTime:
    traffic = costs.traffic(costs.config.trainer.world_size or 1)
    return step_time(
        costs.config,
        costs.networks,
        costs.loss.launches,
        costs.flops(),
        traffic,
        config.device,
        config.utilization,
    )


def _scales(costs: Costs, config: PlanSettings) -> list[Scale]:
    """Return the training on 1, 8 and 64 devices and on those of the config, where the batch divides among them."""
    if config.device == "cpu":
        return []
    scales = []
    for num_devices in sorted({*SCALES, config.trainer.world_size or 1}):
        if config.data.samples_per_step % (num_devices * config.trainer.accumulate):
            continue
        there = costs.on(num_devices, _PER_MACHINE)
        batch = _batch(there.config)
        needed = sum(size.at(batch) for size in there.memory(num_devices).values())
        scales.append(Scale(num_devices, batch, needed, _time(there, config)))
    return scales


def _advice(costs: Costs, config: PlanSettings, time: StepTime, usable: float) -> list[str]:
    """Return what would let the batch fit, and what would help if the device waits for the host."""
    batch, num_devices = _batch(config), config.trainer.world_size or 1
    memory, lines = costs.memory(num_devices), []
    if sum(size.at(batch) for size in memory.values()) > usable:
        lines.append(f"To make it fit: {_ways_to_fit(costs, config, usable)}.")
    if not time.is_bound_by_host:
        return lines
    lines.append(
        f"The device waits for the host: {sum(time.launches.values()):.0f} launches take {1e3 * time.host_s:.0f} ms, "
        f"and the device computes for {1e3 * time.device_s:.0f} ms."
    )
    if not config.trainer.compile:
        compiled = _time(_with_trainer(costs, compile=True), config)
        lines.append(f"With trainer.compile=true, a step takes {1e3 * compiled.total_s:.0f} ms.")
    balanced = math.ceil(batch * time.host_s / time.device_s)
    most = _largest(memory, usable)
    if batch < balanced <= most or batch < most < balanced:
        larger = min(balanced, most)
        setting = f"data.batch_size={larger * num_devices * config.trainer.accumulate}"
        seconds = max(time.host_s, time.device_s * larger / batch)
        lines.append(f"A batch of {larger} per device ({setting}) takes {1e3 * seconds:.0f} ms besides what is sent.")
    lines.append(
        "Loader workers on all cores slow the launches: leave a core to each training process (data.num_workers)."
    )
    return lines


def _ways_to_fit(costs: Costs, config: PlanSettings, usable: float) -> str:
    """Return the settings that need less memory, with the largest batch per device of those that are not obvious."""
    ways = []
    if config.trainer.precision == "32-true":
        ways.append("trainer.precision=bf16-mixed")
    if not config.trainer.checkpointing:
        less = replace(costs, networks=costs.networks._replace(activations=costs.networks.checkpointed))
        largest = _largest(less.memory(config.trainer.world_size or 1), usable)
        ways.append(f"trainer.checkpointing=true (up to {largest} per device)")
    return ", ".join([*ways, f"trainer.accumulate={2 * config.trainer.accumulate}, or more devices"])


def _with_trainer(costs: Costs, **settings: Any) -> Costs:
    """Return the costs with other settings of the trainer."""
    config: Any = costs.config
    return replace(costs, config=replace(config, trainer=replace(config.trainer, **settings)))


def _largest(memory: dict[str, Size], usable: float) -> int:
    fixed = sum(size.fixed for size in memory.values())
    per_sample = sum(size.per_sample for size in memory.values())
    return max(0, math.floor((usable - fixed) / per_sample))


def _view_shapes(config: TrainingSettings) -> list[Shape]:
    takes_clips = built_on_meta(chosen(config.backbone)).takes_clips
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


def _step_seconds(config: PlanSettings, shapes: list[Shape], time: StepTime) -> tuple[float, list[str]]:
    """Return the seconds per optimizer step, measured if possible, and the assumptions behind them."""
    batch_size, num_devices = config.data.samples_per_step, config.trainer.world_size or 1
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
    return time.total_s, [
        f"Time: estimated, not measured: the larger of computing and launching, and sending. Computing runs at "
        f"utilization={config.utilization:g} of {peak:g} TFLOP/s ({config.trainer.precision}), then memory traffic, "
        f"counted operator by operator, at the same fraction of {device.bandwidth_gb_s:g} GB/s.",
        "Convolutions in 16 bits run in channels_last, as training does on a GPU. The other assumptions are listed in "
        "docs/how/planning.md.",
        "Data loading is never the bottleneck. Set throughput=VIEWS_PER_S (`views_per_s` of a run) to replace the "
        "estimate by a measurement.",
    ]


def _measurement(config: PlanSettings, shapes: list[Shape]) -> Measurement | None:
    """Return a measurement of this training on one device, or None. Views of one size were measured."""
    form = _FORMS.get(chosen(config.trainer.precision))
    if len(set(shapes)) > 1 or form is None or config.trainer.checkpointing:
        return None
    if title_of(config.method) != "momentum_contrast" or (form != "float32" and config.device == "cpu"):
        return None
    frames = f" x {shapes[0][1]} frames" if shapes[0][1] > 1 else ""
    workload = f"{title_of(config.backbone)}, {len(shapes)} views of {shapes[0][2]} px{frames},"
    return find_measurement(config.device, workload, form + "+compile" * config.trainer.compile)
