"""Files of the safetensors format, with every offset checked against the bytes that there are."""

import json
import math
from typing import Any, BinaryIO

from torch import Tensor

from eztorch_sce.interop.tensor_bytes import MOST_DIMS, Refused, Stream, elements, printable
from eztorch_sce.tensor_file import DTYPES

_LONGEST_HEADER = 1 << 24  # bytes; that of a thousand tensors has 100 kB


def read(file: BinaryIO, size: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of an open file, in order, and its metadata.

    Raises:
        Refused: If it is damaged, or its tensors overlap or leave gaps.
    """
    stream = Stream(file, size)
    length = int.from_bytes(stream.read(8), "little")
    if length > stream.left:
        raise Refused(f"truncated, or not a safetensors file: its header has {length} of {stream.left} bytes")
    if length > _LONGEST_HEADER:
        raise Refused(f"its header has {length} bytes, more than the {_LONGEST_HEADER} of a safetensors file")
    header = _parsed(stream.read(length))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Refused("its metadata are not text")
    places = {name: _place(name, entry) for name, entry in header.items()}
    position, tensors = 0, dict[str, Tensor]()
    for name, (dtype, shape, start, end) in sorted(places.items(), key=lambda item: item[1][2:]):
        if start != position or end - start != math.prod(shape) * dtype.itemsize:
            raise Refused(f"its tensor {name} overlaps another, leaves a gap or has a size that is not its shape's")
        tensors[name] = elements(stream.read_tensor(end - start), dtype).reshape(shape)
        position = end
    if stream.left:
        raise Refused(f"{stream.left} bytes follow its last tensor")
    return {printable(name): tensors[name] for name in places}, metadata


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused("its header is no JSON: damaged, or not a safetensors file") from None
    if not isinstance(header, dict):
        raise Refused("its header is no JSON object: damaged, or not a safetensors file")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise Refused(f"its header has the name {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def _place(name: str, entry: Any) -> tuple[Any, list[int], int, int]:
    """Return the type, shape, first and last byte of a tensor."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise Refused(f"the entry of its tensor {name} is damaged")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        known = ", ".join(DTYPES)
        raise Refused(f"its tensor {name} has the type {str(dtype)[:40]}, which is none of {known}")
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    if (
        len(shape) > MOST_DIMS
        or len(offsets) != 2
        or not all(type(each) is int and 0 <= each < 1 << 62 for each in numbers)
    ):
        raise Refused(f"its tensor {name} has the shape {str(shape)[:60]} and the offsets {str(offsets)[:60]}")
    if math.prod(filter(None, shape)) >= 1 << 62:
        raise Refused(f"its tensor {name} has the shape {str(shape)[:60]}")
    return DTYPES[dtype], shape, offsets[0], offsets[1]
