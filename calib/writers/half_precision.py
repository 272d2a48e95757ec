"""FP16 for the layers that stay in floating point."""

from __future__ import annotations

import onnx_ir as ir

from export.passes.half_precision import half_precision
from export.precision.formats import FORMATS


def to_fp16(model: ir.Model) -> None:
    """Convert the graph in place, as `export --precision fp16` does; Q/DQ pairs are written later.

    Raises:
        ExportError: a weight exceeds FP16.
    """
    half_precision(model, FORMATS["fp16"])
