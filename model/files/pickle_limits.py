"""Tuples within tuples, counted before a pickle is read.

A pickle can name a tuple twice in the next one, and that twice in the next. Sixty such steps make
2^60 of a few bytes, and whoever asks for the hash of it, as a dict does of its key, never returns;
a tower of tuples that each hold one other ends the process. torch's unpickler looks at neither.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import IO, Any

# Of torch's own files: three levels, and as many members as a tensor has sides.
_MAX_DEPTH, _MAX_MEMBERS = 100, 1_000_000
_MAX_STEPS = 5_000_000

# Depth and members of a value's tuples, all the way down; (0, 1) is no tuple.
_Size = tuple[int, int]
_PLAIN: _Size = (0, 1)
# What is made of a tuple may be one again, like torch.Size.
_TAKES_OVER = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "BUILD", "FROZENSET"}
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}


def refuse_towers(stream: IO[bytes]) -> None:
    """Step through one pickle, up to its end, without making any object.

    Raises:
        ValueError: its tuples are nested too deep or hold too much, or it is damaged.
    """
    sizes = _Sizes()
    for steps, (opcode, argument, _) in enumerate(_steps(stream)):
        if steps > _MAX_STEPS:
            raise ValueError(f"a pickle of more than {_MAX_STEPS} steps")
        sizes.step(opcode, argument)


def _steps(stream: IO[bytes]) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    try:
        yield from pickletools.genops(stream)
    except (IndexError, KeyError, UnicodeError, OverflowError) as error:
        raise ValueError(f"damaged pickle ({type(error).__name__})") from error


class _Sizes:
    """The unpickler's stack and memo, with sizes in place of objects; None is a mark."""

    def __init__(self) -> None:
        self._stack: list[_Size | None] = []
        self._memo: dict[int, _Size] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Do what an opcode does to the stack.

        Raises:
            ValueError: the stack or the memo has not what it needs, or a tuple is too large.
        """
        name = opcode.name
        if name == "MARK":
            self._stack.append(None)
        elif name in _GETS:
            if int(argument) not in self._memo:
                raise ValueError("a pickle that gets what it never put")
            self._stack.append(self._memo[int(argument)])
        elif name in _PUTS or name == "MEMOIZE":
            self._memo[len(self._memo) if name == "MEMOIZE" else int(argument)] = self._top()
        elif name == "DUP":
            self._stack.append(self._top())
        elif name == "POP" and self._stack and self._stack[-1] is None:
            self._stack.pop()
        else:
            taken = self._take(opcode)
            made = self._made(name, taken)
            self._stack += [made] * len(opcode.stack_after)

    def _take(self, opcode: pickletools.OpcodeInfo) -> list[_Size]:
        """Off the stack what an opcode needs; of a call and its like, the arguments come last."""
        before, taken = opcode.stack_before, []
        if pickletools.markobject in before:
            while (size := self._pop()) is not None:
                taken.append(size)
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            size = self._pop()
            if size is None:
                raise ValueError("a pickle with a mark where a value belongs")
            taken.append(size)
        return taken

    def _made(self, name: str, taken: list[_Size]) -> _Size:
        if name not in _TUPLES | _TAKES_OVER:
            return _PLAIN
        depth = max((d for d, _ in taken), default=0) + (name in _TUPLES)
        members = 1 + sum(m for _, m in taken)
        if depth > _MAX_DEPTH or members > _MAX_MEMBERS:
            raise ValueError("tuples within tuples, deeper or more than any weights have")
        return depth, members

    def _pop(self) -> _Size | None:
        if not self._stack:
            raise ValueError("a pickle that takes more than it gave")
        return self._stack.pop()

    def _top(self) -> _Size:
        if not self._stack or self._stack[-1] is None:
            raise ValueError("a pickle that keeps what is not there")
        return self._stack[-1]
