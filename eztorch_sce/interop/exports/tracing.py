"""The graph of a network, followed by torch.fx while it runs on an example."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jaxtyping
import torch
from torch import Tensor, fx, nn

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def is_leaf(module: nn.Module) -> bool:
    """Return whether a module is one of PyTorch that is called as it is, not a container."""
    return type(module).__module__.startswith("torch.nn.modules.") and not isinstance(module, _CONTAINERS)


def traced(network: nn.Module, example: Tensor) -> fx.Graph:
    """Return the graph of a network, with the modules of PyTorch as calls.

    Shapes are those of the example, except for the size of the batch: code that reads them can be followed.

    Args:
        network: A network with one input, in evaluation mode.
        example: A batch of inputs.
    """
    with _without_shape_checks(), torch.no_grad():
        return _Tracer(example).trace(network)


class _Proxy(fx.Proxy):
    """A value that is followed, and whose shape is known but for the size of the batch."""

    tracer: "_Tracer"

    @property
    def shape(self) -> Any:
        """The lengths of the axes of a tensor."""
        value = self.tracer.values[self.node]
        own: Any = fx.proxy.Attribute(self, "shape")
        if not isinstance(value, Tensor):
            return own
        sizes: list[Any] = list(value.shape)
        if sizes and sizes[0] == self.tracer.batch_size:
            sizes[0] = own[0]
        return tuple(sizes)

    def size(self, dim: int | None = None) -> Any:
        """Return the lengths of the axes of a tensor, or of one."""
        return self.shape if dim is None else self.shape[dim]

    @property
    def ndim(self) -> int:
        """The number of axes of a tensor."""
        return len(self.shape)

    def dim(self) -> int:
        """Return the number of axes of a tensor."""
        return len(self.shape)


class _Tracer(fx.Tracer):
    """Tracer that runs each step on an example.

    Args:
        example: The input.
    """

    def __init__(self, example: Tensor) -> None:
        super().__init__()
        self.example, self.batch_size = example, len(example)
        self.values: dict[fx.Node, Any] = {}
        self._is_running = False

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return what stands for the value of a node."""
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is called as it is."""
        return is_leaf(m)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record the call of a module, unless it runs on the example."""
        return forward(*args, **kwargs) if self._is_running else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return the attribute of a module, which is itself while the module runs on the example."""
        return attr_val if self._is_running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any) -> fx.Proxy:
        """Record a step, and run it on the example."""
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **named)
        known = fx.node.map_aggregate((args, kwargs), self._value_of)
        self._is_running = True
        try:
            self.values[proxy.node] = self._run(kind, target, *known)
        finally:
            self._is_running = False
        return proxy

    def _value_of(self, item: Any) -> Any:
        return self.values[item.node] if isinstance(item, fx.Proxy) else item

    def _run(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kind == "placeholder":
            return self.example
        if kind == "call_function":
            return target(*args, **kwargs)
        if kind == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if kind == "call_module":
            return self.root.get_submodule(target)(*args, **kwargs)
        if kind == "get_attr":
            path, _, name = target.rpartition(".")
            return getattr(self.root.get_submodule(path), name)
        return None  # the output


@contextmanager
def _without_shape_checks() -> Iterator[None]:
    """Leave out the checks of annotated shapes, if they are on: a proxy is no tensor."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
