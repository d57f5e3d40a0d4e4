"""Archives of NumPy (.npz), whose arrays are read as tensors and never unpickled."""

from io import BytesIO
from typing import Any, BinaryIO

import numpy as np

from eztorch_sce.interop.pickled_arrays import Array, DType
from eztorch_sce.interop.tensor_bytes import Refused
from eztorch_sce.zip_entries import Entry

SUFFIX = ".npy"
_LONGEST_HEADER = 10_000  # bytes; the limit of NumPy


def read_arrays(file: BinaryIO, entries: dict[str, Entry]) -> dict[str, Any]:
    """Return the arrays of an open archive by name.

    Args:
        file: The archive.
        entries: Where its entries are; each name ends with ".npy".

    Raises:
        Refused: If an array is damaged or would be unpickled.
    """
    return {name.removesuffix(SUFFIX): _read_array(file, name, entry) for name, entry in entries.items()}


def _read_array(file: BinaryIO, name: str, entry: Entry) -> Array:
    file.seek(entry.start)
    data = file.read(entry.size)
    start = BytesIO(data[: _LONGEST_HEADER + 16])
    try:
        version = np.lib.format.read_magic(start)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read_header(start)
    except ValueError as error:
        raise Refused(f"its array {name} is damaged ({str(error).splitlines()[0]})") from None
    if dtype.hasobject or dtype.fields is not None:
        raise Refused(f"its array {name} holds pickled objects or records; store numbers instead")
    return Array(shape, DType(dtype.str), data[start.tell() :], by_columns)
