"""Checks of a session's outputs against the spec, before postprocessing.

A damaged or edited graph may still run and return arrays of other shapes or types.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.errors import ArtifactError
from runtime.sessions.session import Outputs

if TYPE_CHECKING:
    from model.spec import ModelSpec

_COUNTERS = ("counts", "nms_open", "candidates_cut", "samples_cut")
_HEADS = ("masks", "keypoint_heatmaps")


def check_outputs(outputs: Outputs, spec: ModelSpec, images: int, path: Path) -> None:
    """Compare names, dtypes, shapes and counts with `model.mask_rcnn.Outputs`.

    Values are checked later: rows with a NaN or an infinity are dropped and counted.

    Args:
        outputs: of a session.
        spec: of its model.
        images: rows of the batch, padding rows included.
        path: for the message.

    Raises:
        ArtifactError: an output is missing, unexpected, or of another dtype or shape.
    """
    boxes = outputs.get("boxes")
    rows = boxes.shape[1] if boxes is not None and boxes.ndim == 3 else 0
    expected = _expected(spec, images, rows)
    for name, (dtype, shape) in expected.items():
        output = outputs.get(name)
        if output is None:
            raise _mismatch(path, f"expected '{name}', got {', '.join(outputs) or 'nothing'}")
        is_match = output.dtype == np.float32 if dtype == "float32" else output.dtype.kind == "i"
        if not is_match or output.shape != shape:
            got = f"{output.dtype} {list(output.shape)}"
            raise _mismatch(path, f"expected '{name}' as {dtype} {list(shape)}, got {got}")
    for name in _HEADS:
        if name in outputs and name not in expected:
            raise _mismatch(path, f"expected no '{name}', the spec has no such head")
    for name in _COUNTERS:
        low, high = int(outputs[name].min()), int(outputs[name].max())
        if low < 0 or (name == "counts" and high > rows):
            most = f"0 to {rows}" if name == "counts" else "0 or more"
            raise _mismatch(path, f"expected {name} {most}, got {low if low < 0 else high}")


def _expected(spec: ModelSpec, images: int, rows: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of every output."""
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "boxes": ("float32", (images, rows, 4)),
        "scores": ("float32", (images, rows)),
        "labels": ("integer", (images, rows)),
        **{name: ("integer", (images,)) for name in _COUNTERS},
    }
    if spec.mask is not None:
        expected["masks"] = ("float32", (images, rows, spec.mask_side, spec.mask_side))
    if spec.keypoint is not None:
        keypoints, side = len(spec.keypoint.names), spec.keypoint.side
        expected["keypoint_heatmaps"] = ("float32", (images, rows, keypoints, side, side))
    return expected


def _mismatch(path: Path, problem: str) -> ArtifactError:
    return ArtifactError(
        f"{path}: network output: {problem}; graph and spec do not match, export the model again"
    )
