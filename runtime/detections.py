"""What a network found in one image: as it comes from the graph, and in original-image pixels.

Shape shorthand: D detections, M side of the network's square masks, J keypoints, S side of a heat
map, H x W the original image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from model.errors import ArtifactError
from runtime.array_checks import require_array, require_probabilities, require_size
from runtime.masks import rle
from runtime.masks.paste import MaskCrop, MaskRule, paste_crops
from runtime.masks.rle_from_masks import encode_pasted
from runtime.postprocessing.rescale import boxes_to_image, clipped, keypoints_to_image

if TYPE_CHECKING:
    import supervision
    from PIL import Image

    from model.spec import ClassSpec, ModelSpec, PasteRule
    from runtime.formats.coco import CocoRow
    from runtime.masks.polygons import Polygon
    from runtime.selection import Selection

Float32Array = NDArray[np.float32]
Ints = NDArray[np.int64]

# Stands for dataset ids that were not given.
_THE_LABELS: Ints = np.empty(0, np.int64)


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
        scores: float32 [D], finite, from 0 to 1.
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
        dataset_ids: int64 [D], category id of each row in the data set that the model was trained
            on; the labels themselves when it is not given.
        first_class: Label of the first class that is not the background, 0 or 1.
        class_names: Of all that the model can find; () where that is not known.

    Raises:
        ValueError: A length, dtype, shape or value does not fit.
    """

    boxes: Float32Array
    scores: Float32Array
    labels: Ints
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
    dataset_ids: Ints = field(default_factory=lambda: _THE_LABELS)
    first_class: int = 0
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dataset_ids is _THE_LABELS:
            object.__setattr__(self, "dataset_ids", self.labels)
        rows = len(self.names)
        require_array("boxes", self.boxes, np.float32, (rows, 4))
        require_array("scores", self.scores, np.float32, (rows,))
        require_probabilities("scores", self.scores)
        require_array("labels", self.labels, np.int64, (rows,))
        require_array("dataset_ids", self.dataset_ids, np.int64, (rows,))
        if self.mask_probs is not None:
            side = max((1, *np.shape(self.mask_probs)[-1:]))
            require_array("mask_probs", self.mask_probs, np.float32, (rows, side, side))
            require_probabilities("mask_probs", self.mask_probs)
        if self.keypoints is not None:
            points = (rows, len(self.keypoint_names), 3)
            require_array("keypoints", self.keypoints, np.float32, points)
        self._require_sense()

    def _require_sense(self) -> None:
        from model.spec import PasteRule

        require_size("image_hw", self.image_hw)
        if self.paste not in get_args(PasteRule):
            expected = ", ".join(get_args(PasteRule))
            raise ValueError(f"detections: expected paste as one of {expected}, got {self.paste!r}")
        if self.dropped < 0:
            raise ValueError(f"detections: expected dropped as 0 or more, got {self.dropped}")
        if self.first_class not in (0, 1):
            raise ValueError(f"detections: expected first_class as 0 or 1, got {self.first_class}")
        if (least := self.labels.min(initial=self.first_class)) < self.first_class:
            raise ValueError(f"detections: expected labels from {self.first_class}, got {least}")
        if self.class_names and (odd := set(self.names) - set(self.class_names)):
            raise ValueError(f"detections: expected names out of class_names, got {min(odd)!r}")
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
        return encode_pasted(self.mask_probs, self.boxes, self.image_hw, self._rule())

    def areas(self) -> NDArray[np.float64]:
        """Area of each row in square pixels of the original image, float64 [D].

        Of its mask, counted from the run lengths; of its box, as far as that lies in the image,
        for a box-only model.
        """
        if self.mask_probs is None:
            boxes = clipped(self.boxes, self.image_hw).astype(np.float64)
            sides_wh: NDArray[np.float64] = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
            return sides_wh[:, 0] * sides_wh[:, 1]
        return np.array([rle.area(text) for text in self.rle()], np.float64)

    def polygons(self, tolerance_px: float = 0.0) -> list[list[Polygon]]:
        """The outlines of each mask, largest part first; empty for a box-only model.

        At 0 they run along the pixels' edges. From above 0 to
        `runtime.masks.polygons.SAME_PIXELS_PX` they have far fewer vertices and still hold the
        centers of the same pixels; beyond that, pixels that close to the outline may change sides.

        Args:
            tolerance_px: How far an outline may be moved to need fewer vertices.

        Raises:
            UsageError: It is negative or not finite.
        """
        from runtime.masks.polygons import outlines

        return outlines(self.crops(), tolerance_px)

    def select(self, selection: Selection) -> Detections:
        """The rows that a selection keeps, in their order; see `runtime.selection`.

        What the network or an earlier selection left out stays out, whatever the threshold.

        Raises:
            UsageError: A class that is none of `class_names`, or a mask threshold without masks.
        """
        return selection.apply(self)

    def take(self, rows: Ints | Sequence[int]) -> Detections:
        """The given rows, in the given order."""
        keep = np.asarray(rows, np.int64)
        return replace(
            self,
            boxes=self.boxes[keep],
            scores=self.scores[keep],
            labels=self.labels[keep],
            names=tuple(self.names[row] for row in keep),
            mask_probs=None if self.mask_probs is None else self.mask_probs[keep],
            keypoints=None if self.keypoints is None else self.keypoints[keep],
            dataset_ids=self.dataset_ids[keep],
        )

    def draw(self, image: Image.Image | NDArray[np.uint8]) -> Image.Image:
        """A copy of `image`, upright, with the detections on it; see `runtime.drawing.overlay`."""
        from runtime.drawing.overlay import draw

        return draw(image, self)

    def cutouts(self, image: Image.Image | NDArray[np.uint8]) -> list[Image.Image]:
        """Each detection cut out of `image`, its mask as alpha; see `runtime.formats.crops`."""
        from runtime.formats.crops import cutouts

        return cutouts(image, self)

    def to_coco(self, image_id: int) -> list[CocoRow]:
        """Rows of COCO's results format; see `runtime.formats.coco`."""
        from runtime.formats.coco import rows

        return rows(self, image_id)

    def to_supervision(self) -> supervision.Detections:
        """As the library supervision has it, masks dense; see `runtime.formats.supervision`.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        from runtime.formats.supervision import to_supervision

        return to_supervision(self)

    def to_yolo_seg(self) -> list[str]:
        """Lines of a YOLO label file; see `runtime.formats.yolo`."""
        from runtime.formats.yolo import lines

        return lines(self)

    def to_labelme(self, image_path: str | os.PathLike[str]) -> dict[str, Any]:
        """The content of a labelme file; see `runtime.formats.labelme`."""
        from runtime.formats.labelme import document

        return document(self, os.fspath(image_path))

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
        ArtifactError: A label has no class name, a score or a mask is no probability, or masks or
            heat maps are not those of the spec.
    """
    from model.spec import MaskHeadSpec

    _require_the_specs_heads(raw, spec)
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
    _require_the_networks_probabilities(raw, keep)
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
    spec: ModelSpec,
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
) -> Float32Array | None:
    if raw.keypoint_heatmaps is None or spec.keypoint is None:
        return None
    maps, boxes = raw.keypoint_heatmaps[keep], raw.boxes[keep]
    return keypoints_to_image(maps, boxes, spec.keypoint, image_hw, resized_hw)


def _finite_rows(boxes: Float32Array, raw: RawDetections) -> NDArray[np.bool_]:
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(raw.scores)
    if raw.masks is not None:
        finite &= np.isfinite(raw.masks).all(axis=(1, 2))
    if raw.keypoint_heatmaps is not None:
        finite &= np.isfinite(raw.keypoint_heatmaps).all(axis=(1, 2, 3))
    return finite


def _names(labels: Ints, classes: ClassSpec, first_class: int) -> tuple[str, ...]:
    last = len(classes.names) - 1
    unknown = labels[(labels < first_class) | (labels > last)]
    if unknown.size:
        raise ArtifactError(
            f"network output: expected labels {first_class} to {last}, got {int(unknown[0])}; "
            "graph and spec do not belong together, export the model again"
        )
    return tuple(classes.names[label] for label in labels)


def _require_the_networks_probabilities(raw: RawDetections, keep: NDArray[np.bool_]) -> None:
    try:
        require_probabilities("scores", raw.scores[keep])
        if raw.masks is not None:
            require_probabilities("masks", raw.masks[keep])
    except ValueError as error:
        raise ArtifactError(
            f"network output: {error}; the file is damaged or not maskport's, export the model "
            "again"
        ) from error
