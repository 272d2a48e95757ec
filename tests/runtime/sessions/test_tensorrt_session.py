"""The engine session: hash check, shapes, contexts, graphs and device arrays.

Library and GPU are the fakes of `fake_gpu`; `tests/gpu` runs the real ones.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from model.errors import ArtifactError, DeviceError, MissingDependencyError, UsageError
from runtime.cuda.array_interface import DeviceArray
from runtime.cuda.driver import CudaRuntime
from runtime.predictor import Predictor
from runtime.sessions.open import open_session
from runtime.sessions.tensorrt import TensorRTSession
from tests.runtime.fake_gpu import FakeCuda, FakeTensorRT, write_engine

UInt8 = np.ndarray


@pytest.fixture
def session(engine: Path, library: FakeTensorRT, cuda: FakeCuda) -> Iterator[TensorRTSession]:
    opened = TensorRTSession(engine, cuda=cuda)
    yield opened
    opened.close()


def inputs(batch: int, seed: int = 0, hw: tuple[int, int] = (64, 96)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.random((batch, 3, *hw), np.float32)
    return {"images": images, "image_hw": np.tile(np.array([hw], np.float32), (batch, 1))}


def test_results_equal_onnx_runtime_on_the_same_graph(
    session: TensorRTSession, tiny_rtx_onnx: Path, demo_pixels: UInt8
) -> None:
    with Predictor.open(tiny_rtx_onnx, threads=1) as expected:
        reference = expected.predict([demo_pixels, demo_pixels[:300]], batch_size=2)
    results = Predictor(session).predict([demo_pixels, demo_pixels[:300]], batch_size=2)
    assert len(results[0]) > 5
    for ours, theirs in zip(results, reference, strict=True):
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-3)
        assert ours.names == theirs.names


def test_every_batch_size_of_the_range_with_its_graph(
    session: TensorRTSession, cuda: FakeCuda, tiny_rtx_onnx: Path
) -> None:
    reference = open_session(tiny_rtx_onnx, None, None)
    for batch in (1, 3, 2):
        for repeat in range(4):
            arrays = inputs(batch, seed=repeat)
            outputs = session.run(arrays)
            for name, value in reference.run(arrays).items():
                np.testing.assert_allclose(outputs[name], value, atol=1e-3, err_msg=name)
    # The first call of a batch size runs directly, the second captures and replays.
    assert cuda.counts["launch"] == 3 * 3


def test_without_graphs_nothing_is_captured(
    engine: Path, library: FakeTensorRT, cuda: FakeCuda
) -> None:
    opened = TensorRTSession(engine, cuda_graphs=False, cuda=cuda)
    first = [opened.run(inputs(1))["scores"] for _ in range(3)]
    assert cuda.counts["launch"] == 0
    np.testing.assert_array_equal(first[0], first[2])


def test_outputs_do_not_change_with_the_next_call(session: TensorRTSession) -> None:
    first = session.run(inputs(1, seed=1))
    boxes = first["boxes"].copy()
    session.run(inputs(1, seed=2))
    np.testing.assert_array_equal(first["boxes"], boxes)


def test_threads_share_a_pool_of_contexts(
    engine: Path, library: FakeTensorRT, cuda: FakeCuda
) -> None:
    opened = TensorRTSession(engine, contexts=2, cuda=cuda)
    batches = [inputs(1, seed=s) for s in range(4)]
    serial = [opened.run(f)["boxes"] for f in batches]
    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(lambda s: opened.run(batches[s % 4])["boxes"], range(24)))
    for index, boxes in enumerate(results):
        np.testing.assert_array_equal(boxes, serial[index % 4])
    assert library.contexts <= 2


def test_all_resources_are_freed(engine: Path, library: FakeTensorRT, cuda: FakeCuda) -> None:
    for _ in range(3):
        opened = TensorRTSession(engine, cuda=cuda)
        for batch in (1, 1, 1, 2):
            opened.run(inputs(batch))
        assert cuda.alive > 0
        opened.close()
        opened.close()
        assert cuda.alive == 0
    with pytest.raises(ArtifactError, match="the session is closed"):
        opened.run(inputs(1))


def test_inputs_outside_the_profile(session: TensorRTSession, subtests: pytest.Subtests) -> None:
    for arrays, message in [
        (inputs(4), "built for a batch of 1 to 3, got 4; export with --batch 4"),
        (inputs(0), "batch of 1 to 3, got 0"),
        (inputs(1, hw=(64, 64)), r"input images: built for .*--size"),
        ({"images": inputs(1)["images"]}, "expected inputs images, image_hw"),
    ]:
        with subtests.test(message):
            with pytest.raises(UsageError, match=message):
                session.run(arrays)
            assert session.run(inputs(1))["counts"].shape == (1,)


def test_a_network_that_does_not_start_leaves_the_context_usable(
    session: TensorRTSession, library: FakeTensorRT
) -> None:
    good = session.run(inputs(1))
    for _ in range(2):
        library.refuses_to_run = True
        with pytest.raises(DeviceError, match="could not start"):
            session.run(inputs(1))
        library.refuses_to_run = False
    np.testing.assert_array_equal(session.run(inputs(1))["boxes"], good["boxes"])


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        ("refuses_shapes", r"refuses shape \(1, 3, 64, 96\) for 'images'"),
        ("refuses_addresses", "refuses an address for 'images'"),
    ],
)
def test_refused_inputs_leave_the_session_usable(
    switch: str, message: str, session: TensorRTSession, library: FakeTensorRT, cuda: FakeCuda
) -> None:
    setattr(library, switch, True)
    with pytest.raises(DeviceError, match=message):
        session.run(inputs(1))
    assert cuda.alive == 0 or switch == "refuses_shapes"
    setattr(library, switch, False)
    assert session.run(inputs(1))["counts"].shape == (1,)


def _on_device(cuda: FakeCuda, values: np.ndarray) -> int:
    address = cuda.allocate(values.nbytes)
    ctypes.memmove(address, values.ctypes.data, values.nbytes)
    return address


class _Interface:
    """An array like CuPy's or PyTorch's on the GPU."""

    def __init__(self, address: int, shape: tuple[int, ...], **fields: Any) -> None:
        self.__cuda_array_interface__ = {
            "data": (address, False), "shape": shape, "typestr": "<f4", "version": 3, **fields,
        }  # fmt: skip


def _bytes_at(array: DeviceArray) -> np.ndarray:
    memory = (ctypes.c_uint8 * array.nbytes).from_address(array.address)
    return np.frombuffer(bytes(memory), array.typestr).reshape(array.shape)


def test_device_arrays_go_in_and_out_without_a_copy(
    session: TensorRTSession, cuda: FakeCuda
) -> None:
    host = inputs(2)
    expected = session.run(host)
    cuda.counts.clear()
    producer, consumer = cuda.create_stream(), cuda.create_stream()
    arrays = {
        name: _Interface(_on_device(cuda, v), v.shape, stream=producer) for name, v in host.items()
    }
    with session.on_device(arrays, stream=consumer) as outputs:
        assert cuda.counts["upload"] == cuda.counts["download"] == 0
        assert cuda.counts["wait_for"] == 2
        cuda.synchronize(consumer)
        assert outputs["boxes"].__cuda_array_interface__["stream"] == consumer
        for name, value in expected.items():
            np.testing.assert_array_equal(_bytes_at(outputs[name]), value)
    # The next host call must read its own buffers again.
    np.testing.assert_array_equal(session.run(host)["boxes"], expected["boxes"])


def test_dlpack_arrays_are_accepted(session: TensorRTSession, cuda: FakeCuda) -> None:
    class _OnGpu:
        """NumPy's own capsule with the device changed to a GPU."""

        def __init__(self, values: np.ndarray) -> None:
            self.values = values
            self.shape = values.shape

        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 0)

        def __dlpack__(self, stream: int | None = None) -> Any:
            assert stream is not None
            return self.values.__dlpack__()

    host = inputs(1)
    expected = session.run(host)
    with session.on_device({n: _OnGpu(v) for n, v in host.items()}) as outputs:
        cuda.synchronize(outputs["boxes"].stream or 0)
        np.testing.assert_array_equal(_bytes_at(outputs["boxes"]), expected["boxes"])


def test_invalid_device_arrays(session: TensorRTSession, subtests: pytest.Subtests) -> None:
    for value, message in [
        (np.zeros((1, 3, 64, 96), np.float32), "on the host"),
        ([1.0], "expected an array on the GPU"),
        (_Interface(64, (1, 3, 64, 96), typestr="<f2"), "float32, got '<f2'"),
        (_Interface(64, (1, 3, 64, 96), strides=(4, 4, 4, 4)), "dense row-major"),
        (_Interface(64, (1, 3, 64)), "input images: built for"),
    ]:
        with subtests.test(message):
            arrays = {"images": value, "image_hw": _Interface(64, (1, 2))}
            with pytest.raises(UsageError, match=message), session.on_device(arrays):
                pass


def test_engines_that_cannot_be_opened(
    engine: Path,
    library: FakeTensorRT,
    cuda: FakeCuda,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library.refuses = True
    with pytest.raises(ArtifactError, match=r"refuses it .Serialization assertion failed"):
        TensorRTSession(engine, cuda=cuda)
    with pytest.raises(UsageError, match="contexts: expected at least 1, got 0"):
        TensorRTSession(tmp_path / "a.engine", contexts=0)
    with pytest.raises(UsageError, match=r"threads: .* runs on the GPU"):
        Predictor.open(engine, threads=2)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'maskport\[rtx\]'"):
        TensorRTSession(engine, cuda=cuda)


def test_no_memory_for_a_context(session: TensorRTSession, library: FakeTensorRT) -> None:
    library.out_of_memory = True
    with pytest.raises(ArtifactError, match="no execution context"):
        session.run(inputs(1))
    library.out_of_memory = False
    assert session.run(inputs(1))["counts"].shape == (1,)


def test_the_kernel_cache_is_loaded_and_saved(
    engine: Path, library: FakeTensorRT, cuda: FakeCuda, tmp_path: Path
) -> None:
    cache = tmp_path / "kernels.cache"
    for expected in (b"+kernels", b"+kernels+kernels"):
        opened = TensorRTSession(engine, runtime_cache=cache, cuda=cuda)
        opened.run(inputs(1))
        opened.close()
        assert cache.read_bytes() == expected


def test_only_tensorrt_rtx_has_a_kernel_cache(
    tiny_rtx_onnx: Path, cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = FakeTensorRT(cuda)
    library.__name__ = "tensorrt"
    monkeypatch.setitem(sys.modules, "tensorrt", library)  # type: ignore[arg-type]
    engine = write_engine(tiny_rtx_onnx, tmp_path / "tiny.engine", library="tensorrt")
    with pytest.raises(UsageError, match="runtime_cache: only TensorRT-RTX compiles kernels"):
        TensorRTSession(engine, runtime_cache=tmp_path / "kernels.cache", cuda=cuda)


def test_no_gpu_is_one_line(
    engine: Path, library: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = SimpleNamespace(cudaSuccess=0, cudaErrorNoDevice=100)
    fake = SimpleNamespace(
        cudaError_t=codes,
        cudaGetDeviceCount=lambda: (100, None),
        cudaGetErrorString=lambda status: (0, b"no CUDA-capable device is detected"),
    )
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(runtime=fake))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match=r"no CUDA-capable device.*run on a machine with a GPU"):
        CudaRuntime()
    with pytest.raises(DeviceError):
        Predictor.open(engine)
    assert library.deserialized == []
