"""Read a framework's YAML configuration: plain data only; errors have the line number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import MissingDependencyError, UsageError


@dataclass(frozen=True, slots=True)
class YamlLimits:
    """Bounds on a file; a dumped configuration of detectron2 has 6 kB, 400 values, 5 levels."""

    file_bytes: int = 1_000_000
    values: int = 20_000
    levels: int = 30
    characters: int = 10_000


def read_yaml(path: Path, limits: YamlLimits | None = None) -> dict[str, Any]:
    """Read one YAML mapping whose keys are strings.

    Aliases are followed; each one counts as the values that it repeats.

    Raises:
        UsageError: missing, not UTF-8, not YAML, not one mapping, with a tag, with a key that is
            repeated or not a string, or beyond `limits`.
        MissingDependencyError: PyYAML is not installed.
    """
    limits = limits or YamlLimits()
    try:
        import yaml
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading it needs PyYAML; run: pip install 'maskport[export]'"
        ) from error
    text = _text_of(path, limits)
    try:
        _check_events(path, yaml.parse(text, yaml.SafeLoader), limits)
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        _check_keys(path, root)
        value = None if root is None else loader.construct_document(root)
    except yaml.YAMLError as error:
        raise _refusal(path, _line_of(error), _problem(error)) from error
    except (ValueError, OverflowError) as error:  # a date of month 13, a number too long
        raise UsageError(f"{path}: invalid YAML value ({_short(error)}); correct it") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: expected a mapping of options, got {type(value).__name__}")
    return value


def _text_of(path: Path, limits: YamlLimits) -> str:
    try:
        if not path.is_file():
            raise UsageError(f"{path}: no such file; expected a YAML configuration")
        with path.open("rb") as file:
            content = file.read(limits.file_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be opened ({reason}); check the path") from error
    if len(content) > limits.file_bytes:
        raise UsageError(f"{path}: over {limits.file_bytes} bytes; expected a YAML configuration")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refusal(path, line, "bytes that are not UTF-8") from error


class _Size:
    """Counts values and levels, an alias as all the values that it repeats."""

    def __init__(self, limits: YamlLimits) -> None:
        self.limits = limits
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
        """Count an alias; False if no complete value has its anchor (an error, or a cycle)."""
        self.values += self._of_anchor.get(anchor, 0)
        return anchor in self._of_anchor


def _check_events(path: Path, events: Iterator[Any], limits: YamlLimits) -> None:
    """Refuse a document that is too large or not plain data, before any value is built."""
    size = _Size(limits)
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
                return f"an alias of {event.anchor[:60]!a}, which is not defined before it"
        case "ScalarEvent":
            size.add_scalar(event.anchor)
            if len(event.value) > size.limits.characters:
                return f"a string of over {size.limits.characters} characters"
        case "MappingStartEvent" | "SequenceStartEvent":
            size.open(event.anchor)
        case "MappingEndEvent" | "SequenceEndEvent":
            size.close()
    if size.values > size.limits.values:
        return f"more than {size.limits.values} values, repeated ones included"
    is_deep = len(size.levels) > size.limits.levels
    return f"more than {size.limits.levels} levels" if is_deep else None


def _check_keys(path: Path, root: Any) -> None:
    """Refuse keys that are repeated, of which YAML silently takes the last, or not strings."""
    pending, visited = [root], set()
    while pending:
        node = pending.pop()
        if id(node) in visited or node is None or node.id == "scalar":
            continue
        visited.add(id(node))
        if node.id == "sequence":
            pending += node.value
            continue
        keys: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            tag = key.tag.rpartition(":")[2]
            if tag not in ("str", "merge"):
                raise _refusal(path, line, f"a key of type {tag}; expected a string")
            if key.value in keys:
                raise _refusal(path, line, f"the key {key.value[:60]!a} for the second time")
            keys.add(key.value)
            pending.append(value)


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
