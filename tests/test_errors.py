"""Every message of an error class tells users what to do; docs/errors.md lists the classes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from model import errors
from runtime.cli.console import run

ROOT = Path(__file__).resolve().parents[1]
CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.MaskportError)
}
# "…; what to do", or "expected what, got what".
REMEDY = re.compile(r"; \S|\bexpected ")
# A message with fewer letters only adds a name in front of another error.
FEWEST_LETTERS = 6


def _messages(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each error that a file makes from a literal; `…` for what is filled in."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and node.args:
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name in CLASSES:
                yield node.lineno, _text(node.args[0])


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return str(node.value) if isinstance(node, ast.Constant) else "…"


def test_every_message_ends_with_what_to_do() -> None:
    paths = [p for f in ("model", "runtime", "export", "calib") for p in (ROOT / f).rglob("*.py")]
    messages = [(path, *message) for path in paths for message in _messages(path)]
    assert messages
    assert not [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path, line, text in messages
        if len(re.findall("[A-Za-z]", text)) >= FEWEST_LETTERS and not REMEDY.search(text)
    ]


def test_the_document_has_every_class_with_its_exit_status() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d) \|", (ROOT / "docs/errors.md").read_text("utf-8"), re.M)
    assert {name for name, _ in rows} == set(CLASSES)
    for name, status in rows:

        def fail(argv: object, kind: type[errors.MaskportError] = CLASSES[name]) -> int:
            raise kind("wrong")

        assert run(fail, []) == int(status)


@pytest.mark.parametrize(
    ("error", "status"), [(MemoryError, 1), (OSError, 1), (KeyboardInterrupt, 130)]
)
def test_other_exit_statuses(error: type[BaseException], status: int) -> None:
    def fail(argv: object) -> int:
        raise error

    assert run(fail, []) == status
