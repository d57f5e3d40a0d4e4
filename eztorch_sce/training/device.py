"""Preparation of a module for the device that it trains on: memory format, precision, compiler and checkpointing."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import Optimizer

from eztorch_sce.augment.views import Views
from eztorch_sce.errors import ConfigError
from eztorch_sce.models.checkpointing import checkpointed
from eztorch_sce.models.memory_format import has_convolutions, to_channels_last
from eztorch_sce.precision import autocast_dtype
from eztorch_sce.training.classify_module import ClassifyModule
from eztorch_sce.training.config import TrainerConfig
from eztorch_sce.training.pretrain_module import PretrainModule
from eztorch_sce.types import ViewBatch

_FULL_BATCHES = 3  # steps with a full batch after which nothing is compiled anymore
_MAX_GRAPHS = 64  # of one function: each network, for each size of its input


@contextmanager
def prepared(module: pl.LightningModule, settings: TrainerConfig) -> Iterator[None]:
    """Prepare a module that is still on the CPU to train on the device of the settings, while the context lasts.

    On GPUs, weights of convolutions and views get channels last, and views the type that the networks compute in.
    Settings of torch that hold for the whole process are restored, and networks are no longer compiled or checkpointed
    when the context ends.

    Args:
        module: One of our LightningModules.
        settings: The settings, resolved for this machine.

    Raises:
        ConfigError: If `checkpointing` is set, but the backbone has no blocks.
    """
    on_gpu = settings.accelerator == "gpu"
    augmentation = getattr(module, "augmentation", None)
    with ExitStack() as stack:
        if settings.checkpointing:
            stack.enter_context(_checkpointed_backbone(module))
        if on_gpu:
            stack.enter_context(_gpu_settings(settings))
            if not settings.is_sharded:  # weights are gathered into contiguous memory
                to_channels_last(module)
            if isinstance(augmentation, Views):
                augmentation.channels_last = has_convolutions(module)
                augmentation.dtype = autocast_dtype(settings.precision) or torch.float32
        if settings.compile:
            stack.enter_context(_compiled(networks_of(module), settings.checkpointing))
            if isinstance(augmentation, Views):
                augmentation.compile(dynamic=False)
        yield


def networks_of(module: pl.LightningModule) -> list[nn.Module]:
    """Return the networks that a module or its method calls: children with parameters, except the loss."""
    caller = module.method if isinstance(module, PretrainModule) else module
    losses = [getattr(caller, name, None) for name in ("loss", "module_of_loss")]
    return [network for network in _called(cast(nn.Module, caller)) if not any(network is loss for loss in losses)]


def _called(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the children with parameters; of lists, which are not called themselves, what they hold."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _called(child)
        elif any(True for _ in child.parameters()):
            yield child


@contextmanager
def _checkpointed_backbone(module: pl.LightningModule) -> Iterator[None]:
    owner: Any = module
    if isinstance(module, PretrainModule):
        owner = module.method
    elif isinstance(module, ClassifyModule):
        owner = module.classifier
    with checkpointed(owner.backbone) as blocks:
        if not blocks:
            name = getattr(owner.backbone, "name", type(owner.backbone).__name__)
            raise ConfigError(
                [f"trainer.checkpointing=true: {name} has no repeated blocks to compute again; remove the setting"]
            )
        yield


@contextmanager
def _gpu_settings(settings: TrainerConfig) -> Iterator[None]:
    """Set TF32 and the search for the fastest convolutions."""
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")
    cudnn.allow_tf32, cudnn.benchmark = settings.tf32, settings.benchmark is not False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32, cudnn.benchmark = before[1:]


@contextmanager
def _compiled(networks: list[nn.Module], checkpointing: bool) -> Iterator[None]:
    """Compile networks in place, so their names stay; one graph per size of their input."""
    import torch._dynamo  # takes a second

    optimize_ddp = torch._dynamo.config.optimize_ddp and not checkpointing  # DDP's graphs cannot hold checkpoints
    with torch._dynamo.config.patch(recompile_limit=_MAX_GRAPHS, optimize_ddp=optimize_ddp):
        for network in networks:
            network.compile(dynamic=False)
        try:
            yield
        finally:
            for network in networks:
                network._compiled_call_impl = None
            torch.compiler.set_stance("default")


class DeviceCallback(pl.Callback):
    """Keep optimizer states in the format of the weights, and stop compiling once full batches are compiled.

    Args:
        compiled: Whether networks are compiled.
        batch: Samples of a full batch.
    """

    def __init__(self, compiled: bool, batch: int) -> None:
        self.num_left, self.batch = _FULL_BATCHES if compiled else 0, batch

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Convert the states of a checkpoint from another device."""
        for optimizer in trainer.optimizers:
            with_strides_of_weights(optimizer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: ViewBatch, batch_idx: int
    ) -> None:
        """Run smaller batches, of which files could not be read, without compiling for their size."""
        if self.num_left and len(batch.record) == self.batch:
            self.num_left -= 1
            if not self.num_left:
                torch.compiler.set_stance("eager_on_recompile")


def with_strides_of_weights(optimizer: Optimizer) -> None:
    """Give the states of an optimizer the strides of their weights, as fused and multi-tensor operators need them."""
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
