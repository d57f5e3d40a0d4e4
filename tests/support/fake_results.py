"""Results of operators on fake tensors, remembered by the shapes, strides and dtypes of their arguments.

FakeTensorMode has such a memory too, but takes most of the time of a test to look into it.
"""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager

_PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.layout, torch.memory_format, torch.device)
_RECIPES: dict[Any, Any] = {}  # by operator and arguments: how to make the result


class _Unknown(Exception):
    """An argument or a result that cannot be remembered."""


def result_of(func: Any, args: Any, kwargs: dict[str, Any], mode: FakeTensorMode, device: torch.device) -> Any:
    """Return the result of an operator on fake tensors of a device."""
    tensors: list[Tensor] = []
    try:
        key = (func, _key(args, tensors), _key(list(kwargs.items()), tensors))
    except _Unknown:
        return func(*args, **kwargs)
    if key in _RECIPES:
        return _make(_RECIPES[key], tensors, mode, device)
    result = func(*args, **kwargs)
    try:
        if key == (func, _key(args, []), _key(list(kwargs.items()), [])):  # unless it has changed a shape in place
            _RECIPES[key] = _recipe(result, tensors)
    except _Unknown:
        pass
    return result


def _key(value: Any, tensors: list[Tensor]) -> Any:
    """Return what the result depends on of an argument, and collect its tensors."""
    if isinstance(value, Tensor):
        tensors.append(value)
        is_fake = isinstance(value, FakeTensor)
        if not is_fake and value.ndim:
            raise _Unknown
        return (value.shape, value.stride(), value.storage_offset(), value.dtype, is_fake, value.requires_grad)
    if isinstance(value, (list, tuple)):
        return tuple(_key(item, tensors) for item in value)
    if isinstance(value, _PLAIN):
        return (type(value), value)
    raise _Unknown


def _recipe(result: Any, tensors: list[Tensor]) -> Any:
    """Return how to make a result: a list, the number of an argument, the form of a new tensor, or nothing."""
    if isinstance(result, (list, tuple)):
        return type(result), [_recipe(item, tensors) for item in result]
    if isinstance(result, FakeTensor):
        for number, tensor in enumerate(tensors):
            if tensor is result:
                return int, number
        if result.storage_offset() or result.layout != torch.strided:
            raise _Unknown
        return Tensor, (result.shape, result.stride(), result.dtype)
    if result is None:
        return None, None
    raise _Unknown


def _make(recipe: Any, tensors: list[Tensor], mode: FakeTensorMode, device: torch.device) -> Any:
    kind, form = recipe
    if kind is int:
        return tensors[form]
    if kind is Tensor:
        shape, stride, dtype = form
        with in_kernel_invocation_manager(mode):
            empty = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        return FakeTensor(mode, empty, device)
    if kind is None:
        return None
    return kind(_make(item, tensors, mode, device) for item in form)
