"""What a device keeps in memory and sends to the others, measured once and evaluated for any number of devices."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from eztorch_sce.losses.contrastive import ContrastiveLoss
from eztorch_sce.losses.streaming import BLOCK_NUMBERS, BLOCK_NUMBERS_GPU
from eztorch_sce.methods.base import normalizes_apart
from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.planning import assumptions
from eztorch_sce.planning.cost import Flops, LossCost, NetworkCost, Shape, Size, TrainingSettings
from eztorch_sce.planning.step_time import Traffic
from eztorch_sce.settings import chosen

_FLOAT, _HALF = 4, 2  # bytes
_BUCKET = 25 * 2**20  # bytes of gradients that DDP sends at once


@dataclass
class Costs:
    """Cost of the parts of a training.

    Attributes:
        config: The config that was measured.
        shapes: Shape of each view.
        networks: Cost of the networks.
        loss: Cost of the loss.
    """

    config: TrainingSettings
    shapes: list[Shape]
    networks: NetworkCost
    loss: LossCost

    def flops(self) -> dict[str, Flops]:
        """Return the FLOPs of a training step per sample by component."""
        return self.networks.flops | {"loss": self.loss.flops}

    def memory(self, num_devices: int) -> dict[str, Size]:
        """Return the bytes per device by component.

        With FSDP, the weights count as whole: a device holds them at the start and in evaluations.
        """
        config, networks = self.config, self.networks
        is_sharded = config.trainer.strategy == "fsdp"
        shards = num_devices if is_sharded else 1
        copies = 2 if num_devices > 1 and not is_sharded else 1  # DDP copies gradients into buckets to send them
        gradients = _FLOAT * networks.num_trainable
        canvas, on_cpu = config.data.canvas, config.trainer.accelerator == "cpu"
        pixels = sum(math.prod(shape) for shape in self.shapes)
        decoded = pixels
        if canvas is not None:
            decoded = sum(channels * frames * canvas**2 for channels, frames, *_ in self.shapes)
        block = _FLOAT * (BLOCK_NUMBERS if on_cpu else BLOCK_NUMBERS_GPU)
        if config.loss is None or not isinstance(config.loss.build(), ContrastiveLoss):
            block = 0
        activations = networks.activations
        if config.trainer.compile:
            activations = activations._replace(per_sample=assumptions.COMPILED_MEMORY.value * activations.per_sample)
        view_bytes = _FLOAT if on_cpu or config.trainer.precision == "32-true" else _HALF
        return {
            "weights": Size(networks.weights),
            "gradients": Size(gradients * copies / shards),
            "optimizer state": Size(gradients * _state_per_weight(chosen(config.optimizer)) / shards),
            "momentum encoder": Size(networks.momentum_encoder / shards),
            "queue": Size(networks.queue),
            "activations kept": activations,
            "views, float": Size(0, view_bytes * pixels),
            "views, uint8": Size(0, decoded),
            "loss": self.loss.kept._replace(fixed=self.loss.kept.fixed + block),
        }

    def traffic(self, num_devices: int) -> dict[str, Traffic]:
        """Return what each device sends per optimizer step, by content."""
        config, networks = self.config, self.networks
        # Everything except the gradients is sent in every forward pass.
        inputs, times = networks.loss_inputs, config.trainer.accumulate
        batch = config.data.samples_per_step // (num_devices * times)
        gathered, summed = num_devices - 1, 2 * (num_devices - 1) / num_devices  # bytes sent per byte
        keys = _FLOAT * batch * sum(rows.shape[1] for rows in inputs.keys)
        gradients = _FLOAT * networks.num_trainable
        sent = {"gradients": Traffic(gradients * summed, math.ceil(gradients / _BUCKET))}
        if config.trainer.strategy == "fsdp" and num_devices > 1:  # in each pass of each view, forward and backward
            online, slow = times * len(inputs.queries), times * len(inputs.keys) * (networks.momentum_encoder > 0)
            share = gathered / num_devices  # of the weights, which a device sends or receives
            weights = (2 * online + slow) * share * gradients
            sent = {
                "gradients": Traffic(online * share * gradients, online),
                "weights": Traffic(weights, 2 * online + slow),
            }
        if inputs.negatives is not None or inputs.batch_keys:
            keys_learn = any(rows.requires_grad for rows in inputs.batch_keys or [])  # their gradients are summed too
            numbers = keys * (gathered + keys_learn * num_devices * summed)
            sent["keys"] = Traffic(times * numbers, times * (1 + keys_learn))
        if config.trainer.sync_batchnorm:  # mean, deviation and count forward, two sums backward
            forward = sum(2 * channels + 1 for channels, _ in networks.norms) * gathered
            backward = sum(2 * channels for channels, learns in networks.norms if learns) * summed
            passes = sum(1 + learns for _, learns in networks.norms)
            sent["batch norm"] = Traffic(times * _FLOAT * (forward + backward), times * passes)
        if getattr(config.method, "shuffle_bn", False):
            pixels = sum(math.prod(shape) for shape in self.shapes[: len(inputs.keys)])
            views = times * (_FLOAT * batch * pixels + keys) * gathered
            sent["shuffled views"] = Traffic(views, times * 2 * len(inputs.keys))
        return sent

    def on(self, num_devices: int, per_machine: int) -> "Costs":
        """Return the costs of the same training, a plan's, on another number of devices.

        Args:
            num_devices: Number of devices.
            per_machine: Devices of one machine; more are on several machines.
        """
        config: Any = self.config
        is_alone = config.trainer.world_size == 1
        apart = normalizes_apart(config.method)
        devices = min(num_devices, per_machine)
        trainer = replace(
            config.trainer,
            devices=devices,
            num_nodes=num_devices // devices,
            # False on one device says nothing about several.
            sync_batchnorm=num_devices > 1 and not apart and (bool(config.trainer.sync_batchnorm) or is_alone),
        )
        return replace(self, config=replace(config, trainer=trainer, devices=devices))


def _state_per_weight(optimizer: OptimizerConfig) -> float:
    """Return the number of values an optimizer keeps per weight, from one step on a small matrix."""
    weight = nn.Parameter(torch.ones(8, 8))
    weight.grad = torch.ones(8, 8)
    built = optimizer.build([weight], 0.1)
    built.step()
    state = [value for value in built.state[weight].values() if isinstance(value, Tensor)]
    return sum(value.numel() for value in state if value.shape == weight.shape) / weight.numel()
