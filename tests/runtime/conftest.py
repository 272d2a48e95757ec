"""A fake GPU and TensorRT-RTX, and an "engine" for them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.runtime.fake_gpu import FakeCuda, FakeTensorRT, write_engine


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def library(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    fake = FakeTensorRT(cuda)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake)  # type: ignore[arg-type]
    return fake


@pytest.fixture
def engine(tiny_rtx_onnx: Path, tmp_path: Path) -> Path:
    return write_engine(tiny_rtx_onnx, tmp_path / "tiny.sm89.engine")
