"""The operations in sample formulas, for PyTorch and for a traced graph.

`model.pooling.frame`, `joint` and `sample_grid` are formulas over tensors or over the traced values
of a lowering (`export.lowering.arithmetic`). Both have + - * / and comparisons.
"""

# The protocol documents each operation.
# ruff: noqa: D102

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

# A tensor, or a traced value, whose type is private to the tracer.
Array = Any
Numbers = Sequence[Any]  # numbers, or sequences of them, nested to the rank of a constant


class Arithmetic(Protocol):
    """The operations with different names; `b` may be a plain number."""

    def numbers(self, values: Numbers) -> Array:
        """A float32 constant."""

    def floor(self, a: Array) -> Array:
        """Round down."""

    def ceil(self, a: Array) -> Array:
        """Round up."""

    def absolute(self, a: Array) -> Array:
        """Absolute value."""

    def minimum(self, a: Array, b: Array | float) -> Array:
        """Elementwise minimum."""

    def maximum(self, a: Array, b: Array | float) -> Array:
        """Elementwise maximum."""

    def largest(self, a: Array, axis: int) -> Array:
        """Maximum along an axis, which is kept with length 1."""

    def where(self, condition: Array, a: Array | float, b: Array | float) -> Array:
        """`a` where the condition is true, else `b`; at least one of the two is an array."""

    def either(self, a: Array, b: Array) -> Array:
        """Logical or."""

    def both(self, a: Array, b: Array) -> Array:
        """Logical and."""

    def invert(self, a: Array) -> Array:
        """Logical not."""

    def split(self, a: Array, count: int, axis: int) -> Sequence[Array]:
        """Split into `count` equal parts."""

    def join(self, parts: Sequence[Array], axis: int) -> Array:
        """Concatenate."""

    def unsqueeze(self, a: Array, *axes: int) -> Array:
        """Insert axes of length 1; `axes` are indices in the result."""

    def squeeze_last(self, a: Array) -> Array:
        """Remove the last axis, of length 1."""


@dataclass(frozen=True, slots=True)
class TorchArithmetic:
    """`Arithmetic` on tensors of one device."""

    device: torch.device

    def numbers(self, values: Numbers) -> Tensor:
        if torch.compiler.is_compiling():  # a compiler stores constants itself
            return torch.tensor(values, dtype=torch.float32, device=self.device)
        return _constant(_nested_tuple(values), self.device)

    def floor(self, a: Tensor) -> Tensor:
        return torch.floor(a)

    def ceil(self, a: Tensor) -> Tensor:
        return torch.ceil(a)

    def absolute(self, a: Tensor) -> Tensor:
        return torch.abs(a)

    def minimum(self, a: Tensor, b: Tensor | float) -> Tensor:
        return torch.minimum(a, b) if isinstance(b, Tensor) else a.clamp(max=b)

    def maximum(self, a: Tensor, b: Tensor | float) -> Tensor:
        return torch.maximum(a, b) if isinstance(b, Tensor) else a.clamp(min=b)

    def largest(self, a: Tensor, axis: int) -> Tensor:
        return a.amax(axis, keepdim=True)

    def where(self, condition: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
        selected: Tensor = torch.where(condition, a, b)
        return selected

    def either(self, a: Tensor, b: Tensor) -> Tensor:
        return a | b

    def both(self, a: Tensor, b: Tensor) -> Tensor:
        return a & b

    def invert(self, a: Tensor) -> Tensor:
        return ~a

    def split(self, a: Tensor, count: int, axis: int) -> Sequence[Tensor]:
        return a.chunk(count, dim=axis)

    def join(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        return torch.cat(list(parts), dim=axis)

    def unsqueeze(self, a: Tensor, *axes: int) -> Tensor:
        for axis in axes:
            a = a.unsqueeze(axis)
        return a

    def squeeze_last(self, a: Tensor) -> Tensor:
        return a.squeeze(-1)


# A CUDA graph cannot record a copy from the host; the warm-up run before it makes the copy.
@cache
def _constant(values: tuple[Any, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def _nested_tuple(values: Numbers) -> tuple[Any, ...]:
    return tuple(_nested_tuple(v) if isinstance(v, Sequence) else v for v in values)
