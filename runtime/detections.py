"""What a network found in one image: as it comes from the graph, and in original-image pixels.

Shape shorthand: D detections, M side of the network's square masks, J keypoints, S side of a heat
map, H x W the original image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike, NDArray

from model.errors import ArtifactError
from model.spec import ClassSpec, KeypointHeadSpec, MaskHeadSpec, ModelSpec, PasteRule
from runtime import rle
from runtime.keypoints import decode
from runtime.paste import MaskCrop, MaskRule, paste_crops
from runtime.runs import encode_pasted

if TYPE_CHECKING:
    from PIL import Image

    from runtime.selection import Selection

Float32Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class RawDetections:
    """One image's network output without its invalid rows, in canvas pixels.

    Attributes:
        boxes: float32 [D, 4] xyxy.
        scores: float32 [D].
        labels: int32 [D].
        masks: float32 [D, M, M] probabilities, or None for a box-only model.
        nms_open: Boxes that the graph's NMS left undecided; 0 certifies exact greedy NMS.
        candidates_cut: Cuts before NMS that may have changed the answer.
        keypoint_heatmaps: float32 [D, J, S, S] logits, or None for a model without keypoints.
        samples_cut: RoIs that were pooled with fewer samples than they need.
    """

    boxes: Float32Array
    scores: Float32Array
    labels: NDArray[np.int32]
    masks: Float32Array | None
    nms_open: int
    candidates_cut: int
    keypoint_heatmaps: Float32Array | None = None
    samples_cut: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The detections of one image, in original-image pixels, best score first as a rule.

    Attributes:
        boxes: float32 [D, 4] xyxy, finite.
        scores: float32 [D], finite.
        labels: int64 [D], the checkpoint's own class indices.
        names: Class name of each row.
        mask_probs: float32 [D, M, M] probabilities inside the box, or None for a box-only model.
        image_hw: Height and width of the original image.
        paste: Paste rule of `model.spec.MaskHeadSpec`.
        mask_threshold: Probability that divides foreground from background, in (0, 1).
        mask_threshold_inclusive: Whether the threshold itself is foreground.
        exact: False when the graph could not certify its NMS or its pooling for this image.
        dropped: Rows removed because they held a NaN or an infinity.
        keypoints: float32 [D, J, 3], x, y and score of each (`model.spec.KeypointHeadSpec` says
            what kind of score); x and y are not clipped to the image. None without a keypoint head.
        keypoint_names: Name of each of the J keypoints.

    Raises:
        ValueError: A length, dtype, shape or value does not fit.
    """

    boxes: Float32Array
    scores: Float32Array
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    mask_probs: Float32Array | None
    image_hw: tuple[int, int]
    paste: PasteRule = "integer"
    mask_threshold: float = 0.5
    mask_threshold_inclusive: bool = False
    exact: bool = True
    dropped: int = 0
    keypoints: Float32Array | None = None
    keypoint_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rows = len(self.names)
        _check("boxes", self.boxes, np.float32, (rows, 4))
        _check("scores", self.scores, np.float32, (rows,))
        _check("labels", self.labels, np.int64, (rows,))
        if self.mask_probs is not None:
            sides = self.mask_probs.shape[-1:] * 2
            _check("mask_probs", self.mask_probs, np.float32, (rows, *sides))
        if self.keypoints is not None:
            _check("keypoints", self.keypoints, np.float32, (rows, len(self.keypoint_names), 3))
        if min(self.image_hw) < 1:
            raise ValueError(f"detections: expected a positive image_hw, got {self.image_hw}")
        self._rule()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def masks(self) -> NDArray[np.bool_] | None:
        """Dense masks, bool [D, H, W], made anew at each request; None for a box-only model.

        `rle()` and `crops()` hold the same pixels in a small part of the memory.
        """
        if self.mask_probs is None:
            return None
        dense = np.zeros((len(self), *self.image_hw), np.bool_)
        for mask, crop in zip(dense, self.crops(), strict=True):
            width, height = crop.columns.shape
            y0, x0 = crop.y0_px, crop.x0_px
            mask[y0 : y0 + height, x0 : x0 + width] = crop.rows
        return dense

    def crops(self) -> list[MaskCrop]:
        """The binary masks, each cut to its box inside the image; empty for a box-only model."""
        if self.mask_probs is None:
            return []
        return list(paste_crops(self.mask_probs, self.boxes, self.image_hw, self._rule()))

    def rle(self) -> list[rle.Rle]:
        """The binary masks as COCO's compressed run lengths; empty for a box-only model."""
        if self.mask_probs is None:
            return []
        if self.paste == "integer":
            return encode_pasted(self.mask_probs, self.boxes, self.image_hw, self._rule())
        crops = paste_crops(self.mask_probs, self.boxes, self.image_hw, self._rule())
        return [rle.encode(crop.columns, crop.x0_px, crop.y0_px, self.image_hw) for crop in crops]

    def areas_px(self) -> NDArray[np.int64] | Float32Array:
        """Area of each mask in pixels, int64 [D]; of the box, float32 [D], without masks."""
        if self.mask_probs is None:
            sides = self.boxes[:, 2:] - self.boxes[:, :2]
            area: Float32Array = sides[:, 0] * sides[:, 1]
            return area
        return np.array([np.count_nonzero(c.columns) for c in self.crops()], np.int64)

    def above(self, score: float) -> Detections:
        """The rows whose score is at least `score`."""
        return self.rows(np.flatnonzero(self.scores >= score))

    def select(self, selection: Selection) -> Detections:
        """The rows that are wanted; see `runtime.selection`."""
        return selection.apply(self)

    def rows(self, rows: NDArray[np.intp]) -> Detections:
        """The rows of these indices, in their order."""
        return replace(
            self,
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            labels=self.labels[rows],
            names=tuple(self.names[row] for row in rows),
            mask_probs=None if self.mask_probs is None else self.mask_probs[rows],
            keypoints=None if self.keypoints is None else self.keypoints[rows],
        )

    def draw(self, image: Image.Image | NDArray[np.uint8]) -> Image.Image:
        """A copy of `image` (RGB, `image_hw`) with the detections on it; see `runtime.draw`."""
        from runtime.draw import draw

        return draw(image, self)

    def _rule(self) -> MaskRule:
        return MaskRule(self.paste, self.mask_threshold, self.mask_threshold_inclusive)


def from_raw(
    raw: RawDetections,
    spec: ModelSpec,
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
    origin_yx: tuple[int, int] = (0, 0),
) -> Detections:
    """Bring one image's network output to the original image, as the eager model does.

    The spec says how: boxes are scaled by the ratio of the sizes in float32 (torchvision's
    `resize_boxes`); then clipped to the image ("clip", detectron2's `detector_postprocess`); or
    scaled corner to corner and rounded ("round", Matterport's `unmold_detections`). The latter two
    remove empty boxes. Keypoints are decoded on the canvas and scaled alike, never clipped. Rows
    with a NaN or an infinity are removed and counted.

    Args:
        raw: The network's rows, canvas pixels.
        spec: The model that produced them.
        image_hw: Height and width of the original image.
        resized_hw: Height and width of the resized image on the canvas, without its padding.
        origin_yx: Its first row and column there.

    Returns:
        Detections in original-image pixels, rows in the network's order.

    Raises:
        ArtifactError: A label has no class name, or masks or heat maps are not those of the spec.
    """
    _require_the_specs_heads(raw, spec)
    rule = spec.mask or MaskHeadSpec()
    if spec.box.to_image == "round":
        boxes = _rounded(raw.boxes, image_hw, resized_hw, origin_yx)
    else:
        boxes = _scaled(raw.boxes, image_hw, resized_hw, origin_yx)
    finite = keep = _finite_rows(boxes, raw)
    if spec.box.to_image == "clip":
        boxes = _clipped(boxes, image_hw)
    if spec.box.to_image != "scale":
        keep = finite & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    labels = raw.labels[keep].astype(np.int64)
    return Detections(
        boxes=boxes[keep],
        scores=raw.scores[keep],
        labels=labels,
        names=_names(labels, spec.classes),
        mask_probs=None if raw.masks is None else raw.masks[keep],
        image_hw=image_hw,
        paste=rule.paste,
        mask_threshold=rule.threshold,
        mask_threshold_inclusive=rule.threshold_inclusive,
        exact=raw.nms_open == raw.candidates_cut == raw.samples_cut == 0,
        dropped=int(np.count_nonzero(~finite)),
        keypoints=_keypoints(raw, keep, spec.keypoint, image_hw, resized_hw),
        keypoint_names=() if spec.keypoint is None else spec.keypoint.names,
    )


def _require_the_specs_heads(raw: RawDetections, spec: ModelSpec) -> None:
    wrong = None
    if raw.masks is not None and spec.mask is None:
        wrong = f"expected no masks, for the file's spec has no mask head, got {raw.masks.shape}"
    maps, head = raw.keypoint_heatmaps, spec.keypoint
    expected = None if head is None else (len(head.names), head.side, head.side)
    if (None if maps is None else maps.shape[1:]) != expected:
        got = None if maps is None else maps.shape[1:]
        wrong = f"expected keypoint heat maps {expected} as the file's spec has them, got {got}"
    if wrong is not None:
        raise ArtifactError(
            f"network output: {wrong}; graph and spec do not belong together, export the model "
            "again"
        )


def _keypoints(
    raw: RawDetections,
    keep: NDArray[np.bool_],
    head: KeypointHeadSpec | None,
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
) -> Float32Array | None:
    """Original-image pixels, float32 [kept, J, 3]."""
    if raw.keypoint_heatmaps is None or head is None:
        return None
    found = decode(raw.keypoint_heatmaps[keep], raw.boxes[keep], head.score)
    ratio_hw = np.divide(image_hw, resized_hw, dtype=np.float32)
    found[..., :2] *= ratio_hw[::-1]
    return found


def _scaled(
    boxes_xyxy: Float32Array,
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
    origin_yx: tuple[int, int],
) -> Float32Array:
    ratio_hw = np.divide(image_hw, resized_hw, dtype=np.float32)
    origin = np.array(origin_yx, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return (boxes_xyxy - origin[[1, 0, 1, 0]]) * ratio_hw[[1, 0, 1, 0]]


def _rounded(
    boxes_xyxy: Float32Array,
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
    origin_yx: tuple[int, int],
) -> Float32Array:
    """Canvas boxes that end a pixel early to whole pixels of the image, halves to even.

    Corners map to corners, so sides are counted less one; the far edges get their pixel back.
    """
    axes = [1, 0, 1, 0]
    last, origin = np.subtract(image_hw, 1.0)[axes], np.array(origin_yx, np.float64)[axes]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        inside = (boxes_xyxy - origin) / np.subtract(resized_hw, 1.0)[axes]
        boxes: Float32Array = np.around(inside * last + [0, 0, 1, 1]).astype(np.float32)
    return boxes


def _clipped(boxes_xyxy: Float32Array, image_hw: tuple[int, int]) -> Float32Array:
    height, width = image_hw
    limit = np.array([width, height, width, height], np.float32)
    return np.minimum(np.maximum(boxes_xyxy, np.float32(0)), limit)


def _finite_rows(boxes: Float32Array, raw: RawDetections) -> NDArray[np.bool_]:
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(raw.scores)
    if raw.masks is not None:
        finite &= np.isfinite(raw.masks).all(axis=(1, 2))
    if raw.keypoint_heatmaps is not None:
        finite &= np.isfinite(raw.keypoint_heatmaps).all(axis=(1, 2, 3))
    return finite


def _names(labels: NDArray[np.int64], classes: ClassSpec) -> tuple[str, ...]:
    known = len(classes.names)
    unknown = labels[(labels < 0) | (labels >= known)]
    if unknown.size:
        raise ArtifactError(
            f"network output: expected labels 0 to {known - 1}, got {int(unknown[0])}; graph and "
            "spec do not belong together, export the model again"
        )
    return tuple(classes.names[label] for label in labels)


def _check(name: str, array: NDArray[np.generic], dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"detections: expected {name} as {np.dtype(dtype)} {list(shape)}, got {array.dtype} "
            f"{list(array.shape)}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"detections: expected finite {name}, got a NaN or an infinity")
