"""Read plain values and byte arrays from a pickle file without running code from it.

CIFAR is published as pickles, and unpickling can run any code. Here `pickle.Unpickler` resolves
five allowed names to harmless stand-ins and rejects all others. Before that, every opcode is
compared with a list of those that plain data need, because some opcodes allocate memory by a
number in the file.

Source:
    "Restricting Globals", docs.python.org/3/library/pickle.html#restricting-globals.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.image_file import describe_os_error
from segnetr.errors import ReadError

_MAX_BYTES = 1 << 30
_MAX_DIMENSIONS = 8
_ADVICE = "fetch the original archive again"
_LOAD_ERRORS = (
    pickle.UnpicklingError, ValueError, IndexError, KeyError, TypeError, AttributeError, EOFError,
    OverflowError, MemoryError, RecursionError,
)  # fmt: skip
_OPCODES = {
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2",
    "LONG1", "BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES",
    "SHORT_BINBYTES", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2",
    "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT", "MEMOIZE",
    "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
}  # fmt: skip


class RejectedPickleError(ValueError):
    """A pickle that holds anything other than plain values and arrays of bytes."""


class _ByteType:
    """Stand-in for the dtype uint8."""

    def __init__(self, name: Any, *_: Any) -> None:
        if name not in ("u1", "|u1"):
            raise RejectedPickleError(f"its pickle holds the type {name!r:.40}, not uint8")

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and alignment, which single bytes do not have."""


class _Array:
    """Stand-in for an array, whose bytes follow in a later opcode."""

    def __init__(self, *_: Any) -> None:
        self.values: NDArray[np.uint8] | None = None

    def __setstate__(self, state: Any) -> None:
        """Set the values from version, shape, dtype, Fortran order and bytes, as numpy does."""
        _, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, _ByteType):
            raise RejectedPickleError("its pickle holds an array that is not uint8")
        data = data.encode("latin-1") if isinstance(data, str) else data
        if not isinstance(data, bytes) or len(shape) > _MAX_DIMENSIONS:
            raise ValueError("an array without bytes or shape")
        array = np.frombuffer(data, dtype=np.uint8)
        self.values = array.reshape(shape, order="F" if is_fortran else "C")


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise RejectedPickleError(f"its pickle holds text encoded as {encoding!r:.40}")
    return text.encode("latin-1")


def _reject_call(*_: Any) -> None:
    raise RejectedPickleError("its pickle calls a name that is not a function")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _reject_call,
    ("numpy", "dtype"): _ByteType,
    ("_codecs", "encode"): _encode,
}


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for an allowed name."""
        if (module, name) not in _ALLOWED:
            shown = f"{module}.{name}"[:80]
            raise RejectedPickleError(f"its pickle asks for {shown!r}, which is rejected")
        return _ALLOWED[module, name]


def read_plain_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of plain values and uint8 arrays.

    Args:
        path: A file such as CIFAR's `data_batch_1`, written by Python 2 or 3, protocol 2 to 4.

    Returns:
        Values by name. Arrays are read-only.

    Raises:
        ReadError: If the file is missing, truncated, too large, or holds anything else.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ReadError(path, f"larger than {_MAX_BYTES} bytes; {_ADVICE}")
        content = path.read_bytes()
    except OSError as error:
        raise ReadError(path, describe_os_error(error)) from error
    try:
        value = parse_plain_pickle(content)
        if not isinstance(value, dict):
            raise ReadError(path, f"holds a {type(value).__name__} where a dictionary is expected")
        return {_as_text(key): _unwrap(item) for key, item in value.items()}
    except RejectedPickleError as error:
        raise ReadError(path, f"{error}; none of its code was run") from None
    except _LOAD_ERRORS as error:
        detail = " ".join(str(error).split())[:120]
        raise ReadError(path, f"truncated or not a pickle ({detail}); {_ADVICE}") from None


def parse_plain_pickle(content: bytes) -> Any:
    """Check the opcodes of a pickle, then load it.

    Raises:
        RejectedPickleError: If it needs an opcode, a name or a call beyond plain data.
        ValueError: If the pickle is truncated.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in _OPCODES:
            raise RejectedPickleError(
                f"its pickle holds the instruction {opcode.name}, which plain data do not need"
            )
        # The memo is allocated up to the largest index.
        if opcode.name == "LONG_BINPUT" and (argument is None or argument > count):
            raise RejectedPickleError(f"its pickle stores value {argument} of {count}")
    try:
        return _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except RejectedPickleError:
        raise
    except _LOAD_ERRORS as error:
        detail = " ".join(str(error).split())[:80]
        raise RejectedPickleError(f"its pickle is not plain data ({detail})") from None


def _unwrap(value: Any) -> Any:
    if isinstance(value, _Array):
        if value.values is None:
            raise RejectedPickleError("its pickle holds an array without bytes")
        return value.values
    return value


def _as_text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)
