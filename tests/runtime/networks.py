"""Fake networks with outputs that a test chooses."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np

from model.errors import ArtifactError
from model.spec import ClassSpec, ModelSpec, PreprocessSpec, ResNetSpec
from runtime.artifacts.metadata import Artifact, Manifest
from runtime.sessions.session import Inputs, Outputs

BODY = ResNetSpec((1, 1, 1, 1), "basic", 8, (8, 8, 8, 8), (8, 8, 8, 8))
CLASSES = ClassSpec(names=("__background__", "square", "disc"))


def spec(short_side: int = 32, long_side: int = 64) -> ModelSpec:
    """A box-only model with two classes."""
    preprocess = PreprocessSpec(short_side, long_side)
    return ModelSpec("torchvision", "none", BODY, CLASSES, preprocess=preprocess)


class MeanSession:
    """Returns one box per photo, the whole photo, whose score is the mean of its pixels.

    So a result tells which photo it was made of, and that none of another was left on the canvas.
    """

    def __init__(
        self,
        of: ModelSpec | None = None,
        canvas_hw: tuple[int, int] | None = None,
        batch: int | None = None,
        seconds: float = 0.0,
        weights: str = "w",
    ) -> None:
        height, width = canvas_hw or (None, None)
        manifest = Manifest("test", "none", "fp32", weights, batch, height, width)
        name = "mean" if canvas_hw is None else f"mean.{height}x{width}"
        self._artifact = Artifact(Path(f"{name}.onnx"), of or spec(), manifest)
        self._seconds = seconds
        self._lock = threading.Lock()
        self.batches: list[int] = []
        self.is_closed = False
        self.nms_open = 0

    @property
    def artifact(self) -> Artifact:
        return self._artifact

    def run(self, inputs: Inputs) -> Outputs:
        if self.is_closed:
            raise ArtifactError("the session is closed")
        time.sleep(self._seconds)
        images, image_hw = inputs["images"], inputs["image_hw"]
        with self._lock:
            self.batches.append(len(images))
        count = len(images)
        boxes, scores = np.zeros((count, 2, 4), np.float32), np.zeros((count, 2), np.float32)
        for row, (height, width) in enumerate(image_hw):
            boxes[row, 0] = 0, 0, width, height
            inside = images[row, :, : int(height), : int(width)]
            is_clean = np.count_nonzero(images[row]) == np.count_nonzero(inside)
            scores[row, 0] = inside.mean() if is_clean else -1
        zeros = np.zeros(count, np.int32)
        return {
            "boxes": boxes,
            "scores": scores,
            "labels": np.ones((count, 2), np.int32),
            "counts": np.ones(count, np.int32),
            "nms_open": zeros + self.nms_open,
            "candidates_cut": zeros,
            "samples_cut": zeros,
        }

    def close(self) -> None:
        self.is_closed = True
