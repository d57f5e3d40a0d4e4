"""What a training step costs: parameters, FLOPs, and what autograd keeps between its passes, found without training.

The networks run forward and backward on fake tensors, which have shapes and no values: a network of full size takes
seconds, and no memory. The loss looks at values; it is cheap, and runs on a few real samples.
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from eztorch_sce.losses.pairs import PairLosses, ViewPairs, over_pairs

Shape = tuple[int, int, int, int]
"""Of a view of one sample: (C, T, S, S)."""
_AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


class Flops(NamedTuple):
    """Of convolutions and matrix products, a multiply-add being two."""

    forward: float
    backward: float


class Size(NamedTuple):
    """Bytes: some whatever the batch, and some per sample."""

    fixed: float
    per_sample: float = 0.0

    def at(self, batch: int) -> float:
        """Return the bytes of a batch."""
        return self.fixed + batch * self.per_sample

    @classmethod
    def through(cls, batch: int, once: float, twice: float) -> "Size":
        """Return the line through the bytes of a batch and of one twice as large."""
        slope = (twice - once) / batch
        return cls(once - batch * slope, slope)


class GivenToLoss(nn.Module):
    """Stand-in for the loss while the networks run without values: it records what the loss would receive."""

    def over_pairs(self, views: ViewPairs) -> PairLosses:
        """Record the views; return a scalar whose gradient reaches all queries."""
        self.queries, self.keys, self.pairs = views.queries, views.keys, views.pairs
        self.negatives, self.batch_keys = views.negatives, views.batch_keys
        return PairLosses(torch.cat(views.queries).sum(), {})


class NetworkCost(NamedTuple):
    """What the networks of a method take.

    Attributes:
        parameters: Numbers by part.
        num_learning: Of them, those that take gradients.
        weights, momentum_encoder, queue: Bytes, with the statistics of norms; the weights are those of the rest.
        view_flops: Of one sample's first view through the backbone, forward.
        flops: Of a training step, per sample and by part.
        kept: For the backward pass, without weights and views.
        norms: (channels, whether it takes gradients) of each time that a batch norm is passed.
        given: What the loss is given.
        measured_on: In words.
    """

    parameters: dict[str, int]
    num_learning: int
    weights: int
    momentum_encoder: int
    queue: int
    view_flops: float
    flops: dict[str, Flops]
    kept: Size
    norms: list[tuple[int, bool]]
    given: GivenToLoss
    measured_on: str


class _StepCost(NamedTuple):
    """FLOPs of a batch, those of the forward pass by module, and the bytes kept between the passes."""

    flops: Flops
    by_module: dict[str, float]
    kept: int


def network_cost(config: Any, shapes: list[Shape], batch: int) -> NetworkCost:
    """Return what the networks take.

    Args:
        config: A run-level config of a pretraining.
        shapes: Of each view.
        batch: Samples on a device at a time.
    """
    try:
        return _networks(config, shapes, batch, fake=True)
    except RuntimeError:  # an operation needs values, or has no kernel without them; any other mistake shows again
        return _networks(config, shapes, 2 * getattr(config.method, "bn_splits", 1), fake=False)


def loss_cost(config: Any, given: GivenToLoss, everyone: int) -> tuple[Flops, Size]:
    """Return what the loss takes: FLOPs per sample, and what it keeps besides the queue.

    Args:
        config: A run-level config of a pretraining.
        given: What the networks give it.
        everyone: Samples on all devices at a time, whose keys meet.
    """

    def unit(like: Tensor, num_rows: int) -> Tensor:
        rows = nn.functional.normalize(torch.randn(*like.shape[:-2], num_rows, like.shape[-1]), dim=-1)
        return rows.requires_grad_(like.requires_grad)

    loss = config.loss.build()
    negatives = None if given.negatives is None else unit(given.negatives, len(given.negatives))
    batch_keys = [unit(rows, max(4, everyone)) for rows in given.batch_keys or []]
    known = batch_keys if negatives is None else [negatives, *batch_keys]

    def step(batch: int) -> _StepCost:
        queries, keys = ([unit(rows, batch) for rows in each] for each in (given.queries, given.keys))
        views = ViewPairs(queries, keys, given.pairs, negatives, batch_keys or None)
        return _count(lambda: over_pairs(loss, views).loss, known)

    once, twice = step(2), step(4)
    kept = Size.through(2, once.kept, twice.kept)
    gathered = sum(rows.nbytes for rows in batch_keys)
    return Flops(once.flops.forward / 2, once.flops.backward / 2), kept._replace(fixed=kept.fixed + gathered)


def _networks(config: Any, shapes: list[Shape], batch: int, fake: bool) -> NetworkCost:
    """Run the method on a batch and on one twice as large: what is kept lies on the line through the two."""
    given, norms = GivenToLoss(), list[tuple[int, bool]]()
    with torch.device("meta" if fake else "cpu"):
        method = config.method.build(config.backbone.build(), given)

    with FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext():
        if fake:
            method.to_empty(device="cpu")  # autocast leaves tensors on "meta" as they are
        once = _step(method, shapes, batch, config.trainer.precision)
        with _flop_counter() as of_view:
            method.backbone(torch.zeros(batch, *shapes[0]))
        for norm in (module for module in method.modules() if isinstance(module, _BatchNorm)):
            norm.register_forward_hook(lambda norm, *_: norms.append((norm.num_features, torch.is_grad_enabled())))
        twice = _step(method, shapes, 2 * batch, config.trainer.precision)

    parameters = {name: _numel(part.parameters()) for name, part in method.online.named_children()}
    if frozen := _numel(parameter for parameter in method.parameters() if not parameter.requires_grad):
        parameters["momentum copies"] = frozen
    by_momentum = once.by_module.get(f"{type(method).__name__}.momentum_encoder", 0.0)
    flops = {"online encoder": Flops((once.flops.forward - by_momentum) / batch, once.flops.backward / batch)}
    if by_momentum:
        flops["momentum encoder"] = Flops(by_momentum / batch, 0.0)
    momentum_encoder, queue = (_bytes(getattr(method, name, None)) for name in ("momentum_encoder", "queue"))
    return NetworkCost(
        parameters=parameters,
        num_learning=_numel(parameter for parameter in method.parameters() if parameter.requires_grad),
        weights=_bytes(method) - momentum_encoder - queue,
        momentum_encoder=momentum_encoder,
        queue=queue,
        view_flops=of_view.get_total_flops() / batch,
        flops=flops,
        kept=Size.through(batch, once.kept, twice.kept),
        norms=norms,
        given=given,
        measured_on="tensors without values" if fake else f"{batch} and {2 * batch} real samples",
    )


def _step(method: nn.Module, shapes: list[Shape], batch: int, precision: str) -> _StepCost:
    """Count a batch through the networks."""
    views = [torch.zeros(batch, *shape) for shape in shapes]

    def loss() -> Tensor:
        with torch.autocast("cpu", _AUTOCAST.get(precision, torch.bfloat16), enabled=precision in _AUTOCAST):
            return method(views).loss

    return _count(loss, [*method.parameters(), *method.buffers(), *views])


def _count(loss_of: Callable[[], Tensor], known: Iterable[Tensor]) -> _StepCost:
    """Count a forward and a backward pass. What is kept are storages, each once, without those of `known` tensors."""
    storages = {tensor.untyped_storage() for tensor in known}
    kept = set()

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage() not in storages:
            kept.add(tensor.untyped_storage())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _flop_counter() as forward:
        loss = loss_of()
    with _flop_counter() as backward:
        loss.backward()
    by_module = {name: float(sum(counts.values())) for name, counts in forward.get_flop_counts().items()}
    flops = Flops(forward.get_total_flops(), backward.get_total_flops())
    return _StepCost(flops, by_module, sum(storage.nbytes() for storage in kept))


def _flop_counter() -> FlopCounterMode:
    """Return torch's counter. Of the products here it does not know the one in place, in `losses.streaming`."""

    def addmm_(total: list[int], left: list[int], right: list[int], **other: Any) -> int:
        return 2 * left[0] * left[1] * right[1]

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: addmm_})


def _numel(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _bytes(module: nn.Module | None) -> int:
    return 0 if module is None else sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])
