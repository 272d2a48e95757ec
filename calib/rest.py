"""The layers that are not quantised, in half precision."""

from __future__ import annotations

import onnx_ir as ir

from export.passes.half_precision import half_precision
from export.precision.formats import FORMATS as HALVES


def half_rest(model: ir.Model) -> None:
    """Write the graph in FP16, as `--precision fp16` would; quantised layers are written after.

    Args:
        model: float32; changed in place.

    Raises:
        ExportError: a weight does not fit the format.
    """
    half_precision(model, HALVES["fp16"])
