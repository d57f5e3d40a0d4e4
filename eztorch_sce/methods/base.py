"""Contract of self-supervised methods, and its checks, which name what is missing before training starts."""

from collections.abc import Iterator
from dataclasses import Field
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from eztorch_sce.errors import ConfigError
from eztorch_sce.losses.pairs import Loss, LossConfig
from eztorch_sce.methods.loss_calls import name_of_loss, signature_of
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.registry import place_of, wrong_result
from eztorch_sce.types import StepOutput


@runtime_checkable
class Method(Protocol):
    """A module that trains a backbone from views of the same samples. Nothing else is assumed of a method.

    A method may have an attribute `with_metrics`, which is set before each step: False in those that log nothing, whose
    metrics may be left out. One with a momentum encoder may have `momentum_at(progress) -> float`, the momentum of the
    update that `after_step(progress)` makes, which is logged.
    """

    @property
    def backbone(self) -> nn.Module:
        """The backbone to keep after training, a submodule: the one that was passed to `build`, or a copy of it."""

    def __call__(self, views: list[Tensor]) -> StepOutput:
        """Return the loss of a batch from normalized views (B, C, T, S, S) or (B, C, S, S), in the order of the config.

        A module defines it as `forward`.
        """

    def after_step(self, progress: float) -> None:
        """Update what the optimizer does not, such as a momentum encoder; called after each optimizer step.

        Args:
            progress: Progress of training, from 0 at the first step to 1 at the last.
        """

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Return all parameters, trained or not."""


@runtime_checkable
class MethodConfig(Protocol):
    """A config dataclass that builds a method; `@register("method", name)` makes it a choice.

    Its class may also define:

    - `num_global_views`: the number of views that the method needs. Without it, any number of views is accepted.
    - `has_negatives = False`: the method has no negatives, so a loss that needs them is an error.
    - `has_own_loss = True`: the method computes its own loss. Then `loss` is null in the config, and None here.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def build(self, backbone: Backbone, loss: Any) -> Method:
        """Return the method that trains `backbone`; `loss` is a `losses.pairs.Loss`, or None (see `has_own_loss`)."""
        ...


def has_own_loss(config: object) -> bool:
    """Return whether the config of a method says that the method computes its own loss."""
    return bool(getattr(config, "has_own_loss", False))


def normalizes_apart(method: object) -> bool:
    """Return whether a method relies on batch norm statistics that differ by device or by chunk of the batch."""
    num_splits = getattr(method, "bn_splits", 1)
    return getattr(method, "shuffle_bn", False) is True or (isinstance(num_splits, int) and num_splits > 1)


def own_loss_message(loss: str, method: str) -> str:
    """Return the message for a loss that is set although the method has its own.

    >>> own_loss_message("sce", "barlow_twins")
    'loss=sce has no effect: method=barlow_twins has its own loss; leave loss out, or set it to null'
    """
    return f"loss={loss} has no effect: method={method} has its own loss; leave loss out, or set it to null"


def build_method(
    method_config: MethodConfig, loss_config: LossConfig | None, backbone: Backbone
) -> tuple[Method, Loss | None]:
    """Return the method that trains `backbone`, and its loss; None if the method has its own.

    Raises:
        ConfigError: If what the configs build is not a method or not a loss.
    """
    loss = None
    if loss_config is not None:
        loss = loss_config.build()
        check_loss(loss, loss_config)
    method = method_config.build(backbone, loss)
    check_method(method, method_config)
    return method, loss


def check_method(method: Any, config: object = None) -> None:
    """Check that an object is a method.

    Args:
        method: The result of `build`.
        config: The config that built it, for the message.

    Raises:
        ConfigError: With all that is missing, in one message.
    """
    if not isinstance(method, nn.Module) and place_of(config) is not None:
        raise wrong_result(config, "build", method, "a torch.nn.Module with forward(views) and after_step(progress)")
    missing = _missing_of_method(method) if isinstance(method, nn.Module) else ["is not an nn.Module"]
    if missing:
        raise ConfigError([f"method={_name(config, method)}: {type(method).__name__} {'; it '.join(missing)}"])


def check_loss(loss: Any, config: object = None) -> None:
    """Check that an object can be called as a loss.

    Args:
        loss: The result of `build`.
        config: The config that built it, for the message.

    Raises:
        ConfigError: If it cannot.
    """
    if place_of(config) is not None and (isinstance(loss, type) or not callable(loss)):
        raise wrong_result(config, "build", loss, "a loss, called as (query, key) or (query, key, negatives=None)")
    label, call = f"loss={_name(config, loss)}", "a loss is called as (query, key) or (query, key, negatives=None)"
    if isinstance(loss, type):
        raise ConfigError([f"{label} is a class: pass an object, such as {loss.__name__}()"])
    if not callable(loss):
        is_config = callable(getattr(loss, "build", None))
        cure = f"pass what {name_of_loss(loss)}.build() returns" if is_config else call
        raise ConfigError([f"{label}: {name_of_loss(loss)} cannot be called; {cure}"])
    if not _accepts(loss, 2) and not _accepts(loss, 3):
        raise ConfigError([f"{label}: {name_of_loss(loss)} takes {_signature(loss)}; {call}"])


def problems_with_output(output: object, method: object) -> list[str]:
    """Return one message per mistake in what the `forward` of a method returned."""
    forward = f"{type(method).__name__}.forward"
    if not isinstance(output, StepOutput):
        return [f"{forward} returned {_kind(output)}: it must return StepOutput(loss, metrics, embeddings)"]
    messages = []
    loss, embeddings = output.loss, output.embeddings
    if not isinstance(loss, Tensor) or loss.ndim > 0:
        messages.append(f"loss is {_kind(loss)}: it must be a scalar tensor, such as a mean over the batch")
    elif not loss.requires_grad:
        messages.append("loss has no gradient: it was computed from detached tensors or under torch.no_grad()")
    for name, value in output.metrics.items():
        if not isinstance(value, Tensor) or value.ndim > 0:
            messages.append(f"metrics[{name!r}] is {_kind(value)}: it must be a scalar tensor")
        elif value.requires_grad:
            messages.append(f"metrics[{name!r}] is not detached, which would keep the graph in memory: use .detach()")
    if not isinstance(embeddings, Tensor) or embeddings.ndim != 2 or not embeddings.is_floating_point():
        messages.append(f"embeddings are {_kind(embeddings)}: they must be a tensor (B, D), for the diagnostics")
    elif embeddings.requires_grad:
        messages.append("embeddings are not detached, which would keep the graph in memory: use .detach()")
    return [f"{forward}: {message}" for message in messages]


def check_views(views: Any, num_global_views: int, method: object) -> None:
    """Check that the views of a batch are a list, and are enough.

    Raises:
        ValueError: If there are fewer than `num_global_views`, or if the views are not a list.
    """
    if isinstance(views, Tensor) or len(views) < num_global_views:
        got = _kind(views) if isinstance(views, Tensor) else f"{len(views)}"
        raise ValueError(
            f"{type(method).__name__} takes a list of at least {num_global_views} views (B, C, T, H, W) "
            f"(num_global_views={num_global_views}): got {got}"
        )


def _missing_of_method(method: nn.Module) -> list[str]:
    missing = []
    backbone = getattr(method, "backbone", None)
    if type(method).forward is nn.Module.forward:
        missing.append("has no forward(views), which returns StepOutput(loss, metrics, embeddings)")
    elif not _accepts(method, 1):
        missing.append(f"takes {_signature(method)} in forward: it is called as forward(views), with a list of tensors")
    if not callable(getattr(method, "after_step", None)):
        missing.append("has no after_step(progress), called after each optimizer step (it may do nothing)")
    elif not _accepts(method.after_step, 1):
        missing.append(f"takes {_signature(method.after_step)} in after_step: it is called as after_step(progress)")
    if not isinstance(backbone, nn.Module):
        missing.append("has no backbone: an attribute or property with the network to keep after training")
    elif not any(module is backbone for module in method.modules()):
        missing.append("does not contain its backbone as a submodule: assign the network itself (self.backbone = ...)")
    if not any(parameter.requires_grad for parameter in method.parameters()):
        missing.append("has no parameter to train: networks must be submodules, with requires_grad")
    return missing


def _accepts(function: Any, count: int) -> bool:
    """Return whether a function or module can be called with `count` positional arguments."""
    if not callable(function):
        return False
    signature = signature_of(function)
    if signature is None:
        return True
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _signature(function: Any) -> str:
    signature = signature_of(function)
    return "other arguments" if signature is None else f"({', '.join(signature.parameters)})"


def _kind(value: object) -> str:
    return (
        f"a tensor {tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    )


def _name(config: object, built: object) -> str:
    place = place_of(config)
    return name_of_loss(built) if place is None else place[1]
