"""The few operations in which sample places are written, once for PyTorch and once for a graph.

`model.pooling.frame`, `fixed` and `joint` are formulas over arrays of either kind: tensors, or the
traced values of a lowering (`export.lowering.arithmetic`). Both know + - * / and comparisons.
"""

# The protocol says what each operation does.
# ruff: noqa: D102

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

# A tensor, or a traced value, whose type is the tracer's own affair.
Array = Any
Numbers = Sequence[Any]  # numbers, or sequences of them, nested to the rank of a constant


class Arithmetic(Protocol):
    """What is spelt differently; `b` and `otherwise` may be plain numbers."""

    def numbers(self, values: Numbers) -> Array:
        """A float32 constant."""

    def floor(self, a: Array) -> Array:
        """Whole numbers below."""

    def ceil(self, a: Array) -> Array:
        """Whole numbers above."""

    def absolute(self, a: Array) -> Array:
        """Without the sign."""

    def minimum(self, a: Array, b: Array | float) -> Array:
        """The smaller one."""

    def maximum(self, a: Array, b: Array | float) -> Array:
        """The greater one."""

    def largest(self, a: Array, axis: int) -> Array:
        """Maximum along an axis, which stays with length 1."""

    def where(self, condition: Array, a: Array | float, b: Array | float) -> Array:
        """`a` where the condition holds; at least one of the two is an array."""

    def either(self, a: Array, b: Array) -> Array:
        """Logical or."""

    def both(self, a: Array, b: Array) -> Array:
        """Logical and."""

    def invert(self, a: Array) -> Array:
        """Logical not."""

    def split(self, a: Array, count: int, axis: int) -> Sequence[Array]:
        """So many equal parts."""

    def join(self, parts: Sequence[Array], axis: int) -> Array:
        """The parts one after the other."""

    def unsqueeze(self, a: Array, *axes: int) -> Array:
        """With further axes of length 1, which are counted in the result."""

    def squeeze_last(self, a: Array) -> Array:
        """Without the last axis, which has length 1."""


@dataclass(frozen=True, slots=True)
class TorchArithmetic:
    """`Arithmetic` on tensors of one device."""

    device: torch.device

    def numbers(self, values: Numbers) -> Tensor:
        if torch.compiler.is_compiling():  # a compiler keeps constants itself
            return torch.tensor(values, dtype=torch.float32, device=self.device)
        return _kept(_nested_tuple(values), self.device)

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
        chosen: Tensor = torch.where(condition, a, b)
        return chosen

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


# A CUDA graph cannot record a copy from the host; the rehearsal before it makes the copy.
@cache
def _kept(values: tuple[Any, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def _nested_tuple(values: Numbers) -> tuple[Any, ...]:
    return tuple(_nested_tuple(v) if isinstance(v, Sequence) else v for v in values)
