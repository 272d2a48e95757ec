"""An engine behind `DevicePredictor`, on a stand-in for the GPU whose memory is the host's."""

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
    """A NumPy array as if it lay on the GPU."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.shape = values.shape
        self.__cuda_array_interface__ = {
            "data": (values.ctypes.data, False), "shape": values.shape,
            "typestr": values.dtype.str, "version": 3, "stream": None,
        }  # fmt: skip


def _seen(array: DeviceArray) -> np.ndarray:
    memory = (ctypes.c_uint8 * array.nbytes).from_address(array.address)
    return np.frombuffer(memory, array.typestr).reshape(array.shape)


class _HostAddresses:
    """NumPy computes at once, the stand-in when it is awaited: so await it in between."""

    def __init__(self, session: TensorRTSession, cuda: FakeCuda) -> None:
        self._session, self._cuda = session, cuda
        self.artifact = session.artifact
        self.stream = cuda.create_stream()

    @contextmanager
    def on_device(self, feed: Any, stream: Any = None) -> Iterator[dict[str, np.ndarray]]:
        shown = {name: _Interface(values) for name, values in feed.items()}
        with self._session.on_device(shown, self.stream) as answer:
            self._cuda.synchronize(self.stream)
            yield {name: _seen(array) for name, array in answer.items()}

    def close(self) -> None:
        self._session.close()


@pytest.fixture
def session(engine: Path, library: FakeTensorRT, cuda: FakeCuda) -> Iterator[TensorRTSession]:
    opened = TensorRTSession(engine, cuda=cuda)
    yield opened
    opened.close()


def test_finds_what_the_predictor_finds_with_the_engine(
    session: TensorRTSession, cuda: FakeCuda, demo_pixels: np.ndarray
) -> None:
    expected = Predictor(session).predict(demo_pixels)
    cuda.counts.clear()
    predictor = DevicePredictor(_HostAddresses(session, cuda))
    for _ in range(2):
        (found,) = predictor.predict(demo_pixels).to_host()
        assert found.names == expected.names
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.mask_probs, expected.mask_probs)
    assert cuda.counts["upload"] == cuda.counts["download"] == 0


def test_nobody_waits_on_the_host(session: TensorRTSession, cuda: FakeCuda) -> None:
    """A run of another stream waits, on the device, for who still reads the buffers."""
    feed = {
        "images": _Interface(np.zeros((1, 3, 320, 448), np.float32)),
        "image_hw": _Interface(np.array([[320, 448]], np.float32)),
    }
    first, second = cuda.create_stream(), cuda.create_stream()
    read: list[str] = []
    cuda.counts.clear()
    with session.on_device(feed, first):
        cuda.submit(first, lambda: read.append("first"))
    with session.on_device(feed, second):
        cuda.submit(second, lambda: read.append("second"))
    assert cuda.counts["synchronize"] == 0
    assert read == []
    cuda.synchronize(second)
    assert read == ["first", "second"]


def test_a_host_run_waits_for_who_still_reads(session: TensorRTSession, cuda: FakeCuda) -> None:
    feed = {
        "images": np.zeros((1, 3, 320, 448), np.float32),
        "image_hw": np.array([[320, 448]], np.float32),
    }
    stream = cuda.create_stream()
    read: list[str] = []
    shown = {name: _Interface(values) for name, values in feed.items()}
    with session.on_device(shown, stream):
        cuda.submit(stream, lambda: read.append("device"))
    session.run(feed)
    assert read == ["device"]


def test_closing_waits_and_gives_everything_back(session: TensorRTSession, cuda: FakeCuda) -> None:
    feed = {
        "images": _Interface(np.zeros((1, 3, 320, 448), np.float32)),
        "image_hw": _Interface(np.array([[320, 448]], np.float32)),
    }
    stream = cuda.create_stream()
    read: list[str] = []
    with session.on_device(feed, stream):
        cuda.submit(stream, lambda: read.append("read"))
    session.close()
    assert read == ["read"]
    assert cuda.alive == 1  # the stream of this test
