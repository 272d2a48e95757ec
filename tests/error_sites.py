"""Every place in `runtime/` that makes an error for a user, read off the source code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from model import errors

ROOT = Path(__file__).resolve().parents[1]
HOLE = "…"
KINDS = frozenset(
    name for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.MaskportError)
)  # fmt: skip
# Fewer letters than these say nothing: the site hands on another error, with a name before it.
_LEAST_LETTERS = 4


@dataclass(frozen=True, slots=True)
class Site:
    """One call of an error class.

    Attributes:
        module: path of the file from the root of the project.
        kind: name of the class.
        message: the text, with `…` for whatever is filled in.
        first: line of the call.
        last: last line of it.
    """

    module: str
    kind: str
    message: str
    first: int
    last: int

    @property
    def key(self) -> tuple[str, str, str]:
        """What stays the same when lines move."""
        return self.module, self.kind, self.message


@cache
def sites() -> tuple[Site, ...]:
    """All of them, by file and line; those that only hand on another error are left out."""
    found: list[Site] = []
    for path in sorted((ROOT / "runtime").rglob("*.py")):
        found += sites_in(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
    return tuple(found)


def sites_in(module: str, source: str) -> list[Site]:
    """Those of one file's text, by line."""
    tree = ast.parse(source)
    functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    found: list[Site] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or _name(node.func) not in KINDS or not node.args:
            continue
        for message in _messages(node.args[0], functions):
            if len(re.findall(r"[A-Za-z]", message)) >= _LEAST_LETTERS:
                last = node.end_lineno or node.lineno
                found.append(Site(module, _name(node.func), message, node.lineno, last))
    return sorted(found, key=lambda site: (site.first, site.message))


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _messages(node: ast.expr, functions: dict[str, ast.FunctionDef]) -> Iterator[str]:
    """The text of an expression; of a call of a function of the file, all that it may return."""
    if isinstance(node, ast.Call) and _name(node.func) in functions:
        for inner in ast.walk(functions[_name(node.func)]):
            if isinstance(inner, ast.Return) and inner.value is not None:
                yield re.sub(f"{HOLE}+", HOLE, _text(inner.value))
    else:
        yield re.sub(f"{HOLE}+", HOLE, _text(node))


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return HOLE


def remedy(message: str) -> str:
    """What a message says is to be done: what follows the first semicolon, or is expected."""
    _, found, rest = message.partition("; ")
    if found:
        return rest
    expected = re.search(r"expected (.*?)(?:, got .*|, found .*)?$", message)
    return f"give {expected[1]}" if expected else ""
