"""Time of a training step: the device computes, the host launches, the network sends."""

from collections.abc import Mapping
from typing import NamedTuple

from eztorch_sce.planning import assumptions
from eztorch_sce.planning.cost import Flops, NetworkCost, TrainingSettings
from eztorch_sce.planning.devices import DEVICES, Device
from eztorch_sce.settings import chosen


class Traffic(NamedTuple):
    """What a device sends per optimizer step for one purpose.

    Attributes:
        sent: Bytes.
        collectives: Number of collectives.
    """

    sent: float
    collectives: int


class StepTime(NamedTuple):
    """Seconds of an optimizer step by where they are spent.

    Attributes:
        device_s: Computing and memory traffic on the device.
        host_s: Launches and the rest of the loop on the host, which run ahead of the device.
        network_s: Sending, during which the device is assumed not to compute.
        launches: Kernel launches by component.
    """

    device_s: float
    host_s: float
    network_s: float
    launches: Mapping[str, float]

    @property
    def total_s(self) -> float:
        """Seconds of a step: the device waits for the host, or the host for the device."""
        return max(self.device_s, self.host_s) + self.network_s

    @property
    def is_bound_by_host(self) -> bool:
        """Whether the device waits for launches."""
        return self.host_s > self.device_s


def step_time(
    config: TrainingSettings,
    networks: NetworkCost,
    loss_launches: int,
    flops: Mapping[str, Flops],
    network: Mapping[str, Traffic],
    device: str,
    utilization: float,
) -> StepTime:
    """Return the estimated time of an optimizer step.

    Args:
        config: A validated config with a resolved number of devices.
        networks: Cost of the networks.
        loss_launches: Kernel launches of the loss.
        flops: FLOPs per sample by component.
        network: What each device sends, by content.
        device: Name of the device in `DEVICES`.
        utilization: Fraction of the peak rates that is reached.
    """
    trainer, num_devices = config.trainer, config.trainer.world_size or 1
    samples = config.data.samples_per_step / num_devices
    specs = DEVICES[device]
    moved = networks.moved.per_sample * (assumptions.COMPILED_TRAFFIC.value if trainer.compile else 1.0)
    peak = specs.peak(chosen(trainer.precision))
    computing = sum(map(sum, flops.values())) / (peak * 1e12) + moved / (specs.bandwidth_gb_s * 1e9)
    weights_s = networks.moved.fixed * trainer.accumulate / (specs.bandwidth_gb_s * 1e9)
    launches = launches_of(config, networks, loss_launches)
    host = sum(launches.values()) * assumptions.LAUNCH.value * 1e-6 + assumptions.STEP.value * 1e-3
    if num_devices > 1:
        host += assumptions.EXCHANGE.value * 1e-3 * trainer.accumulate
    return StepTime(
        (samples * computing + weights_s) / utilization,
        host if device != "cpu" else 0.0,  # a call on the CPU is its own launch
        sum(sending_s(each, specs, trainer.num_nodes or 1) for each in network.values() if each.sent),
        launches,
    )


def launches_of(config: TrainingSettings, networks: NetworkCost, loss_launches: int) -> dict[str, float]:
    """Return the kernel launches of an optimizer step by component."""
    trainer, left = config.trainer, assumptions.COMPILED_LAUNCHES.value if config.trainer.compile else 1.0
    of_view = assumptions.COMPILED_VIEW_LAUNCHES if trainer.compile else assumptions.VIEW_LAUNCHES
    times = trainer.accumulate
    launches = {
        "views": times * len(config.views) * of_view.value,
        "networks and loss": times * (networks.launches * left + loss_launches),
    }
    if trainer.sync_batchnorm and (trainer.world_size or 1) > 1:
        passes = sum(1 + learns for _, learns in networks.norms)
        launches["synchronized batch norm"] = times * passes * assumptions.SYNC_LAUNCHES.value
    launches["optimizer, momentum encoder"] = assumptions.UPDATE_LAUNCHES.value
    return launches


def sending_s(traffic: Traffic, device: Device, num_nodes: int) -> float:
    """Return the seconds to send something, to the devices of the machine or to those of other machines."""
    far = num_nodes > 1
    bandwidth = min(device.link_gb_s, assumptions.NETWORK.value) if far else device.link_gb_s
    start = assumptions.COLLECTIVE_FAR if far else assumptions.COLLECTIVE_NEAR
    return traffic.sent / (bandwidth * 1e9) + traffic.collectives * start.value * 1e-3
