"""Names and shapes of a checkpoint's tensors; a missing tensor is an error."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from model.errors import CheckpointError, closest_hint
from model.spec import ModelSpec

Parts = Mapping[str, Callable[[str, ModelSpec], str]]


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes by name, and the path of the file."""

    path: Path
    by_name: Mapping[str, tuple[int, ...]]

    def of(self, name: str, dims: int) -> tuple[int, ...]:
        """The shape of a tensor with `dims` dimensions.

        Raises:
            CheckpointError: it is missing (with the closest name), or has other dimensions.
        """
        shape = self.by_name.get(name)
        if shape is None:
            hint = closest_hint(name, self.by_name)
            raise CheckpointError(
                f"{self.path}: tensor '{name}' is missing{hint}; expected all weights of the model"
            )
        if len(shape) != dims:
            raise CheckpointError(
                f"{self.path}: tensor '{name}' has shape {shape}, expected {dims} dimensions"
            )
        return shape

    def has(self, prefix: str) -> bool:
        """Whether any name begins with `prefix`."""
        return any(name.startswith(prefix) for name in self.by_name)

    def count(self, pattern: str) -> int:
        """The number of different values that the group of `pattern` has at the start of names."""
        compiled = re.compile(pattern)
        return len({m[1] for name in self.by_name if (m := compiled.match(name))})

    def widths(self, name: str, dims: int, first: int = 0) -> tuple[int, ...]:
        """Outputs of numbered layers.

        Args:
            name: of a layer, with {} for the number.
            dims: of the weights.
            first: number.

        Raises:
            CheckpointError: see `of`.
        """
        count = self.count(re.escape(name[: name.index("{}")]) + r"(\d+)\.")
        return tuple(self.of(f"{name.format(first + i)}.weight", dims)[0] for i in range(count))

    def pooled_side(self, name: str, channels: int) -> int:
        """Side P of the pooled RoI [channels, P, P] that a linear layer's weight takes.

        Raises:
            CheckpointError: its inputs are no such grid.
        """
        inputs = self.of(name, 2)[1]
        side = math.isqrt(inputs // channels)
        if side < 1 or side * side * channels != inputs:
            raise CheckpointError(
                f"{self.path}: tensor '{name}' takes {inputs} values; expected a square grid of "
                f"{channels} channels"
            )
        return side


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
