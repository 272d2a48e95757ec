"""From frames to pasted masks nothing is copied to the host; the counters detect copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from runtime.device.predictor import DevicePredictor
from runtime.sessions.torch import TorchSession
from tests.runtime.device import models
from tests.runtime.device.no_host_copy import (
    HostCopyError,
    NoCopyArray,
    numpy_without_host_copies,
    torch_without_host_copies,
)

ROWS = slice(0, 8)


@pytest.mark.parametrize("kind", models.KINDS)
def test_none_on_tensors_of_pytorch(kind: str) -> None:
    predictor = DevicePredictor(TorchSession(models.checkpoint(kind), mode="static"))
    frames = torch.from_numpy(models.photos(2))
    # The first run computes the network's constants on the host.
    predictor.predict(torch.zeros_like(frames))
    with torch_without_host_copies() as counter:
        result = predictor.predict(frames, score_threshold=models.threshold(kind))
        masks = None if result.masks is None else [result.paste(i, ROWS) for i in range(2)]
    assert counter.copies == []
    assert (result.counts.numpy() > 0).any()
    assert masks is None or any(dense.any() for dense in masks)


class _Steps:
    """A session on NumPy arrays with a PyTorch network."""

    def __init__(self, session: TorchSession) -> None:
        self._session = session
        self.artifact = session.artifact
        self.counter: Any = None

    def on_device(self, inputs: Any, stream: Any = None) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def block() -> Any:
            assert all(isinstance(v, np.ndarray) for v in inputs.values())
            with self._session.on_device(inputs, stream) as tensors:
                outputs = {}
                for name, value in tensors.items():
                    outputs[name] = np.from_dlpack(value).copy().view(NoCopyArray)
                    outputs[name].counter = self.counter
                yield outputs

        return block()

    def close(self) -> None:
        self._session.close()


@pytest.mark.parametrize("kind", models.KINDS)
def test_none_on_arrays_of_numpy(kind: str) -> None:
    session = _Steps(TorchSession(models.checkpoint(kind), mode="static"))
    frames, counter = numpy_without_host_copies(models.photos(2))
    session.counter = counter
    result = DevicePredictor(session).predict(frames, score_threshold=models.threshold(kind))
    masks = None if result.masks is None else [result.paste(i, ROWS) for i in range(2)]
    assert counter.copies == []
    assert isinstance(result.boxes, NoCopyArray)
    assert np.asarray(result.counts.view(np.ndarray)).any()
    assert masks is None or any(dense.view(np.ndarray).any() for dense in masks)


TORCH_COPIES: dict[str, Callable[[torch.Tensor], Any]] = {
    "item": lambda t: t[0].item(),
    "cpu": lambda t: t.cpu(),
    "to-cpu": lambda t: t.to("cpu"),
    "to-device": lambda t: t.to(device="cpu"),
    "numpy": lambda t: t.numpy(),
    "asarray": lambda t: np.asarray(t),
    "tolist": lambda t: t.tolist(),
    "bool": lambda t: bool(t[0]),
    "if": lambda t: 1 if t[0] > 0 else 2,
    "int": lambda t: int(t[0]),
    "float": lambda t: float(t[0]),
    "index": lambda t: range(10)[t.to(torch.int64)[0]],
    "slice": lambda t: t[: t.to(torch.int64)[0]],
    "nonzero": lambda t: t.nonzero(),
    "where": lambda t: torch.where(t > 0),
    "mask": lambda t: t[t > 0],
    "assign-by-mask": lambda t: t.clone().__setitem__(t > 0, t[:1]),
    "masked-select": lambda t: torch.masked_select(t, t > 0),
    "unique": lambda t: torch.unique(t),
    "print": lambda t: repr(t),
    "any": lambda t: any(t > 0),
}


@pytest.mark.parametrize("copy", TORCH_COPIES.values(), ids=TORCH_COPIES)
def test_a_copy_by_pytorch_is_detected(copy: Callable[[torch.Tensor], Any]) -> None:
    values = torch.tensor([1.0, 0.0, 2.0])
    with torch_without_host_copies() as counter:
        with pytest.raises(HostCopyError):
            copy(values)
        assert len(counter.copies) == 1


NUMPY_COPIES: dict[str, Callable[[np.ndarray], Any]] = {
    "item": lambda a: a.item(0),
    "asarray": lambda a: memoryview(a.tobytes()),
    "tolist": lambda a: a.tolist(),
    "bool": lambda a: bool(a[:1]),
    "int": lambda a: int(a[:1][0:1].reshape(())[...]),
    "nonzero": lambda a: np.nonzero(a),
    "flatnonzero": lambda a: np.flatnonzero(a),
    "where": lambda a: np.where(a > 0),
    "mask": lambda a: a[a > 0],
    "unique": lambda a: np.unique(a),
    "iterate": lambda a: list(a),
}


@pytest.mark.parametrize("copy", NUMPY_COPIES.values(), ids=NUMPY_COPIES)
def test_a_copy_by_numpy_is_detected(copy: Callable[[np.ndarray], Any]) -> None:
    values, counter = numpy_without_host_copies(np.array([1.0, 0.0, 2.0]))
    with pytest.raises(HostCopyError):
        copy(values)
    assert len(counter.copies) == 1


def test_to_host_is_a_copy() -> None:
    predictor = DevicePredictor(TorchSession(models.checkpoint("demo"), mode="static"))
    result = predictor.predict(torch.from_numpy(models.photos(1)))
    with torch_without_host_copies() as counter:
        with pytest.raises(HostCopyError):
            result.to_host()
        assert counter.copies == ["Tensor.cpu"]


def test_an_eager_network_copies() -> None:
    """The reason why `DevicePredictor.open` uses mode "static"."""
    predictor = DevicePredictor(TorchSession(models.checkpoint("demo"), mode="eager"))
    with torch_without_host_copies(), pytest.raises(HostCopyError):
        predictor.predict(torch.from_numpy(models.photos(1)))
