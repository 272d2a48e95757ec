"""Tensor names by prefix."""

from __future__ import annotations

from collections.abc import Mapping


def replace_prefix(name: str, prefixes: Mapping[str, str]) -> str | None:
    """`name` with the longest of `prefixes` that it has replaced; None if it has none."""
    matches = [prefix for prefix in prefixes if name.startswith(prefix)]
    if not matches:
        return None
    longest = max(matches, key=len)
    return prefixes[longest] + name.removeprefix(longest)
