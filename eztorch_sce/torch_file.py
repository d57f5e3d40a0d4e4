"""The one reader of files that `torch.save` wrote: tensors and plain values only, with every checksum verified."""

import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from eztorch_sce.errors import DamagedFileError

_LOCAL_HEADER = 30  # bytes, without the name and the extra field of an entry
_DESCRIPTORS = (0, 16, 24)  # bytes after the data of an entry: none, with sizes of 4 bytes, of 8 bytes
_END_RECORD = 22  # bytes at the end of a ZIP file without a comment
_LARGEST_DIRECTORY = 1 << 25  # bytes; that of a thousand tensors has 100 kB
_CHUNK = 1 << 24  # bytes

UNREADABLE = (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, RuntimeError, OverflowError, struct.error)
"""What reading a damaged ZIP file raises."""


def read(path: str | Path, *, mmap: bool = False) -> Any:
    """Return the content of a file of `torch.save`, with the tensors on the CPU.

    PyTorch ignores the checksums of the entries, so they are verified first. Objects of classes are refused, since
    unpickling them runs code.

    Args:
        path: The file.
        mmap: Map the tensors into memory, which loads them when they are used.

    Raises:
        DamagedFileError: If the file is damaged, or holds more than tensors and plain values.
        OSError: If the file is missing or cannot be read.
    """
    with Path(path).open("rb") as file:
        try:
            entries(file)
        except UNREADABLE as error:
            raise DamagedFileError(str(path), str(error)) from None
    try:
        return torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, pickle.UnpicklingError):
        reason = "it holds other objects than tensors and plain values, or PyTorch cannot read it"
        raise DamagedFileError(str(path), reason) from None  # PyTorch would advise to trust the file


def is_torch_file(path: str | Path) -> bool:
    """Return whether a file begins like one of `torch.save`."""
    with Path(path).open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


class Entry(NamedTuple):
    """Where the data of an entry are in a ZIP file, in bytes."""

    start: int
    size: int


def entries(file: BinaryIO) -> dict[str, Entry]:
    """Return the entries of a ZIP file by name, with their checksums verified, and nothing outside the entries.

    Raises:
        zipfile.BadZipFile, ValueError, ...: One of `UNREADABLE`, if an entry is not as it was written, is compressed or
            lies in another.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _END_RECORD, 0))
    record = file.read(_END_RECORD)
    if not record.startswith(b"PK\x05\x06"):
        raise ValueError("truncated, or not a file of torch.save")
    if int.from_bytes(record[12:16], "little") > _LARGEST_DIRECTORY:
        raise ValueError("its directory is larger than that of a file of torch.save")
    found: dict[str, Entry] = {}
    with zipfile.ZipFile(file) as archive:
        position = 0
        for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
            if entry.header_offset - position not in _DESCRIPTORS:
                raise ValueError(f"unknown bytes before its entry {entry.filename}")
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise ValueError(f"its entry {entry.filename} is compressed")
            if entry.filename in found:
                raise ValueError(f"it has two entries {entry.filename}")
            with archive.open(entry) as stream:  # raises BadZipFile at the end if the checksum differs
                while stream.read(_CHUNK):
                    pass
            file.seek(entry.header_offset)
            header = file.read(_LOCAL_HEADER)
            extra = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            found[entry.filename] = Entry(entry.header_offset + _LOCAL_HEADER + extra, entry.file_size)
            position = found[entry.filename].start + entry.file_size
        if archive.start_dir - position not in _DESCRIPTORS:
            raise ValueError("unknown bytes after its entries")
    return found
