"""Round float32 values to a half precision format by float32 arithmetic, in ONNX nodes.

Casts cannot be used: ONNX Runtime removes casts to types without kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from export.precision.formats import FP16, HalfFormat

_FLOAT32_BITS = 24
# p = x times this, minus p times `_BELOW_ONE`, is the power of two at or below x.
_TWO_TO_23_AND_1 = 2.0**23 + 1
_BELOW_ONE = 1 - 2.0**-24
# Larger values are not rounded: FP16 overflows earlier; in BF16 the sum below would overflow, but
# no working network has such activations.
_CAP = {"fp16": 2.0**17, "bf16": 2.0**100}
# FP16: 65536 times this is beyond float32, 65504 times this is not.
_OVERFLOW = 2.0**112

Emit = Callable[..., str]
Constant = Callable[[npt.NDArray[Any]], str]


def write_rounding(emit: Emit, constant: Constant, x: str, half: HalfFormat) -> tuple[str, str]:
    """Emit nodes that round a tensor to the format's nearest numbers, ties to even.

    1. Compute the power of two at or below |x|, by float32 rounding.
    2. Add and subtract a number at whose scale float32's last bit is the format's: this rounds. The
       scale is at least that of the smallest normal number, which gives the subnormals.
    3. FP16: a result of 65536 or more becomes infinite, by float32 overflow.

    NaN and infinities stay; the sign of a zero is lost. BF16: exact below 2^100.

    Args:
        emit: adds one node, `emit(op, *inputs, **attributes)`, and returns its output.
        constant: adds a constant.
        x: the tensor.
        half: the format.

    Returns:
        |x| and the rounded tensor.

    Source: Rump, "Error estimation of floating-point summation and dot product", algorithm 3.5,
    for the power of two.
    """

    def number(value: float) -> str:
        return constant(np.array(value, np.float32))

    scale = 1.5 * 2.0 ** (_FLOAT32_BITS - half.significant_bits)
    magnitude = emit("Abs", x)
    capped = emit("Min", magnitude, number(_CAP[half.name]))
    product = emit("Mul", capped, number(_TWO_TO_23_AND_1))
    power = emit("Sub", product, emit("Mul", product, number(_BELOW_ONE)))
    least = number(scale * half.smallest_normal)
    shift = emit("Max", emit("Mul", power, number(scale)), least)
    rounded = emit("Sub", emit("Add", x, shift), shift)
    if half is FP16:
        raised = emit("Mul", rounded, number(_OVERFLOW))
        rounded = emit("Mul", raised, number(1 / _OVERFLOW))
    return magnitude, rounded
