"""A spec as text: every field that affects the output, grouped by part."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from model.spec import ModelSpec
from runtime.cli.console import printable

_WIDTH, _INDENT = 100, 12
_MANY = 12


def describe(spec: ModelSpec) -> list[str]:
    """One paragraph per part of the spec; "none" for a part that is absent."""
    lines = []
    for part in fields(spec):
        value = getattr(spec, part.name)
        if part.name in ("dialect", "architecture"):
            continue
        text = printable(", ".join(_entries(value)) if value is not None else "none")
        lines += textwrap.wrap(
            f"{part.name:<{_INDENT}}{text}", _WIDTH, subsequent_indent=" " * _INDENT
        )
    return lines


def _entries(part: Any, prefix: str = "") -> Iterator[str]:
    for field in fields(part):
        value = getattr(part, field.name)
        if is_dataclass(value):
            yield from _entries(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name} {_shown(value)}"


def _shown(value: object) -> str:
    if not isinstance(value, tuple):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if value and len(set(value)) == 1 and len(value) > 1:
        return f"{len(value)}x {_shown(value[0])}"
    if len(value) > _MANY:
        return f"{_shown(value[0])} … {_shown(value[-1])} ({len(value)})"
    if any(isinstance(v, tuple) for v in value):
        return " | ".join(_shown(v) for v in value)
    return "/".join(_shown(v) for v in value) or "-"
