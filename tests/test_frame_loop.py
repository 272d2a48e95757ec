"""The frame loop on the CPU: it tracks the shapes of the panning photo, and copies once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from examples import frame_loop


def test_the_shapes_are_tracked() -> None:
    table = frame_loop.run(None, "cpu", 3)
    assert table.shape[0] == 3
    tracks = [set(frame[frame[:, 0] >= 0, 0].astype(int)) for frame in table]
    assert len(tracks[0]) >= 10
    # The camera moves by a few pixels; only shapes at the seam may appear or disappear.
    for before, after in pairwise(tracks):
        assert len(before & after) >= 0.8 * len(before)
    assert (table[..., 3][table[..., 0] >= 0] > 0).all()
    assert not table[..., 1:][table[..., 0] < 0].any()


def test_the_table_is_the_one_copy() -> None:
    from tests.runtime.device.no_host_copy import torch_without_host_copies

    predictor = frame_loop.open_predictor(None, "cpu")
    frames = list(frame_loop.camera(2, "cpu"))
    tracks: Any = frame_loop.Tracks("cpu")
    frame_loop.measure(predictor.predict(frames[0]), tracks)
    with torch_without_host_copies() as counter:
        table = frame_loop.measure(predictor.predict(frames[1]), tracks)
    assert counter.copies == []
    assert isinstance(table, torch.Tensor)
    assert np.isfinite(table.numpy()).all()


def test_without_a_gpu_the_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert frame_loop.main(["--frames", "1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: device cuda: PyTorch finds no CUDA GPU")
    assert error.count("\n") == 1
