"""Shapes of a checkpoint's tensors by name; a missing tensor is an error."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.closest_name import closest_hint
from model.errors import CheckpointError


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
