"""Sessions for quantized graphs and files, with FP16 and BF16 under emulation.

On a CPU, ONNX Runtime would compute FP16 layers in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from calib.calibration.photos import Photo, canvases
from calib.calibration.tapped_session import TappedSession
from calib.context import RunContext
from export.passes.half_precision import half_precision
from export.passes.opset_22 import opset_22
from export.precision.formats import FORMATS, HalfFormat
from export.precision.ranges import RangeReport, refuse_overflow
from export.precision.session import EmulatedSession
from runtime.artifacts.metadata import to_metadata
from runtime.sessions.open import open_session
from runtime.sessions.session import Session

# Emulation takes some ten times as long as a run in float32.
PHOTOS = 4


def open_emulated(
    model: ir.Model, half: HalfFormat, context: RunContext, *, ranges: bool = False
) -> tuple[EmulatedSession, int]:
    """The graph as `export --precision` writes it, under the emulator, and its size in bytes.

    Args:
        model: float32; changed in place.
        half: FP16 or BF16.
        context: of the run.
        ranges: record the values of every half tensor.
    """
    half_precision(model, half)
    if half.name == "bf16":
        opset_22(model)
    manifest = replace(context.artifact.manifest, precision=half.name)
    model.metadata_props.update(to_metadata(context.artifact.spec, manifest))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{half.name}.onnx"
        ir.save(model, path)
        session = EmulatedSession(path, ranges=ranges, threads=context.threads)
        return session, path.stat().st_size


def fp16_ranges(model: ir.Model, photos: Sequence[Photo], context: RunContext) -> RangeReport:
    """The values of FP16 tensors on the first `PHOTOS` photos.

    Nothing is quantized: up to their noise, quantized layers have the same outputs.

    Args:
        model: float32, not changed.
        photos: usable ones.
        context: of the run.

    Raises:
        ExportError: names a tensor or a weight that does not fit FP16.
    """
    half = FORMATS["fp16"]
    session, _ = open_emulated(model.clone(), half, context, ranges=True)
    for batch, canvas in canvases(photos[:PHOTOS], context):
        session.run({"images": canvas.images, "image_hw": canvas.image_hw})
        names = ", ".join(photo.path.name for photo in batch)
        refuse_overflow(session.ranges, half, names, "quantize with --float-type fp32")
        context.advance(len(batch))
    ranges = session.ranges
    session.close()
    return ranges.of_format(half)


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
