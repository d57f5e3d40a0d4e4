"""Cost of a training step, estimated without training: parameters, FLOPs, and the memory kept for the backward pass.

The networks run forward and backward on fake tensors, which have shapes but no values: a full-size network takes
seconds and no memory. The loss depends on values, but it is cheap and runs on a few real samples.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.losses.pairs import Loss, LossConfig, PairLosses, ViewPairs
from eztorch_sce.methods.base import MethodConfig, build_method
from eztorch_sce.methods.loss_calls import over_pairs_of, takes_unit_vectors
from eztorch_sce.models.backbones.base import BackboneConfig, as_backbone, build_network
from eztorch_sce.models.checkpointing import checkpointed, repeated_blocks
from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.planning.counting import Call, Counter, Kept, calls_of, norms_of
from eztorch_sce.precision import autocast
from eztorch_sce.settings import chosen
from eztorch_sce.training.config import TrainerConfig

Shape = tuple[int, int, int, int]
"""Shape (C, T, S, S) of a view of one sample."""


class TrainingSettings(Protocol):
    """The settings of `PretrainConfig` that determine the cost of a step."""

    data: DataConfig
    views: list[ViewConfig]
    trainer: TrainerConfig

    @property
    def backbone(self) -> BackboneConfig | None:
        """Config of the backbone, which must be chosen."""

    @property
    def optimizer(self) -> OptimizerConfig | None:
        """Config of the optimizer, which must be chosen."""

    @property
    def method(self) -> MethodConfig:
        """Config of the method."""

    @property
    def loss(self) -> LossConfig | None:
        """Config of the loss, or None if the method has its own."""


class Flops(NamedTuple):
    """FLOPs of convolutions and matrix products; a multiply-add counts as two."""

    forward: float
    backward: float


class Size(NamedTuple):
    """Bytes as a function of the batch size: a fixed number plus a number per sample."""

    fixed: float
    per_sample: float = 0.0

    def at(self, batch: int) -> float:
        """Return the bytes of a batch."""
        return self.fixed + batch * self.per_sample

    @classmethod
    def through(cls, batch: int, once: float, twice: float) -> "Size":
        """Return the size that is `once` bytes for a batch and `twice` bytes for a batch twice as large."""
        per_sample = (twice - once) / batch
        return cls(once - batch * per_sample, per_sample)


class LossInputs(nn.Module):
    """Stand-in for the loss while the networks run without values; it records the inputs of the last call.

    Args:
        loss: The loss; None if the method has its own.
    """

    def __init__(self, loss: Loss | None) -> None:
        super().__init__()
        self.takes_unit_vectors = loss is None or takes_unit_vectors(loss)
        self.views = ViewPairs([], [], [])

    def forward(self, query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Record a call; return a scalar whose gradient reaches the query and the key."""
        self.views = ViewPairs([query], [key], [(0, 0)], negatives)
        return (query + key).sum()

    def over_pairs(self, views: ViewPairs) -> PairLosses:
        """Record the views; return a scalar whose gradient reaches all queries."""
        self.views = views
        return PairLosses(torch.cat(views.queries).sum(), {})


class NetworkCost(NamedTuple):
    """Cost of the networks of a method.

    Attributes:
        parameters: Number of parameters by component.
        num_trainable: Number of parameters with gradients.
        weights: Bytes of parameters and buffers, without momentum encoder and queue.
        momentum_encoder: Bytes of the momentum encoder.
        queue: Bytes of the queue.
        view_flops: Forward FLOPs of the backbone for the first view of one sample.
        flops: FLOPs of a training step per sample, by component.
        activations: Bytes kept for the backward pass, without weights and views.
        checkpointed: The same with activation checkpointing, whether the config sets it or not.
        moved: Bytes that the operators of a forward and a backward pass read and write.
        launches: Kernel launches of both passes.
        norms: (channels, whether gradients flow) of each batch norm call.
        loss_inputs: The inputs of the loss.
        measured_on: Description of the inputs of the measurement, such as "tensors without values".
    """

    parameters: dict[str, int]
    num_trainable: int
    weights: int
    momentum_encoder: int
    queue: int
    view_flops: float
    flops: dict[str, Flops]
    activations: Size
    checkpointed: Size
    moved: Size
    launches: int
    norms: list[tuple[int, bool]]
    loss_inputs: ViewPairs
    measured_on: str


class LossCost(NamedTuple):
    """Cost of the loss: FLOPs per sample, bytes in addition to the queue, and kernel launches of both passes."""

    flops: Flops
    kept: Size
    launches: int


class _StepCost(NamedTuple):
    """Cost of a batch, through all networks or through the loss.

    Attributes:
        flops: FLOPs of both passes.
        kept: What autograd keeps for the backward pass.
        launches: Kernel launches of both passes.
        moved: Bytes that the operators of both passes read and write.
    """

    flops: Flops
    kept: Kept
    launches: int
    moved: int


class _Calls(NamedTuple):
    """Calls of the modules of a method in a forward pass."""

    backbone: list[Call]
    momentum_encoder: list[Call]
    norms: list[tuple[int, bool]]


def network_cost(config: TrainingSettings, shapes: list[Shape], batch: int, backward: bool = True) -> NetworkCost:
    """Return the cost of the networks.

    Args:
        config: A validated config of a pretraining.
        shapes: Shape of each view.
        batch: Samples per device and forward pass.
        backward: Whether to run the backward pass, which FLOPs, launches and bytes moved need, but memory does not.
    """
    try:
        return _network_cost(config, shapes, batch, backward, fake=True)
    except RuntimeError:
        # An operator needs values, or has no kernel for fake tensors. Any other error occurs again with real tensors.
        return _network_cost(config, shapes, 2 * getattr(config.method, "bn_splits", 1), backward, fake=False)


def loss_cost(loss: Loss | None, inputs: ViewPairs, global_batch: int) -> LossCost:
    """Return the cost of the loss.

    Args:
        loss: The loss; None if the method has its own, whose cost is part of the networks.
        inputs: The inputs of the loss; without queries if the method does not call it.
        global_batch: Samples per forward pass on all devices; their keys may be gathered.
    """
    if loss is None or not inputs.queries:
        return LossCost(Flops(0.0, 0.0), Size(0.0), 0)

    def unit_rows(like: Tensor, num_rows: int) -> Tensor:
        rows = nn.functional.normalize(torch.randn(*like.shape[:-2], num_rows, like.shape[-1]), dim=-1)
        return rows.requires_grad_(like.requires_grad)

    over_pairs = over_pairs_of(loss)
    negatives = None if inputs.negatives is None else unit_rows(inputs.negatives, len(inputs.negatives))
    batch_keys = [unit_rows(rows, max(4, global_batch)) for rows in inputs.batch_keys or []]
    known = batch_keys if negatives is None else [negatives, *batch_keys]

    def step_cost(batch: int) -> _StepCost:
        queries, keys = ([unit_rows(rows, batch) for rows in each] for each in (inputs.queries, inputs.keys))
        views = ViewPairs(queries, keys, inputs.pairs, negatives, batch_keys or None)
        return _count(lambda: over_pairs(views).loss, Counter(), Kept(known))

    once, twice = step_cost(2), step_cost(4)
    kept = Size.through(2, once.kept.num_bytes, twice.kept.num_bytes)
    gathered = sum(rows.nbytes for rows in batch_keys)
    flops = Flops(once.flops.forward / 2, once.flops.backward / 2)
    return LossCost(flops, kept._replace(fixed=kept.fixed + gathered), once.launches)


def _network_cost(config: TrainingSettings, shapes: list[Shape], batch: int, backward: bool, fake: bool) -> NetworkCost:
    """Run the method on a batch and on one twice as large, since the activations grow linearly with the batch."""
    loss = None if config.loss is None else config.loss.build()
    loss_inputs = LossInputs(loss)
    with torch.device("meta" if fake else "cpu"):
        backbone, other = (
            as_backbone(build_network(chosen(config.backbone)), num_frames=shapes[0][1], size=shapes[0][2])
            for _ in range(2)
        )
        build_method(config.method, config.loss, other)  # checks the loss, which the stand-in cannot replace there
        method: Any = config.method.build(backbone, None if loss is None else loss_inputs)

    with FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext():
        if fake:
            method.to_empty(device="cpu")  # autocast ignores tensors on "meta"
        once, calls = _step_cost(method, config.trainer, shapes, batch, backward)
        twice, _ = _step_cost(method, config.trainer, shapes, 2 * batch, backward)
        view_flops = [call.flops / call.shape[0] for call in calls.backbone if tuple(call.shape[1:]) == shapes[0]]
        if not view_flops:  # the online encoder does not get the first view, or not as it is
            with Counter() as counter:
                method.backbone(torch.zeros(batch, *shapes[0]))
            view_flops = [counter.flops / batch]

    kept = Size.through(batch, once.kept.num_bytes, twice.kept.num_bytes)
    if_checkpointed = Size.through(batch, once.kept.num_bytes_checkpointed, twice.kept.num_bytes_checkpointed)
    momentum_encoder, queue = (_num_bytes(getattr(method, name, None)) for name in ("momentum_encoder", "queue"))
    return NetworkCost(
        parameters=_parameters_by_component(method),
        num_trainable=_numel(parameter for parameter in method.parameters() if parameter.requires_grad),
        weights=_num_bytes(method) - momentum_encoder - queue,
        momentum_encoder=momentum_encoder,
        queue=queue,
        view_flops=view_flops[0],
        flops=_flops_by_component(method, once.flops, calls.momentum_encoder, batch),
        activations=if_checkpointed if config.trainer.checkpointing else kept,
        checkpointed=if_checkpointed,
        moved=Size.through(batch, once.moved, twice.moved),
        launches=once.launches,
        norms=calls.norms,
        loss_inputs=loss_inputs.views,
        measured_on="tensors without values" if fake else f"{batch} and {2 * batch} real samples",
    )


def _parameters_by_component(method: nn.Module) -> dict[str, int]:
    """Return the number of parameters of each network in `online`, or of each submodule, and of what is frozen."""
    networks = getattr(method, "online", method)
    parameters = {
        name: _numel(parameter for parameter in module.parameters() if parameter.requires_grad)
        for name, module in networks.named_children()
    }
    if frozen := _numel(parameter for parameter in method.parameters() if not parameter.requires_grad):
        parameters["momentum copies" if hasattr(method, "momentum_encoder") else "frozen"] = frozen
    return {name: count for name, count in parameters.items() if count}


def _flops_by_component(method: nn.Module, step: Flops, momentum_calls: list[Call], batch: int) -> dict[str, Flops]:
    """Return the FLOPs of the encoders per sample."""
    momentum = sum(call.flops for call in momentum_calls)
    trained = "online encoder" if hasattr(method, "online") else "networks"
    flops = {trained: Flops((step.forward - momentum) / batch, step.backward / batch)}
    if momentum:
        flops["momentum encoder"] = Flops(momentum / batch, 0.0)
    return flops


def _step_cost(
    method: Any, trainer: TrainerConfig, shapes: list[Shape], batch: int, backward: bool
) -> tuple[_StepCost, _Calls]:
    """Return the cost of one batch through the networks, and the calls of their modules."""
    method.zero_grad()  # as at the beginning of a step
    views = [torch.zeros(batch, *shape) for shape in shapes]
    counter, kept = Counter(), Kept([*method.parameters(), *method.buffers(), *views], repeated_blocks(method.backbone))

    def loss() -> Tensor:
        with autocast(torch.device("cpu"), chosen(trainer.precision)):
            output: Tensor = method(views).loss
        return output

    with ExitStack() as hooks:
        norms = hooks.enter_context(norms_of(method))
        if trainer.checkpointing:  # it keeps tensors in its own way, and its backward pass runs norms again
            with kept:
                loss()
            norms = list(norms)
            hooks.enter_context(checkpointed(method.backbone))
        backbone = hooks.enter_context(calls_of(method.backbone, counter))
        momentum_encoder = hooks.enter_context(calls_of(getattr(method, "momentum_encoder", None), counter))
        cost = _count(loss, counter, Kept([]) if trainer.checkpointing else kept, backward)
    return cost._replace(kept=kept), _Calls(backbone, momentum_encoder, norms)


def _count(forward: Callable[[], Tensor], counter: Counter, kept: Kept, backward: bool = True) -> _StepCost:
    """Return the cost of a forward and a backward pass, or of the forward pass alone."""
    with counter:
        with kept:
            loss = forward()
        forward_flops = counter.flops
        if backward:
            loss.backward()
    return _StepCost(Flops(forward_flops, counter.flops - forward_flops), kept, counter.launches, counter.moved)


def _numel(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _num_bytes(module: nn.Module | None) -> int:
    return 0 if module is None else sum(tensor.nbytes for tensor in module.state_dict().values())
