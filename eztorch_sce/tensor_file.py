"""Tensor files: nested values and tensors in a safetensors file, in which any changed bit is found.

A tensor file is a file of the safetensors format, so that other programs read its tensors by name. The metadata of its
header holds six texts:

- `digest`, first in the header: SHA-256 of the header, of its padding and of the 8 bytes before it, with zeros in the
  place of the digest.
- `eztorch_sce`: The name and version of this format.
- `format`: "pt", which tells the readers of some libraries that PyTorch wrote the tensors.
- `checksums`: JSON object with the SHA-256 of each tensor's bytes.
- `dtypes`: JSON object with torch's name of each type that safetensors does not know; such a tensor is stored as bytes.
- `card`: JSON of the content, see `tensor_card`.

The header's digest covers the checksums, and these cover all other bytes. Nothing is unpickled.
"""

import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from eztorch_sce.errors import DamagedFileError, NewerFileError, describe_newer
from eztorch_sce.files import replacing, sync_folder
from eztorch_sce.tensor_card import NO_TENSOR, NamedTensor, decode, encode

FORMAT = "tensors 1"
SUFFIX = ".safetensors"

_DIGEST_AT = len(b'12345678{"__metadata__":{"digest":"')
_ZEROS = "0" * 64  # in the place of a SHA-256 digest
_LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
_ALIGNMENT = 64  # bytes; of the first tensor, for programs that map the file into memory
_CHUNK = 1 << 24  # bytes that are hashed and written at once

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types that the safetensors library knows."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class _Place(NamedTuple):
    """Where a tensor is in a file: the entry of the header, with offsets in bytes from the end of the header."""

    dtype: str
    shape: list[int]
    start: int
    end: int


@dataclass(frozen=True)
class _Header:
    """The content of a verified header."""

    card: Any
    places: dict[str, _Place]  # in the order of the file
    checksums: dict[str, str]
    dtypes: dict[str, torch.dtype]  # of tensors that are stored as bytes


class _NewerVersionError(ValueError):
    """A version of this format that is not known yet."""


def write(
    path: str | Path, content: Mapping[str, Any], *, root: str = "", name_of: Callable[[str], str] | None = None
) -> None:
    """Write a tensor file, read it back from the disk and only then replace `path` by it.

    When the function returns, the file is durable. Until then `path` is unchanged; if an error is raised, nothing is
    left behind. Tensors are copied to the host one at a time, and one that is contiguous there is not copied. Tensors
    that share memory are written one by one. Several processes may write the same path: the last complete file stays.

    Args:
        path: The file.
        content: Dictionaries with str or int keys, lists, tuples, tensors of any type and device, None, booleans,
            numbers, text and bytes.
        root: Top-level key whose tensors other programs find by their keys alone. The names of other tensors are their
            paths, such as "head.weight".
        name_of: Returns the name that other programs find a tensor by, from the name that it would have; None keeps it.

    Raises:
        TypeError: If the content holds an object of another type; the message gives its path.
        OSError: If the file cannot be written, such as on a full disk, or is read back with other bytes.
    """
    path = Path(path)
    card, tensors = encode(content, root, name_of)
    tensors.sort(key=lambda named: -named.tensor.dtype.itemsize)  # stable; wide types first, so that all are aligned
    with replacing(path) as partial:
        with partial.open("r+b") as file:
            _write_all(file, card, tensors)
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):  # let the file be read from the disk, not from the memory of the system
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            _verify(partial)
        except DamagedFileError as error:
            raise OSError(errno.EIO, f"the file was read back damaged ({error.reason})", str(path)) from None
    sync_folder(path.parent)


def is_tensor_file(path: str | Path) -> bool:
    """Return whether a file begins like a tensor file, which may be damaged: one of its two marks is enough."""
    with Path(path).open("rb") as file:
        start = file.read(1024)
    return b'{"__metadata__":{"digest":' in start or b'"eztorch_sce":"' in start


def read(path: str | Path, map_location: str | torch.device | None = None) -> dict[str, Any]:
    """Return the content of a tensor file, with every byte verified.

    Args:
        path: The file.
        map_location: Device of the tensors, by default the CPU. Tensors are copied there one at a time.

    Raises:
        DamagedFileError: If the file is damaged or is not a tensor file.
        OSError: If the file is missing or cannot be read.
    """
    path = Path(path)
    with path.open("rb", buffering=0) as file:
        header = _read_header(path, file)
        tensors = {name: tensor.to(map_location or "cpu") for name, tensor in _read_tensors(path, file, header)}
    return _decoded(path, header.card, tensors)


def read_plain(path: str | Path) -> dict[str, Any]:
    """Return the plain values of a tensor file: dictionaries lack their tensors, lists and tuples have None there.

    The header and the size of the file are verified; the tensors are not read.

    Raises:
        DamagedFileError: If the header is damaged, the file is truncated or too long, or is not a tensor file.
        OSError: If the file is missing or cannot be read.
    """
    path = Path(path)
    with path.open("rb", buffering=0) as file:
        return _decoded(path, _read_header(path, file).card, None)


def _write_all(file: BinaryIO, card: Any, tensors: list[NamedTensor]) -> None:
    """Write the tensors behind an empty header, and then the header with their checksums."""
    checksums = {name: _ZEROS for name, _ in tensors}
    entries, dtypes, position = dict[str, Any](), dict[str, str](), 0
    for name, tensor in tensors:
        shape, end = list(tensor.shape), position + tensor.numel() * tensor.dtype.itemsize
        if tensor.dtype not in _NAMES:
            shape, dtypes[name] = [*shape, tensor.dtype.itemsize], str(tensor.dtype).removeprefix("torch.")
        entries[name] = {"dtype": _NAMES.get(tensor.dtype, "U8"), "shape": shape, "data_offsets": [position, end]}
        position = end
    metadata = {"card": _json(card), "dtypes": _json(dtypes)}
    file.write(bytes(len(_header_bytes(metadata, entries, checksums))))
    for name, tensor in tensors:
        checksum = hashlib.sha256()
        for chunk in _chunks(_bytes_of(tensor)):
            checksum.update(chunk)
            file.write(chunk)
        checksums[name] = checksum.hexdigest()
    file.seek(0)
    file.write(_header_bytes(metadata, entries, checksums))


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _header_bytes(metadata: Mapping[str, str], entries: Mapping[str, Any], checksums: Mapping[str, str]) -> bytes:
    """Return the header and the 8 bytes before it, which hold its length."""
    metadata = {"digest": _ZEROS, "eztorch_sce": FORMAT, "format": "pt", **metadata, "checksums": _json(checksums)}
    text = _json({"__metadata__": metadata, **entries}).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    if len(text) > _LONGEST_HEADER:
        size = f"{len(text)} bytes of plain values and names"
        raise TypeError(f"{size}, more than the {_LONGEST_HEADER} that a tensor file holds; store numbers as tensors")
    header = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256(header).hexdigest().encode()
    return header[:_DIGEST_AT] + digest + header[_DIGEST_AT + len(digest) :]


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor, without a copy if it is contiguous and on the host."""
    tensor = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return _memory(tensor.view(torch.uint8)) if tensor.numel() else memoryview(b"")


def _memory(data: Tensor) -> memoryview:
    return memoryview(data.numpy())  # type: ignore[arg-type]  # arrays are buffers, which Python 3.10 cannot say


def _chunks(view: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(view), _CHUNK):
        yield view[start : start + _CHUNK]


def _verify(path: Path) -> None:
    """Raise DamagedFileError if a byte of a tensor file is not as it was written."""
    with path.open("rb", buffering=0) as file:
        for _ in _read_tensors(path, file, _read_header(path, file)):
            pass


def _read_header(path: Path, file: BinaryIO) -> _Header:
    """Return the verified header of an open tensor file."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if size < 8:
        raise DamagedFileError(str(path), f"truncated: the file has {size} bytes")
    if length > min(size - 8, _LONGEST_HEADER):
        raise DamagedFileError(str(path), "truncated, or not a tensor file: it ends inside its header")
    header = start + _read_bytes(path, file, length)
    end = _DIGEST_AT + len(_ZEROS)
    blank = header[:_DIGEST_AT] + _ZEROS.encode() + header[end:]
    if header[_DIGEST_AT:end] != hashlib.sha256(blank).hexdigest().encode():
        ours = b'"eztorch_sce":' in header
        raise DamagedFileError(str(path), f"checksum of the header differs{'' if ours else ', or not a tensor file'}")
    try:
        content = _parse(header[8:])
    except _NewerVersionError as error:
        raise NewerFileError(str(path), describe_newer(str(error), FORMAT)) from None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedFileError(str(path), f"not a tensor file of this version ({error!r})") from None
    expected = len(header) + max((place.end for place in content.places.values()), default=0)
    if size < expected:
        raise DamagedFileError(str(path), f"truncated: the file has {size} of {expected} bytes")
    if size > expected:
        raise DamagedFileError(str(path), f"{size - expected} bytes follow the end of the content")
    return content


def _parse(text: bytes) -> _Header:
    """Return the content of a header, whose entries fill the file without gaps."""
    entries = json.loads(text)
    metadata = entries.pop("__metadata__")
    if (version := metadata["eztorch_sce"]) != FORMAT:
        newer = re.fullmatch(r"tensors [2-9]\d*|tensors 1\d+", version)
        raise (_NewerVersionError(version) if newer else ValueError(f"its version is {version}"))
    places, position = dict[str, _Place](), 0
    for name, entry in entries.items():
        place = _Place(entry["dtype"], entry["shape"], *entry["data_offsets"])
        size = math.prod(place.shape) * DTYPES[place.dtype].itemsize
        if place.start != position or place.end != position + size or not all(length >= 0 for length in place.shape):
            raise ValueError(f"the place of tensor {name}")
        places[name], position = place, place.end
    dtypes = {name: getattr(torch, dtype) for name, dtype in json.loads(metadata["dtypes"]).items()}
    if not all(isinstance(dtype, torch.dtype) for dtype in dtypes.values()):
        raise ValueError(f"the types {metadata['dtypes']}")
    return _Header(json.loads(metadata["card"]), places, json.loads(metadata["checksums"]), dtypes)


def _read_tensors(path: Path, file: BinaryIO, header: _Header) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor of an open file with its name.

    The bytes that are verified are those that are returned. A file mapped into memory would end the process by SIGBUS
    if it were truncated meanwhile, or its disk failed.
    """
    for name, place in header.places.items():
        data = torch.empty(place.end - place.start, dtype=torch.uint8)
        checksum = hashlib.sha256()
        for chunk in _chunks(_memory(data)):
            _read_into(path, file, chunk)
            checksum.update(chunk)
        if checksum.hexdigest() != header.checksums.get(name):
            raise DamagedFileError(str(path), f"checksum of tensor {name} differs")
        if name in header.dtypes:
            yield name, data.view(header.dtypes[name]).reshape(place.shape[:-1])
        else:
            yield name, data.view(DTYPES[place.dtype]).reshape(place.shape)


def _read_bytes(path: Path, file: BinaryIO, length: int) -> bytes:
    data = bytearray(length)
    _read_into(path, file, memoryview(data))
    return bytes(data)


def _read_into(path: Path, file: Any, view: memoryview) -> None:
    """Fill a view from an unbuffered file, which may return fewer bytes than asked for."""
    filled = 0
    while filled < len(view):
        count = file.readinto(view[filled:])
        if not count:
            raise DamagedFileError(str(path), "truncated while it was read")
        filled += count


def _decoded(path: Path, card: Any, tensors: Mapping[str, Tensor] | None) -> dict[str, Any]:
    try:
        content: dict[str, Any] = decode(card, lambda name: NO_TENSOR if tensors is None else tensors[name])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedFileError(str(path), f"its card is invalid ({error!r})") from None
    return content
