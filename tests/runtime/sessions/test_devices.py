"""A network runs on the requested device, or there is an error."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from model.errors import DeviceError, UsageError
from runtime.predictor import Predictor
from runtime.sessions.device import Device
from runtime.sessions.open import open_session

GPU_WHEEL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("text", "device"),
    [("cpu", Device("cpu")), ("cuda", Device("cuda", 0)), ("cuda:3", Device("cuda", 3))],
)
def test_names_of_devices(text: str, device: Device) -> None:
    assert Device.parse(text) == device
    assert Device.parse(str(device)) == device


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:x", "CUDA", "cuda:-1", "cuda:1 "])
def test_other_names_are_refused(demo_onnx: Path, text: str) -> None:
    with pytest.raises(UsageError, match="device: expected cpu, cuda or cuda:N"):
        Predictor.open(demo_onnx, device=text)


class _Library:
    """onnxruntime like its GPU wheel; runs on the CPU for any provider."""

    def __init__(self, starts: list[str]) -> None:
        self.providers: list[list[tuple[str, dict[str, str]]]] = []
        self.fallbacks_off = 0
        self._starts = starts
        self.SessionOptions = onnxruntime.SessionOptions

    def get_available_providers(self) -> list[str]:
        return GPU_WHEEL

    def InferenceSession(  # noqa: N802 - the library's name
        self, path: str, options: Any, providers: list[tuple[str, dict[str, str]]]
    ) -> Any:
        self.providers.append(providers)
        real = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def disable() -> None:
            self.fallbacks_off += 1

        return SimpleNamespace(
            get_providers=lambda: self._starts,
            disable_fallback=disable,
            get_modelmeta=real.get_modelmeta,
            get_outputs=real.get_outputs,
            run=real.run,
        )


def _library(monkeypatch: pytest.MonkeyPatch, starts: list[str]) -> _Library:
    library = _Library(starts)
    monkeypatch.setitem(sys.modules, "onnxruntime", library)  # type: ignore[arg-type]
    return library


def test_providers_of_onnxruntime(demo_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = _library(monkeypatch, GPU_WHEEL[1:])
    open_session(demo_onnx, device="cuda:1").close()
    ((first, *others),) = library.providers
    assert first == ("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0"})
    assert [name for name, _ in others] == ["CPUExecutionProvider"]
    assert library.fallbacks_off == 1
    library = _library(monkeypatch, GPU_WHEEL)
    open_session(demo_onnx, "onnxruntime-tensorrt").close()
    assert [name for name, _ in library.providers[0]] == GPU_WHEEL
    assert library.providers[0][0][1] == {"device_id": "0"}
    with pytest.raises(UsageError, match="runs on a GPU"):
        open_session(demo_onnx, "onnxruntime-tensorrt", device="cpu")
    _library(monkeypatch, ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="could not start its CUDAExecutionProvider"):
        open_session(demo_onnx, device="cuda")


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="the GPU wheel is here"
)
def test_the_cpu_wheel_has_no_gpu(demo_onnx: Path) -> None:
    with pytest.raises(DeviceError, match=r"no CUDAExecutionProvider .*'maskport\[gpu\]'"):
        Predictor.open(demo_onnx, device="cuda")


def test_an_engine_needs_a_gpu(tmp_path: Path) -> None:
    engine = tmp_path / "m.sm89.engine"
    engine.write_bytes(b"x")
    with pytest.raises(UsageError, match="runs on the GPU it was built for"):
        Predictor.open(engine, device="cpu")


def test_a_checkpoint_runs_on_the_requested_device() -> None:
    import torch

    from tests.conftest import DEMO

    with Predictor.open(DEMO / "shapes.pth", device="cpu") as predictor:
        assert predictor.artifact.manifest.lowering == "eager"
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="PyTorch finds no CUDA GPU"):
        Predictor.open(DEMO / "shapes.pth", device="cuda:0")


def test_values_of_on_uncertified(demo_onnx: Path) -> None:
    with pytest.raises(
        UsageError, match="on_uncertified: expected warn, raise or ignore, got 'shout'"
    ):
        Predictor.open(demo_onnx, on_uncertified="shout")  # type: ignore[arg-type]
