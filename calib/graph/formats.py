"""The 8-bit formats: number of levels, rounding to codes, required operator set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.precision.formats import FP16
from model.arrays import Float32
from model.errors import ArtifactError

# The largest magnitude that a tensor, by name, must represent with that many levels.
Ranges = Callable[[str, int], float]
# Levels of activations in int8 (signed) and uint8 (unsigned).
SIGNED_LEVELS, UNSIGNED_LEVELS = 127, 255
# Ranges that can be written. Below, the scale is subnormal; above, the largest bias, 2**30 steps,
# exceeds float32.
SMALLEST_RANGE, LARGEST_RANGE = 1e-30, 1e30
# The first with FP8, and with scales in half precision.
_OPSET = 19
_FLOAT_LEVELS = 2**15
_SMALLEST_FP16 = 2.0**-24
_LARGEST_FP16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class Format:
    """An 8-bit format of activations and weights, symmetric about zero.

    `levels` is the largest code of activations, `weight_levels` that of weights: a scale is a range
    divided by it.
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

    def largest(self, ranges: Ranges, tensor: str) -> float:
        """The magnitude that the largest code represents.

        For integers, the observer trades clipping against step size. Floats are fine near zero
        whatever the range, so theirs is chosen as for a code of 16 bits.
        """
        return ranges(tensor, self.levels if self.is_integer else _FLOAT_LEVELS)

    def zero(self, shape: tuple[int, ...] = ()) -> npt.NDArray[np.generic]:
        """Zero points."""
        return np.zeros(shape, self.dtype)

    def weight_codes(self, weights: Float32) -> npt.NDArray[np.generic]:
        """Weights, in units of the scale, to the nearest code: ties to even, saturating."""
        clipped = np.clip(weights, -self.weight_levels, self.weight_levels)
        return (np.rint(clipped) if self.is_integer else clipped).astype(self.dtype)

    def require_opset(self, model: ir.Model) -> None:
        """Raise the operator set to 19 where needed; the graph's operators are the same there."""
        has_fp16 = any(v.dtype == FP16.type for n in model.graph for v in n.outputs)
        if (has_fp16 or not self.is_integer) and model.graph.opset_imports[""] < _OPSET:
            model.graph.opset_imports[""] = _OPSET
            model.ir_version = max(model.ir_version, 9)


INT8 = Format("int8", ir.DataType.INT8, np.dtype(np.int8), 127, 127)
# Two products of a uint8 code and such a weight fit 16 bits; see `calib.rounding.vnni`.
INT8_REDUCED = replace(INT8, weight_levels=64)
# E4M3 without infinities: 4 bits of exponent, 3 of mantissa.
FP8 = Format("fp8", ir.DataType.FLOAT8E4M3FN, np.dtype(ml_dtypes.float8_e4m3fn), 448, 448)
FORMATS = {one.name: one for one in (INT8, FP8)}


def scales_in_dtype_of(value: ir.Value, scales: npt.ArrayLike) -> npt.NDArray[np.generic]:
    """Scales in the dtype of the tensor they scale, as QuantizeLinear and DequantizeLinear require.

    Raises:
        ArtifactError: a scale exceeds FP16, which happens only with an imported cache.
    """
    wide = np.asarray(scales, np.float32)
    if value.dtype != ir.DataType.FLOAT16:
        return wide
    if wide.max(initial=0.0) > _LARGEST_FP16:
        raise ArtifactError(
            f"tensor '{value.name}': a scale of {wide.max():.3g} exceeds FP16; use --float-type "
            "fp32"
        )
    return np.maximum(wide, _SMALLEST_FP16).astype(np.float16)
