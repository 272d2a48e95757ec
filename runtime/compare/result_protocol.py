"""What every answer offers, whoever gave it: our runtime, or an eager model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Found(Protocol):
    """Rows of one image; `runtime.detections.Detections` is one.

    Legend: D rows, J keypoints.
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
        """float32 [D, J, 3], x, y and score; or None for a model without keypoints."""

    def rle(self) -> Sequence[Mapping[str, Any]]:
        """COCO run lengths of the pasted masks by row; empty for a model without masks."""
