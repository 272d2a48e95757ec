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
        found = predictor.predict(demo_pixels)
        assert found.names == expected.names
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.02)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)


@pytest.mark.parametrize("mode", ["compiled", "cuda-graph"])
def test_half_precision(demo_checkpoint: Checkpoint, demo_pixels: np.ndarray, mode: Mode) -> None:
    expected = Predictor(TorchSession(demo_checkpoint)).predict(demo_pixels)
    found = Predictor(TorchSession(demo_checkpoint, "cuda", mode, half=True)).predict(demo_pixels)
    assert abs(len(found) - len(expected)) <= 3
    best = min(len(found), len(expected), 8)
    np.testing.assert_allclose(found.scores[:best], expected.scores[:best], atol=0.05)
