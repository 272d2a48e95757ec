"""The 8-bit formats: how many steps, how numbers become codes, which operator set knows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.precision.formats import FP16
from model.arrays import Float32

# FP8, and scales in half precision.
_OPSET = 19
_MANY_LEVELS = 2**15


@dataclass(frozen=True, slots=True)
class Format:
    """An 8-bit code of activations and weights, symmetric about zero.

    `levels` is the magnitude of the largest code of activations: a scale is a range divided by it;
    `weight_levels` is that of weights.
    """

    name: str
    type: ir.DataType
    dtype: np.dtype[np.generic]
    levels: int
    weight_levels: int

    @property
    def is_integer(self) -> bool:
        """Whether codes are evenly spaced."""
        return self.type == ir.DataType.INT8

    def largest(self, ranges: Callable[[str, int], float], tensor: str) -> float:
        """The magnitude that the largest code stands for.

        Integers trade clipping against coarser steps, which is what an observer does. Floats have
        fine steps about zero whatever the range, so theirs is the one of twice as many bits.
        """
        return ranges(tensor, self.levels if self.is_integer else _MANY_LEVELS)

    def zero(self, shape: tuple[int, ...] = ()) -> npt.NDArray[np.generic]:
        """Zero points."""
        return np.zeros(shape, self.dtype)

    def weight_codes(self, numbers: Float32) -> npt.NDArray[np.generic]:
        """Weights in units of the scale, to the nearest code, ties to even, saturating."""
        clipped = np.clip(numbers, -self.weight_levels, self.weight_levels)
        return (np.rint(clipped) if self.is_integer else clipped).astype(self.dtype)

    def require_opset(self, model: ir.Model) -> None:
        """Declare operator set 19 where the graph needs it; our operators mean the same there."""
        halves = any(v.dtype == FP16.type for n in model.graph for v in n.outputs)
        if (halves or not self.is_integer) and model.graph.opset_imports[""] < _OPSET:
            model.graph.opset_imports[""] = _OPSET
            model.ir_version = max(model.ir_version, 9)


INT8 = Format("int8", ir.DataType.INT8, np.dtype(np.int8), 127, 127)
# Two products of an unsigned 8-bit code and such a weight fit 16 bits; see `calib.rounding.vnni`.
INT8_REDUCED = replace(INT8, weight_levels=64)
# E4M3 without infinities: 4 bits of exponent, 3 of mantissa.
FP8 = Format("fp8", ir.DataType.FLOAT8E4M3FN, np.dtype(ml_dtypes.float8_e4m3fn), 448, 448)
FORMATS = {one.name: one for one in (INT8, FP8)}
