"""The layers that are not quantised, in half precision, and whether their numbers fit it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from calib.calibration.photos import Skipped, canvases
from export.passes.half_precision import half_precision
from export.passes.opset_22 import opset_22
from export.precision.formats import FORMATS as HALVES
from export.precision.formats import HalfFormat
from export.precision.ranges import RangeReport, refuse_overflow
from export.precision.session import EmulatedSession
from runtime.artifacts.metadata import Artifact, to_metadata

# Photos that ranges are looked at on: each takes some ten times as long as a run in float32.
PHOTOS = 4


def half_rest(model: ir.Model) -> None:
    """Write the graph in FP16, as `--precision fp16` would; quantised layers are written after.

    Args:
        model: float32; changed in place.

    Raises:
        ExportError: a weight does not fit the format.
    """
    half_precision(model, HALVES["fp16"])


def emulated_half(
    model: ir.Model,
    artifact: Artifact,
    half: HalfFormat,
    threads: int | None,
    *,
    ranges: bool = False,
) -> tuple[EmulatedSession, int]:
    """The graph as `export --precision` writes it, under the emulator, and its size in bytes.

    Args:
        model: float32; changed in place.
        artifact: its spec and manifest.
        half: FP16 or BF16.
        threads: of the CPU; None takes all cores.
        ranges: also note what every half tensor reaches.
    """
    half_precision(model, half)
    if half.name == "bf16":
        opset_22(model)
    manifest = replace(artifact.manifest, precision=half.name)
    model.metadata_props.update(to_metadata(artifact.spec, manifest))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{half.name}.onnx"
        ir.save(model, path)
        return EmulatedSession(path, ranges=ranges, threads=threads), path.stat().st_size


def ranges_of_the_rest(
    model: ir.Model,
    artifact: Artifact,
    photos: Sequence[Path],
    advance: Callable[[int], None],
    threads: int | None = None,
) -> RangeReport:
    """What the first `PHOTOS` photos do to FP16 tensors.

    Nothing is quantised in it: quantised layers answer the same tensors in FP16, to their noise.

    Args:
        model: float32, left as it is.
        artifact: its spec and manifest.
        photos: usable ones.
        advance: called with photos done.
        threads: of the CPU; None takes all cores.

    Raises:
        ExportError: a tensor or a weight does not fit FP16; it is named.
    """
    half = HALVES["fp16"]
    session, _ = emulated_half(model.clone(), artifact, half, threads, ranges=True)
    for paths, canvas in canvases(photos[:PHOTOS], artifact, Skipped()):
        session.run({"images": canvas.images, "image_hw": canvas.image_hw})
        names = ", ".join(path.name for path in paths)
        refuse_overflow(session.ranges, half, names, "quantize with --rest fp32")
        advance(len(paths))
    ranges = session.ranges
    session.close()
    return ranges.of_format(half)
