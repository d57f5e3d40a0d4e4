"""LARS: layer-wise adaptive rates for large batches."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT
from torch.optim.sgd import sgd

from eztorch_sce.compat import declare_shapes
from eztorch_sce.optim.base import LR_HELP
from eztorch_sce.optim.groups import decay_groups
from eztorch_sce.optim.kernels import accept_any_state
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, setting
from eztorch_sce.shards import is_sharded, shard_of


class LARS(Optimizer):
    """SGD with momentum that scales the step of each tensor by the ratio of its norm to the norm of its gradient.

    Tensors with one dimension (norms and biases) get neither weight decay nor adaptation. The norms of sharded tensors
    are those of the whole ones. On a GPU, a step takes about 20 launches for all tensors. The optimizer itself undoes
    the scale of `torch.amp.GradScaler`, and skips a step whose gradients are not finite, so the host does not wait for
    the device.

    Source: You et al., 2017, arXiv:1708.03888.

    Args:
        params: Parameters or parameter groups.
        lr: Effective learning rate, >= 0.
        momentum: Momentum of the velocity, in [0, 1).
        weight_decay: L2 penalty, added to the gradient before the ratio is taken.
        trust_coefficient: Scale of the adapted rate.
    """

    _step_supports_amp_scaling = True  # read by GradScaler, which then sets `grad_scale` and `found_inf` for a step

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
        }
        super().__init__(params, defaults)
        accept_any_state(self)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step and return the loss of `closure`, or None without a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        is_skipped = found_inf is not None and not found_inf.is_cuda and found_inf > 0
        for group in [] if is_skipped else self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if any(map(is_sharded, parameters)):
                self._step_shards(parameters, group)
                continue
            for parameter in parameters:
                if not parameter.is_cuda:
                    self._step_one(parameter, group)
            for alike in _by_kind(parameter for parameter in parameters if parameter.is_cuda):
                self._step_many(alike, group)
        return loss

    def _step_one(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """Take the step of a tensor on a CPU, without memory for the scaled gradient."""
        (gradient,), decay = self._gradients([parameter]), group["weight_decay"]
        velocity = self._velocity(parameter).mul_(group["momentum"])
        if parameter.ndim > 1:
            # Norm of (gradient + decay * parameter) without materializing the sum.
            norm, dot = parameter.norm(), torch.dot(gradient.reshape(-1), parameter.reshape(-1))
            squared = gradient.norm().square() + 2 * decay * dot + (decay * norm).square()
            ratio = _ratios(norm, squared.clamp_min(0).sqrt(), group["trust_coefficient"])
            velocity.addcmul_(gradient, ratio).addcmul_(parameter, ratio, value=decay)
        else:
            velocity.add_(gradient)
        parameter.add_(velocity, alpha=-group["lr"])

    def _step_many(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Take the step of tensors of one kind in a few launches for all of them; see `_by_kind`."""
        updates = self._gradients(parameters)
        if parameters[0].ndim > 1:
            updates = _adapted(parameters, updates, group["weight_decay"], group["trust_coefficient"])
        sgd(
            parameters,
            updates,
            [self._velocity(parameter) for parameter in parameters],
            fused=True,  # one kernel, which changes nothing if a gradient is not finite
            found_inf=getattr(self, "found_inf", None),
            weight_decay=0.0,
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def _step_shards(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Take the step of the shards of this process; the processes exchange all norms at once."""
        weights = [shard_of(parameter) for parameter in parameters]
        gradients = [shard_of(gradient) for gradient in self._gradients(parameters)]
        velocities = [shard_of(self._velocity(parameter)) for parameter in parameters]
        adapted = [number for number, parameter in enumerate(parameters) if parameter.ndim > 1]
        if adapted:
            own = [weights[number] for number in adapted]
            updates = torch._foreach_add([gradients[number] for number in adapted], own, alpha=group["weight_decay"])
            norms = torch.stack(torch._foreach_norm([*own, *updates])).square()
            dist.all_reduce(norms)
            own_norms, update_norms = norms.sqrt().view(2, -1)
            ratios = _ratios(own_norms, update_norms, group["trust_coefficient"])
            for number, update, ratio in zip(adapted, updates, ratios, strict=True):
                gradients[number] = update.mul_(ratio)
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, gradients)
        torch._foreach_add_(weights, velocities, alpha=-group["lr"])

    def _gradients(self, parameters: list[Tensor]) -> list[Tensor]:
        """Return the gradients of tensors of one device, which a GradScaler may have scaled, without the scale."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        scale: Tensor | None = getattr(self, "grad_scale", None)
        if scale is None:
            return gradients
        return list(torch._foreach_mul(gradients, scale.to(parameters[0].device).reciprocal()))

    def _velocity(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        velocity: Tensor = state["velocity"]
        return velocity


def _by_kind(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Return the tensors in groups of one device and dtype that are all adapted (matrices and filters), or all not."""
    kinds: dict[Any, list[Tensor]] = {}
    for parameter in parameters:
        kinds.setdefault((parameter.device, parameter.dtype, parameter.ndim > 1), []).append(parameter)
    return list(kinds.values())


def _adapted(parameters: list[Tensor], gradients: list[Tensor], decay: float, trust: float) -> list[Tensor]:
    """Return `gradient + decay * parameter` of each tensor, scaled to `trust` times the norm of the parameter."""
    updates = list(torch._foreach_add(gradients, parameters, alpha=decay))
    norms, update_norms = torch.stack(torch._foreach_norm(parameters)), torch.stack(torch._foreach_norm(updates))
    torch._foreach_mul_(updates, _spread(_ratios(norms, update_norms, trust), parameters))
    return updates


def _ratios(norm: Tensor, update_norm: Tensor, trust: float) -> Tensor:
    """Return the trust ratio, or 1 (no adaptation) if the norm of the tensor or of its update is zero."""
    ratio = trust * norm / update_norm
    return torch.where((norm > 0) & (update_norm > 0), ratio, torch.ones_like(ratio))


def _spread(values: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return each value as a tensor in the shape and memory format of another.

    A foreach call whose operands differ in shape launches one kernel per tensor instead of one for all.
    """
    sizes = [each.numel() for each in like]
    flat = torch.cat([value.expand(size) for value, size in zip(values.unbind(), sizes, strict=True)])
    parts = zip(flat.split(sizes), like, strict=True)
    return [part.as_strided(each.shape, each.stride()) for part, each in parts]


declare_shapes("aten::_fused_sgd_", lambda *tensors, **settings: None)


@register("optimizer", "lars")
@dataclass
class LARSConfig(Settings):
    """Layer-wise adaptive rates for large batches (You et al., arXiv:1708.03888)."""

    lr: float = setting(0.3, above=0, help=LR_HELP)
    momentum: float = setting(0.9, at_least=0, below=1, help="Momentum of the velocity.")
    weight_decay: float = setting(
        1e-6, at_least=0, help="L2 penalty added to the gradient, except for norms and biases."
    )
    trust_coefficient: float = setting(1e-3, above=0, help="Scale of the adapted rate of each layer.")

    def build(self, parameters: Iterable[nn.Parameter], lr: float) -> LARS:
        """Return the optimizer of the parameters at the effective learning rate `lr`."""
        groups = decay_groups(parameters, self.weight_decay)
        return LARS(groups, lr, self.momentum, self.weight_decay, self.trust_coefficient)
