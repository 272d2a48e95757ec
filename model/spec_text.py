"""The fields of a `ModelSpec` as short text, by their paths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

_MANY = 12


def leaves(part: Any, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Path and value of each field, such as "pooler.levels"; a part that is None is a leaf."""
    for field in fields(part):
        path, value = f"{prefix}{field.name}", getattr(part, field.name)
        if is_dataclass(value):
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def shown(value: object) -> str:
    """A value like "0.5", "1024/1024", "5x 0.5/1/2" or "person … toothbrush (80)"."""
    if value is None or value == ():
        return "none"
    if not isinstance(value, tuple):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if len(value) > 1 and len(set(value)) == 1:
        return f"{len(value)}x {shown(value[0])}"
    if len(value) > _MANY:
        return f"{shown(value[0])} … {shown(value[-1])} ({len(value)})"
    if any(isinstance(v, tuple) for v in value):
        return " | ".join(map(shown, value))
    return "/".join(map(shown, value))
