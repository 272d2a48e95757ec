"""A second reader of the exported file: OpenVINO, at FP32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.onnx import SAMPLE_PHOTO
from export.parity.torchvision_reference import TorchvisionEager
from model.checkpoint import Checkpoint
from runtime.compare.attribution import explain
from runtime.compare.limits import check
from runtime.compare.matching import compare
from runtime.postprocessing.from_raw import from_raw, raw_rows
from runtime.preprocessing.canvas import to_canvas
from runtime.sources.photos import decode
from tests.lively import picture

openvino = pytest.importorskip("openvino")


@pytest.mark.parametrize(
    ("photos", "at_least"),
    [
        pytest.param([decode(SAMPLE_PHOTO)], 20, id="sample"),
        pytest.param([decode(SAMPLE_PHOTO)[:, ::-1].copy(), picture(300, 200, 1)], 30, id="mixed"),
        pytest.param([np.zeros((200, 300, 3), np.uint8)], 0, id="blank"),
    ],
)
def test_openvino_equals_eager(
    demo_onnx: Path, demo_checkpoint: Checkpoint, photos: list[np.ndarray], at_least: int
) -> None:
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(demo_onnx), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    spec = demo_checkpoint.spec
    canvas = to_canvas(photos, spec.preprocess)
    values = compiled({"images": canvas.images, "image_hw": canvas.image_hw})
    outputs = {port.any_name: values[port] for port in compiled.outputs}
    runs = TorchvisionEager(demo_checkpoint).run_batch(photos)
    comparisons, traces = [], {}
    for row, (photo, run) in enumerate(zip(photos, runs, strict=True)):
        height, width = canvas.image_hw[row].astype(int).tolist()
        detections = from_raw(raw_rows(outputs, row), spec, photo.shape[:2], (height, width))
        comparisons.append(compare(run.detections, detections, str(row)))
        traces[str(row)] = run.trace
    verdict = explain(check(comparisons), comparisons, traces.get)
    assert verdict.detections >= at_least
    assert verdict.passed, "\n".join(map(str, [verdict, *verdict.excesses]))
