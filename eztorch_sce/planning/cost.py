"""Cost of a training step, estimated without training: parameters, FLOPs, and the memory kept for the backward pass.

The networks run forward and backward on fake tensors, which have shapes but no values: a full-size network takes
seconds and no memory. The loss depends on values, but it is cheap and runs on a few real samples.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.losses.pairs import Loss, LossConfig, PairLosses, ViewPairs
from eztorch_sce.methods.base import MethodConfig, build_method
from eztorch_sce.methods.loss_calls import over_pairs_of, takes_unit_vectors
from eztorch_sce.models.backbones.base import BackboneConfig, as_backbone, build_network
from eztorch_sce.models.checkpointing import checkpointed, repeated_blocks
from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.planning.launches import launches_a_kernel
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
    """Cost of a batch: FLOPs, forward FLOPs by module, bytes kept for the backward pass, launches, and bytes moved."""

    flops: Flops
    by_module: dict[str, float]
    kept: int
    launches: int
    moved: int


class _Launches(TorchDispatchMode):
    """Count the operators that launch a kernel on a GPU, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count, self.moved = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if launches_a_kernel(func):
            self.count += 1
            leaves = tree_leaves((args, kwargs, result))
            self.moved += sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))
        return result


def network_cost(config: TrainingSettings, shapes: list[Shape], batch: int) -> NetworkCost:
    """Return the cost of the networks.

    Args:
        config: A validated config of a pretraining.
        shapes: Shape of each view.
        batch: Samples per device and forward pass.
    """
    try:
        return _network_cost(config, shapes, batch, fake=True)
    except RuntimeError:
        # An operator needs values, or has no kernel for fake tensors. Any other error occurs again with real tensors.
        return _network_cost(config, shapes, 2 * getattr(config.method, "bn_splits", 1), fake=False)


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
        return _count(lambda: over_pairs(views).loss, known)

    once, twice = step_cost(2), step_cost(4)
    kept = Size.through(2, once.kept, twice.kept)
    gathered = sum(rows.nbytes for rows in batch_keys)
    flops = Flops(once.flops.forward / 2, once.flops.backward / 2)
    return LossCost(flops, kept._replace(fixed=kept.fixed + gathered), once.launches)


def _network_cost(config: TrainingSettings, shapes: list[Shape], batch: int, fake: bool) -> NetworkCost:
    """Run the method on a batch and on one twice as large, since the activations grow linearly with the batch."""
    loss, norms = None if config.loss is None else config.loss.build(), list[tuple[int, bool]]()
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
        with _flop_counter() as view_counter:
            method.backbone(torch.zeros(batch, *shapes[0]))
        once = _step_cost(method, config.trainer, shapes, batch)
        if config.trainer.checkpointing:  # its backward pass runs blocks again, whose norms would count twice
            twice = _step_cost(method, config.trainer, shapes, 2 * batch)
            _note_norms(method, norms)
            method([torch.zeros(batch, *shape) for shape in shapes])
        else:
            _note_norms(method, norms)
            twice = _step_cost(method, config.trainer, shapes, 2 * batch)

    momentum_encoder, queue = (_num_bytes(getattr(method, name, None)) for name in ("momentum_encoder", "queue"))
    return NetworkCost(
        parameters=_parameters_by_component(method),
        num_trainable=_numel(parameter for parameter in method.parameters() if parameter.requires_grad),
        weights=_num_bytes(method) - momentum_encoder - queue,
        momentum_encoder=momentum_encoder,
        queue=queue,
        view_flops=view_counter.get_total_flops() / batch,
        flops=_flops_by_component(method, once, batch),
        activations=Size.through(batch, once.kept, twice.kept),
        moved=Size.through(batch, once.moved, twice.moved),
        launches=once.launches,
        norms=norms,
        loss_inputs=loss_inputs.views,
        measured_on="tensors without values" if fake else f"{batch} and {2 * batch} real samples",
    )


def _note_norms(method: nn.Module, norms: list[tuple[int, bool]]) -> None:
    """Add the channels of each batch norm call from now on to a list, and whether gradients flow through it."""
    for norm in (module for module in method.modules() if isinstance(module, _BatchNorm)):
        norm.register_forward_hook(lambda norm, *_: norms.append((norm.num_features, torch.is_grad_enabled())))


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


def _flops_by_component(method: nn.Module, step: _StepCost, batch: int) -> dict[str, Flops]:
    """Return the FLOPs of the encoders per sample."""
    momentum = step.by_module.get(f"{type(method).__name__}.momentum_encoder", 0.0)
    trained = "online encoder" if hasattr(method, "online") else "networks"
    flops = {trained: Flops((step.flops.forward - momentum) / batch, step.flops.backward / batch)}
    if momentum:
        flops["momentum encoder"] = Flops(momentum / batch, 0.0)
    return flops


def _step_cost(method: Any, trainer: TrainerConfig, shapes: list[Shape], batch: int) -> _StepCost:
    """Return the cost of one batch through the networks."""
    method.zero_grad()  # as at the beginning of a step
    views = [torch.zeros(batch, *shape) for shape in shapes]
    known = [*method.parameters(), *method.buffers(), *views]

    def loss() -> Tensor:
        with autocast(torch.device("cpu"), chosen(trainer.precision)):
            output: Tensor = method(views).loss
        return output

    if not trainer.checkpointing:
        return _count(loss, known)
    within = _largest_block(method.backbone, loss, known)
    with checkpointed(method.backbone) as blocks:
        cost = _count(loss, known, blocks)
    return cost._replace(kept=cost.kept + within)


def _largest_block(backbone: nn.Module, forward: Callable[[], Tensor], known: Iterable[Tensor]) -> int:
    """Return the most bytes that a block keeps while it is computed again."""
    before, most = list[int](), [0]

    with _kept(known) as kept, ExitStack() as hooks:
        for block in repeated_blocks(backbone):
            enter = block.register_forward_pre_hook(lambda *_: before.append(_bytes(kept)))
            leave = block.register_forward_hook(lambda *_: most.append(_bytes(kept) - before.pop()))
            hooks.callback(enter.remove)
            hooks.callback(leave.remove)
        forward()
    return max(most)


def _count(forward: Callable[[], Tensor], known: Iterable[Tensor], blocks: Sequence[nn.Module] = ()) -> _StepCost:
    """Return the cost of a forward and a backward pass.

    The bytes kept are the sizes of the storages that autograd saves, each counted once, excluding those of `known`
    tensors, and those of the inputs of checkpointed blocks.
    """
    with _Launches() as launches:
        with _kept(known) as kept, _flop_counter() as forward_counter, ExitStack() as hooks:
            for block in blocks:
                keep_inputs = block.register_forward_pre_hook(partial(_keep_inputs, kept))
                hooks.callback(keep_inputs.remove)
            loss = forward()
        with _flop_counter() as backward_counter:
            loss.backward()
    by_module = {name: float(sum(counts.values())) for name, counts in forward_counter.get_flop_counts().items()}
    flops = Flops(forward_counter.get_total_flops(), backward_counter.get_total_flops())
    return _StepCost(flops, by_module, _bytes(kept), launches.count, launches.moved)


@contextmanager
def _kept(known: Iterable[Tensor]) -> Iterator[set[torch.UntypedStorage]]:
    """Yield the storages that autograd saves, except those of `known` tensors."""
    known_storages = {tensor.untyped_storage() for tensor in known}
    kept: set[torch.UntypedStorage] = set()

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage() not in known_storages:
            kept.add(tensor.untyped_storage())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def _keep_inputs(kept: set[torch.UntypedStorage], block: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Count the inputs of a block, which checkpointing keeps without the help of autograd."""
    if torch.is_grad_enabled():
        kept.update(leaf.untyped_storage() for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor))


def _bytes(storages: Iterable[torch.UntypedStorage]) -> int:
    return sum(storage.nbytes() for storage in storages)


def _flop_counter() -> FlopCounterMode:
    """Return torch's counter with a formula for `addmm_` (`losses.streaming`), the one product it does not know."""

    def addmm_(total: list[int], left: list[int], right: list[int], **_: Any) -> int:
        return 2 * left[0] * left[1] * right[1]

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: addmm_})


def _numel(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _num_bytes(module: nn.Module | None) -> int:
    return 0 if module is None else sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])
