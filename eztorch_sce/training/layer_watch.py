"""Numbers of every layer in a training step, and the first that is not finite: in which layer, record and view."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_NUM_BEFORE = 6  # layers that are listed before the first with a number that is not finite


class LayerNumbers(NamedTuple):
    """What a layer returned, or the gradient of it.

    Attributes:
        layer: Name of the layer in the method or the classifier.
        kind: Its class.
        shape: Shape of the tensor.
        dtype: Type of its numbers.
        low, high: Least and greatest finite number; None if there is none.
        num_invalid: How many numbers are NaN or infinite.
    """

    layer: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    low: float | None
    high: float | None
    num_invalid: int

    @classmethod
    def of(cls, layer: str, kind: str, tensor: Tensor) -> "LayerNumbers":
        """Return the numbers of a tensor."""
        finite = tensor.isfinite()
        num_invalid = tensor.numel() - int(finite.sum())
        numbers = tensor[finite] if num_invalid else tensor
        low, high = (float(x) for x in numbers.float().aminmax()) if numbers.numel() else (None, None)
        dtype = str(tensor.dtype).removeprefix("torch.")
        return cls(layer, kind, tuple(tensor.shape), dtype, low, high, num_invalid)


class Place(NamedTuple):
    """Where a step first held a number that is not finite.

    Attributes:
        stage: "state", "view", "input", "output", "loss" or "gradient".
        numbers: The numbers there.
        samples: View and row of the batch of each sample that they belong to; empty if that is not known.
        before: What the last layers before it returned; of a gradient, the gradients before it.
        weights: Weights of the layer.
    """

    stage: str
    numbers: LayerNumbers
    samples: list[tuple[int, int]]
    before: list[LayerNumbers]
    weights: list[LayerNumbers]


class LayerWatch:
    """Watch the layers of a step in the order in which they run.

    Args:
        root: The module whose layers are watched.

    Attributes:
        layers: What each layer without sublayers returned, in order.
        gradients: Gradients of what layers returned, in order.
        first: The first place with a number that is not finite; None if there is none.
    """

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.names = {id(layer): name or type(layer).__name__ for name, layer in root.named_modules()}
        self.layers: list[LayerNumbers] = []
        self.gradients: list[LayerNumbers] = []
        self.first: Place | None = None
        self._views: Sequence[Tensor] = ()
        self._inputs: list[Tensor | None] = []  # of the calls in progress
        self._is_forward = True

    def begin(self, views: Sequence[Tensor]) -> None:
        """Look at the state before a step and at the views of a batch, before the forward pass."""
        self._views, self._is_forward = views, True
        for name, tensor in (*self.root.named_parameters(), *self.root.named_buffers()):
            self._look("state", name, "", tensor, [])
        for number, view in enumerate(views):
            self._look("view", f"view {number}", "", view, [(number, row) for row in _invalid_rows(view)])

    def loss(self, loss: Tensor) -> None:
        """Look at the loss, after the forward pass and before the backward pass."""
        self._is_forward = False
        self._look("loss", "loss", "", loss.detach(), [])

    def end(self) -> None:
        """Look at the gradients of the weights, after the backward pass."""
        for name, parameter in self.root.named_parameters():
            if parameter.grad is not None:
                self._look("gradient", name, "", parameter.grad, [])

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the layers within this context."""
        handles = []
        for layer in self.root.modules():
            handles.append(layer.register_forward_pre_hook(self._before, prepend=True))
            handles.append(layer.register_forward_hook(self._after))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _look(self, stage: str, layer: str, kind: str, tensor: Tensor, samples: list[tuple[int, int]]) -> None:
        """Note a place, if it is the first."""
        if self.first is None and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            before = self.gradients if stage == "gradient" else self.layers
            numbers = LayerNumbers.of(layer, kind, tensor.detach())
            self.first = Place(stage, numbers, samples, before[-_NUM_BEFORE:], self._weights_of(layer))

    def _weights_of(self, name: str) -> list[LayerNumbers]:
        layer = dict(self.root.named_modules()).get(name)
        weights = () if layer is None else layer.named_parameters(recurse=False)
        return [LayerNumbers.of(f"{name}.{own}", "", weight.detach()) for own, weight in weights]

    def _before(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        first = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        self._inputs.append(first)
        if first is not None and self._is_forward:
            name, kind = self.names[id(layer)], type(layer).__name__
            self._look("input", name, kind, first, self._samples(first))

    def _after(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        name, kind = self.names[id(layer)], type(layer).__name__
        of_network = self._of_network()
        is_watched = self._is_forward and layer is not self.root  # what a method returns is the loss
        for tensor in _tensors_in(output) if is_watched else ():
            self._look("output", name, kind, tensor, self._samples(tensor))
            if not any(True for _ in layer.children()):
                self.layers.append(LayerNumbers.of(name, kind, tensor.detach()))
            if tensor.requires_grad and tensor.is_floating_point():
                tensor.register_hook(partial(self._gradient, name, kind, of_network))
        self._inputs.pop()

    def _gradient(self, layer: str, kind: str, of_network: Tensor | None, gradient: Tensor) -> None:
        samples = samples_of(gradient.detach(), of_network, self._views)
        self._look("gradient", layer, kind, gradient, samples)
        self.gradients.append(LayerNumbers.of(layer, kind, gradient.detach()))

    def _of_network(self) -> Tensor | None:
        """Return the input of the network that is running, whose rows are samples."""
        return next((each for each in self._inputs if each is not None), None)

    def _samples(self, tensor: Tensor) -> list[tuple[int, int]]:
        return samples_of(tensor.detach(), self._of_network(), self._views)


def samples_of(tensor: Tensor, of_network: Tensor | None, views: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return the view and the row of the batch of each sample that has numbers which are not finite.

    Args:
        tensor: A tensor whose rows belong to the rows of the network's input, one or several to each.
        of_network: Input of the network, whose rows are rows of the views in any order; None if it is not known.
        views: The views of the batch.
    """
    if of_network is None or tensor.ndim == 0 or len(of_network) == 0 or len(tensor) % len(of_network):
        return []
    rows_per_sample = len(tensor) // len(of_network)
    rows = sorted({row // rows_per_sample for row in _invalid_rows(tensor)})
    found = (_sample_of(of_network[row], row, views) for row in rows)
    return [sample for sample in found if sample is not None]


def _sample_of(pixels: Tensor, row: int, views: Sequence[Tensor]) -> tuple[int, int] | None:
    """Return the view and the row in which a sample has these pixels, looking at its own row first."""
    for number, view in enumerate(views):
        if view.shape[1:] == pixels.shape:
            for candidate in (row % len(view), *range(len(view))):
                if torch.equal(view[candidate], pixels):
                    return number, candidate
    return None


def _invalid_rows(tensor: Tensor) -> list[int]:
    """Return the rows (N, ...) with a number that is not finite."""
    if not tensor.is_floating_point() or tensor.ndim == 0:
        return []
    finite = tensor.isfinite().reshape(len(tensor), -1).all(dim=1)
    return [int(row) for row in (~finite).nonzero()[:, 0]]


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in what a layer returned."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors_in(item)
