"""Read a pickle of plain containers and NumPy arrays without unpickling it.

Python's unpickler executes what the file contains. This reader interprets only the opcodes that
plain data needs. Names of Python objects are compared with a short list and map to the functions
of `pickled_array`, never to the object; any other opcode, name or call is an error. Nothing
recurses, memory is bounded by the size of the file, and time by a limit on its opcodes.

Source: CPython's `Lib/pickletools.py`, which documents every opcode.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Sequence
from enum import Enum
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import IO, cast

from model.errors import CheckpointError, first_line
from model.files.pickled_array import (
    Allowance,
    PickledArray,
    PickledType,
    RefusedError,
    array_of,
    as_bytes,
    scalar_of,
    shown,
)

# A zoo file has about thirty per tensor.
_MAX_OPCODES = 1_000_000


class _Known(Enum):
    """The Python objects that a pickle may refer to, by module and name."""

    RECONSTRUCT = "numpy.core.multiarray _reconstruct"
    SCALAR = "numpy.core.multiarray scalar"
    FROM_BUFFER = "numpy.core.numeric _frombuffer"
    NDARRAY = "numpy ndarray"
    DTYPE = "numpy dtype"
    ENCODE = "_codecs encode"
    ORDERED_DICT = "collections OrderedDict"
    NO_BYTES = "__builtin__ bytes"


_KNOWN = {known.value: known for known in _Known}
_KNOWN["builtins bytes"] = _Known.NO_BYTES
# NumPy 2 moved its modules.
_KNOWN |= {known.value.replace("numpy.core.", "numpy._core."): known for known in _Known}


def read_pickle(path: Path, *, max_opcodes: int = _MAX_OPCODES) -> object:
    """Read a pickle of plain data, protocols 0 to 5.

    Returns:
        dict, list, tuple, str, bytes, int, float, bool and None, nested as in the file;
        `PickledArray` for an array; a dict for an ordered one.

    Raises:
        CheckpointError: damaged, or holding anything else. Nothing in the file is executed.
    """
    try:
        with (
            path.open("rb") as file,
            mmap(file.fileno(), 0, access=ACCESS_READ) as content,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # odd escapes in the strings of old protocols
            return _Machine(len(content), max_opcodes).run(cast(IO[bytes], content))
    except RefusedError as error:
        raise CheckpointError(
            f"{path}: {error}; nothing in it was executed; expected NumPy arrays by name, as in "
            "detectron2's zoo; save the weights alone as a .pth file"
        ) from error
    # OverflowError, MemoryError: an absurd length.
    except (ValueError, OverflowError, MemoryError) as error:
        raise CheckpointError(
            f"{path}: not a readable pickle ({ascii(first_line(error))[1:-1]}); it may be "
            "truncated or in another format; expected NumPy arrays by name, as in detectron2's zoo"
        ) from error


class _Machine:
    """The stack machine that runs a pickle, without the opcodes that have side effects."""

    def __init__(self, size: int, max_opcodes: int) -> None:
        # Old protocols store an array's bytes as a string: it becomes bytes, then numbers.
        self._allowance = Allowance(2 * size)
        self._max_opcodes = max_opcodes
        self._stack: list[object] = []
        self._below: list[list[object]] = []  # the stacks under each open mark
        self._memo: dict[int, object] = {}

    def run(self, file: IO[bytes]) -> object:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count >= self._max_opcodes:
                raise RefusedError(f"it has more than {self._max_opcodes} opcodes")
            if opcode.name in _PUSHES_ITS_ARGUMENT:
                self.push(argument)
            elif opcode.name in _ACTIONS:
                _ACTIONS[opcode.name](self, argument)
            elif opcode.name not in ("PROTO", "FRAME", "STOP"):
                raise RefusedError(f"it creates a Python object (opcode {opcode.name})")
        return self.pop()

    def push(self, value: object) -> None:
        self._stack.append(value)

    @property
    def has_values(self) -> bool:
        return bool(self._stack)

    def pop(self) -> object:
        value = self.top()
        self._stack.pop()
        return value

    def top(self) -> object:
        if not self._stack:
            raise ValueError("an opcode lacks its operands")
        return self._stack[-1]

    def pop_tuple(self, count: int) -> tuple[object, ...]:
        return tuple(reversed([self.pop() for _ in range(count)]))

    def mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def pop_mark(self) -> list[object]:
        if not self._below:
            raise ValueError("an opcode lacks its mark")
        items, self._stack = self._stack, self._below.pop()
        return items

    def extend(self, items: list[object]) -> None:
        target = self._stack[-1] if self._stack else None
        if not isinstance(target, list):
            raise RefusedError(f"it appends to {shown(target)}")
        target.extend(items)

    def make_dict(self) -> None:
        items = self.pop_mark()
        self.push({})
        self.set_items(items)

    def set_items(self, items: Sequence[object]) -> None:
        target = self._stack[-1] if self._stack else None
        if not isinstance(target, dict) or len(items) % 2:
            raise RefusedError(f"it sets items of {shown(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Keys are hashed, so they must be plain.
            if not isinstance(key, str | bytes | int | float | None):
                raise RefusedError(f"it has a key of {shown(key)}")
            target[key] = value

    def put(self, key: object) -> None:
        if not isinstance(key, int):
            raise ValueError("an opcode lacks its operands")
        self._memo[key] = self.top()

    def memoize(self) -> None:
        self.put(len(self._memo))

    def get(self, key: object) -> None:
        if not isinstance(key, int) or key not in self._memo:
            raise ValueError("an opcode reads a memo entry that was never written")
        self.push(self._memo[key])

    def name(self, argument: object) -> None:
        known = _KNOWN.get(argument) if isinstance(argument, str) else None
        if known is None:
            name = ".".join(argument.split()) if isinstance(argument, str) else argument
            raise RefusedError(f"it holds the Python object {shown(name)}, not only arrays")
        self.push(known)

    def stacked_name(self) -> None:
        module, name = self.pop_tuple(2)
        is_name = isinstance(name, str) and isinstance(module, str)
        self.name(f"{str(module)[:60]} {str(name)[:60]}" if is_name else module)

    def call(self) -> None:
        function, arguments = self.pop_tuple(2)
        if not isinstance(function, _Known) or not isinstance(arguments, tuple):
            raise RefusedError(f"it calls {shown(function)}")
        self.push(self._result(function, arguments))

    def _result(self, function: _Known, arguments: tuple[object, ...]) -> object:
        match function, arguments:
            case _Known.RECONSTRUCT, (_Known.NDARRAY, _, _):
                return PickledArray()
            case _Known.SCALAR, (dtype, content):
                return scalar_of(dtype, content, self._allowance)
            case _Known.FROM_BUFFER, (content, dtype, shape, order):
                array = PickledArray()
                array.values = array_of(content, dtype, shape, order, self._allowance)
                return array
            case _Known.DTYPE, _:
                return PickledType(arguments)
            case _Known.ENCODE, (str() as text, "latin1" | "latin-1"):
                return as_bytes(text, self._allowance)
            case _Known.NO_BYTES, ():
                return b""
            case _Known.ORDERED_DICT, ():
                return {}
        name = function.value.replace(" ", ".")
        raise RefusedError(f"it calls '{name}' with unexpected arguments")

    def build(self) -> None:
        state = self.pop()
        target = self._stack[-1] if self._stack else None
        if isinstance(target, PickledArray):
            target.build(state, self._allowance)
        elif isinstance(target, PickledType):
            target.build(state)
        # A framework's notes, as attributes of an ordered dict, are dropped.
        elif not (isinstance(target, dict) and isinstance(state, dict)):
            raise RefusedError(f"it sets the state of {shown(target)}")


# fmt: off
_PUSHES_ITS_ARGUMENT = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
})
# fmt: on

_ACTIONS: dict[str, Callable[[_Machine, object], object]] = {
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.pop() if machine.has_values else machine.pop_mark(),
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "DUP": lambda machine, _: machine.push(machine.top()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.push(machine.pop_tuple(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.pop_tuple(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.pop_tuple(3)),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "DICT": lambda machine, _: machine.make_dict(),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop_tuple(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda machine, _: machine.memoize(),
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": lambda machine, _: machine.stacked_name(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}
