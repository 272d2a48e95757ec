"""Detections of device frames as device arrays, with a copy to the host on request.

Legend: N frames, D rows of each, M side of a mask, J keypoints, H x W a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import UsageError
from model.spec import KeypointHeadSpec, MaskHeadSpec, ModelSpec
from runtime.detections import Detections
from runtime.device.library import Array, Library, clipped, zero_unless
from runtime.device.paste import paste, rows_at_once
from runtime.masks.paste import MaskRule
from runtime.postprocessing.from_raw import RawDetections, from_raw


@dataclass(frozen=True, slots=True, eq=False)
class DeviceDetections:
    """The detections of a batch of frames, each in its own pixels.

    Every frame has D rows. `valid` marks the rows that hold a detection; the others hold zeros, so
    that sums over rows need no mask. Their number is on the device only. The arrays are ready on
    the stream of `predict` and belong to the caller: no later call writes to them.

    Attributes:
        boxes: float32 [N, D, 4] xyxy.
        scores: float32 [N, D], usually in descending order.
        labels: int32 [N, D], the checkpoint's own class indices.
        valid: bool [N, D].
        counts: int32 [N], valid rows of each frame.
        masks: float32 [N, D, M, M] probabilities inside the box; None for a box-only model.
        keypoints: float32 [N, D, J, 3], x, y and score; None for a model without keypoints.
        dropped: int32 [N], rows with a NaN or an infinity.
        nms_open: int32 [N], boxes that NMS left undecided; 0 certifies the greedy result.
        candidates_cut: int32 [N], cuts before NMS that may have changed the result.
        samples_cut: int32 [N], RoIs pooled with fewer samples than they need.
        frames_hw: H and W of each frame.
        spec: of the model.
        library: of the arrays.
        mask_threshold: lower bound of foreground; None takes the model's.
    """

    boxes: Array
    scores: Array
    labels: Array
    valid: Array
    counts: Array
    masks: Array | None
    keypoints: Array | None
    dropped: Array
    nms_open: Array
    candidates_cut: Array
    samples_cut: Array
    frames_hw: tuple[tuple[int, int], ...]
    spec: ModelSpec
    library: Library
    mask_threshold: float | None = None

    def __len__(self) -> int:
        """Number of frames, N."""
        return len(self.frames_hw)

    def paste(
        self, frame: int = 0, rows: slice | None = None, mask_threshold: float | None = None
    ) -> Array:
        """Dense masks of one frame, on the device; a row that is not valid is empty.

        The work goes to the library's current stream, which must be that of `predict`. A full-HD
        mask takes 2 MB; to limit memory, paste some rows at a time.

        Args:
            frame: from 0 to N - 1.
            rows: slice of the D rows; None takes all.
            mask_threshold: in (0, 1); None takes that of these detections.

        Returns:
            bool [rows, H, W], the pixels of `Detections.masks`.

        Raises:
            UsageError: no such frame, no masks, rows that are not a slice, or a threshold outside
                (0, 1).
        """
        if self.masks is None:
            raise UsageError("paste: the model has no mask head; use boxes_xyxy")
        if not 0 <= frame < len(self):
            raise UsageError(f"frame: expected 0 to {len(self) - 1}, got {frame}")
        selected = slice(None) if rows is None else rows
        if not isinstance(selected, slice):
            raise UsageError(f"rows: expected a slice as slice(0, 20), got {selected!r}")
        return paste(
            self.library.xp,
            self.masks[frame, selected, ...],
            self.boxes[frame, selected, :],
            self.frames_hw[frame],
            self._rule(mask_threshold),
        )

    def areas(self) -> Array:
        """Area of each row in square pixels of its frame, float64 [N, D]; 0 if it is not valid.

        As in `Detections.areas`: the pixels of the mask, or, for a box-only model, the area of the
        box inside the frame. It pastes the masks of all D rows, a block at a time.
        """
        xp = self.library.xp
        if self.masks is None:
            areas = [_box_areas(xp, self.boxes[i, ...], hw) for i, hw in enumerate(self.frames_hw)]
        else:
            areas = [self._mask_areas(frame) for frame in range(len(self))]
        return zero_unless(xp, self.valid, xp.stack(areas))

    def _mask_areas(self, frame: int) -> Array:
        xp, rows = self.library.xp, self.boxes.shape[1]
        step = rows_at_once(self.frames_hw[frame])
        parts = [
            xp.sum(self.paste(frame, slice(start, start + step)), axis=(1, 2), dtype=xp.float64)
            for start in range(0, rows, step)
        ]
        return xp.concat(parts)

    def to_host(self) -> list[Detections]:
        """Wait for the device and copy: one `Detections` per frame, valid rows only.

        Raises:
            ArtifactError: a label has no class name.
        """
        host = {
            name: self.library.download(value)
            for name in _ARRAYS
            if (value := getattr(self, name)) is not None
        }
        return [self._frame_on_host(host, frame) for frame in range(len(self))]

    def _frame_on_host(self, host: dict[str, npt.NDArray[Any]], frame: int) -> Detections:
        rows = np.flatnonzero(host["valid"][frame])

        def valid_rows(name: str) -> npt.NDArray[Any] | None:
            return host[name][frame][rows] if name in host else None

        raw = RawDetections(
            host["boxes"][frame][rows],
            host["scores"][frame][rows],
            host["labels"][frame][rows],
            valid_rows("masks"),
            nms_open=int(host["nms_open"][frame]),
            candidates_cut=int(host["candidates_cut"][frame]),
            samples_cut=int(host["samples_cut"][frame]),
        )
        # The boxes are in frame pixels already.
        spec = replace(self.spec, box=replace(self.spec.box, to_image="scale"), keypoint=None)
        hw = self.frames_hw[frame]
        detections = from_raw(raw, spec, hw, hw)
        head: KeypointHeadSpec | None = self.spec.keypoint
        return replace(
            detections,
            dropped=int(host["dropped"][frame]),
            mask_threshold=self._rule(None).threshold,
            keypoints=valid_rows("keypoints"),
            keypoint_names=() if head is None or self.keypoints is None else head.names,
        )

    def _rule(self, mask_threshold: float | None) -> MaskRule:
        head = self.spec.mask or MaskHeadSpec()
        thresholds = mask_threshold, self.mask_threshold, head.threshold
        threshold = next(value for value in thresholds if value is not None)
        try:
            return MaskRule(head.paste, threshold, head.threshold_inclusive)
        except ValueError as error:
            raise UsageError(str(error)) from error


def _box_areas(xp: Any, boxes: Array, frame_hw: tuple[int, int]) -> Array:
    boxes = xp.astype(boxes, xp.float64)
    width = clipped(xp, boxes[:, 2], 0, frame_hw[1]) - clipped(xp, boxes[:, 0], 0, frame_hw[1])
    height = clipped(xp, boxes[:, 3], 0, frame_hw[0]) - clipped(xp, boxes[:, 1], 0, frame_hw[0])
    return clipped(xp, width, 0) * clipped(xp, height, 0)


# Arrays with a value per row, and all arrays that `to_host` copies.
ROWS = ("boxes", "scores", "labels", "masks", "keypoints")
_ARRAYS = (*ROWS, "valid", "dropped", "nms_open", "candidates_cut", "samples_cut")
