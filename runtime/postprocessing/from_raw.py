"""From one image's network outputs to `Detections` in original-image pixels.

Module legend: D detections, M side of a mask, J keypoints, S side of a heat map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from model.arrays import Bool, Float32, Int32, Int64
from model.errors import ArtifactError
from runtime.boxes import clipped
from runtime.detections import Detections
from runtime.postprocessing.keypoints import decode
from runtime.sessions.session import Outputs

if TYPE_CHECKING:
    from model.spec import ClassSpec, KeypointHeadSpec, ModelSpec


@dataclass(frozen=True, slots=True, eq=False)
class RawDetections:
    """One image's network output without its padding rows, in canvas pixels.

    Attributes:
        boxes: float32 [D, 4] xyxy.
        scores: float32 [D].
        labels: int32 [D].
        masks: float32 [D, M, M] probabilities, or None for a box-only model.
        nms_open: Boxes that the graph's NMS left undecided; 0 certifies exact greedy NMS.
        candidates_cut: Candidates cut before NMS that may have changed the result.
        keypoint_heatmaps: float32 [D, J, S, S] logits, or None for a model without keypoints.
        samples_cut: RoIs that were pooled with fewer samples than they need.
    """

    boxes: Float32
    scores: Float32
    labels: Int32
    masks: Float32 | None
    nms_open: int
    candidates_cut: int
    keypoint_heatmaps: Float32 | None = None
    samples_cut: int = 0


def raw_rows(outputs: Outputs, row: int) -> RawDetections:
    """One image's rows out of a session's outputs."""
    count = int(outputs["counts"][row])
    masks, heatmaps = outputs.get("masks"), outputs.get("keypoint_heatmaps")
    return RawDetections(
        boxes=outputs["boxes"][row, :count],
        scores=outputs["scores"][row, :count],
        labels=outputs["labels"][row, :count],
        masks=None if masks is None else masks[row, :count],
        nms_open=int(outputs["nms_open"][row]),
        candidates_cut=int(outputs["candidates_cut"][row]),
        keypoint_heatmaps=None if heatmaps is None else heatmaps[row, :count],
        samples_cut=int(outputs["samples_cut"][row]),
    )


def from_raw(
    raw: RawDetections,
    spec: ModelSpec,
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
    origin_yx: tuple[int, int] = (0, 0),
) -> Detections:
    """Rescale one image's network output to the original image, as the eager model does.

    Boxes are scaled by the ratio of the sizes in float32 (torchvision's `resize_boxes`); then
    clipped to the image ("clip", detectron2's `detector_postprocess`); or scaled corner to corner
    and rounded ("round", Matterport's `unmold_detections`). The latter two remove empty boxes.
    Keypoints are decoded on the canvas and scaled alike, never clipped. Rows with a NaN or an
    infinity are removed and counted.

    Args:
        raw: Canvas pixels; heads as the spec has them (`runtime.postprocessing.output_checks`).
        spec: The model that produced them.
        image_hw: Height and width of the original image.
        resized_hw: Height and width of the resized image on the canvas, without its padding.
        origin_yx: Its first row and column there.

    Returns:
        Detections in original-image pixels, rows in the network's order.

    Raises:
        ArtifactError: A label has no class name, or a score or a mask is no probability.
    """
    from model.spec import MaskHeadSpec

    rule = spec.mask or MaskHeadSpec()
    boxes = boxes_to_image(raw.boxes, spec.box.to_image, image_hw, resized_hw, origin_yx)
    finite = keep = _finite_rows(boxes, raw)
    if spec.box.to_image == "clip":
        boxes = clipped(boxes, image_hw)
    if spec.box.to_image != "scale":
        keep = finite & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    labels = raw.labels[keep].astype(np.int64)
    first_class = int(spec.box.background == "first")
    names = _names(labels, spec.classes, first_class)
    try:
        return Detections(
            boxes=boxes[keep],
            scores=raw.scores[keep],
            labels=labels,
            names=names,
            mask_probs=None if raw.masks is None else raw.masks[keep],
            image_hw=image_hw,
            paste=rule.paste,
            mask_threshold=rule.threshold,
            mask_threshold_inclusive=rule.threshold_inclusive,
            exact=raw.nms_open == raw.candidates_cut == raw.samples_cut == 0,
            dropped=int(np.count_nonzero(~finite)),
            keypoints=_keypoints(raw, keep, spec, image_hw, resized_hw),
            keypoint_names=() if spec.keypoint is None else spec.keypoint.names,
            dataset_ids=np.array([spec.classes.dataset_id(k) for k in labels.tolist()], np.int64),
            first_class=first_class,
            class_names=spec.classes.names[first_class:],
        )
    except ValueError as error:
        raise ArtifactError(
            f"network output: {error}; the file is damaged or not maskport's, export the model "
            "again"
        ) from error


def _keypoints(
    raw: RawDetections,
    keep: Bool,
    spec: ModelSpec,
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
) -> Float32 | None:
    if raw.keypoint_heatmaps is None or spec.keypoint is None:
        return None
    maps, boxes = raw.keypoint_heatmaps[keep], raw.boxes[keep]
    return keypoints_to_image(maps, boxes, spec.keypoint, image_hw, resized_hw)


def _finite_rows(boxes: Float32, raw: RawDetections) -> Bool:
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(raw.scores)
    if raw.masks is not None:
        finite &= np.isfinite(raw.masks).all(axis=(1, 2))
    if raw.keypoint_heatmaps is not None:
        finite &= np.isfinite(raw.keypoint_heatmaps).all(axis=(1, 2, 3))
    return finite


def _names(labels: Int64, classes: ClassSpec, first_class: int) -> tuple[str, ...]:
    last = len(classes.names) - 1
    unknown = labels[(labels < first_class) | (labels > last)]
    if unknown.size:
        raise ArtifactError(
            f"network output: expected labels {first_class} to {last}, got {int(unknown[0])}; "
            "graph and spec do not match, export the model again"
        )
    return tuple(classes.names[label] for label in labels)


def boxes_to_image(
    boxes_xyxy: Float32,
    rule: Literal["scale", "clip", "round"],
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
    origin_yx: tuple[int, int],
) -> Float32:
    """Boxes in original-image pixels; one that overflows float32 becomes infinite or NaN.

    Args:
        boxes_xyxy: float32 [D, 4], canvas pixels.
        rule: `model.spec.BoxHeadSpec.to_image`; clipping comes later, because it would make an
            infinity finite.
        image_hw: Height and width of the original image.
        resized_hw: Height and width of the resized image on the canvas, without its padding.
        origin_yx: Its first row and column there.

    Returns:
        float32 [D, 4].
    """
    if rule == "round":
        return _rounded(boxes_xyxy, image_hw, resized_hw, origin_yx)
    return _scaled(boxes_xyxy, image_hw, resized_hw, origin_yx)


def keypoints_to_image(
    heatmaps: Float32,
    boxes_xyxy: Float32,
    head: KeypointHeadSpec,
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
) -> Float32:
    """Decode on the canvas and scale; never clipped.

    Args:
        heatmaps: float32 [D, J, S, S] logits, finite.
        boxes_xyxy: float32 [D, 4], canvas pixels, finite.
        head: For the type of score.
        image_hw: Height and width of the original image.
        resized_hw: Height and width of the resized image on the canvas.

    Returns:
        float32 [D, J, 3], x, y and score, original-image pixels.
    """
    keypoints = decode(heatmaps, boxes_xyxy, head.score)
    ratio_hw = np.divide(image_hw, resized_hw, dtype=np.float32)
    keypoints[..., :2] *= ratio_hw[::-1]
    return keypoints


def _scaled(
    boxes_xyxy: Float32,
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
    origin_yx: tuple[int, int],
) -> Float32:
    ratio_hw = np.divide(image_hw, resized_hw, dtype=np.float32)
    origin = np.array(origin_yx, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return (boxes_xyxy - origin[[1, 0, 1, 0]]) * ratio_hw[[1, 0, 1, 0]]


def _rounded(
    boxes_xyxy: Float32,
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
    origin_yx: tuple[int, int],
) -> Float32:
    """Canvas boxes that end a pixel early to whole pixels of the image, halves to even.

    Corner pixels map to corner pixels, so sides are one less; the far edges regain their pixel.
    """
    axes = [1, 0, 1, 0]
    last, origin = np.subtract(image_hw, 1.0)[axes], np.array(origin_yx, np.float64)[axes]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        inside = (boxes_xyxy - origin) / np.subtract(resized_hw, 1.0)[axes]
        boxes: Float32 = np.around(inside * last + [0, 0, 1, 1]).astype(np.float32)
    return boxes
