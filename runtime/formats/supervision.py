"""Detections for the library supervision, with its trackers, zones and annotators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.errors import MissingDependencyError
from runtime.detections import Detections

if TYPE_CHECKING:
    import supervision


def to_supervision(detections: Detections) -> supervision.Detections:
    """Boxes, dense masks, scores and the checkpoint's class indices.

    `data` holds per row `class_name`, the data set's `category_id` and, where the model has
    keypoints, `keypoints`, float32 [D, J, 3].

    Raises:
        MissingDependencyError: supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise MissingDependencyError(
            "to_supervision needs the library supervision; pip install 'maskport[supervision]'"
        ) from error
    data: dict[str, NDArray[Any] | list[Any]] = {
        "class_name": np.array(detections.names, np.str_),
        "category_id": detections.dataset_ids.copy(),
    }
    if detections.keypoints is not None:
        data["keypoints"] = detections.keypoints.copy()
    return supervision.Detections(
        # Copies: supervision changes its arrays in place.
        xyxy=detections.boxes.copy(),
        mask=detections.masks,
        confidence=detections.scores.copy(),
        class_id=detections.labels.copy(),
        data=data,
    )
