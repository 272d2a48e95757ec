"""Small results, their corruptions and a trace without near ties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.spec import (
    BoxHeadSpec,
    ClassSpec,
    MaskHeadSpec,
    ModelSpec,
    PoolerSpec,
    ResNetSpec,
    RpnSpec,
)
from runtime.compare.attribution import EagerTrace
from runtime.detections import Detections

SIDE = 8
IMAGE_HW = (240, 320)
SPEC = ModelSpec(
    dialect="torchvision",
    architecture="test",
    body=ResNetSpec((1, 1, 1, 1), "basic", 8, (8, 8, 8, 8), (8, 8, 8, 8)),
    classes=ClassSpec(tuple(f"class {label}" for label in range(10))),
    rpn=RpnSpec(pre_nms=50, post_nms=20),
    box=BoxHeadSpec(detections=10),
    mask=MaskHeadSpec(pooler=PoolerSpec(output_size=SIDE // 2)),
)


def detections(
    boxes: ArrayLike,
    scores: Sequence[float],
    labels: Sequence[int],
    mask_probs: NDArray[np.float32] | None = None,
    image_hw: tuple[int, int] = IMAGE_HW,
) -> Detections:
    """A result of any rows, zero included."""
    return Detections(
        boxes=np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
        scores=np.asarray(scores, dtype=np.float32),
        labels=np.asarray(labels, dtype=np.int64),
        names=tuple(f"class {label}" for label in labels),
        mask_probs=mask_probs,
        image_hw=image_hw,
    )


def rows_of(result: Detections, rows: Sequence[int] | NDArray[np.int64]) -> Detections:
    """The named rows in the given order; a row may come twice."""
    return result.take(np.asarray(rows, dtype=np.int64))


def scene(seed: int = 0, with_masks: bool = True) -> Detections:
    """Twelve boxes on a grid, apart from each other, of three classes, with lopsided masks."""
    rng = np.random.default_rng(seed)
    corner = np.stack(np.meshgrid(np.arange(4) * 80.0, np.arange(3) * 80.0), axis=-1).reshape(-1, 2)
    low = corner + rng.uniform(2, 8, (12, 2))
    boxes = np.concatenate((low, low + rng.uniform(40, 60, (12, 2))), axis=1)
    ramp = np.linspace(0.95, 0.03, SIDE, dtype=np.float32)
    probs = np.broadcast_to(ramp, (12, SIDE, SIDE)).copy()
    scores = np.linspace(0.95, 0.35, 12)
    return detections(boxes, list(scores), [1, 2, 3] * 4, probs if with_masks else None)


def benign_trace(result: Detections, spec: ModelSpec = SPEC) -> EagerTrace:
    """A run that led to `result` without near ties; the canvas is the image."""
    return EagerTrace(
        spec=replace(spec, box=replace(spec.box, detections=100)),
        canvas_scale_xy=(1.0, 1.0),
        rpn_boxes=result.boxes,
        rpn_scores=np.linspace(0.9, 0.5, len(result), dtype=np.float32),
        rpn_levels=np.zeros(len(result), dtype=np.int64),
        proposals=result.boxes,
        candidate_boxes=result.boxes,
        candidate_scores=result.scores,
        candidate_labels=result.labels,
        rpn_kept=np.ones(len(result), dtype=np.bool_),
    )


def shifted(result: Detections, row: int = 4, by_px: float = 0.05) -> Detections:
    """One box moved to the right."""
    boxes = result.boxes.copy()
    boxes[row, [0, 2]] += by_px
    return replace(result, boxes=boxes)


def relabelled(result: Detections, row: int = 4) -> Detections:
    """One row of another class."""
    labels = result.labels.copy()
    labels[row] += 1
    return replace(result, labels=labels)


def dropped(result: Detections, row: int = 4) -> Detections:
    """One row fewer."""
    return rows_of(result, [other for other in range(len(result)) if other != row])


def added(result: Detections, row: int = 4) -> Detections:
    """One row twice, the second one smaller."""
    more = rows_of(result, [*range(len(result)), row])
    boxes = more.boxes.copy()
    boxes[-1, 2:] -= 10
    return replace(more, boxes=boxes)


def flipped(result: Detections, row: int = 4) -> Detections:
    """One mask mirrored."""
    if result.mask_probs is None:
        raise ValueError("flipped: expected a result with masks")
    probs = result.mask_probs.copy()
    probs[row] = probs[row, :, ::-1]
    return replace(result, mask_probs=probs)
