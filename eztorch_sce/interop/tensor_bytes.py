"""Tensors in the bytes of a file, every one checked against the bytes that there are."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch
from torch import Tensor

MOST_DIMS = 64
_FREE = 1 << 20  # elements that a tensor may have although its storage has fewer, as an expanded one
_CHUNK = 1 << 24  # bytes


class Refused(ValueError):
    """A file that is damaged or hostile; the message gives the reason without the path."""


def printable(text: str) -> str:
    """Return a text of a file with what cannot be printed, or would steer a terminal, as escape sequences."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class Stream:
    """A file or bytes, read in order, with errors instead of short reads.

    Args:
        file: The open file, at the first byte to read.
        size: Number of bytes to read at most.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left = file, size

    def read(self, size: int) -> bytes:
        """Return the next bytes; `size` is checked before memory is asked for."""
        if not 0 <= size <= self.left:
            raise Refused("truncated")
        data = self.file.read(size)
        self.left -= len(data)
        if len(data) < size:
            raise Refused("truncated while it was read")
        return data

    def rest(self) -> bytes:
        """Return all bytes that are left."""
        return self.read(self.left)

    def readline(self) -> bytes:
        """Return the next bytes up to a line break and with it."""
        line = self.file.readline(self.left)
        self.left -= len(line)
        if not line.endswith(b"\n"):
            raise Refused("truncated")
        return line

    def read_tensor(self, size: int) -> Tensor:
        """Return the next bytes as a tensor of uint8."""
        if not 0 <= size <= self.left:
            raise Refused(f"truncated: a tensor of {size} bytes begins {self.left} bytes before the end")
        data = torch.empty(size, dtype=torch.uint8)
        view = memoryview(data.numpy())  # type: ignore[arg-type]  # arrays are buffers, which Python 3.10 cannot say
        for start in range(0, size, _CHUNK):
            chunk = view[start : start + _CHUNK]
            if self.file.readinto(chunk) != len(chunk):  # type: ignore[attr-defined]
                raise Refused("truncated while it was read")
        self.left -= size
        return data


@dataclass(eq=False)
class Block:
    """The bytes of a storage, read when they are needed.

    Attributes:
        size: Number of bytes.
        read: Function that returns them as a tensor of uint8; None until it is known where they are.
        big_endian: Whether the most significant byte of a number comes first.
    """

    size: int
    read: Callable[[], Tensor] | None = None
    big_endian: bool = False
    _views: dict[Any, Tensor] = field(default_factory=dict)

    def elements(self, dtype: torch.dtype, start: int, size: int) -> Tensor:
        """Return bytes as a tensor of one dimension, which shares its memory with those of other calls."""
        key = (dtype, start, size)
        if key not in self._views:
            if None not in self._views:
                if self.read is None:
                    raise Refused("the bytes of a tensor are missing")
                self._views[None] = self.read()
            self._views[key] = elements(self._views[None][start : start + size], dtype, self.big_endian)
        return self._views[key]


@dataclass(frozen=True)
class Storage:
    """Part of a block that tensors lie in.

    Attributes:
        block: The block.
        dtype: Type of its elements; None if each tensor says it.
        start: First byte.
        size: Number of bytes.
    """

    block: Block
    dtype: torch.dtype | None
    start: int
    size: int


@dataclass(frozen=True)
class Place:
    """Where a tensor is in a storage, in elements, and whether it has the conjugates or negatives of those there."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    conjugate: bool = False
    negative: bool = False

    def tensor(self) -> Tensor:
        """Return the tensor."""
        flat = self.storage.block.elements(self.dtype, self.storage.start, self.storage.size)
        if not math.prod(self.shape):
            return torch.empty(self.shape, dtype=self.dtype)
        tensor = flat.as_strided(self.shape, self.stride, self.offset)
        if self.conjugate:
            tensor = tensor.conj_physical()
        return -tensor if self.negative else tensor


def place(storage: Any, dtype: torch.dtype | None, offset: Any, shape: Any, stride: Any) -> Place:
    """Return where a tensor is.

    Raises:
        Refused: If that is not inside the storage.
    """
    if not isinstance(storage, Storage) or dtype is None:
        raise Refused("a tensor has no storage")
    for numbers in (shape, stride, [offset]):
        if not isinstance(numbers, (tuple, list)) or not all(type(number) is int for number in numbers):
            raise Refused("the shape, strides or offset of a tensor are not integers")
        if any(not 0 <= number < 1 << 62 for number in numbers):
            raise Refused(f"a tensor has the shape {_shown(shape)}, strides {_shown(stride)} and offset {offset}")
    if len(shape) != len(stride) or len(shape) > MOST_DIMS:
        raise Refused(f"a tensor has {len(shape)} dimensions and {len(stride)} strides")
    available, needed = storage.size // dtype.itemsize, math.prod(shape)
    last = offset + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
    if needed and last >= available:
        raise Refused(f"a tensor of the shape {_shown(shape)} reaches element {last} of a storage of {available}")
    if needed > max(available, _FREE) or math.prod(filter(None, shape)) >= 1 << 62:
        raise Refused(f"a tensor of the shape {_shown(shape)} has more elements than its storage of {available}")
    return Place(storage, dtype, offset, tuple(shape), tuple(stride))


def _shown(numbers: Sequence[int]) -> str:
    return str(tuple(numbers[:8]))


def elements(data: Tensor, dtype: torch.dtype, big_endian: bool = False) -> Tensor:
    """Return bytes (N,) uint8 as elements of another type (N // itemsize,), without a copy if they are in order.

    Raises:
        Refused: If a boolean is neither 0 nor 1.
    """
    data = data[: len(data) // dtype.itemsize * dtype.itemsize]
    if big_endian and dtype.itemsize > 1:
        data = data.view(-1, dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize).flip(1).reshape(-1)
    if dtype == torch.bool and bool((data > 1).any()):
        raise Refused("a tensor of booleans holds other bytes than 0 and 1")
    return data.view(dtype) if len(data) else torch.empty(0, dtype=dtype)
