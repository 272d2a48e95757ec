"""Network outputs in canvas pixels to each frame's pixels, on the device.

The arithmetic is that of `runtime.postprocessing.from_raw`, with a mask in place of removed rows.

Legend: N frames, D rows of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.spec import ModelSpec
from runtime.device.detections import DeviceDetections
from runtime.device.keypoints import decode_on_device
from runtime.device.library import Array, count_rows, zero_unless
from runtime.device.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Placements:
    """Size, resized size, and first row and column on the canvas of each frame, in pixels."""

    frames_hw: tuple[tuple[int, int], ...]
    resized_hw: tuple[tuple[int, int], ...]
    origins_yx: tuple[tuple[int, int], ...]


def to_frames(
    outputs: Mapping[str, Array], spec: ModelSpec, placements: Placements, workspace: Workspace
) -> DeviceDetections:
    """Convert the outputs of a batch to the frames' pixels.

    Args:
        outputs: the graph's outputs by name; batch rows beyond the frames are padding.
        spec: of the model.
        placements: of the frames.
        workspace: caches the tables.
    """
    xp, count = workspace.library.xp, len(placements.frames_hw)
    outputs = {name: value[:count, ...] for name, value in outputs.items()}
    masks, scores = outputs.get("masks"), outputs["scores"]
    maps = outputs.get("keypoint_heatmaps")
    boxes = _boxes(outputs["boxes"], spec, placements, workspace)
    row = xp.arange(scores.shape[1], dtype=xp.int32, device=workspace.device)
    present = row[None, :] < outputs["counts"][:, None]
    finite = _finite(xp, [boxes, scores[..., None], masks, maps])
    valid = present & finite
    if spec.box.to_image == "clip":
        boxes = _clipped(xp, boxes, placements, workspace)
    if spec.box.to_image != "scale":
        valid = valid & (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])

    def cleared(values: Array | None) -> Array | None:
        return None if values is None else zero_unless(xp, valid, values)

    return DeviceDetections(
        boxes=cleared(boxes),
        scores=cleared(scores),
        labels=cleared(outputs["labels"]),
        valid=valid,
        counts=count_rows(xp, valid),
        masks=cleared(masks),
        keypoints=cleared(_keypoints(outputs, valid, spec, placements, workspace)),
        dropped=count_rows(xp, present & ~finite),
        **{name: xp.astype(outputs[name], xp.int32, copy=True) for name in _DIAGNOSTICS},
        frames_hw=placements.frames_hw,
        spec=spec,
        library=workspace.library,
    )


_DIAGNOSTICS = ("nms_open", "candidates_cut", "samples_cut")


def _boxes(boxes: Array, spec: ModelSpec, placements: Placements, workspace: Workspace) -> Array:
    """Scale canvas boxes to each frame, or map corner to corner and round to whole pixels."""
    xp = workspace.library.xp
    if spec.box.to_image != "round":
        origin, ratio = workspace.tables(("scale", placements), lambda: _scale_tables(placements))
        return (boxes - origin) * ratio
    origin, last_resized, last, more = workspace.tables(
        ("round", placements), lambda: _round_tables(placements)
    )
    inside = (xp.astype(boxes, xp.float64) - origin) / last_resized
    return xp.astype(xp.round(inside * last + more), xp.float32)


def _scale_tables(placements: Placements) -> list[npt.NDArray[Any]]:
    """float32 [N, 1, 4] each."""
    ratio = np.divide(placements.frames_hw, placements.resized_hw, dtype=np.float32)
    return [_xyxy(np.array(placements.origins_yx, np.float32)), _xyxy(ratio)]


def _round_tables(placements: Placements) -> list[npt.NDArray[Any]]:
    """Float64 [N, 1, 4] each; the last pixel is side - 1."""
    return [
        _xyxy(np.array(placements.origins_yx, np.float64)),
        _xyxy(np.subtract(placements.resized_hw, 1.0)),
        _xyxy(np.subtract(placements.frames_hw, 1.0)),
        np.array([[[0.0, 0.0, 1.0, 1.0]]]),
    ]


def _xyxy(pairs_yx: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(pairs_yx[:, None, [1, 0, 1, 0]])


def _clipped(xp: Any, boxes: Array, placements: Placements, workspace: Workspace) -> Array:
    (limit,) = workspace.tables(
        ("limit", placements.frames_hw), lambda: [_xyxy(np.array(placements.frames_hw, np.float32))]
    )
    return xp.minimum(xp.maximum(boxes, xp.zeros_like(limit)), limit)


def _finite(xp: Any, parts: list[Array | None]) -> Array:
    """Rows without a NaN or an infinity in any part, bool [N, D]."""
    finite = None
    for part in parts:
        if part is not None:
            rows = xp.all(xp.isfinite(part), axis=tuple(range(2, len(part.shape))))
            finite = rows if finite is None else finite & rows
    return finite


def _keypoints(
    outputs: Mapping[str, Array],
    valid: Array,
    spec: ModelSpec,
    placements: Placements,
    workspace: Workspace,
) -> Array | None:
    """float32 [N, D, J, 3] in each frame's pixels."""
    maps, head, xp = outputs.get("keypoint_heatmaps"), spec.keypoint, workspace.library.xp
    if maps is None or head is None:
        return None
    boxes = zero_unless(xp, valid, outputs["boxes"])
    # No box leaves its resized frame.
    most_hw = (
        max(hw[0] for hw in placements.resized_hw),
        max(hw[1] for hw in placements.resized_hw),
    )
    flat_maps = xp.reshape(maps, (-1, *maps.shape[2:]))
    keypoints = decode_on_device(xp, flat_maps, xp.reshape(boxes, (-1, 4)), most_hw, head.score)
    keypoints = xp.reshape(keypoints, (*valid.shape, *keypoints.shape[1:]))
    (ratio,) = workspace.tables(("keypoints", placements), lambda: [_keypoint_ratio(placements)])
    return keypoints * ratio


def _keypoint_ratio(placements: Placements) -> npt.NDArray[Any]:
    """float32 [N, 1, 1, 3]; the score's ratio is 1."""
    ratio = np.divide(placements.frames_hw, placements.resized_hw, dtype=np.float32)[:, ::-1]
    return np.concatenate([ratio, np.ones((len(ratio), 1), np.float32)], axis=1)[:, None, None]
