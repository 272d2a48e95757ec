"""The fitted R50-FPN for the precision benchmarks: its FP32 file and its eager detections."""

from __future__ import annotations

from pathlib import Path

from bench import photos
from calib.evaluation.measure import Reference
from calib.evaluation.photos import EvaluationSet
from export.onnx import export_onnx
from export.parity.torchvision_reference import TorchvisionEager
from model.checkpoint import SpecOptions
from runtime.cli.console import Bar
from runtime.sources.photos import decode

SHORT, LONG = 320, 533


def export_fitted(folder: Path) -> Path:
    """Write its FP32 file."""
    path = folder / "r50.onnx"
    sizes = SpecOptions(short_side=SHORT, long_side=LONG)
    export_onnx(photos.fitted_weights(), path, sizes, check_photo=None)
    return path


def references(*sets: EvaluationSet) -> list[Reference]:
    """The detections of torchvision's eager model on sets of photos."""
    checkpoint = photos.load_fitted(SHORT, LONG)
    eager = TorchvisionEager(checkpoint, None, photos.torchvision_model(checkpoint))
    results = []
    for photo_set in sets:
        bar, detections = Bar(len(photo_set.paths), "photos, eager"), []
        for path in photo_set.paths:
            detections.append(eager.run(decode(path)).detections)
            bar.advance()
        results.append(Reference(photo_set, detections, checkpoint.spec))  # type: ignore[arg-type]
    return results
