"""`TorchSession`: refused modes, devices and files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import model.checkpoint
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


def test_a_file_that_is_exchanged_after_its_hash_was_checked(
    demo_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    monkeypatch.setattr(model.checkpoint, "load", lambda *_: demo_checkpoint)
    with pytest.raises(ArtifactError, match=f"is not the expected {empty[:16]}"):
        TorchSession.open(path, sha256=empty)
    same = replace(demo_checkpoint, sha256=empty)
    monkeypatch.setattr(model.checkpoint, "load", lambda *_: same)
    TorchSession.open(path, sha256=empty.upper()).close()
