"""Whether a session's answer is one of this model's, before anything is made of it.

A graph that was damaged or edited may still run, and answer in other shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.errors import ArtifactError
from runtime.sessions.session import Answer

if TYPE_CHECKING:
    from model.spec import ModelSpec

_COUNTERS = ("counts", "nms_open", "candidates_cut", "samples_cut")


def require_answer(answer: Answer, spec: ModelSpec, images: int, path: Path) -> None:
    """Compare names, types, shapes and counts with what `model.mask_rcnn.Outputs` promises.

    Values may be anything: rows that are not finite are dropped and counted later on.

    Args:
        answer: of a session.
        spec: of its model.
        images: rows of the batch, filling included.
        path: for the message.

    Raises:
        ArtifactError: an output is missing or is not what the spec says.
    """
    boxes = answer.get("boxes")
    rows = boxes.shape[1] if boxes is not None and boxes.ndim == 3 else 0
    for name, (kind, shape) in _expected(spec, images, rows).items():
        found = answer.get(name)
        if found is None:
            raise _foreign(path, f"expected '{name}', got {', '.join(answer) or 'nothing'}")
        is_kind = found.dtype == np.float32 if kind == "float32" else found.dtype.kind == "i"
        if not is_kind or found.shape != shape:
            raise _foreign(
                path,
                f"expected '{name}' as {kind} {list(shape)}, got {found.dtype} {list(found.shape)}",
            )
    for name in _COUNTERS:
        low, high = int(answer[name].min()), int(answer[name].max())
        if low < 0 or (name == "counts" and high > rows):
            most = f"0 to {rows}" if name == "counts" else "0 or more"
            raise _foreign(path, f"expected {name} {most}, got {low if low < 0 else high}")


def _expected(spec: ModelSpec, images: int, rows: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Kind and shape of every output."""
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "boxes": ("float32", (images, rows, 4)),
        "scores": ("float32", (images, rows)),
        "labels": ("integer", (images, rows)),
        **{name: ("integer", (images,)) for name in _COUNTERS},
    }
    if spec.mask is not None:
        expected["masks"] = ("float32", (images, rows, spec.mask_side, spec.mask_side))
    if spec.keypoint is not None:
        joints, side = len(spec.keypoint.names), spec.keypoint.side
        expected["keypoint_heatmaps"] = ("float32", (images, rows, joints, side, side))
    return expected


def _foreign(path: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"{path}: network output: {what}; graph and spec do not belong together, export the model "
        "again"
    )
