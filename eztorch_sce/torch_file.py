"""The one reader of files that `torch.save` wrote: tensors and plain values only, with every checksum verified."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from eztorch_sce.errors import DamagedFileError

_LOCAL_HEADER = 30  # bytes, without the name and the extra field of an entry
_DESCRIPTORS = (0, 16, 24)  # bytes after the data of an entry: none, with sizes of 4 bytes, of 8 bytes
_END_RECORD = 22  # bytes at the end of a ZIP file without a comment
_CHUNK = 1 << 24  # bytes


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
            _verify(file)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, RuntimeError, OverflowError) as error:
            raise DamagedFileError(str(path), str(error)) from None
    try:
        return torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, pickle.UnpicklingError) as error:
        reason = "it holds other objects than tensors and plain values, or PyTorch cannot read it"
        raise DamagedFileError(str(path), reason) from error


def is_torch_file(path: str | Path) -> bool:
    """Return whether a file begins like one of `torch.save`."""
    with Path(path).open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _verify(file: BinaryIO) -> None:
    """Raise an error if an entry of a ZIP file is not as it was written, or there is anything outside the entries."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _END_RECORD, 0))
    if not file.read(_END_RECORD).startswith(b"PK\x05\x06"):
        raise ValueError("truncated, or not a file of torch.save")
    with zipfile.ZipFile(file) as archive:
        position = 0
        for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
            if entry.header_offset - position not in _DESCRIPTORS:
                raise ValueError(f"unknown bytes before its entry {entry.filename}")
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise ValueError(f"its entry {entry.filename} is compressed")
            with archive.open(entry) as stream:  # raises BadZipFile at the end if the checksum differs
                while stream.read(_CHUNK):
                    pass
            file.seek(entry.header_offset)
            header = file.read(_LOCAL_HEADER)
            extra = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            position = entry.header_offset + _LOCAL_HEADER + extra + entry.file_size
        if archive.start_dir - position not in _DESCRIPTORS:
            raise ValueError("unknown bytes after its entries")
