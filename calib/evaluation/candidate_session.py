"""Sessions for quantized graphs and files; FP16 layers are emulated.

On a CPU, ONNX Runtime would compute them in float32.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx_ir as ir

from calib.calibration.tapped_session import TappedSession
from calib.context import RunContext
from export.precision.session import EmulatedSession
from runtime.sessions.open import open_session
from runtime.sessions.session import Session


def open_graph(model: ir.Model, context: RunContext) -> Session:
    """A session on a graph of `Quantizer.quantized`."""
    if context.options.float_type == "fp32":
        return TappedSession(model, context.artifact, threads=context.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candidate.onnx"
        ir.save(model, path)
        return EmulatedSession(path, threads=context.threads)


def open_file(path: Path, context: RunContext) -> Session:
    """A session on a quantized file."""
    if context.options.float_type == "fp32":
        return open_session(path, None, context.threads)
    return EmulatedSession(path, threads=context.threads)
