"""Fully sharded data parallelism (FSDP): each process keeps a shard of each weight, gradient and optimizer state.

The weights of a block are gathered when it computes, and freed after it. Names of weights stay.

Source: Zhao et al., VLDB 2023, arXiv:2304.11277.
"""

from collections.abc import Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.overrides.distributed import _sync_module_states
from torch import nn
from torch.distributed._composable.contract import REGISTRY_KEY, STATE_KEY
from torch.distributed._composable_state import _module_state_mapping
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim import Optimizer

from eztorch_sce.distributed import world_size
from eztorch_sce.models.checkpointing import repeated_blocks
from eztorch_sce.shards import is_sharded, load_optimizer, whole, whole_on_host
from eztorch_sce.training.device import networks_of
from eztorch_sce.training.pretrain_module import PretrainModule
from eztorch_sce.training.processes import GroupStrategy


class ShardedStrategy(GroupStrategy):
    """FSDP over the process group of `distributed`. The networks are whole again when the training has ended."""

    def configure_ddp(self) -> None:
        """Shard the networks in the place of copying them, before the optimizer is built."""
        assert isinstance(self.model, pl.LightningModule)
        _sync_module_states(self.model)  # as DDP does: all start from the weights of the first process
        shard(self.model, self.root_device)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return whole tensors, in the first process."""
        return whole_on_host(super().lightning_module_state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return whole tensors, in the first process."""
        return whole_on_host(super().optimizer_state(optimizer))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Shard the states of a checkpoint. Its weights are loaded before they are sharded."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            load_optimizer(optimizer, state)

    def on_train_end(self) -> None:
        """Gather the weights, for what uses the networks after training, in each process at its own pace."""
        super().on_train_end()
        assert self.lightning_module is not None
        unshard(self.lightning_module)


def shard(module: pl.LightningModule, device: torch.device) -> None:
    """Shard the networks of a module over all processes, in place. Buffers, such as a queue, stay whole.

    Units that are gathered at a time are the repeated blocks of each network, and what remains of each network.

    Args:
        module: One of our LightningModules, on the device.
        device: Device of this process.
    """
    mesh = init_device_mesh(device.type, (world_size(),))

    def shard_unit(unit: nn.Module) -> None:
        if not isinstance(unit, FSDPModule):
            fully_shard(unit, mesh=mesh, reshard_after_forward=True)

    for network in networks_of(module):
        backbones = [each for name, each in network.named_modules() if name.rsplit(".", 1)[-1] == "backbone"]
        for part in (*backbones, network):
            for block in repeated_blocks(part):
                shard_unit(block)
            shard_unit(part)
    if isinstance(module, PretrainModule):  # parameters of a loss, and of a method itself
        shard_unit(cast(nn.Module, module.method))


def unshard(module: nn.Module) -> None:
    """Make all networks within a module whole again, as they were before `shard`. Every process must call this."""
    units = [each for each in module.modules() if isinstance(each, FSDPModule)]
    for unit in units:
        unit.reshard()
    for owner in module.modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            if is_sharded(parameter):
                full = whole(parameter.detach())
                setattr(owner, name, nn.Parameter(full, requires_grad=parameter.requires_grad))
    for unit in units:
        _forget_sharding(unit)


def _forget_sharding(unit: nn.Module) -> None:
    """Remove the hooks, the class and the marks that `fully_shard` gave to a module. torch has no function for it."""
    state: Any = fully_shard.state(unit)  # type: ignore[attr-defined]
    state._pre_forward_hook_handle.remove()
    state._post_forward_hook_handle.remove()
    for group in state._fsdp_param_groups:
        for handles in (
            group._module_to_pre_save_state_dict_hook_handle,
            group._module_to_pre_load_state_dict_hook_handle,
        ):
            for handle in handles.values():
                handle.remove()
    _module_state_mapping.pop(unit)
    for key in (STATE_KEY, REGISTRY_KEY):
        vars(unit).pop(key)
    for each in unit.modules():
        for mark in ("_is_fsdp_managed_module", "_fsdp_use_orig_params"):
            vars(each).pop(mark, None)
    unit.__class__ = type(unit).__mro__[FSDPModule._orig_cls_mro_index]
