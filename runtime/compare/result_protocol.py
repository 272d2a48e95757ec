"""The interface of a result that can be compared or scored, whatever runtime it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class DetectionResult(Protocol):
    """Rows of one image, as in `runtime.detections.Detections`.

    Legend: D rows, M side of a mask, J keypoints, H x W the original image.
    """

    @property
    def boxes(self) -> NDArray[np.float32]:
        """float32 [D, 4] xyxy, original-image pixels."""

    @property
    def scores(self) -> NDArray[np.float32]:
        """float32 [D]."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 [D]."""

    @property
    def keypoints(self) -> NDArray[np.float32] | None:
        """float32 [D, J, 3], x, y and score; None for a model without keypoints."""

    @property
    def mask_probs(self) -> NDArray[np.float32] | None:
        """float32 [D, M, M]; None for a box-only model."""

    @property
    def masks(self) -> NDArray[np.bool_] | None:
        """Bool [D, H, W] pasted masks; None for a box-only model."""

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the original image in pixels."""

    def rle(self) -> Sequence[Mapping[str, Any]]:
        """COCO run lengths of the pasted masks by row; empty for a model without masks."""

    def __len__(self) -> int:
        """Number of rows, D."""
