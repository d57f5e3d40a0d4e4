"""Arrays of NumPy in pickles, rebuilt from their bytes."""

import math
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eztorch_sce.interop.tensor_bytes import MOST_DIMS, Refused, elements

_NUMBERS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}


class DType:
    """Type of the elements of an array, such as NumPy's "<f4".

    Args:
        code: Its code, such as "f4".
    """

    def __init__(self, code: Any, *_: Any) -> None:
        if isinstance(code, bytes):
            code = code.decode("latin-1")
        match = re.fullmatch(r"([<>|=]?)([a-zA-Z?])(\d{0,9})", code) if isinstance(code, str) else None
        if match is None:
            raise Refused(f"an array has elements of the type {str(code)[:40]}")
        order, kind, size = match.groups()
        kind, size = ("b", "1") if kind == "?" else (kind, size)
        self.big_endian, self.kind = order == ">", kind
        self.itemsize = int(size or 0) * (4 if kind == "U" else 1)

    def set_state(self, state: Any) -> None:
        """Set the order of the bytes, as a pickle has it."""
        if not isinstance(state, tuple) or len(state) < 2:
            raise Refused("the type of an array is damaged")
        order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise Refused(f"an array has its bytes in the order {order!r}")
        if any(state[2:5]):
            self.kind = "V"  # of several fields
        self.big_endian = order == ">"

    @property
    def torch(self) -> torch.dtype | None:
        """The type of tensors that holds such elements; None if there is none."""
        name = _NUMBERS.get(self.kind, "")
        found = getattr(torch, name if name == "bool" else f"{name}{8 * self.itemsize}", None) if name else None
        return found if isinstance(found, torch.dtype) and found.itemsize == self.itemsize else None

    def __str__(self) -> str:
        return f"{self.kind}{self.itemsize // (4 if self.kind == 'U' else 1)}"


class Array:
    """An array of NumPy.

    Args:
        shape: Its shape.
        dtype: Type of its elements.
        data: Its bytes, or its elements if these are objects.
        by_columns: Whether the first index runs first.
    """

    def __init__(self, shape: Any = (0,), dtype: Any = None, data: Any = b"", by_columns: Any = False) -> None:
        self.shape, self.dtype, self.data, self.by_columns = shape, dtype, data, bool(by_columns)

    def set_state(self, state: Any) -> None:
        """Set the content, as a pickle has it."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("an array is damaged")
        _, self.shape, self.dtype, by_columns, self.data = state
        self.by_columns = bool(by_columns)

    def content(self) -> Any:
        """Return the array as a tensor; as a list if its elements are text or objects, or else its type in words."""
        shape, dtype, data = self._checked()
        if dtype.kind == "O":
            return data
        if dtype.kind in "SU":
            order = ">" if dtype.big_endian else "<"
            return np.frombuffer(data, np.dtype(f"{order}{dtype}")).tolist() if data else []
        if (of_torch := dtype.torch) is None:
            return f"an array of the type {dtype}"
        flat = elements(_tensor_of(data), of_torch, dtype.big_endian)
        if self.by_columns and len(flat):
            return flat.reshape(shape[::-1]).permute(*range(len(shape) - 1, -1, -1)).contiguous()
        return flat.reshape(shape) if len(flat) else torch.empty(shape, dtype=of_torch)

    def _checked(self) -> tuple[tuple[int, ...], DType, Any]:
        shape, dtype, data = self.shape, self.dtype, self.data
        if type(shape) is int:
            shape = (shape,)
        if not isinstance(dtype, DType):
            raise Refused("an array has no type of elements")
        if not isinstance(shape, tuple) or len(shape) > MOST_DIMS:
            raise Refused("an array has no shape")
        if not all(type(length) is int and 0 <= length < 1 << 62 for length in shape):
            raise Refused(f"an array has the shape {shape[:8]!s}")
        if math.prod(filter(None, shape)) >= 1 << 62:
            raise Refused(f"an array has the shape {shape[:8]!s}")
        if dtype.kind == "O":
            if not isinstance(data, list) or len(data) != math.prod(shape):
                raise Refused("an array of objects is damaged")
            return shape, dtype, data
        if isinstance(data, str):  # of Python 2
            data = data.encode("latin-1")
        if not isinstance(data, (bytes, bytearray)):
            raise Refused("an array has no bytes")
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise Refused(f"an array of the shape {shape[:8]} and the type {dtype} has {len(data)} bytes")
        return shape, dtype, data


def _tensor_of(data: bytes | bytearray) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def new_array(*_: Any) -> Array:
    """Return an array without content, which is set next."""
    return Array()


def array_of_buffer(buffer: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> Array:
    """Return an array of protocol 5."""
    return Array(shape, dtype, buffer, order == "F")


def scalar(dtype: Any, data: Any = b"") -> Any:
    """Return a number of NumPy as one of Python."""
    content = Array((), dtype, data).content()
    return content.item() if isinstance(content, Tensor) else content[0]
