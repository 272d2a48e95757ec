"""`Detections`: boxes, scores, classes, masks and keypoints of one image, in its own pixels.

Module legend: D detections, M side of the network's square masks, J keypoints, H x W the original
image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import DTypeLike

from model.arrays import Bool, Float32, Float64, Int64, UInt8
from runtime.boxes import clipped
from runtime.masks import rle
from runtime.masks.paste import MaskCrop, MaskRule, paste_crops
from runtime.masks.rle_from_masks import encode_pasted

if TYPE_CHECKING:
    import supervision
    from PIL import Image

    from model.spec import PasteRule
    from runtime.formats.coco import CocoRow
    from runtime.formats.labelme import MaskShape
    from runtime.masks.polygons import Polygon
    from runtime.selection import Selection


# Default of `dataset_ids`, replaced by the labels.
_THE_LABELS: Int64 = np.empty(0, np.int64)
# Half precision rounds a probability by at most this much; a logit or a percentage is further off.
_UNIT_SLACK = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The detections of one image, in original-image pixels, usually best score first.

    Attributes:
        boxes: float32 [D, 4] xyxy, finite.
        scores: float32 [D], finite, from 0 to 1.
        labels: int64 [D], the checkpoint's own class indices.
        names: Class name of each row.
        mask_probs: float32 [D, M, M] probabilities inside the box, or None for a box-only model.
        image_hw: Height and width of the original image.
        paste: Paste rule of `model.spec.MaskHeadSpec`.
        mask_threshold: Probability that separates foreground from background, in (0, 1).
        mask_threshold_inclusive: Whether the threshold itself is foreground.
        exact: False if the graph could not certify its NMS or its pooling for this image.
        dropped: Number of rows removed because they held a NaN or an infinity.
        keypoints: float32 [D, J, 3], x, y and score of each (`model.spec.KeypointHeadSpec` defines
            the score); x and y are not clipped to the image. None without a keypoint head.
        keypoint_names: Name of each of the J keypoints.
        dataset_ids: int64 [D], category id of each row in the training data set; by default the
            labels.
        first_class: Label of the first class that is not the background, 0 or 1.
        class_names: All classes of the model; () if they are not known.

    Raises:
        ValueError: A length, dtype, shape or value is inconsistent.
    """

    boxes: Float32
    scores: Float32
    labels: Int64
    names: tuple[str, ...]
    mask_probs: Float32 | None
    image_hw: tuple[int, int]
    paste: PasteRule = "integer"
    mask_threshold: float = 0.5
    mask_threshold_inclusive: bool = False
    exact: bool = True
    dropped: int = 0
    keypoints: Float32 | None = None
    keypoint_names: tuple[str, ...] = ()
    dataset_ids: Int64 = field(default_factory=lambda: _THE_LABELS)
    first_class: int = 0
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dataset_ids is _THE_LABELS:
            object.__setattr__(self, "dataset_ids", self.labels)
        rows = len(self.names)
        _require_array("boxes", self.boxes, np.float32, (rows, 4))
        _require_array("scores", self.scores, np.float32, (rows,))
        _require_probabilities("scores", self.scores)
        _require_array("labels", self.labels, np.int64, (rows,))
        _require_array("dataset_ids", self.dataset_ids, np.int64, (rows,))
        if self.mask_probs is not None:
            side = max((1, *np.shape(self.mask_probs)[-1:]))
            _require_array("mask_probs", self.mask_probs, np.float32, (rows, side, side))
            _require_probabilities("mask_probs", self.mask_probs)
        if self.keypoints is not None:
            points = (rows, len(self.keypoint_names), 3)
            _require_array("keypoints", self.keypoints, np.float32, points)
        self._check_settings()

    def _check_settings(self) -> None:
        from model.spec import PasteRule

        _require_size("image_hw", self.image_hw)
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
    def masks(self) -> Bool | None:
        """Dense masks, bool [D, H, W], computed at each access; None for a box-only model.

        `rle()` and `crops()` hold the same pixels in a fraction of the memory.
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

    def areas(self) -> Float64:
        """Area of each row in square pixels of the original image, float64 [D].

        Area of the mask, from the run lengths; for a box-only model, area of the box inside the
        image.
        """
        if self.mask_probs is None:
            boxes = clipped(self.boxes, self.image_hw).astype(np.float64)
            sides_wh: Float64 = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
            return sides_wh[:, 0] * sides_wh[:, 1]
        return np.array([rle.area(text) for text in self.rle()], np.float64)

    def polygons(self, tolerance_px: float = 0.0) -> list[list[Polygon]]:
        """The outlines of each mask, largest part first; empty for a box-only model.

        At a tolerance of 0 they run along the pixels' edges. Up to
        `runtime.masks.polygons.SAME_PIXELS_PX` they have far fewer vertices and still hold the
        centers of the same pixels; beyond that, pixels near the outline may change sides.

        Args:
            tolerance_px: How far an outline may be moved to save vertices.

        Raises:
            UsageError: It is negative or not finite.
        """
        from runtime.masks.polygons import outlines

        return outlines(self.crops(), tolerance_px)

    def select(self, selection: Selection) -> Detections:
        """The rows that a selection keeps, in their order; see `runtime.selection`.

        Rows below the exported threshold, or removed by an earlier selection, do not come back.

        Raises:
            UsageError: A class that is none of `class_names`, or a mask threshold without masks.
        """
        return selection.apply(self)

    def take(self, rows: Int64 | Sequence[int]) -> Detections:
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

    def draw(self, image: Image.Image | UInt8) -> Image.Image:
        """An upright copy of `image` with the detections; see `runtime.drawing.overlay`."""
        from runtime.drawing.overlay import draw

        return draw(image, self)

    def cutouts(self, image: Image.Image | UInt8) -> list[Image.Image]:
        """Each detection cut out of `image`, its mask as alpha; see `runtime.formats.crops`."""
        from runtime.formats.crops import cutouts

        return cutouts(image, self)

    def to_coco(self, image_id: int) -> list[CocoRow]:
        """Rows of COCO's results format; see `runtime.formats.coco`."""
        from runtime.formats.coco import rows

        return rows(self, image_id)

    def to_supervision(self) -> supervision.Detections:
        """A `supervision.Detections` with dense masks; see `runtime.formats.supervision`.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        from runtime.formats.supervision import to_supervision

        return to_supervision(self)

    def to_yolo_seg(self) -> list[str]:
        """Lines of a YOLO label file; see `runtime.formats.yolo`."""
        from runtime.formats.yolo import lines

        return lines(self)

    def to_labelme(
        self, image_path: str | os.PathLike[str], mask_shape: MaskShape = "polygon"
    ) -> dict[str, Any]:
        """The content of a labelme file; see `runtime.formats.labelme`.

        Raises:
            UsageError: There is no such `mask_shape`.
        """
        from runtime.formats.labelme import document

        return document(self, os.fspath(image_path), mask_shape)

    def _rule(self) -> MaskRule:
        return MaskRule(self.paste, self.mask_threshold, self.mask_threshold_inclusive)


def _require_array(name: str, array: object, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    """Raise `ValueError` except for an array of that dtype and shape with finite numbers."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"detections: expected {name} as an array, got {type(array).__name__}")
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"detections: expected {name} as {np.dtype(dtype)} {list(shape)}, got {array.dtype} "
            f"{list(array.shape)}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"detections: expected finite {name}, got a NaN or an infinity")


def _require_probabilities(name: str, array: Float32) -> None:
    """Raise `ValueError` except for numbers from 0 to 1, up to half precision's rounding."""
    if array.size and (array.min() < -_UNIT_SLACK or array.max() > 1 + _UNIT_SLACK):
        raise ValueError(
            f"detections: expected {name} from 0 to 1, got {array.min():g} to {array.max():g}"
        )


def _require_size(name: str, hw: object) -> None:
    """Raise `ValueError` except for a tuple of two whole numbers from 1."""
    sides = hw if isinstance(hw, tuple) else ()
    if [isinstance(side, int | np.integer) and side >= 1 for side in sides] != [True, True]:
        raise ValueError(f"detections: expected {name} as two whole numbers from 1, got {hw!r}")
