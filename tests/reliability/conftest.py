"""The tiny model, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.predictor import Predictor
from tests.reliability import tiny


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.weights(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_onnx(tiny_weights: Path) -> Path:
    return tiny.exported(tiny_weights)


@pytest.fixture
def predictor(tiny_onnx: Path) -> Iterator[Predictor]:
    with Predictor.open(tiny_onnx, threads=1) as opened:
        yield opened
