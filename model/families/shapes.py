"""Shapes of a checkpoint's tensors, asked for by name; a miss is an error that names the tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.closest_name import closest_name
from model.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes by name, and the file that they come from."""

    path: Path
    by_name: Mapping[str, tuple[int, ...]]

    def of(self, name: str, dims: int) -> tuple[int, ...]:
        """The shape of a tensor with `dims` dimensions.

        Raises:
            CheckpointError: it is missing (the closest name is told), or has other dimensions.
        """
        shape = self.by_name.get(name)
        if shape is None:
            close = closest_name(name, self.by_name)
            hint = f" (closest in the file: '{close}')" if close else ""
            raise CheckpointError(
                f"{self.path}: tensor '{name}' is missing{hint}; expected all weights of the model"
            )
        if len(shape) != dims:
            raise CheckpointError(
                f"{self.path}: tensor '{name}' has shape {shape}, expected {dims} dimensions"
            )
        return shape

    def has(self, prefix: str) -> bool:
        """Whether any name begins so."""
        return any(name.startswith(prefix) for name in self.by_name)

    def count(self, pattern: str) -> int:
        """How many different numbers the group of `pattern` matches at the start of names."""
        compiled = re.compile(pattern)
        return len({m[1] for name in self.by_name if (m := compiled.match(name))})
