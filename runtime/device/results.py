"""From a network's answer in canvas pixels to each frame's own, on the device.

The arithmetic is that of `runtime.postprocessing.from_raw`, a mask in place of removed rows.

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
from runtime.device.library import Array
from runtime.device.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Places:
    """Where frames stand on the canvas: their own sides, those there, their first row and column.

    A pair of pixels for each frame.
    """

    frames_hw: tuple[tuple[int, int], ...]
    resized_hw: tuple[tuple[int, int], ...]
    origins_yx: tuple[tuple[int, int], ...]


def to_frames(
    answer: Mapping[str, Array],
    spec: ModelSpec,
    places: Places,
    workspace: Workspace,
) -> DeviceDetections:
    """Bring an answer to the frames.

    Args:
        answer: the graph's outputs by name; rows of the batch beyond the frames are filling.
        spec: the model.
        places: of the frames.
        workspace: keeps the tables.
    """
    xp, count = workspace.library.xp, len(places.frames_hw)
    answer = {name: value[:count, ...] for name, value in answer.items()}
    masks, scores = answer.get("masks"), answer["scores"]
    maps = answer.get("keypoint_heatmaps")
    boxes = _boxes(answer["boxes"], spec, places, workspace)
    place = xp.arange(scores.shape[1], dtype=xp.int32, device=workspace.device)
    present = place[None, :] < answer["counts"][:, None]
    finite = _finite(xp, [boxes, scores[..., None], masks, maps])
    valid = present & finite
    if spec.box.to_image == "clip":
        boxes = _clipped(xp, boxes, places, workspace)
    if spec.box.to_image != "scale":
        valid = valid & (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])

    def cleared(values: Array | None) -> Array | None:
        return None if values is None else _cleared(xp, values, valid)

    return DeviceDetections(
        boxes=cleared(boxes),
        scores=cleared(scores),
        labels=cleared(answer["labels"]),
        valid=valid,
        counts=_count(xp, valid),
        masks=cleared(masks),
        keypoints=cleared(_keypoints(answer, valid, spec, places, workspace)),
        dropped=_count(xp, present & ~finite),
        **{name: xp.astype(answer[name], xp.int32, copy=True) for name in _DIAGNOSTICS},
        frames_hw=places.frames_hw,
        spec=spec,
        library=workspace.library,
    )


_DIAGNOSTICS = ("nms_open", "candidates_cut", "samples_cut")


def _boxes(boxes: Array, spec: ModelSpec, places: Places, workspace: Workspace) -> Array:
    """Canvas boxes scaled to each frame, or corner to corner and rounded to whole pixels."""
    xp = workspace.library.xp
    if spec.box.to_image != "round":
        origin, ratio = workspace.tables(("scale", places), lambda: _scale_tables(places))
        return (boxes - origin) * ratio
    origin, last_resized, last, more = workspace.tables(
        ("round", places), lambda: _round_tables(places)
    )
    inside = (xp.astype(boxes, xp.float64) - origin) / last_resized
    return xp.astype(xp.round(inside * last + more), xp.float32)


def _scale_tables(places: Places) -> list[npt.NDArray[Any]]:
    """Float32 [N, 1, 4] each."""
    ratio = np.divide(places.frames_hw, places.resized_hw, dtype=np.float32)
    return [_xyxy(np.array(places.origins_yx, np.float32)), _xyxy(ratio)]


def _round_tables(places: Places) -> list[npt.NDArray[Any]]:
    """Float64 [N, 1, 4] each; see `runtime.detections` for the pixel less and more."""
    return [
        _xyxy(np.array(places.origins_yx, np.float64)),
        _xyxy(np.subtract(places.resized_hw, 1.0)),
        _xyxy(np.subtract(places.frames_hw, 1.0)),
        np.array([[[0.0, 0.0, 1.0, 1.0]]]),
    ]


def _xyxy(pairs_yx: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(pairs_yx[:, None, [1, 0, 1, 0]])


def _clipped(xp: Any, boxes: Array, places: Places, workspace: Workspace) -> Array:
    (limit,) = workspace.tables(
        ("limit", places.frames_hw), lambda: [_xyxy(np.array(places.frames_hw, np.float32))]
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


def _cleared(xp: Any, values: Array, valid: Array) -> Array:
    """A copy with zeros in the rows that are not valid."""
    where = xp.reshape(valid, (*valid.shape, *(1,) * (len(values.shape) - 2)))
    return xp.where(where, values, xp.zeros_like(values))


def _count(xp: Any, rows: Array) -> Array:
    return xp.sum(xp.astype(rows, xp.int32), axis=1, dtype=xp.int32)


def _keypoints(
    answer: Mapping[str, Array],
    valid: Array,
    spec: ModelSpec,
    places: Places,
    workspace: Workspace,
) -> Array | None:
    """Float32 [N, D, J, 3] in each frame's pixels."""
    maps, head, xp = answer.get("keypoint_heatmaps"), spec.keypoint, workspace.library.xp
    if maps is None or head is None:
        return None
    boxes = _cleared(xp, answer["boxes"], valid)
    # No box leaves its resized frame.
    most_hw = (max(hw[0] for hw in places.resized_hw), max(hw[1] for hw in places.resized_hw))
    flat_maps = xp.reshape(maps, (-1, *maps.shape[2:]))
    found = decode_on_device(xp, flat_maps, xp.reshape(boxes, (-1, 4)), most_hw, head.score)
    found = xp.reshape(found, (*valid.shape, *found.shape[1:]))
    (ratio,) = workspace.tables(("keypoints", places), lambda: [_keypoint_ratio(places)])
    return found * ratio


def _keypoint_ratio(places: Places) -> npt.NDArray[Any]:
    """Float32 [N, 1, 1, 3]: a score stays what it is."""
    ratio = np.divide(places.frames_hw, places.resized_hw, dtype=np.float32)[:, ::-1]
    return np.concatenate([ratio, np.ones((len(ratio), 1), np.float32)], axis=1)[:, None, None]
