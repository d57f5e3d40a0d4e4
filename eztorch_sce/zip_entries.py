"""Entries of ZIP files as `torch.save` writes them, with everything verified that the format says twice.

The readers of PyTorch ignore the checksums, and Python's `zipfile` ignores much of the rest. Here an entry must be
stored without compression, have its checksum, and follow the one before; its two headers must say the same, and nothing
may be between the entries or after them.
"""

import os
import struct
import zlib
from typing import BinaryIO, NamedTuple

_LARGEST_DIRECTORY = 1 << 25  # bytes; that of a thousand tensors has 100 kB
_CHUNK = 1 << 24  # bytes
_ZIP64 = 1  # kind of an extra field
_PADDING = int.from_bytes(b"FB", "little")  # by which PyTorch aligns the tensors, with many "Z"
_MADE_BY_64 = (0x031E, 45)  # by PyTorch and by Python's `zipfile`, in a directory for large files
_FULL2, _FULL4 = 0xFFFF, 0xFFFFFFFF  # in place of a number that is in a field of 8 bytes

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s2s10s3L3H2H2L")  # signature, made by, what the local header repeats, ...
_LOCAL = struct.Struct("<4s10s3L2H")


class Entry(NamedTuple):
    """Where the data of an entry are in a file, in bytes."""

    start: int
    size: int


class _Record(NamedTuple):
    """What the directory says of an entry."""

    name: bytes
    made_by: bytes
    common: bytes  # version, flags, method, time and date, which the header of the entry repeats
    checksum: int
    packed: int
    size: int
    offset: int

    @property
    def shown(self) -> str:
        return self.name.decode("utf-8", "backslashreplace")


def read_entries(file: BinaryIO) -> dict[str, Entry]:
    """Return the entries of a ZIP file by name, in their order in the file.

    Raises:
        ValueError: If an entry is not as it was written, is compressed, or lies in another.
    """
    try:
        return _read_entries(file)
    except struct.error:
        raise ValueError("truncated") from None


def read_names(file: BinaryIO) -> list[str]:
    """Return the names of the entries of a ZIP file, which may be compressed or damaged.

    Raises:
        ValueError: If its directory is damaged.
    """
    try:
        return [record.shown for record in _directory(file)[0]]
    except struct.error:
        raise ValueError("truncated") from None


def _read_entries(file: BinaryIO) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    records, end = _directory(file)
    if len({record.made_by for record in records}) > 1:
        raise ValueError("its entries are not of one program")
    position = 0
    for record in sorted(records, key=lambda record: record.offset):
        if record.offset != position:
            raise ValueError(f"unknown bytes before its entry {record.shown}")
        if record.common[4:6] != b"\0\0" or record.packed != record.size:
            raise ValueError(f"its entry {record.shown} is compressed")
        if record.shown in found:
            raise ValueError(f"it has two entries {record.shown}")
        start = _data_start(file, record)
        if start + record.size > end:
            raise ValueError(f"its entry {record.shown} is longer than the file")
        _check(file, record, start)
        found[record.shown] = Entry(start, record.size)
        position = start + record.size + _descriptor_size(file, record)
    if position != end:
        raise ValueError("unknown bytes after its entries")
    return found


def _directory(file: BinaryIO) -> tuple[list[_Record], int]:
    """Return what the directory says, and where it begins."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(length - _END.size, 0))
    signature, disk, first_disk, count_here, count, size, start, comment = _END.unpack(file.read(_END.size))
    if signature != b"PK\5\6" or comment:
        raise ValueError("truncated, or not a file of torch.save")
    stop = length - _END.size
    locator = _at(file, stop - _LOCATOR.size, _LOCATOR.size)
    if locator.startswith(b"PK\6\7"):
        _, disk64, stop, disks = _LOCATOR.unpack(locator)
        wide = _END64.unpack(_at(file, stop, _END64.size))
        narrow = ((count, wide[7], _FULL2), (size, wide[8], _FULL4), (start, wide[9], _FULL4))
        if (
            wide[:2] != (b"PK\6\6", _END64.size - 12)
            or wide[2] not in _MADE_BY_64
            or wide[3:6] != (45, 0, 0)
            or (disk64, disks) != (0, 1)
        ):
            raise ValueError("its directory is damaged")
        if stop + _END64.size + _LOCATOR.size + _END.size != length or wide[6] != wide[7]:
            raise ValueError("its directory is damaged")
        if any(value not in (exact, full) for value, exact, full in narrow):
            raise ValueError("its directory is damaged")
        count, size, start = wide[7:]
        count_here = count if count_here in (_FULL2, count) else -1
    if size > _LARGEST_DIRECTORY:
        raise ValueError("its directory is larger than that of a file of torch.save")
    if disk or first_disk or count_here != count or start + size != stop:
        raise ValueError("its directory is damaged")
    records = _records(_at(file, start, size))
    if len(records) != count:
        raise ValueError(f"its directory has {len(records)} of {count} entries")
    return records, start


def _at(file: BinaryIO, start: int, size: int) -> bytes:
    if start < 0 or start > file.seek(0, os.SEEK_END):
        return b""
    file.seek(start)
    return file.read(size)


def _records(data: bytes) -> list[_Record]:
    records, position = [], 0
    while position < len(data):
        fields = _CENTRAL.unpack_from(data, position)
        signature, made_by, common, checksum, packed, size, name_size, extra_size, comment, disk, *rest = fields
        internal, external, offset = rest
        position += _CENTRAL.size
        name = data[position : position + name_size]
        extra = _extra(data[position + name_size : position + name_size + extra_size])
        position += name_size + extra_size
        size, packed, offset = _widened(extra, [size, packed, offset])
        is_dos = made_by[1] == 0  # which PyTorch names, and whose attributes it leaves at 0
        if signature != b"PK\1\2" or position > len(data) or comment or disk or internal or (is_dos and external):
            raise ValueError("its directory is damaged")
        records.append(_Record(name, made_by, common, checksum, packed, size, offset))
    return records


def _extra(data: bytes) -> dict[int, bytes]:
    """Return the extra fields of a header by kind."""
    fields, position = dict[int, bytes](), 0
    while position < len(data):
        kind, size = struct.unpack_from("<2H", data, position)
        fields[kind] = data[position + 4 : position + 4 + size]
        position += 4 + size
    if position != len(data):
        raise ValueError("an extra field of an entry is damaged")
    if not fields.keys() <= {_ZIP64, _PADDING} or fields.get(_PADDING, b"").strip(b"Z"):
        raise ValueError("an extra field of an entry is damaged, or not of torch.save")
    return fields


def _widened(extra: dict[int, bytes], numbers: list[int]) -> list[int]:
    """Return numbers, with those of 8 bytes from the extra field; all of them must be needed."""
    wide, position = extra.get(_ZIP64, b""), 0
    for index, number in enumerate(numbers):
        if number == _FULL4:
            [numbers[index]] = struct.unpack_from("<Q", wide, position)
            position += 8
    if position != len(wide):
        raise ValueError("an extra field of an entry is damaged")
    return numbers


def _data_start(file: BinaryIO, record: _Record) -> int:
    """Return where the data of an entry begin, after a header that says the same as the directory."""
    header = _at(file, record.offset, _LOCAL.size)
    signature, common, checksum, packed, size, name_size, extra_size = _LOCAL.unpack(header)
    names = file.read(name_size + extra_size)
    extra = _extra(names[name_size:])
    if extra.get(_ZIP64):
        size, packed = _widened(extra, [size, packed])
    described = (checksum, packed, size) == (0, 0, 0) and record.common[2] & 8  # after the data instead
    same = (checksum, packed, size) == (record.checksum, record.size, record.size)
    if signature != b"PK\3\4" or common != record.common or names[:name_size] != record.name or not (same or described):
        raise ValueError(f"its entry {record.shown} has a damaged header")
    return record.offset + _LOCAL.size + len(names)


def _check(file: BinaryIO, record: _Record, start: int) -> None:
    """Raise an error if the data of an entry do not have its checksum."""
    file.seek(start)
    checksum, left = 0, record.size
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise ValueError("truncated while it was read")
        checksum, left = zlib.crc32(chunk, checksum), left - len(chunk)
    if checksum != record.checksum:
        raise ValueError(f"the checksum of its entry {record.shown} differs")


def _descriptor_size(file: BinaryIO, record: _Record) -> int:
    """Return the number of bytes of what is repeated after the data of an entry."""
    if not record.common[2] & 8:
        return 0
    data = file.read(24)
    for form in ("<4s3L", "<4sL2Q"):
        descriptor = struct.Struct(form)
        expected = (b"PK\7\10", record.checksum, record.size, record.size)
        if len(data) >= descriptor.size and descriptor.unpack_from(data) == expected:
            return descriptor.size
    if not record.size:  # some versions of PyTorch write nothing after an empty entry
        return 0
    raise ValueError(f"its entry {record.shown} has a damaged end")
