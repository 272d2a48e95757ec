"""Every kind of torchvision model as a `native` graph: parity in ONNX Runtime, and an engine; slow.

TensorRT-RTX compiles the same file whose results are compared.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from export.engine import build_engine
from export.onnx import export_onnx
from export.parity.torchvision_reference import TorchvisionEager
from export.tracing import GraphShape
from model.checkpoint import SpecOptions, load
from model.native.options import NativeOptions
from runtime.compare.attribution import explain
from runtime.compare.limits import check
from runtime.compare.matching import compare
from runtime.predictor import Predictor
from tests.lively import enliven, picture
from tests.zoo import LONG_SIDE, SHORT_SIDE, ZOO

# The photos' sides do not fill the canvases, and one photo must shrink to fit.
CANVASES = {"landscape": (224, 352), "portrait": (352, 224)}
PHOTOS_HW = {
    "landscape": ((150, 200), (181, 333), (90, 400)),
    "portrait": ((260, 170), (333, 181), (400, 90)),
}
# Random weights suppress in longer chains than trained ones.
MANY_ROUNDS = NativeOptions(proposal_rounds=64, detection_rounds=64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "way"),
    [(kind, ("landscape", "portrait")[index % 2]) for index, kind in enumerate(ZOO)],
)
def test_native_equals_eager_on_the_same_canvas_and_compiles(
    kind: str, way: str, tmp_path: Path
) -> None:
    theirs = enliven(ZOO[kind](), seed=sum(map(ord, kind)))
    weights, path = tmp_path / "weights.pth", tmp_path / "model.rtx.onnx"
    torch.save(theirs.state_dict(), weights)
    options = SpecOptions(short_side=SHORT_SIDE, long_side=LONG_SIDE)
    checkpoint, (height, width) = load(weights, options), CANVASES[way]
    shape = GraphShape(height=height, width=width, batch_range=(1, 2, 3))
    export_onnx(
        weights,
        path,
        options,
        shape,
        check_photo=None,
        target="tensorrt-rtx",
        native_options=MANY_ROUNDS,
    )
    photos = [picture(*hw, seed=i) for i, hw in enumerate(PHOTOS_HW[way])]
    eager = TorchvisionEager(checkpoint, (height, width), theirs)
    runs = [eager.run(photo) for photo in photos]
    with Predictor.open(path, on_uncertified="raise") as predictor:
        for batch_size in (1, 3):
            results = predictor.predict(photos, batch_size=batch_size)
            rows = [
                compare(run.detections, result, str(i))
                for i, (run, result) in enumerate(zip(runs, results, strict=True))
            ]
            verdict = explain(check(rows), rows, lambda name: runs[int(name)].trace)
            assert verdict.detections >= 150
            assert verdict.passed, "\n".join(map(str, [verdict, *verdict.excesses]))
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    (report,) = build_engine(path, gpu=["sm89"])
    assert set(report.info.layer_types) == {"float32"}
