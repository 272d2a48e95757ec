"""What a photo does to every half tensor: overflow, subnormals, and how near the limit it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from export.precision.formats import FORMATS, HalfFormat
from export.precision.rounding import Constant, Emit
from model.errors import ArtifactError, ExportError

STATISTICS = 5
_NEAR = 0.5


@dataclass(frozen=True, slots=True)
class HalfTensor:
    """A tensor that is declared half and rounded, with its node's role and operator."""

    name: str
    role: str
    operator: str
    format: str

    @property
    def largest(self) -> float:
        """The format's largest number."""
        return FORMATS[self.format].largest


@dataclass(frozen=True, slots=True)
class TensorRange:
    """What was seen of one tensor, before it was rounded.

    `largest` is its largest magnitude. The others count numbers: `overflowed`
    beyond the format, infinite or not a number; `subnormal` below its smallest normal one and not
    0; `near` within a factor of two of the limit.
    """

    tensor: HalfTensor
    size: int
    largest: float
    overflowed: int
    subnormal: int
    near: int

    def __str__(self) -> str:
        made = f"{self.tensor.role}, {self.tensor.operator}"
        is_nan = self.overflowed and not self.largest >= FORMATS[self.tensor.format].overflows_at
        what = "holds NaN" if is_nan else f"reaches {self.largest:.4g}"
        return f"'{self.tensor.name}' ({made}) {what}"


@dataclass(frozen=True, slots=True)
class RangeReport:
    """All half tensors of a run, in the order in which they are computed."""

    tensors: tuple[TensorRange, ...]

    @property
    def overflowed(self) -> tuple[TensorRange, ...]:
        """Tensors with numbers beyond their format, the cause first."""
        return tuple(t for t in self.tensors if t.overflowed)

    def of_format(self, half: HalfFormat) -> RangeReport:
        """The tensors of one format; NMS counts in FP16 whatever the network computes in."""
        return RangeReport(tuple(t for t in self.tensors if t.tensor.format == half.name))

    @property
    def nearest(self) -> TensorRange:
        """The tensor that comes nearest to its format's limit.

        Raises:
            ArtifactError: the report is empty.
        """
        self._require_any()
        return max(self.tensors, key=lambda t: t.largest / t.tensor.largest)

    @property
    def most_subnormal(self) -> TensorRange:
        """The tensor with the largest share of subnormal numbers.

        Raises:
            ArtifactError: the report is empty.
        """
        self._require_any()
        return max(self.tensors, key=lambda t: t.subnormal / max(t.size, 1))

    def _require_any(self) -> None:
        if not self.tensors:
            raise ArtifactError(
                "ranges: no half tensor was looked at; expected a run with ranges of a file in "
                "half precision"
            )

    def __str__(self) -> str:
        if not self.tensors:
            return "no half tensor was looked at"
        top, low = self.nearest, self.most_subnormal
        title = FORMATS[top.tensor.format].title
        return (
            f"{len(self.tensors)} half tensors · nearest to {title}'s {top.tensor.largest:.5g}: "
            f"{top} · {sum(t.near for t in self.tensors)} numbers within a factor of two of it · "
            f"most subnormal: '{low.tensor.name}', {100 * low.subnormal / max(low.size, 1):.2g} %"
        )


def refuse_overflow(ranges: RangeReport, half: HalfFormat, photo: str, remedy: str) -> None:
    """Stop where a tensor went beyond its format.

    Args:
        ranges: what was seen.
        half: the format.
        photo: its name, for the message.
        remedy: what to do, for the message.

    Raises:
        ExportError: the first such tensor is named.
    """
    beyond = ranges.overflowed
    if not beyond:
        return
    others = f" and {len(beyond) - 1} tensors after it" if len(beyond) > 1 else ""
    raise ExportError(
        f"{half.title} overflows on {photo}: {beyond[0]}{others}, its largest number is "
        f"{half.largest:.5g}; {remedy}; no file was written"
    )


def write_statistics(emit: Emit, constant: Constant, magnitude: str, half: HalfFormat) -> list[str]:
    """Write nodes for the five numbers of a `TensorRange`, each float32 [1].

    Args:
        emit: writes one node, `emit(op, *inputs, **attributes)`, and answers its output.
        constant: writes a constant.
        magnitude: |x| of the tensor.
        half: the tensor's format.
    """

    def number(value: float) -> str:
        return constant(np.array(value, np.float32))

    def count(claim: str) -> str:
        return emit("ReduceSum", emit("Cast", claim, to=1), keepdims=0)

    fits = emit("Less", magnitude, number(half.overflows_at))
    small = emit("Less", magnitude, number(half.smallest_normal))
    zero = emit("Equal", magnitude, number(0.0))
    size = emit("Cast", emit("Size", magnitude), to=1)
    scalars = [
        size,
        emit("ReduceMax", magnitude, keepdims=0),
        count(emit("Not", fits)),
        emit("Sub", count(small), count(zero)),
        count(emit("Greater", magnitude, number(_NEAR * half.largest))),
    ]
    one = constant(np.array([1], np.int64))
    return [emit("Reshape", scalar, one) for scalar in scalars]


def read_statistics(
    tensors: Sequence[HalfTensor], numbers: npt.NDArray[np.floating[Any]]
) -> RangeReport:
    """The report of [T * 5] numbers, five for each tensor in turn."""
    rows = numbers.astype(np.float64).reshape(-1, STATISTICS)
    return RangeReport(
        tuple(
            TensorRange(tensor, int(row[0]), float(row[1]), *(round(float(n)) for n in row[2:]))
            for tensor, row in zip(tensors, rows, strict=True)
        )
    )
