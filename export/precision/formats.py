"""The two half precision formats, and the loss of rounding a weight."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from model.errors import ExportError

Numbers = npt.NDArray[np.floating]
# Rounding loses 2^-12 of a tensor in FP16 and 2^-9 in BF16. Ten times the latter cannot come from
# rounding, only from values outside the format's range.
_MAX_LOSS = 10 * 2.0**-9


@dataclass(frozen=True, slots=True)
class HalfFormat:
    """A floating-point format of 16 bits.

    `significant_bits` includes the leading one; the exponents are those of the smallest normal
    and the largest number.
    """

    name: str
    title: str
    type: ir.DataType
    numpy_type: np.dtype[np.generic]
    significant_bits: int
    least_exponent: int
    most_exponent: int

    @property
    def smallest_normal(self) -> float:
        """The smallest normal number."""
        return 2.0**self.least_exponent

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return (2 - 2.0 ** (1 - self.significant_bits)) * 2.0**self.most_exponent

    @property
    def overflows_at(self) -> float:
        """The smallest number that rounds to infinity."""
        return (2 - 2.0**-self.significant_bits) * 2.0**self.most_exponent


FP16 = HalfFormat("fp16", "FP16", ir.DataType.FLOAT16, np.dtype(np.float16), 11, -14, 15)
BF16 = HalfFormat("bf16", "BF16", ir.DataType.BFLOAT16, np.dtype(ml_dtypes.bfloat16), 8, -126, 127)
FORMATS = {half.name: half for half in (FP16, BF16)}
PRECISIONS = ("fp32", *FORMATS)


def round_weight(name: str, values: Numbers, half: HalfFormat) -> tuple[Numbers, float]:
    """A weight in half precision, and the lost fraction of its norm.

    Raises:
        ExportError: a finite value exceeds the format's largest.
    """
    with np.errstate(over="ignore"):
        rounded = values.astype(half.numpy_type)
    back = rounded.astype(np.float64)
    beyond = np.isfinite(values) & ~np.isfinite(back)
    if beyond.any():
        worst = np.abs(values[beyond]).max()
        raise ExportError(
            f"weight '{name}': {np.count_nonzero(beyond)} of {values.size} values (up to "
            f"{worst:g}) exceed {half.largest:g}, the largest number of {half.title}; export with "
            f"--precision {'bf16 or fp32' if half is FP16 else 'fp32'}"
        )
    finite = np.isfinite(values)
    exact = np.where(finite, values, 0.0).astype(np.float64)
    norm = float(np.linalg.norm(exact))
    lost = float(np.linalg.norm(np.where(finite, back, 0.0) - exact))
    return rounded, lost / norm if norm > 0 else 0.0


def is_lost(fraction: float) -> bool:
    """Whether a weight loses more than rounding explains."""
    return fraction > _MAX_LOSS
