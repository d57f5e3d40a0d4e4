"""Files of `torch.save` in the forms of all its versions, read without running anything in them."""

import os
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any, BinaryIO

import torch

from eztorch_sce.interop import safe_pickle
from eztorch_sce.interop.pickled_names import dtype_of_storage
from eztorch_sce.interop.tensor_bytes import Block, Refused, Storage, Stream, place
from eztorch_sce.zip_entries import Entry

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MOST_ITEMS = 1_000_000


def read_zip(file: BinaryIO, entries: Mapping[str, Entry]) -> Any:
    """Return the content of a file that `torch.save` has written since version 1.6.

    Args:
        file: The file.
        entries: Where its entries are.

    Raises:
        Refused: If it is hostile, or another ZIP file.
    """
    [root] = _roots(entries)
    blocks: dict[str, Block] = {}

    def read_entry(name: str) -> Stream:
        if name not in entries:
            raise Refused(f"its entry {name} is missing")
        file.seek(entries[name].start)
        return Stream(file, entries[name].size)

    def storage_of(identifier: Any) -> Storage:
        cls, key, _, numel = _storage_id(identifier, 5)
        name = f"{root}/data/{key}"
        if name not in blocks:
            size = read_entry(name).left
            blocks[name] = Block(size, lambda: read_entry(name).read_tensor(size), big_endian)
        return _storage(blocks[name], cls, numel)

    byteorder = f"{root}/byteorder"
    big_endian = byteorder in entries and read_entry(byteorder).read(min(entries[byteorder].size, 6)) == b"big"
    program = read_entry(f"{root}/data.pkl").rest()  # at once, since the storages are looked up meanwhile
    return safe_pickle.load(Stream(BytesIO(program), len(program)), storage_of)


_PROGRAM = (
    "a program of torch.export (.pt2), which would run its own code; where you trust it, save its weights: "
    "torch.save(torch.export.load(FILE).state_dict, OUT)"
)
_SCRIPT = (
    "a TorchScript program, which would run its own code; where you trust it, save its weights: "
    "torch.save(torch.jit.load(FILE).state_dict(), OUT)"
)


def _roots(names: Iterable[str]) -> list[str]:
    """Return the folders in a ZIP file that hold what `torch.save` writes."""
    return [name.removesuffix("/data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]


def refuse_other_zip(names: Sequence[str]) -> None:
    """Raise an error if a ZIP file is neither one of `torch.save` nor one of NumPy, by the names of its entries.

    Raises:
        Refused: With what it is, and the cure.
    """
    if any(
        name.endswith(("archive_format", "models/model.json", "serialized_exported_program.json")) for name in names
    ):
        raise Refused(_PROGRAM)
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise Refused(_SCRIPT)
    if any(name.endswith(".weights.h5") for name in names):
        raise Refused("a Keras file; load it with Keras, and save the weights with torch.save or safetensors")
    if len(_roots(names)) != 1 and not all(name.endswith(".npy") for name in names):
        shown = ", ".join(names[:3])
        raise Refused(f"a ZIP archive of {len(names)} other files ({shown}); unpack it, and give the file of weights")


def read_legacy(stream: Stream, nested: bool = False) -> Any:
    """Return the content of a file of `torch.save` before version 1.6, or of another pickle.

    Args:
        stream: The file, at its begin.
        nested: Whether it is in another pickle.

    Returns:
        The content, and whether `torch.save` has written it.
    """
    rebuilders = {} if nested else {"torch.storage._load_from_bytes": _nested_storage}
    first = safe_pickle.load(stream, rebuilders=rebuilders)
    if first != _MAGIC:
        if stream.left:
            raise Refused(f"{stream.left} bytes follow the end of its pickle")
        return first, False
    if safe_pickle.load(stream) != _PROTOCOL:
        raise Refused("it is of an unknown version of torch.save")
    system = safe_pickle.load(stream)
    storages = _Storages(isinstance(system, dict) and system.get("little_endian") is False)
    content = safe_pickle.load(stream, storages.get)
    storages.read(stream, safe_pickle.load(stream))
    if stream.left:
        raise Refused(f"{stream.left} bytes follow its last tensor")
    return content, True


def _nested_storage(data: Any) -> Any:
    if not isinstance(data, bytes):
        raise Refused("a tensor in its pickle is damaged")
    return read_legacy(Stream(BytesIO(data), len(data)), nested=True)[0]


class _Storages:
    """The storages of a file whose bytes follow its pickle.

    Args:
        big_endian: Whether the most significant byte of a number comes first.
    """

    def __init__(self, big_endian: bool) -> None:
        self.big_endian = big_endian
        self.blocks: dict[str, tuple[Block, int]] = {}  # with the size of an element

    def get(self, identifier: Any) -> Any:
        """Return the storage of an identifier."""
        if isinstance(identifier, tuple) and len(identifier) == 4 and identifier[0] == "module":
            return identifier[1]  # a class, with its source
        cls, key, _, numel, view = _storage_id(identifier, 6)
        dtype = dtype_of_storage(cls) or torch.uint8
        if key not in self.blocks:
            self.blocks[key] = Block(_count(numel) * dtype.itemsize, big_endian=self.big_endian), dtype.itemsize
        storage = _storage(self.blocks[key][0], cls, numel)
        if view is None:
            return storage
        if not isinstance(view, tuple) or len(view) != 3:
            raise Refused("a part of a storage is damaged")
        start, size = (_count(number) * dtype.itemsize for number in view[1:])
        if start + size > storage.size:
            raise Refused("a part of a storage is outside it")
        return Storage(storage.block, dtype, start, size)

    def read(self, stream: Stream, keys: Any) -> None:
        """Read the bytes of the storages, in the order of their keys."""
        if not isinstance(keys, list) or sorted(map(_key, keys)) != sorted(self.blocks):
            raise Refused("its storages are not those of its tensors")
        for key in map(_key, keys):
            block, itemsize = self.blocks[key]
            numel = int.from_bytes(stream.read(8), "big" if self.big_endian else "little")
            if numel * itemsize != block.size:
                raise Refused(f"a storage has {numel} elements instead of {block.size // itemsize}")
            block.read = _returning(stream.read_tensor(block.size))


def _returning(data: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: data


def _storage_id(identifier: Any, length: int) -> list[Any]:
    """Return the parts of the identifier of a storage: class, key, location, number of elements, and others."""
    if not isinstance(identifier, tuple) or len(identifier) != length or identifier[0] not in ("storage", b"storage"):
        raise Refused("its pickle refers to data that are no storage of a tensor")
    _, cls, key, *others = identifier
    return [cls, _key(key), *others]


def _key(key: Any) -> str:
    if isinstance(key, bytes):
        key = key.decode("latin-1")
    if not isinstance(key, (str, int)) or len(str(key)) > 100:
        raise Refused("the key of a storage is damaged")
    return str(key)


def _count(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 1 << 62:
        raise Refused(f"a storage has {str(number)[:40]} elements")
    return number


def _storage(block: Block, cls: Any, numel: Any) -> Storage:
    dtype = dtype_of_storage(cls)
    size = _count(numel) * (1 if dtype is None else dtype.itemsize)
    if size > block.size:
        raise Refused(f"a storage of {size} bytes has only {block.size} in the file")
    return Storage(block, dtype, 0, size)


def read_tar(file: BinaryIO) -> Any:
    """Return the content of a file of `torch.save` before version 0.1.10, a TAR archive.

    Raises:
        Refused: If it is hostile, or another TAR archive.
    """
    file.seek(0)
    size = os.fstat(file.fileno()).st_size
    parts: dict[str, tuple[int, int]] = {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for count, member in enumerate(archive):
            if (
                count > 100
                or not member.isreg()
                or member.sparse is not None
                or member.offset_data + member.size > size
            ):
                raise Refused(_OTHER_TAR)
            parts[member.name.removeprefix("./")] = (member.offset_data, member.size)
    if not {"storages", "tensors", "pickle"} <= parts.keys():
        raise Refused(_OTHER_TAR)

    def part(name: str) -> Stream:
        file.seek(parts[name][0])
        return Stream(file, parts[name][1])

    known: dict[str, Any] = {}
    _read_storages(part("storages"), known)
    _read_tensors(part("tensors"), known)

    def get(identifier: Any) -> Any:
        return identifier[0] if isinstance(identifier, tuple) and identifier else known[_key(identifier)]

    return safe_pickle.load(part("pickle"), get)


_OTHER_TAR = "a TAR archive; unpack it, and give the file of weights that is in it"


def _read_storages(stream: Stream, known: dict[str, Any]) -> None:
    for _ in range(_items(stream)):
        key, _, cls = _triple(safe_pickle.load(stream))
        dtype = dtype_of_storage(cls) or torch.uint8
        size = int.from_bytes(stream.read(8), "little") * dtype.itemsize
        known[_key(key)] = Storage(Block(size, _returning(stream.read_tensor(size))), dtype, 0, size)
    views = safe_pickle.load(stream)
    for target, root, offset, numel in views:
        storage: Storage = known[_key(root)]
        dtype = storage.dtype or torch.uint8
        start, size = _count(offset) * dtype.itemsize, _count(numel) * dtype.itemsize
        if start + size > storage.size:
            raise Refused("a part of a storage is outside it")
        known[_key(target)] = Storage(storage.block, dtype, storage.start + start, size)


def _read_tensors(stream: Stream, known: dict[str, Any]) -> None:
    for _ in range(_items(stream)):
        key, storage_key, _ = _triple(safe_pickle.load(stream))
        storage: Storage = known[_key(storage_key)]
        num_dims = int.from_bytes(stream.read(8)[:4], "little")
        numbers = [int.from_bytes(stream.read(8), "little") for _ in range(2 * min(num_dims, 65) + 1)]
        shape, stride, offset = numbers[:num_dims], numbers[num_dims:-1], numbers[-1]
        known[_key(key)] = place(storage, storage.dtype, offset, shape, stride)


def _items(stream: Stream) -> int:
    count = safe_pickle.load(stream)
    if type(count) is not int or not 0 <= count <= _MOST_ITEMS:
        raise Refused("the number of its tensors is damaged")
    return count


def _triple(value: Any) -> tuple[Any, Any, Any]:
    if not isinstance(value, tuple) or len(value) != 3:
        raise Refused("one of its tensors is damaged")
    return value
