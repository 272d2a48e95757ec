"""Limit the depth and size of tuples before torch reads a pickle."""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import IO, Any

# torch's own files have three levels, and tuples as long as a tensor has dimensions.
_MAX_DEPTH, _MAX_ITEMS = 100, 1_000_000
_MAX_OPCODES = 5_000_000

# Depth of a value's tuples and the number of items in all of them; (0, 1) is no tuple.
_Size = tuple[int, int]
_PLAIN: _Size = (0, 1)
# These may return the tuple they get, or wrap it (torch.Size).
_KEEPS_SIZE = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "BUILD", "FROZENSET"}
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}


def check_pickle(
    stream: IO[bytes],
    *,
    max_depth: int = _MAX_DEPTH,
    max_items: int = _MAX_ITEMS,
    max_opcodes: int = _MAX_OPCODES,
) -> None:
    """Step through one pickle, up to its end, without creating any object.

    Raises:
        ValueError: the pickle is damaged or has too many opcodes, or a tuple is nested too deeply
            or has too many items, those of the tuples inside it included.
    """
    sizes = _Sizes(max_depth, max_items)
    for count, (opcode, argument, _) in enumerate(_opcodes(stream)):
        if count >= max_opcodes:
            raise ValueError(f"a pickle of more than {max_opcodes} opcodes")
        sizes.step(opcode, argument)


def _opcodes(stream: IO[bytes]) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    try:
        yield from pickletools.genops(stream)
    except (IndexError, KeyError, UnicodeError, OverflowError) as error:
        raise ValueError(f"damaged pickle ({type(error).__name__})") from error


class _Sizes:
    """The unpickler's stack and memo, with sizes in place of objects; None is a mark."""

    def __init__(self, max_depth: int, max_items: int) -> None:
        self._max_depth, self._max_items = max_depth, max_items
        self._stack: list[_Size | None] = []
        self._memo: dict[int, _Size] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Apply an opcode to the stack.

        Raises:
            ValueError: the stack or the memo lacks an operand, or a tuple is too large.
        """
        name = opcode.name
        if name == "MARK":
            self._stack.append(None)
        elif name in _GETS:
            if int(argument) not in self._memo:
                raise ValueError("damaged pickle: it reads a memo entry that was never written")
            self._stack.append(self._memo[int(argument)])
        elif name in _PUTS or name == "MEMOIZE":
            self._memo[len(self._memo) if name == "MEMOIZE" else int(argument)] = self._top()
        elif name == "DUP":
            self._stack.append(self._top())
        elif name == "POP" and self._stack and self._stack[-1] is None:
            self._stack.pop()
        else:
            result = self._result(name, self._operands(opcode))
            self._stack += [result] * len(opcode.stack_after)

    def _operands(self, opcode: pickletools.OpcodeInfo) -> list[_Size]:
        """Pop what an opcode takes off the stack."""
        before, operands = opcode.stack_before, []
        if pickletools.markobject in before:
            while (size := self._pop()) is not None:
                operands.append(size)
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            size = self._pop()
            if size is None:
                raise ValueError("damaged pickle: a mark in place of a value")
            operands.append(size)
        return operands

    def _result(self, name: str, operands: list[_Size]) -> _Size:
        if name not in _TUPLES | _KEEPS_SIZE:
            return _PLAIN
        depth = max((d for d, _ in operands), default=0) + (name in _TUPLES)
        items = 1 + sum(i for _, i in operands)
        if depth > self._max_depth or items > self._max_items:
            raise ValueError(
                f"nested tuples of more than {self._max_depth} levels or {self._max_items} items"
            )
        return depth, items

    def _pop(self) -> _Size | None:
        if not self._stack:
            raise ValueError("damaged pickle: the stack is empty")
        return self._stack.pop()

    def _top(self) -> _Size:
        if not self._stack or self._stack[-1] is None:
            raise ValueError("damaged pickle: it stores a value that is missing")
        return self._stack[-1]
