"""The one reader of files that `torch.save` wrote: tensors and plain values only, with every checksum verified."""

import pickle
from pathlib import Path
from typing import Any

import torch

from eztorch_sce.errors import DamagedFileError
from eztorch_sce.zip_entries import read_entries


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
            read_entries(file)
        except ValueError as error:
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
