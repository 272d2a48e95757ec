"""FP16 and BF16 under emulation, and whether the values of a graph fit FP16."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from calib.calibration.photos import Photo, canvases
from calib.context import RunContext
from export.passes.half_precision import half_precision
from export.passes.opset_22 import opset_22
from export.precision.formats import FORMATS, HalfFormat
from export.precision.ranges import RangeReport, refuse_overflow
from export.precision.session import EmulatedSession
from runtime.artifacts.metadata import to_metadata

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
