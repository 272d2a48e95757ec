"""The fitted R50-FPN for the precision benchmarks: its export and its eager detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import photos
from calib.evaluation.measure import EvaluationPhotos
from export.onnx import export_onnx
from export.parity.torchvision_reference import TorchvisionEager
from model.checkpoint import SpecOptions
from runtime.cli.console import Bar
from runtime.sources.photos import decode

SHORT, LONG = 320, 533


def export_fitted(folder: Path) -> Path:
    """Export it in FP32."""
    path = folder / "r50.onnx"
    sizes = SpecOptions(short_side=SHORT, long_side=LONG)
    export_onnx(photos.fitted_weights(), path, sizes, check_photo=None)
    return path


def judges(
    *sets: tuple[Sequence[Path], Mapping[str, Any] | None],
) -> list[EvaluationPhotos]:
    """Detections of torchvision's eager model on sets of photos, each with labels or None."""
    checkpoint = photos.load_fitted(SHORT, LONG)
    eager = TorchvisionEager(checkpoint, None, photos.torchvision_model(checkpoint))
    evaluations = []
    for files, truth in sets:
        bar, detections = Bar(len(files), "photos, eager"), []
        for file in files:
            detections.append(eager.run(decode(file)).detections)
            bar.advance()
        evaluations.append(EvaluationPhotos(files, detections, checkpoint.spec, truth))  # type: ignore[arg-type]
    return evaluations
