"""The CUDA runtime on machines without a GPU or its library."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from model.errors import DeviceError, MissingDependencyError
from runtime.cuda.driver import CudaRuntime


def _cuda_with(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    """Install a fake CUDA runtime with so many GPUs."""
    fake = SimpleNamespace(
        cudaError_t=SimpleNamespace(cudaSuccess=0), cudaGetDeviceCount=lambda: (0, gpus)
    )
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(runtime=fake))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake)  # type: ignore[arg-type]


def test_a_driver_or_gpu_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    _cuda_with(monkeypatch, 0)
    with pytest.raises(DeviceError, match="no CUDA GPU on this machine"):
        CudaRuntime()
    _cuda_with(monkeypatch, 2)
    with pytest.raises(DeviceError, match="device cuda:2: expected cuda:0 to cuda:1"):
        CudaRuntime(2)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'maskport\[engine\]'"):
        CudaRuntime()
