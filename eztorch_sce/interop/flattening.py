"""Nested values of a file as flat ones: tensors, plain values and the objects that were left out."""

from collections.abc import Container, Iterable
from typing import Any

from torch import Tensor

from eztorch_sce.interop.pickled_arrays import Array
from eztorch_sce.interop.pickled_names import Inert, Named
from eztorch_sce.interop.tensor_bytes import Place, Refused, Storage

_DEEPEST = 100
_MOST_VALUES = 500_000
_LONGEST_LIST = 10_000  # of plain values; a longer one is counted
_LONGEST_NAME = 4000  # characters
_LONGEST_BYTES = 1000
_LONGEST_INT = 1000  # bits

_PASSED_THROUGH = frozenset(("_modules", "_parameters", "_buffers", "_content", "_val"))
"""Attributes of modules and of configurations that the names of what is in them leave out."""

_BACKWARD = frozenset(("_parent", "_metadata", "_flags_cache"))
"""Attributes of configurations that hold nothing of their own."""


class Flat:
    """The content of a file by name.

    Attributes:
        tensors: Its tensors.
        values: Its plain values.
        objects: Classes of its objects, without those of their parts.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.values: dict[str, Any] = {}
        self.objects: dict[str, str] = {}
        self._left = _MOST_VALUES
        self._open: set[int] = set()  # containers around the value that is added
        self._objects_open = 0

    def add(self, value: Any, path: tuple[str, ...] = ()) -> None:
        """Add a value and all that is in it.

        Raises:
            Refused: If it is nested too deep, contains itself, or is larger than a checkpoint is.
        """
        self._left -= 1
        if self._left < 0:
            raise Refused(f"it has more than {_MOST_VALUES} values; save the state dict alone")
        if len(path) > _DEEPEST:
            raise Refused(f"its values are nested more than {_DEEPEST} levels deep")
        value = value.content() if isinstance(value, Array) else value
        if isinstance(value, Place):
            self.tensors[self._unused(path, self.tensors)] = value.tensor()
        elif isinstance(value, Tensor):
            self.tensors[self._unused(path, self.tensors)] = value
        elif _is_container(value):
            self._add_container(value, path)
        else:
            self.values[self._unused(path, self.values)] = _plain(value)

    def _add_container(self, value: Any, path: tuple[str, ...]) -> None:
        if id(value) in self._open:
            if isinstance(value, Inert):
                return  # objects may know what they belong to
            raise Refused(f"{'.'.join(path)} contains itself")
        self._open.add(id(value))
        if isinstance(value, Inert):
            if not self._objects_open:
                self.objects[self._unused(path, self.objects)] = value.kind
            self._objects_open += 1
            self._add_object(value, path)
            self._objects_open -= 1
        elif isinstance(value, dict):
            self._add_pairs(value.items(), path)
        elif len(value) > _LONGEST_LIST and not any(_is_container(item) for item in value):
            self.values[self._unused(path, self.values)] = f"{len(value)} values"
        else:
            self._add_pairs(((str(number), item) for number, item in enumerate(value)), path)
        self._open.discard(id(value))

    def _add_pairs(self, pairs: Iterable[tuple[str, Any]], path: tuple[str, ...]) -> None:
        for key, item in pairs:
            self.add(item, (*path, key))

    def _add_object(self, value: Inert, path: tuple[str, ...]) -> None:
        passing = value.attributes.get("_non_persistent_buffers_set")
        passing = passing if isinstance(passing, list) else []
        for key, item in value.attributes.items():
            if key in _BACKWARD:
                continue
            if key == "_buffers" and isinstance(item, dict):
                item = {name: buffer for name, buffer in item.items() if name not in passing}
            self.add(item, path if key in _PASSED_THROUGH else (*path, key))
        self._add_pairs(value.items.items(), path)
        self._add_pairs(((str(number), item) for number, item in enumerate([*value.args, *value.entries])), path)

    def _unused(self, path: tuple[str, ...], names: Container[str]) -> str:
        """Return a name that is not in use."""
        wanted = ".".join(path)
        if len(wanted) > _LONGEST_NAME:
            raise Refused(f"a name has {len(wanted)} characters")
        name, number = wanted, 1
        while name in names:
            number += 1
            name = f"{wanted}~{number}"
        return name


def _is_container(value: Any) -> bool:
    return isinstance(value, (Place, Array, Tensor, dict, list, tuple, Inert)) and not isinstance(value, Named)


def _plain(value: Any) -> Any:
    """Return a plain value: text, a number, a boolean or None."""
    if isinstance(value, (bytes, bytearray)):
        text = value.decode("utf-8", "replace") if len(value) <= _LONGEST_BYTES else ""
        return text if text.isprintable() and "\ufffd" not in text and text else f"{len(value)} bytes"
    if isinstance(value, Storage):
        return f"a storage of {value.size} bytes"
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()  # without lone surrogates, which cannot be printed
    return value if value is None or isinstance(value, (int, float)) else str(value)
