"""What the names in a pickle stand for: tensors, plain values, objects that nothing runs, or a reason to refuse it."""

import re
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import torch

from eztorch_sce.interop.pickled_arrays import Array, DType, array_of_buffer, new_array, scalar
from eztorch_sce.interop.tensor_bytes import Place, Refused, place, printable

_LONGEST_KEY = 1000  # characters
_MOST_EQUAL_KEYS = 100
_RUN_CODE = "opened in another way, it may run code on your machine (nothing was run now)"


class Named(NamedTuple):
    """A class or function that a pickle names; it is not imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def is_class(self) -> bool:
        """Whether it is written like a class."""
        return self.name.rpartition(".")[2].lstrip("_")[:1].isupper()


class Inert:
    """An object of a class that is not ours to build: what the pickle says of it, as plain values.

    Args:
        kind: Full name of its class.
        args: Arguments of its constructor.
    """

    def __init__(self, kind: str, args: Iterable[Any] = ()) -> None:
        self.kind, self.args = kind, list(args)
        self.attributes: dict[str, Any] = {}
        self.items: dict[str, Any] = {}  # of a mapping
        self.entries: list[Any] = []  # of a sequence


Rebuilders = Mapping[str, Callable[..., Any]]


def named(module: str, name: str, rebuilders: Rebuilders) -> Any:
    """Return what a name of a pickle stands for: a type of elements such as torch.float32, or the name.

    Raises:
        Refused: If it is one of the standard library, PyTorch or NumPy that no file of weights needs.
    """
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    found = Named(module, name)
    if module == "torch" and name in _DTYPES:
        return _DTYPES[name]
    if str(found) in _REBUILDERS or str(found) in rebuilders or _is_harmless(found):
        return found
    raise Refused(f"it names {found}, which no file of weights needs: {_RUN_CODE}")


def call(function: Any, args: Any, rebuilders: Rebuilders) -> Any:
    """Return what a call in a pickle stands for.

    Raises:
        Refused: If it is not one that rebuilds tensors, containers or objects.
    """
    if not isinstance(args, tuple):
        raise Refused("a call in its pickle has no arguments")
    if not isinstance(function, Named):
        raise Refused(f"its pickle calls what is no function, so it is damaged or hostile: {_RUN_CODE}")
    rebuild = rebuilders.get(str(function)) or _REBUILDERS.get(str(function))
    if rebuild is not None:
        return rebuild(*args)
    if function.is_class or function in _INERT_STANDARD or _REBUILDS_OBJECTS.search(function.name):
        return Inert(str(function), args)
    raise Refused(f"it calls {function}, which no file of weights needs: {_RUN_CODE}")


def create(cls: Any, args: Any, rebuilders: Rebuilders) -> Any:
    """Return what an object stands for that a pickle creates without a call of its constructor."""
    if not isinstance(cls, Named) or not isinstance(args, tuple):
        raise Refused("its pickle creates an object of what is no class")
    if str(cls) in _REBUILDERS:
        return call(cls, args, rebuilders)
    return Inert(str(cls), args)


def build(target: Any, state: Any) -> None:
    """Set the state of an object, as a pickle has it."""
    if isinstance(target, (Array, DType)):
        target.set_state(state)
    elif isinstance(target, Inert):
        parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)  # attributes and slots
        for part in parts:
            if isinstance(part, dict):
                put_all(target.attributes, part.items())
            elif part is not None:
                target.entries.append(part)
    elif not isinstance(target, (dict, Place)):  # those of state dicts and parameters hold nothing that we need
        what = "a class or function" if isinstance(target, Named) else f"a {type(target).__name__}"
        raise Refused(f"its pickle changes {what}, so it is damaged or hostile: {_RUN_CODE}")


def put_all(target: dict[str, Any], pairs: Iterable[tuple[Any, Any]]) -> None:
    """Put pairs of a key and a value into a dictionary, by the texts of the keys."""
    for key, value in pairs:
        text = name = key_text(key)
        number = 1
        while name in target:
            number += 1
            if number > _MOST_EQUAL_KEYS:
                raise Refused(f"a dictionary has the key {text[:40]!r} more than {_MOST_EQUAL_KEYS} times")
            name = f"{text}~{number}"
        target[name] = value


def key_text(key: Any) -> str:
    """Return the text of a key.

    Raises:
        Refused: If it is very long.
    """
    if isinstance(key, bytes):
        key = key.decode("utf-8", "backslashreplace")
    elif isinstance(key, Named) or key is None or isinstance(key, (bool, int, float, torch.dtype)):
        key = str(key)
    elif isinstance(key, tuple) and len(key) < 10 and not any(isinstance(part, tuple) for part in key):
        key = ",".join(key_text(part) for part in key)
    elif not isinstance(key, str):
        key = key.kind if isinstance(key, Inert) else f"a {type(key).__name__}"
    if len(key) > _LONGEST_KEY:
        raise Refused(f"a key of a dictionary has {len(key)} characters")
    return printable(key)


# Which names are harmless


_REBUILDS_OBJECTS = re.compile(r"(^|_)(unpickle|reconstruct|rebuild|ctor)")
"""Functions of other packages that pickles call to rebuild an object."""

_CODE_MAKERS = frozenset(
    (
        *("cloudpickle", "dill", "joblib", "numexpr", "IPython"),
        *("pip", "setuptools", "pkg_resources", "distutils", "imp"),
    )
)
"""Packages outside the standard library whose functions run code; those of Python's past are among them."""

_INERT_STANDARD = frozenset(
    Named(module, name)
    for module, names in {
        "argparse": "Namespace",
        "builtins": "object slice range complex NoneType ellipsis type Ellipsis NotImplemented",
        "collections": "deque ChainMap UserDict UserList",
        "datetime": "date datetime time timedelta timezone",
        "decimal": "Decimal",
        "enum": "Enum IntEnum Flag IntFlag StrEnum",
        "fractions": "Fraction",
        "functools": "partial",
        "inspect": "_empty",
        "random": "Random",
        "re": "_compile",
        "time": "struct_time",
        "types": "SimpleNamespace NoneType",
        "uuid": "UUID SafeUUID",
        "numpy": "bool_ bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 str_ ndarray",
    }.items()
    for name in names.split()
)
_PLAIN_TYPES = frozenset(Named("builtins", name) for name in ("int", "float", "bool", "str"))


def _is_harmless(name: Named) -> bool:
    """Return whether a name may stand in a file of weights; what is called must pass `call` too."""
    root = name.module.partition(".")[0]
    if root in _CODE_MAKERS:
        return False
    if root in sys.stdlib_module_names:
        return name in _INERT_STANDARD or name in _PLAIN_TYPES or (root == "typing" and name.is_class)
    if root in ("torch", "numpy"):
        if name in _INERT_STANDARD or (name.is_class and "." not in name.name):
            return True
        is_random = name.module.startswith("numpy.random.") and _REBUILDS_OBJECTS.search(name.name) is not None
        return (
            is_random
            or (name.module == "torch" and name.name in _CONSTANTS)
            or name.module in ("torch.nn.functional", "torch._C._nn")
            or name.name == "_refresh_per_optimizer_state"  # of a gradient scaler, the default of a dictionary
        )
    return True


# What is rebuilt


_DTYPES: Mapping[str, torch.dtype] = {
    name: dtype
    for name, dtype in vars(torch).items()
    if isinstance(dtype, torch.dtype)
    and re.fullmatch(r"(u?int|float|bfloat|complex)(8|16|32|64|128)(_e\w+)?|bool", name)
}
_CONSTANTS = frozenset(
    name
    for name, value in vars(torch).items()
    if isinstance(value, (torch.dtype, torch.layout, torch.memory_format, torch.qscheme))
)
_STORAGES: Mapping[str, torch.dtype] = {
    **{dtype: _DTYPES[dtype] for dtype in ("bfloat16", "bool")},
    **{"double": torch.float64, "float": torch.float32, "half": torch.float16, "byte": torch.uint8},
    **{"char": torch.int8, "short": torch.int16, "int": torch.int32, "long": torch.int64},
    **{"qint8": torch.int8, "qint32": torch.int32, "quint8": torch.uint8},  # of tensors that are left out
    **{"quint4x2": torch.uint8, "quint2x4": torch.uint8},
    **{"complexfloat": torch.complex64, "complexdouble": torch.complex128},
}


def dtype_of_storage(cls: Any) -> torch.dtype | None:
    """Return the type of the elements of a class of storages; None if it has none.

    Raises:
        Refused: If it is no class of storages, or one of quantized numbers.
    """
    if not isinstance(cls, Named) or cls.module.partition(".")[0] != "torch" or not cls.name.endswith("Storage"):
        raise Refused(f"{cls} is no storage of tensors")
    if cls.name in ("UntypedStorage", "_UntypedStorage"):
        return None
    dtype = _STORAGES.get(cls.name.removesuffix("Storage").lower())
    if dtype is None:
        raise Refused(f"tensors of {cls} are not read")
    return dtype


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *more: Any) -> Any:
    """Return a tensor from the arguments of `_rebuild_tensor_v2`."""
    found = place(storage, getattr(storage, "dtype", None), offset, shape, stride)
    return _marked(found, *more[2:3])


def _tensor_of_dtype(storage: Any, offset: Any, shape: Any, stride: Any, *more: Any) -> Any:
    """Return a tensor from the arguments of `_rebuild_tensor_v3`."""
    dtype = more[2] if len(more) > 2 and isinstance(more[2], torch.dtype) else None
    return _marked(place(storage, dtype, offset, shape, stride), *more[3:4])


def _marked(found: Place, marks: Any = None) -> Place:
    """Return a tensor whose numbers stand for their conjugates or negatives, if its marks say so."""
    if not isinstance(marks, dict):
        return found
    return replace(found, conjugate=marks.get("conj") is True, negative=marks.get("neg") is True)


def _parameter(data: Any, *_: Any) -> Any:
    return data if isinstance(data, (Place, Inert)) else Inert("torch.nn.parameter.Parameter", [data])


def _of_type(function: Any, cls: Any, args: Any, *_: Any) -> Any:
    return call(function, args, {}) if cls else None


def _ordered(pairs: Any = (), *_: Any) -> dict[str, Any]:
    target: dict[str, Any] = {}
    if isinstance(pairs, dict):
        return dict(pairs)
    put_all(target, ((key, value) for key, value in pairs))
    return target


def _defaults(*_: Any) -> dict[str, Any]:
    return {}


def _list(items: Any = ()) -> list[Any]:
    if not isinstance(items, (list, tuple)):
        raise Refused("its pickle makes a list of what is none")
    return list(items)


def _bytes(content: Any = b"", encoding: Any = None) -> bytes:
    if isinstance(content, (list, tuple)):
        return bytes(content)
    if isinstance(content, str):
        return content.encode("latin-1")
    if not isinstance(content, (bytes, bytearray)) or encoding not in (None, "latin1", "latin-1"):
        raise Refused("its pickle makes bytes of what are none")
    return bytes(content)


def _encoded(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"):
        raise Refused(f"its pickle encodes a {type(text).__name__} as {encoding}")
    return text.encode(encoding)


def _object(cls: Any, base: Any = None, state: Any = None, *_: Any) -> Any:
    found = create(cls, (), {})
    if isinstance(found, (Inert, dict)) and isinstance(state, dict):
        put_all(found.items if isinstance(found, Inert) else found, state.items())
    elif isinstance(found, Inert) and isinstance(state, (list, tuple)):
        found.entries += state
    return found


def _new(cls: Any, *args: Any) -> Any:
    return create(cls, args, {})


def _member(cls: Any, name: Any) -> Any:
    """Return a member of an enumeration, as some versions of Python store it."""
    if (
        isinstance(cls, Named)
        and cls.is_class
        and isinstance(name, str)
        and re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name)
    ):
        return Inert(str(cls), [name])
    raise Refused(f"it calls builtins.getattr: {_RUN_CODE}")


def _of_typing(generic: Any, args: Any) -> Any:
    if isinstance(generic, Named) and generic.module == "typing":
        return Named(generic.module, generic.name)
    raise Refused(f"it calls operator.getitem: {_RUN_CODE}")


def _left_out(kind: str) -> Callable[..., Any]:
    return lambda *args: Inert(kind)


def _text_of(kind: str) -> Callable[..., Any]:
    return lambda *args: kind.format(":".join(str(arg) for arg in args if isinstance(arg, (str, int))))


def _path(*parts: Any) -> str:
    return str(PurePosixPath(*parts))


_NUMPY_CORES = ("numpy.core", "numpy._core")

_REBUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.Counter": _ordered,
    "collections.defaultdict": _defaults,
    "builtins.dict": _ordered,
    "builtins.list": _list,
    "builtins.tuple": lambda items=(): tuple(_list(items)),
    "builtins.set": _list,
    "builtins.frozenset": _list,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.getattr": _member,
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _object,
    "copyreg.__newobj__": _new,
    "copyreg.__newobj_ex__": lambda cls, args, kwargs: _new(cls, *args),
    "_operator.getitem": _of_typing,
    "operator.getitem": _of_typing,
    **{
        f"{module}.{cls}": _path
        for module in ("pathlib", "pathlib._local")
        for cls in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
    },
    "torch.Size": lambda shape=(): tuple(_list(shape)),
    "torch.device": _text_of("{}"),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_device_tensor_from_numpy": _parameter,
    "torch._utils._rebuild_qtensor": _left_out("a quantized tensor"),
    "torch._utils._rebuild_sparse_tensor": _left_out("a sparse tensor"),
    "torch._utils._rebuild_nested_tensor": _left_out("a nested tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": _left_out("a tensor without data"),
    "torch._utils._rebuild_wrapper_subclass": _left_out("a tensor of a class of its own"),
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.autograd.variable.Variable": _parameter,
    "torch.serialization._get_layout": _text_of("{}"),
    "numpy.dtype": DType,
    **{f"{core}.multiarray._reconstruct": new_array for core in _NUMPY_CORES},
    **{f"{core}.multiarray.scalar": scalar for core in _NUMPY_CORES},
    **{f"{core}.numeric._frombuffer": array_of_buffer for core in _NUMPY_CORES},
}
