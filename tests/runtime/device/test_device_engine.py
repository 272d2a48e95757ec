"""An engine behind `DevicePredictor`, on a fake GPU in host memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.cuda.array_interface import DeviceArray
from runtime.device.predictor import DevicePredictor
from runtime.predictor import Predictor
from runtime.sessions.tensorrt import TensorRTSession
from tests.runtime.fake_gpu import FakeCuda, FakeTensorRT


class _Interface:
    """A NumPy array that poses as a GPU array."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.shape = values.shape
        self.__cuda_array_interface__ = {
            "data": (values.ctypes.data, False), "shape": values.shape,
            "typestr": values.dtype.str, "version": 3, "stream": None,
        }  # fmt: skip


def _as_numpy(array: DeviceArray) -> np.ndarray:
    memory = (ctypes.c_uint8 * array.nbytes).from_address(array.address)
    return np.frombuffer(memory, array.typestr).reshape(array.shape)


class _HostAddresses:
    """NumPy computes at once, the fake GPU at synchronization: so synchronize in between."""

    def __init__(self, session: TensorRTSession, cuda: FakeCuda) -> None:
        self._session, self._cuda = session, cuda
        self.artifact = session.artifact
        self.stream = cuda.create_stream()

    @contextmanager
    def on_device(self, inputs: Any, stream: Any = None) -> Iterator[dict[str, np.ndarray]]:
        arrays = {name: _Interface(values) for name, values in inputs.items()}
        with self._session.on_device(arrays, self.stream) as outputs:
            self._cuda.synchronize(self.stream)
            yield {name: _as_numpy(array) for name, array in outputs.items()}

    def close(self) -> None:
        self._session.close()


@pytest.fixture
def session(engine: Path, library: FakeTensorRT, cuda: FakeCuda) -> Iterator[TensorRTSession]:
    opened = TensorRTSession(engine, cuda=cuda)
    yield opened
    opened.close()


def test_results_equal_the_predictors_with_the_engine(
    session: TensorRTSession, cuda: FakeCuda, demo_pixels: np.ndarray
) -> None:
    expected = Predictor(session).predict(demo_pixels)
    cuda.counts.clear()
    predictor = DevicePredictor(_HostAddresses(session, cuda))
    for _ in range(2):
        (result,) = predictor.predict(demo_pixels).to_host()
        assert result.names == expected.names
        np.testing.assert_array_equal(result.boxes, expected.boxes)
        np.testing.assert_array_equal(result.mask_probs, expected.mask_probs)
    assert cuda.counts["upload"] == cuda.counts["download"] == 0


def test_the_host_never_waits(session: TensorRTSession, cuda: FakeCuda) -> None:
    """A run on another stream waits on the device until the buffers are read."""
    inputs = {
        "images": _Interface(np.zeros((1, 3, 64, 96), np.float32)),
        "image_hw": _Interface(np.array([[64, 96]], np.float32)),
    }
    first, second = cuda.create_stream(), cuda.create_stream()
    read: list[str] = []
    cuda.counts.clear()
    with session.on_device(inputs, first):
        cuda.submit(first, lambda: read.append("first"))
    with session.on_device(inputs, second):
        cuda.submit(second, lambda: read.append("second"))
    assert cuda.counts["synchronize"] == 0
    assert read == []
    cuda.synchronize(second)
    assert read == ["first", "second"]


def test_a_host_run_waits_until_the_buffers_are_read(
    session: TensorRTSession, cuda: FakeCuda
) -> None:
    inputs = {
        "images": np.zeros((1, 3, 64, 96), np.float32),
        "image_hw": np.array([[64, 96]], np.float32),
    }
    stream = cuda.create_stream()
    read: list[str] = []
    arrays = {name: _Interface(values) for name, values in inputs.items()}
    with session.on_device(arrays, stream):
        cuda.submit(stream, lambda: read.append("device"))
    session.run(inputs)
    assert read == ["device"]


def test_closing_waits_and_frees_all_resources(session: TensorRTSession, cuda: FakeCuda) -> None:
    inputs = {
        "images": _Interface(np.zeros((1, 3, 64, 96), np.float32)),
        "image_hw": _Interface(np.array([[64, 96]], np.float32)),
    }
    stream = cuda.create_stream()
    read: list[str] = []
    with session.on_device(inputs, stream):
        cuda.submit(stream, lambda: read.append("read"))
    session.close()
    assert read == ["read"]
    assert cuda.alive == 1  # the stream of this test
