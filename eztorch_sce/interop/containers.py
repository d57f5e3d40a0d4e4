"""Containers: files of tensors and plain values, however they are stored, read without running anything in them."""

import pickle
import stat
import struct
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from torch import Tensor

from eztorch_sce import tensor_file
from eztorch_sce.errors import DamagedFileError
from eztorch_sce.interop import numpy_archives, safetensors_file, torch_archives
from eztorch_sce.interop.flattening import Flat
from eztorch_sce.interop.folders import WEIGHTS_SUFFIXES, NoWeights, read_folder
from eztorch_sce.interop.other_files import refuse_file, refuse_folder, refuse_part
from eztorch_sce.interop.tensor_bytes import Refused, Stream, printable
from eztorch_sce.waiting import announced
from eztorch_sce.zip_entries import read_entries, read_names

_START = 512  # bytes that tell the kind of a file
_TAR_MAGIC = slice(257, 262)


class Container(NamedTuple):
    """What a file or folder holds. Names are the paths of keys to a value, joined by dots.

    What is beside the weights is under a name of its own: the metadata of a safetensors file under "metadata", the
    `config.json` and `preprocessor_config.json` of a folder under "config" and "preprocessor_config". Of several values
    with the same name, the later ones get "~2" and so on.

    Attributes:
        kind: How it is stored, in words, such as "safetensors" or "torch.save (zip)".
        tensors: Its tensors by name, in order.
        values: Its other plain values by name: text, numbers, booleans and None. The attributes of objects are among
            them, such as those of the settings of a run.
        objects: Classes of the objects that hold some of these, by name, without those of their parts; nothing was run.
    """

    kind: str
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]
    objects: Mapping[str, str]


def read_container(path: str | Path) -> Container:
    """Return what a file or folder holds.

    Raises:
        DamagedFileError: If it is damaged, is hostile, or is no container that we read; the message says which.
        OSError: If it is missing or cannot be read.
    """
    path = Path(path)
    with _in_words(path), announced(f"reading {path}"):
        if path.is_dir():
            return _read_folder(path)
        refuse_part(path)
        return _read_file(path)


def is_container(path: Path) -> bool:
    """Return whether a path is a file, or a folder with weights, be they of a kind that we read or that we refuse."""
    if not path.is_dir():
        return path.is_file()
    try:
        read_folder(path, refuse_folder)
    except NoWeights:
        return False
    except (Refused, OSError):
        return True
    return True


def files_of(path: Path) -> list[Path]:
    """Return the files that decide what a container holds: itself or, of a folder, the weights and settings in it."""
    if not path.is_dir():
        return [path]
    suffixes = (".json", *WEIGHTS_SUFFIXES)
    return sorted(each for each in path.iterdir() if each.name.endswith(suffixes) and each.is_file())


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Raise every error of a damaged file as one that names it."""
    try:
        yield
    except DamagedFileError:
        raise
    except Refused as error:
        raise DamagedFileError(str(path), printable(str(error))) from None
    except _DAMAGE as error:
        if isinstance(error, MemoryError) or "allocate" in str(error):
            raise DamagedFileError(str(path), "larger than the free memory of this machine") from None
        reason = f"damaged, or no file of weights ({type(error).__name__} while it was read)"
        raise DamagedFileError(str(path), reason) from None


_DAMAGE = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, RuntimeError, MemoryError),
    *(struct.error, tarfile.TarError, pickle.PickleError, UnicodeError),
)


def _read_file(path: Path) -> Container:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Refused("neither a file nor a folder")
    with path.open("rb") as file:
        start = file.read(_START)
        file.seek(0)
        if tensor_file.is_tensor_file(path):
            return _read_ours(path)
        if start.startswith(b"PK"):
            return _read_zip(file)
        if start[_TAR_MAGIC] == b"ustar":
            return _flat("torch.save (tar)", torch_archives.read_tar(file))
        if start[5:9] == b"\0\0\0{":  # after the length of a header below a terabyte
            return _read_safetensors(file, status.st_size)
        refuse_file(path, start)
        content, is_torch = torch_archives.read_legacy(Stream(file, status.st_size))
        return _flat("torch.save (legacy)" if is_torch else "pickle", content)


def _read_zip(file: BinaryIO) -> Container:
    try:
        torch_archives.refuse_other_zip(read_names(file))
        entries = read_entries(file)
    except ValueError as error:
        raise Refused(str(error)) from None
    if entries and all(name.endswith(numpy_archives.SUFFIX) for name in entries):
        return _flat("NumPy archive (.npz)", numpy_archives.read_arrays(file, entries))
    return _flat("torch.save (zip)", torch_archives.read_zip(file, entries))


def _flat(kind: str, content: Any) -> Container:
    flat = Flat()
    flat.add(content)
    return Container(kind, flat.tensors, flat.values, flat.objects)


def _read_safetensors(file: BinaryIO, size: int) -> Container:
    tensors, metadata = safetensors_file.read(file, size)
    flat = Flat()
    flat.add(metadata, ("metadata",))
    return Container("safetensors", tensors, flat.values, {})


def _read_ours(path: Path) -> Container:
    content = tensor_file.read(path)
    flat = Flat()
    for key, value in content.items():
        flat.add(value, () if key == "state" else (key,))
    return Container("safetensors with checksums", flat.tensors, flat.values, {})


def _read_folder(path: Path) -> Container:
    folder = read_folder(path, refuse_folder)
    tensors, flat, kind = dict[str, Tensor](), Flat(), ""
    for file in folder.files:
        with _in_words(file):
            part = _read_file(file)
            if folder.names is not None and part.tensors.keys() != folder.names[file.name]:
                differing = sorted(part.tensors.keys() ^ folder.names[file.name])
                raise Refused(f"its tensors are not those of the index: {', '.join(differing[:3])}")
        tensors |= part.tensors
        flat.values |= part.values
        flat.objects |= part.objects
        kind = part.kind
    for name, config in folder.configs.items():
        flat.add(config, (name,))
    return Container(f"folder ({kind})", tensors, flat.values, flat.objects)
