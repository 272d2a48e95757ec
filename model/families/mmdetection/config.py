"""Parse the configuration that MMDetection stores beside the weights as Python source.

The source is untrusted and never executed. Literals, `dict(…)`, `{…}` and names that were assigned
one of those are read; any other expression becomes `UNREAD`.
"""

from __future__ import annotations

import ast
import reprlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_MAX_CHARACTERS = 200_000  # dumps have up to 60,000; a tree takes 300 bytes for each
_MAX_STEPS = 200_000  # an entry counts each time it is copied


class _NotOnlyAssignments(Exception):  # noqa: N818 - not an error in the source
    pass


class _Unread:
    """An expression that is not a literal: a call, a sum, an unknown name."""

    def __repr__(self) -> str:
        return "an expression"


UNREAD: Final = _Unread()


@dataclass(frozen=True, slots=True)
class Config:
    """The assignments, as nested dicts and lists; `problem` is the reason if there are none."""

    tree: Mapping[str, object] = field(default_factory=dict)
    problem: str | None = None

    def find(self, *paths: str) -> tuple[str, object] | None:
        """The first of the paths with a value that is not None, and the value."""
        for path in paths:
            value: object = self.tree
            for name in path.split("."):
                value = value.get(name) if isinstance(value, Mapping) else None
            if value is not None:
                return path, value
        return None


def parse_config(
    text: str, max_characters: int = _MAX_CHARACTERS, max_steps: int = _MAX_STEPS
) -> Config:
    """Read the assignments in Python source, without executing it."""
    if len(text) > max_characters:
        return Config({}, f"it has more than {max_characters} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in strings
            module = ast.parse(text)
        return Config(_Reader(max_steps).assignments(module))
    except _NotOnlyAssignments:
        return Config({}, "it does more than assign values")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return Config({}, "it is not valid Python")


def shown(value: object) -> str:
    """A value for a message, short and in ASCII."""
    return ascii(reprlib.repr(value))[1:-1][:60]


class _Reader:
    """Evaluates expressions to plain data, with a limit on the work."""

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
                case _:  # it may change an earlier assignment
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
        """The items with string keys; a key None is `**other`."""
        mapping: dict[str, object] = {}
        for key, node in items:
            value = self._value(node)
            name = key.value if isinstance(key, ast.Constant) else key
            if isinstance(name, str):
                mapping[name] = value
            elif key is None and isinstance(value, Mapping):
                for inner in value:
                    self._step()
                    mapping[inner] = value[inner]
        return mapping
