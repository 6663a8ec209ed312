"""Plain values out of a pickle file, without running a word of it.

CIFAR is published as pickles, and unpickling runs whatever a file says. Here the opcodes are taken
apart by `pickletools` (which executes nothing) and followed by a small machine of our own that
knows lists, dictionaries, numbers, texts, bytes and arrays of uint8. The five names it accepts are
not imported: they only tell it which bytes are an array. Everything else is refused.
"""

import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.image_file import describe_os_error
from segnetr.errors import ReadError

_MOST_BYTES = 1 << 30
_MOST_DIMENSIONS = 8
_WAY_OUT = "fetch the original archive again"

_RECONSTRUCT, _ARRAY, _TYPE, _ENCODE = "reconstruct", "array", "type", "encode"
_NAMES = MappingProxyType(
    {
        "numpy.core.multiarray _reconstruct": _RECONSTRUCT,
        "numpy._core.multiarray _reconstruct": _RECONSTRUCT,
        "numpy ndarray": _ARRAY,
        "numpy dtype": _TYPE,
        "_codecs encode": _ENCODE,
    }
)


class RefusedPickleError(ValueError):
    """A pickle with anything in it but plain values and arrays of bytes."""


class _Name:
    """One of the accepted names; nothing stands behind it."""

    def __init__(self, meaning: str) -> None:
        self.meaning = meaning


class _ByteType:
    """The type uint8."""


class _Pending:
    """An array whose bytes come with a later opcode."""

    def __init__(self) -> None:
        self.array: NDArray[np.uint8] | None = None


def read_plain_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of plain values and uint8 arrays.

    Args:
        path: A file as CIFAR's `data_batch_1`, written by Python 2 or 3, protocol 2 to 4.

    Returns:
        Values by name; arrays are read-only.

    Raises:
        ReadError: If the file is missing, torn, too large, or holds anything else.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ReadError(path, f"larger than {_MOST_BYTES} bytes; {_WAY_OUT}")
        content = path.read_bytes()
    except OSError as error:
        raise ReadError(path, describe_os_error(error)) from error
    try:
        value = parse_plain_pickle(content)
    except RefusedPickleError as error:
        raise ReadError(path, f"{error}; nothing of it was run") from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        detail = " ".join(str(error).split())[:120]
        raise ReadError(path, f"torn or no pickle ({detail}); {_WAY_OUT}") from None
    if not isinstance(value, dict):
        raise ReadError(path, f"holds a {type(value).__name__} where a dictionary is expected")
    return {_as_text(key): _resolve(item) for key, item in value.items()}


def parse_plain_pickle(content: bytes) -> Any:
    """Follow the opcodes of a pickle.

    Raises:
        RefusedPickleError: At the first opcode or name that plain values do not need.
        ValueError: If the pickle is torn; also other errors of lookups into a torn one.
    """
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "STOP":
            return machine.pop()
        step = _STEPS.get(opcode.name)
        if step is None:
            raise RefusedPickleError(
                f"its pickle holds the instruction {opcode.name}, which plain data do not need"
            )
        step(machine, argument)
    raise ValueError("it ends without an end")


class _Machine:
    """The stack, the marks in it, and what was put aside by number."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def pop_tuple(self, count: int) -> None:
        values = self.stack[-count:]
        if len(values) < count:
            raise ValueError("a tuple has too few values")
        del self.stack[-count:]
        self.push(tuple(values))

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("values are appended to what is no list")
        target.extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise ValueError("items are set in what is no dictionary")
        target.update(zip(values[::2], values[1::2], strict=True))

    def name(self, text: str) -> None:
        if text not in _NAMES:
            shown = ".".join(text.split())[:80]
            raise RefusedPickleError(f"its pickle asks for {shown!r}, which is refused")
        self.push(_Name(_NAMES[text]))

    def stack_name(self) -> None:
        attribute, module = self.pop(), self.pop()
        self.name(f"{module} {attribute}")

    def reduce(self) -> None:
        arguments, callee = self.pop(), self.pop()
        if not isinstance(callee, _Name) or not isinstance(arguments, tuple):
            raise RefusedPickleError("its pickle calls what is no array")
        self.push(_make(callee.meaning, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, _ByteType):
            return  # byte order and alignment, which bytes do not have
        if not isinstance(target, _Pending) or not isinstance(state, tuple):
            raise RefusedPickleError("its pickle fills in what is no array")
        target.array = _fill(state)


def _make(meaning: str, arguments: tuple[Any, ...]) -> Any:
    if meaning == _RECONSTRUCT:
        return _Pending()
    if meaning == _TYPE and arguments[0] in ("u1", "|u1"):
        return _ByteType()
    if meaning == _ENCODE and arguments[1] in ("latin1", "latin-1"):
        return arguments[0].encode("latin-1")
    raise RefusedPickleError(f"its pickle holds {meaning} {arguments[:1]!r:.60}, not uint8")


def _fill(state: tuple[Any, ...]) -> NDArray[np.uint8]:
    """Make an array of the state numpy pickles: version, shape, type, Fortran order, bytes."""
    _, shape, kind, fortran, data = state
    if not isinstance(kind, _ByteType):
        raise RefusedPickleError("its pickle holds an array that is not of uint8")
    if isinstance(data, str):
        data = data.encode("latin-1")
    if not isinstance(data, bytes) or not isinstance(shape, tuple) or len(shape) > _MOST_DIMENSIONS:
        raise ValueError("an array has no bytes or no shape")
    array = np.frombuffer(data, dtype=np.uint8)
    return array.reshape(shape, order="F" if fortran else "C")


def _resolve(value: Any) -> Any:
    if isinstance(value, _Pending):
        if value.array is None:
            raise RefusedPickleError("an array without bytes")
        return value.array
    return value


def _as_text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


_Step = Callable[[_Machine, Any], None]


def _put(machine: _Machine, index: Any) -> None:
    machine.memo[index] = machine.stack[-1]


def _ignore(_machine: _Machine, _argument: Any) -> None:
    """Take no notice: protocol number, frame length."""


_STEPS: Mapping[str, _Step] = MappingProxyType(
    {
        "PROTO": _ignore,
        "FRAME": _ignore,
        "MARK": lambda m, _: m.marks.append(len(m.stack)),
        "NONE": lambda m, _: m.push(None),
        "NEWTRUE": lambda m, _: m.push(True),
        "NEWFALSE": lambda m, _: m.push(False),
        **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), lambda m, a: m.push(a)),
        **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), lambda m, a: m.push(a)),
        **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE"), lambda m, a: m.push(a)),
        **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES"), lambda m, a: m.push(a)),
        "EMPTY_LIST": lambda m, _: m.push([]),
        "EMPTY_DICT": lambda m, _: m.push({}),
        "EMPTY_TUPLE": lambda m, _: m.push(()),
        "TUPLE": lambda m, _: m.push(tuple(m.pop_to_mark())),
        "TUPLE1": lambda m, _: m.pop_tuple(1),
        "TUPLE2": lambda m, _: m.pop_tuple(2),
        "TUPLE3": lambda m, _: m.pop_tuple(3),
        "APPEND": lambda m, _: m.append([m.pop()]),
        "APPENDS": lambda m, _: m.append(m.pop_to_mark()),
        "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]),
        "SETITEMS": lambda m, _: m.set_items(m.pop_to_mark()),
        **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _put),
        "MEMOIZE": lambda m, _: _put(m, len(m.memo)),
        **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, a: m.push(m.memo[a])),
        "GLOBAL": lambda m, a: m.name(a),
        "STACK_GLOBAL": lambda m, _: m.stack_name(),
        "REDUCE": lambda m, _: m.reduce(),
        "BUILD": lambda m, _: m.build(),
    }
)
