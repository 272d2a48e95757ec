"""Round float32 numbers to a half precision format by plain float32 arithmetic, in ONNX nodes.

A cast would do, if it stayed: ONNX Runtime removes casts to types that it has no kernels for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from export.precision.formats import FP16, HalfFormat

_FLOAT32_BITS = 24
# x times this, less its own largest part below one, is the power of two below x.
_TWO_TO_23_AND_1 = 2.0**23 + 1
_BELOW_ONE = 1 - 2.0**-24
# Beyond these nothing is rounded: FP16 overflows earlier; BF16's numbers would make the sum below
# overflow, and are no activations of a working network.
_CAP = {"fp16": 2.0**17, "bf16": 2.0**100}
# FP16: 65536 times this is beyond float32, 65504 times this is not.
_OVERFLOW = 2.0**112

Emit = Callable[..., str]
Constant = Callable[[npt.NDArray[Any]], str]


def write_rounding(emit: Emit, constant: Constant, x: str, half: HalfFormat) -> tuple[str, str]:
    """Write the nodes that round a tensor to the format's nearest numbers, ties to even.

    1. The power of two at or below |x|, by the rounding of float32 itself.
    2. At the scale where float32's last bit is the format's, adding and subtracting rounds; the
       scale never falls below that of the smallest normal number, which gives the subnormals.
    3. FP16: what rounds to 65536 or more becomes infinite, through float32's own overflow.

    NaN stays NaN, infinities stay; the sign of a zero is lost. BF16: exact below 2^100.

    Args:
        emit: writes one node, `emit(op, *inputs, **attributes)`, and answers its output.
        constant: writes a constant.
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
