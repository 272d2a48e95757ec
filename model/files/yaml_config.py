"""Read a framework's YAML configuration: plain data only, every odd thing with its line number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.errors import MissingDependencyError, UsageError

# A dumped configuration of detectron2's has 6 kB, 400 values and 5 levels.
_MAX_BYTES = 1_000_000
_MAX_VALUES, _MAX_LEVELS, _MAX_TEXT = 20_000, 30, 10_000


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping whose keys are texts.

    Anchors are followed; what they repeat counts as often as it is repeated.

    Raises:
        UsageError: missing, over 1 MB, not UTF-8, not YAML, not one mapping, a tag, a key twice or
            not a text, more than 20,000 values, 30 levels or a text of 10,000 letters.
        MissingDependencyError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading it needs PyYAML; run: pip install 'maskport[export]'"
        ) from error
    text = _text_of(path)
    try:
        _check_events(path, yaml.parse(text, yaml.SafeLoader))
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        _check_keys(path, root)
        value = None if root is None else loader.construct_document(root)
    except yaml.YAMLError as error:
        raise _refusal(path, _line_of(error), _problem(error)) from error
    except (ValueError, OverflowError) as error:  # a date of month 13, a number without end
        raise UsageError(f"{path}: a value is of no kind of YAML's ({_short(error)})") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: expected a mapping of options, got {type(value).__name__}")
    return value


def _text_of(path: Path) -> str:
    try:
        if not path.is_file():
            raise UsageError(f"{path}: no such file; expected a YAML configuration")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be opened ({reason})") from error
    if len(content) > _MAX_BYTES:
        raise UsageError(f"{path}: over {_MAX_BYTES} bytes; expected a YAML configuration")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refusal(path, line, "bytes that are not UTF-8") from error


class _Size:
    """Counts values and levels, an alias as all that it stands for."""

    def __init__(self) -> None:
        self.values = 0
        self.levels: list[tuple[str | None, int]] = []  # of each: anchor, values before it
        self._of_anchor: dict[str, int] = {}

    def add_scalar(self, anchor: str | None) -> None:
        self.values += 1
        self._close(anchor, self.values - 1)

    def open(self, anchor: str | None) -> None:
        self.levels.append((anchor, self.values))
        self.values += 1

    def close(self) -> None:
        self._close(*self.levels.pop())

    def _close(self, anchor: str | None, before: int) -> None:
        if anchor is not None:
            self._of_anchor[anchor] = self.values - before

    def repeat(self, anchor: str) -> bool:
        """False where nothing finished bears the name: an error, or a cycle."""
        self.values += self._of_anchor.get(anchor, 0)
        return anchor in self._of_anchor


def _check_events(path: Path, events: Iterator[Any]) -> None:
    """Refuse what is too large or does more than hold data, before anything is built of it."""
    size = _Size()
    for event in events:
        problem = _problem_of(event, size)
        if problem is not None:
            raise _refusal(path, event.start_mark.line + 1, problem)


def _problem_of(event: Any, size: _Size) -> str | None:
    if getattr(event, "tag", None) is not None:
        return f"the tag {event.tag[:60]!a}; expected plain values"
    match type(event).__name__:
        case "AliasEvent":
            if not size.repeat(event.anchor):
                return f"an alias of {event.anchor[:60]!a}, which does not stand before it"
        case "ScalarEvent":
            size.add_scalar(event.anchor)
            if len(event.value) > _MAX_TEXT:
                return f"a text of over {_MAX_TEXT} letters"
        case "MappingStartEvent" | "SequenceStartEvent":
            size.open(event.anchor)
        case "MappingEndEvent" | "SequenceEndEvent":
            size.close()
    if size.values > _MAX_VALUES:
        return f"more than {_MAX_VALUES} values, repeated ones included"
    return f"more than {_MAX_LEVELS} levels" if len(size.levels) > _MAX_LEVELS else None


def _check_keys(path: Path, root: Any) -> None:
    """Texts, each once in its mapping; YAML takes the last of several without a word."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or node is None or node.id == "scalar":
            continue
        seen.add(id(node))
        if node.id == "sequence":
            waiting += node.value
            continue
        keys: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            kind = key.tag.rpartition(":")[2]
            if kind not in ("str", "merge"):
                raise _refusal(path, line, f"a key of type {kind}; expected a text")
            if key.value in keys:
                raise _refusal(path, line, f"the key {key.value[:60]!a} for the second time")
            keys.add(key.value)
            waiting.append(value)


def _line_of(error: Exception) -> int | None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return None if mark is None else int(mark.line) + 1


def _problem(error: Exception) -> str:
    text = getattr(error, "problem", None) or getattr(error, "reason", None) or error
    return f"not YAML ({_short(text)})"


def _short(text: object) -> str:
    lines = str(text).splitlines() or [type(text).__name__]
    return ascii(lines[0][:120])[1:-1]


def _refusal(path: Path, line: int | None, problem: str) -> UsageError:
    where = f"{path}: line {line}" if line else f"{path}"
    return UsageError(f"{where}: {problem}")
