"""Dictionaries of arrays in pickles, as CIFAR is published, read without giving the file any say over what runs.

An ordinary unpickler runs any function that a pickle names, and even NumPy's own functions let a pickle make arrays of
references to arbitrary memory. Here a pickle describes arrays, and this module makes them from bytes.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from eztorch_sce.errors import ConfigError


def load_arrays(file: Path) -> dict[str, Any]:
    """Return the dictionary in a pickle, with text keys.

    Raises:
        ConfigError: If the file contains more than arrays, numbers and text, or cannot be read.
    """
    try:
        with file.open("rb") as stream:
            content = _ArraysOnly(stream, encoding="bytes").load()
    except _ForeignPickleError as error:
        danger = f"refers to {error}, which packed images do not need and which may be harmful; nothing in it was run"
        raise ConfigError([f"{file} {danger}; download it from its publisher"]) from error
    except Exception as error:  # a broken pickle may raise any exception
        raise ConfigError([f"{file} cannot be read as a pickle ({error!r}); download it again"]) from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ConfigError([f"{file} contains a {kind} instead of the publisher's dictionary; download it again"])
    return {as_text(key): value.array if isinstance(value, _Array) else value for key, value in content.items()}


def as_text(value: Any) -> Any:
    """Return bytes as text, and other values as they are. Python 2 pickled text as bytes."""
    return value.decode("latin1") if isinstance(value, bytes) else value


class _ForeignPickleError(pickle.UnpicklingError):
    pass


class _DType:
    """The number format of an array, as a pickle describes it."""

    def __init__(self, name: Any) -> None:
        if not re.fullmatch(r"[|<>=]?[biuf][1248]", str(as_text(name))):
            raise _ForeignPickleError(f"arrays of {name!r}")
        self.name = str(as_text(name)).lstrip("|<>=")
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = {"<": "<", ">": ">"}.get(as_text(state[1]), "=")


class _Array:
    """Description of an array in a pickle.

    Attributes:
        array: The array, made from the bytes in the pickle.
    """

    array: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        values = np.frombuffer(data, np.dtype(dtype.order + dtype.name))
        self.array = values.reshape(shape, order="F" if is_fortran else "C")


# What takes the place of NumPy's functions. They are objects without attributes, which a pickle cannot change.


class _MakeArray:
    __slots__ = ()

    def __call__(self, *_: Any) -> _Array:
        return _Array()


class _MakeDType:
    __slots__ = ()

    def __call__(self, name: Any, *_: Any) -> _DType:
        return _DType(name)


class _Latin1:
    """Python 3 writes bytes for Python 2 as an encoded text."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str = "latin1") -> bytes:
        if encoding != "latin1":
            raise _ForeignPickleError(f"the encoding {encoding}")
        return text.encode("latin1")


class _ArraysOnly(pickle.Unpickler):
    """Unpickler that loads only arrays, numbers and text."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _MakeArray()
        if (module, name) == ("numpy", "ndarray"):
            return None  # an argument of `_reconstruct`, which is not used
        if (module, name) == ("numpy", "dtype"):
            return _MakeDType()
        if (module, name) == ("_codecs", "encode"):
            return _Latin1()
        raise _ForeignPickleError(f"{module}.{name}")
