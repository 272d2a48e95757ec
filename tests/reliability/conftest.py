"""The tiny model, opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.predictor import Predictor


@pytest.fixture
def predictor(tiny_onnx: Path) -> Iterator[Predictor]:
    with Predictor.open(tiny_onnx, threads=1) as opened:
        yield opened
