"""The configuration that MMDetection keeps beside the weights: a program's text, only parsed.

The text is an untrusted file's. It is never executed: literals, `dict(…)`, `{…}` and names that
were assigned one of those are read, everything else becomes `UNREAD`.
"""

from __future__ import annotations

import ast
import reprlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_MAX_LETTERS = 200_000  # dumps have up to 60,000; a tree takes some 300 bytes of each
_MAX_STEPS = 200_000  # an entry counts each time it is copied


class _NotOnlyAssignments(Exception):  # noqa: N818 - the text is sound
    pass


class _Unread:
    """Stands for what is no literal: a call, a sum, a name of something else."""

    def __repr__(self) -> str:
        return "an expression"


UNREAD: Final = _Unread()


@dataclass(frozen=True, slots=True)
class Config:
    """What the text assigns, as nested dicts and lists; `problem` says why it was not read."""

    tree: Mapping[str, object] = field(default_factory=dict)
    problem: str | None = None

    def find(self, *paths: str) -> tuple[str, object] | None:
        """The first of the paths that is there and not None, and its value."""
        for path in paths:
            value: object = self.tree
            for name in path.split("."):
                value = value.get(name) if isinstance(value, Mapping) else None
            if value is not None:
                return path, value
        return None


def parse_config(text: str, max_letters: int = _MAX_LETTERS, max_steps: int = _MAX_STEPS) -> Config:
    """Read the assignments of a text, without running any of it."""
    if len(text) > max_letters:
        return Config({}, f"it has more than {max_letters} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in texts
            module = ast.parse(text)
        return Config(_Reader(max_steps).assignments(module))
    except _NotOnlyAssignments:
        return Config({}, "it does more than assign values")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return Config({}, "it is no readable Python")


def shown(value: object) -> str:
    """A value for a message, short whatever it is, and in ASCII."""
    return ascii(reprlib.repr(value))[1:-1][:60]


class _Reader:
    """Turns expressions into plain data, with a bound on the work."""

    def __init__(self, max_steps: int) -> None:
        self._names: dict[str, object] = {}
        self._steps_left = max_steps

    def assignments(self, module: ast.Module) -> Mapping[str, object]:
        for line in module.body:
            match line:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self._names[name] = self._value(value)
                case ast.Expr(value=ast.Constant()):  # a docstring
                    pass
                case _:  # it may change what was assigned before
                    raise _NotOnlyAssignments
        return self._names

    def _step(self) -> None:
        self._steps_left -= 1
        if self._steps_left < 0:
            raise ValueError

    def _value(self, node: ast.expr) -> object:
        self._step()
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None):
                return node.value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.List() | ast.Tuple():
                return [self._value(item) for item in node.elts]
            case ast.Dict():
                return self._mapping(zip(node.keys, node.values, strict=True))
            case ast.Call(func=ast.Name(id="dict"), args=[]):
                return self._mapping((k.arg, k.value) for k in node.keywords)
            case ast.Name():
                return self._names.get(node.id, UNREAD)
        return UNREAD

    def _mapping(self, items: Iterator[tuple[Any, ast.expr]]) -> dict[str, object]:
        """Of keys that are texts; a key None is `**other`."""
        made: dict[str, object] = {}
        for key, node in items:
            value = self._value(node)
            name = key.value if isinstance(key, ast.Constant) else key
            if isinstance(name, str):
                made[name] = value
            elif key is None and isinstance(value, Mapping):
                for inner in value:
                    self._step()
                    made[inner] = value[inner]
        return made
