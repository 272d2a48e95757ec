"""The emulator as a session: statistics over several runs, and errors of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.precision.emulator import RANGES_OUTPUT
from export.precision.ranges import HalfTensor, RangeReport
from export.precision.session import EmulatedSession
from model.errors import ArtifactError, UsageError


class _Counting:
    """Returns the statistics of one tensor, run by run."""

    def __init__(self, rows: list[list[float]]) -> None:
        self._rows = iter(rows)

    def run(self, names: None, feed: dict[str, Any]) -> list[np.ndarray]:
        return [np.float32(next(self._rows))]


def test_counts_exceed_the_range_of_float32_integers(demo_onnx: Path) -> None:
    session: Any = EmulatedSession(demo_onnx, threads=1)
    session._outputs, session._tensors = [RANGES_OUTPUT], [HalfTensor("t", "body", "Conv", "fp16")]
    session._session = _Counting([[2**24, 3.0, 2**24, 0, 1], [1, 7.0, 1, 0, 1], [1, 5.0, 1, 0, 1]])
    for _ in range(3):
        session.run({})
    (tensor,) = session.ranges.tensors
    assert (tensor.size, tensor.overflowed, tensor.near) == (2**24 + 2, 2**24 + 2, 3)
    assert tensor.largest == 7.0


def test_an_onnxruntime_error_names_the_file(demo_onnx: Path) -> None:
    session = EmulatedSession(demo_onnx, threads=1)
    feed = {"images": np.zeros((1, 4, 64, 64), np.float32), "image_hw": np.ones((1, 2), np.float32)}
    with pytest.raises(ArtifactError, match="the emulated graph failed") as caught:
        session.run(feed)
    assert str(demo_onnx) in str(caught.value)
    session.close()
    with pytest.raises(ArtifactError, match="closed; open it again"):
        session.run(feed)


def test_an_empty_report_says_so() -> None:
    report = RangeReport(())
    assert str(report) == "no half tensor was measured"
    for name in ("nearest", "most_subnormal"):
        with pytest.raises(ArtifactError, match="no half tensor was measured"):
            getattr(report, name)


def test_threads_have_a_bound(demo_onnx: Path) -> None:
    with pytest.raises(UsageError, match="expected at most 1024, got 100000"):
        EmulatedSession(demo_onnx, threads=100_000)
