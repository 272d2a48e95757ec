"""The checkpoint in PyTorch on a GPU, every mode against the eager network on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from model.checkpoint import Checkpoint
from runtime.predictor import Predictor
from runtime.sessions.torch import MODES, Mode, TorchSession

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("mode", MODES)
def test_full_precision(demo_checkpoint: Checkpoint, demo_pixels: np.ndarray, mode: Mode) -> None:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    expected = Predictor(TorchSession(demo_checkpoint)).predict(demo_pixels)
    predictor = Predictor(TorchSession(demo_checkpoint, "cuda", mode))
    for _ in range(3):
        detections = predictor.predict(demo_pixels)
        assert detections.names == expected.names
        np.testing.assert_allclose(detections.boxes, expected.boxes, atol=0.02)
        np.testing.assert_allclose(detections.scores, expected.scores, atol=1e-3)


@pytest.mark.parametrize("mode", ["compiled", "cuda-graph"])
def test_half_precision(demo_checkpoint: Checkpoint, demo_pixels: np.ndarray, mode: Mode) -> None:
    expected = Predictor(TorchSession(demo_checkpoint)).predict(demo_pixels)
    detections = Predictor(TorchSession(demo_checkpoint, "cuda", mode, half=True)).predict(
        demo_pixels
    )
    assert abs(len(detections) - len(expected)) <= 3
    best = min(len(detections), len(expected), 8)
    np.testing.assert_allclose(detections.scores[:best], expected.scores[:best], atol=0.05)
