"""A restricted unpickler: tensors and plain values are rebuilt, and nothing is imported or called.

Python's own unpickler would import what a file names, and can be made to ask for more memory than the file has bytes.
This one reads the operations of all protocols, checks every size against the file, and leaves what a name means to
`pickled_names`.
"""

import codecs
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from eztorch_sce.interop.pickled_names import Inert, build, call, create, named, put_all
from eztorch_sce.interop.tensor_bytes import Refused, Stream

MOST_OPERATIONS = 2_000_000
"""Of a pickle. Those of large networks with the state of their optimizer have some hundred thousand."""

_OPERATIONS = {ord(opcode.code): opcode for opcode in pickletools.opcodes}


def load(
    stream: Stream,
    persistent: Callable[[Any], Any] | None = None,
    rebuilders: Mapping[str, Callable[..., Any]] | None = None,
) -> Any:
    """Return the next pickle of a stream.

    Dictionaries have text as keys, whatever type they have in the file; of keys with equal texts, the later ones get
    "~2" and so on. Objects of classes are returned as `Inert`, tensors as `Place`, arrays as `Array`.

    Args:
        stream: The file.
        persistent: Function that returns what an identifier stands for; None refuses identifiers.
        rebuilders: What names stand for in this kind of file, such as "torch.storage._load_from_bytes".

    Raises:
        Refused: If it is no pickle, would run code, or is larger than a checkpoint is.
        ValueError, TypeError, ...: If it is damaged, in the many ways of `_Machine`.
    """
    return _Machine(stream, persistent, rebuilders or {}).run()


class _Machine:
    """The stack and the memory of an unpickler."""

    def __init__(
        self,
        stream: Stream,
        persistent: Callable[[Any], Any] | None,
        rebuilders: Mapping[str, Callable[..., Any]],
    ) -> None:
        self.stream, self.persistent, self.rebuilders = stream, persistent, rebuilders
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks below each mark
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MOST_OPERATIONS):
            code = self.stream.read(1)[0]
            if code not in _OPERATIONS:
                raise Refused(f"not a pickle: the byte 0x{code:02x} is no operation")
            name = _OPERATIONS[code].name
            if name == "STOP":
                [result] = self.stack
                if self.below:
                    raise Refused("its pickle ends inside a container")
                return result
            self._step(name)
        raise Refused(f"its pickle has more than {MOST_OPERATIONS} operations; save the state dict alone")

    def _step(self, name: str) -> None:
        if name in _ARGUMENTS_ARE_VALUES:
            self.stack.append(self._argument(name))
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[self._argument(name)])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[self._argument(name)] = self.stack[-1]
        elif method := getattr(self, f"_{name.lower()}", None):
            method()
        else:
            raise Refused(f"its pickle uses the operation {name}, which files of weights do not")

    def _argument(self, name: str) -> Any:
        """Return the argument of an operation."""
        if name == "STRING":  # of Python 2, which may hold any bytes
            text = self.stream.readline()[:-1].strip()
            if len(text) < 2 or text[:1] not in b"'\"" or text[-1:] != text[:1]:
                raise Refused("a text has no quotes")
            return codecs.escape_decode(text[1:-1])[0].decode("latin-1")
        return _READERS[name](self.stream)  # type: ignore[arg-type]  # it reads as much of a file as is needed

    def _pop_to_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    # Containers

    def _mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._pop_to_mark()

    def _pop_mark(self) -> None:
        self._pop_to_mark()

    def _dup(self) -> None:
        self.stack.append(self.stack[-1])

    def _memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _tuple(self) -> None:
        items = self._pop_to_mark()
        self.stack.append(tuple(items))

    def _tuple1(self) -> None:
        self._tuple_of(1)

    def _tuple2(self) -> None:
        self._tuple_of(2)

    def _tuple3(self) -> None:
        self._tuple_of(3)

    def _tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise Refused("its pickle takes more values than it has")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _list(self) -> None:
        items = self._pop_to_mark()
        self.stack.append(items)

    def _frozenset(self) -> None:
        self._list()  # what is in a set may have no hash here

    def _dict(self) -> None:
        items = self._pop_to_mark()
        self.stack.append({})
        self._set(items)

    def _append(self) -> None:
        self._extend([self.stack.pop()])

    def _appends(self) -> None:
        self._extend(self._pop_to_mark())

    def _additems(self) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.entries += items
        elif isinstance(target, list):
            target += items
        else:
            raise Refused("its pickle appends to what is no list")

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _setitems(self) -> None:
        self._set(self._pop_to_mark())

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        target = target.items if isinstance(target, Inert) else target
        if not isinstance(target, dict) or len(items) % 2:
            raise Refused("its pickle sets keys of what is no dictionary")
        put_all(target, zip(items[::2], items[1::2], strict=True))

    # Names and objects

    def _global(self) -> None:
        module, name = (self.stream.readline()[:-1].decode() for _ in range(2))
        self.stack.append(named(module, name, self.rebuilders))

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Refused("a name in its pickle is not text")
        self.stack.append(named(module, name, self.rebuilders))

    def _reduce(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self.stack.append(call(function, args, self.rebuilders))

    def _newobj(self) -> None:
        args, cls = self.stack.pop(), self.stack.pop()
        self.stack.append(create(cls, args, self.rebuilders))

    def _newobj_ex(self) -> None:
        kwargs = self.stack.pop()
        self._newobj()
        if kwargs:
            build(self.stack[-1], kwargs)

    def _obj(self) -> None:
        cls, *args = self._pop_to_mark()
        self.stack.append(create(cls, tuple(args), self.rebuilders))

    def _inst(self) -> None:
        self._global()
        cls = self.stack.pop()
        args = self._pop_to_mark()
        self.stack.append(create(cls, tuple(args), self.rebuilders))

    def _build(self) -> None:
        state = self.stack.pop()
        build(self.stack[-1], state)

    def _persid(self) -> None:
        self._persistent(self.stream.readline()[:-1].decode())

    def _binpersid(self) -> None:
        self._persistent(self.stack.pop())

    def _persistent(self, identifier: Any) -> None:
        if self.persistent is None:
            raise Refused("its pickle refers to data that are not in the file")
        self.stack.append(self.persistent(identifier))

    # Framing

    def _proto(self) -> None:
        if (version := self._argument("PROTO")) > 5:
            raise Refused(f"its pickle has the protocol {version}; 5 is the last one known")

    def _frame(self) -> None:
        self._argument("FRAME")


_READERS = {opcode.name: opcode.arg.reader for opcode in pickletools.opcodes if opcode.arg is not None}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
}
_ARGUMENTS_ARE_VALUES = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    )
)
