"""The tiny model, opened once per file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runtime.predictor import Predictor
from runtime.sessions.open import open_session
from runtime.sessions.session import Session


@pytest.fixture(scope="module")
def predictor(tiny_onnx: Path) -> Iterator[Predictor]:
    with Predictor.open(tiny_onnx, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def session(tiny_onnx: Path) -> Iterator[Session]:
    with closing(open_session(tiny_onnx, None, 1)) as opened:
        yield opened
