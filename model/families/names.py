"""Tensor names by prefix and by part of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from model.spec import ModelSpec

Parts = Mapping[str, Callable[[str, ModelSpec], str]]


def translate(name: str, spec: ModelSpec, prefixes: Mapping[str, str], parts: Parts) -> str:
    """A dialect's name for the network's tensor `name`.

    Args:
        name: of the tensor.
        spec: of the network.
        prefixes: the dialect's prefixes by the network's.
        parts: for all other names, a function of the name after its first part, by that part.
    """
    renamed = replace_prefix(name, prefixes)
    if renamed is not None:
        return renamed
    part, _, suffix = name.partition(".")
    return parts[part](suffix, spec) if part in parts else name


def replace_prefix(name: str, prefixes: Mapping[str, str]) -> str | None:
    """`name` with the longest of `prefixes` that it has replaced; None if it has none."""
    matches = [prefix for prefix in prefixes if name.startswith(prefix)]
    if not matches:
        return None
    longest = max(matches, key=len)
    return prefixes[longest] + name.removeprefix(longest)
