"""`TorchSession`: refused modes and devices."""

from __future__ import annotations

import numpy as np
import pytest

from model.checkpoint import Checkpoint
from model.errors import ArtifactError, UsageError
from runtime.sessions.torch import TorchSession


def test_invalid_options_and_a_closed_session(demo_checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match=r"mode: expected one of eager, .*, got 'fast'"):
        TorchSession(demo_checkpoint, mode="fast")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="mode cuda-graph: expected a CUDA device, got cpu"):
        TorchSession(demo_checkpoint, mode="cuda-graph")
    with pytest.raises(UsageError, match="device: expected cpu or cuda, got 'moon'"):
        TorchSession(demo_checkpoint, device="moon")
    session = TorchSession(demo_checkpoint)
    session.close()
    hw = np.full((1, 2), 64, np.float32)
    with pytest.raises(ArtifactError, match="the session is closed; open it again"):
        session.run({"images": np.zeros((1, 3, 64, 64), np.float32), "image_hw": hw})
