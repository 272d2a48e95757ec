"""Real engines on a real GPU: parity with ONNX Runtime on the very same file, graphs, tensors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from export.engine import build_engine
from model.errors import MaskportError
from runtime.cuda.driver import local_architecture
from runtime.predictor import Predictor
from runtime.preprocessing.canvas import to_canvas
from runtime.sessions.open import open_session
from runtime.sessions.tensorrt import TensorRTSession

pytestmark = pytest.mark.gpu


def _built(onnx_path: Path, folder: Path, library: str) -> Path:
    pytest.importorskip(library)
    gpu = [local_architecture()] if library == "tensorrt_rtx" else []
    try:
        (report,) = build_engine(onnx_path, folder, gpu)
    except MaskportError as error:
        pytest.skip(f"{library} does not build for this GPU: {error}")
    return report.path


@pytest.fixture(scope="module", params=["tensorrt_rtx", "tensorrt"])
def engine(
    request: pytest.FixtureRequest, demo_rtx_onnx: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    source, folder = demo_rtx_onnx, tmp_path_factory.mktemp("engines")
    if request.param == "tensorrt":
        from tests.export.test_engine import _for_tensorrt

        source = _for_tensorrt(demo_rtx_onnx, folder / "shapes.trt.onnx")
    return _built(source, folder, request.param)


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_finds_what_onnx_runtime_finds(
    engine: Path, demo_rtx_onnx: Path, demo_pixels: np.ndarray, cuda_graphs: bool
) -> None:
    with Predictor.open(demo_rtx_onnx) as reference:
        expected = reference.predict(demo_pixels)
    with Predictor(TensorRTSession(engine, cuda_graphs=cuda_graphs)) as predictor:
        for _ in range(4):  # from the third call on a recorded graph is replayed
            detections = predictor.predict(demo_pixels)
            assert detections.exact
            assert detections.names == expected.names
            np.testing.assert_allclose(detections.boxes, expected.boxes, atol=0.02)
            np.testing.assert_allclose(detections.scores, expected.scores, atol=1e-3)


def test_every_batch_of_the_range(engine: Path, demo_rtx_onnx: Path) -> None:
    rng = np.random.default_rng(0)
    reference, session = open_session(demo_rtx_onnx, None, None), TensorRTSession(engine)
    for batch in (1, 2, 3, 1):
        images = rng.random((batch, 3, 320, 448), np.float32)
        feed = {"images": images, "image_hw": np.tile(np.float32([[320, 448]]), (batch, 1))}
        np.testing.assert_array_equal(session.run(feed)["counts"], reference.run(feed)["counts"])
    session.close()


def test_tensors_of_pytorch_go_in_and_out_without_a_copy(
    engine: Path, demo_pixels: np.ndarray
) -> None:
    import torch

    session = TensorRTSession(engine)
    canvas = to_canvas([demo_pixels], session.artifact.spec.preprocess, (320, 448), 1)
    feed = {"images": canvas.images, "image_hw": canvas.image_hw}
    expected = session.run(feed)
    on_gpu = {name: torch.from_numpy(value).cuda() for name, value in feed.items()}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with session.on_device(on_gpu, stream.cuda_stream) as outputs:
        with torch.cuda.stream(stream):
            boxes = torch.as_tensor(outputs["boxes"], device="cuda").clone()
        stream.synchronize()
    np.testing.assert_allclose(boxes.cpu().numpy(), expected["boxes"], atol=1e-3)
    session.close()


def test_threads(engine: Path, demo_pixels: np.ndarray) -> None:
    with Predictor(TensorRTSession(engine, contexts=3)) as predictor:
        expected = predictor.predict(demo_pixels)
        with ThreadPoolExecutor(6) as threads:
            results = list(threads.map(lambda _: predictor.predict(demo_pixels), range(30)))
    for detections in results:
        np.testing.assert_allclose(detections.boxes, expected.boxes, atol=1e-3)


def test_the_runtime_cache_of_tensorrt_rtx(engine: Path, tmp_path: Path) -> None:
    if "trt" in engine.name.split("."):
        pytest.skip("only TensorRT-RTX compiles kernels when it runs")
    cache = tmp_path / "kernels.cache"
    feed = {
        "images": np.zeros((1, 3, 320, 448), np.float32),
        "image_hw": np.float32([[320, 448]]),
    }
    for _ in range(2):
        session = TensorRTSession(engine, runtime_cache=cache)
        session.run(feed)
        session.close()
        assert cache.stat().st_size > 0
