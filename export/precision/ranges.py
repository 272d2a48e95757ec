"""Value ranges of every half tensor on a photo: overflow, subnormals, distance to the limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """A rounded half tensor, with the role and operator of its node."""

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
    """The values of one tensor before rounding.

    `largest` is the largest magnitude. The others count values: `overflowed`: beyond the format,
    infinite or NaN; `subnormal`: below the smallest normal number and not 0; `near`: within a
    factor of two of the limit.
    """

    tensor: HalfTensor
    size: int
    largest: float
    overflowed: int
    subnormal: int
    near: int

    def __str__(self) -> str:
        tensor = self.tensor
        is_nan = self.overflowed and not self.largest >= FORMATS[tensor.format].overflows_at
        extreme = "contains NaN" if is_nan else f"reaches {self.largest:.4g}"
        return f"'{tensor.name}' ({tensor.role}, {tensor.operator}) {extreme}"


@dataclass(frozen=True, slots=True)
class RangeReport:
    """All half tensors of a run, in order of computation."""

    tensors: tuple[TensorRange, ...]

    @property
    def overflowed(self) -> tuple[TensorRange, ...]:
        """Tensors with values beyond their format, the first cause first."""
        return tuple(t for t in self.tensors if t.overflowed)

    def of_format(self, half: HalfFormat) -> RangeReport:
        """The tensors of one format; NMS uses FP16 at every precision of the network."""
        return RangeReport(tuple(t for t in self.tensors if t.tensor.format == half.name))

    @property
    def nearest(self) -> TensorRange:
        """The tensor closest to its format's limit.

        Raises:
            ArtifactError: the report is empty.
        """
        return self._max(lambda t: t.largest / t.tensor.largest)

    @property
    def most_subnormal(self) -> TensorRange:
        """The tensor with the largest fraction of subnormal values.

        Raises:
            ArtifactError: the report is empty.
        """
        return self._max(lambda t: t.subnormal / max(t.size, 1))

    def _max(self, key: Callable[[TensorRange], float]) -> TensorRange:
        if not self.tensors:
            raise ArtifactError(
                "ranges: no half tensor was measured; expected a run of a file in half precision "
                "with ranges=True"
            )
        return max(self.tensors, key=key)

    def __str__(self) -> str:
        if not self.tensors:
            return "no half tensor was measured"
        top, low = self.nearest, self.most_subnormal
        title = FORMATS[top.tensor.format].title
        return (
            f"{len(self.tensors)} half tensors · closest to {title}'s {top.tensor.largest:.5g}: "
            f"{top} · {sum(t.near for t in self.tensors)} values within a factor of two of it · "
            f"most subnormal: '{low.tensor.name}', {100 * low.subnormal / max(low.size, 1):.2g} %"
        )


def refuse_overflow(ranges: RangeReport, half: HalfFormat, photo: str, remedy: str) -> None:
    """Raise if a tensor exceeds its format.

    Args:
        ranges: of a run.
        half: the format.
        photo: name of the photo, for the message.
        remedy: for the message.

    Raises:
        ExportError: names the first such tensor.
    """
    beyond = ranges.overflowed
    if not beyond:
        return
    others = f" and {len(beyond) - 1} tensors after it" if len(beyond) > 1 else ""
    raise ExportError(
        f"{half.title} overflows on {photo}: {beyond[0]}{others}, the limit is {half.largest:.5g}; "
        f"{remedy}; no file was written"
    )


def write_statistics(emit: Emit, constant: Constant, magnitude: str, half: HalfFormat) -> list[str]:
    """Emit nodes for the five values of a `TensorRange`, each float32 [1].

    Args:
        emit: adds one node, `emit(op, *inputs, **attributes)`, and returns its output.
        constant: adds a constant.
        magnitude: |x| of the tensor.
        half: the tensor's format.
    """

    def number(value: float) -> str:
        return constant(np.array(value, np.float32))

    def count(condition: str) -> str:
        return emit("ReduceSum", emit("Cast", condition, to=1), keepdims=0)

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
    """The report from [T * 5] values, five for each tensor."""
    rows = numbers.astype(np.float64).reshape(-1, STATISTICS)
    return RangeReport(
        tuple(
            TensorRange(tensor, int(row[0]), float(row[1]), *(round(float(n)) for n in row[2:]))
            for tensor, row in zip(tensors, rows, strict=True)
        )
    )
