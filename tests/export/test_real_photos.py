"""The fitted R50-FPN on real photos, against torchvision's own builder.

Four of the photos that `bench/parity.py` runs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from torchvision.models.detection import maskrcnn_resnet50_fpn

from export.onnx import export_onnx
from export.parity.torchvision_reference import TorchvisionEager
from model.checkpoint import SpecOptions, load
from runtime.compare.attribution import explain
from runtime.compare.limits import check
from runtime.compare.matching import compare
from runtime.predictor import Predictor
from runtime.sources.photos import decode

pytestmark = [pytest.mark.data, pytest.mark.slow]


def test_exported_r50_equals_torchvision(data_folder: Path, tmp_path: Path) -> None:
    weights = data_folder / "weights" / "r50_fpn_coco24.pth"
    options = SpecOptions(short_side=320, long_side=533)
    checkpoint = load(weights, options)
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=320, max_size=533)
    theirs.load_state_dict(dict(checkpoint.original))
    eager = TorchvisionEager(checkpoint, model=theirs.eval())
    photos = [decode(p) for p in sorted((data_folder / "coco" / "val2017").glob("*.jpg"))[:4]]
    runs = [eager.run(photo) for photo in photos]
    path = tmp_path / "model.onnx"
    export_onnx(weights, path, options, check_photo=None)
    with Predictor.open(path) as predictor:
        results = predictor.predict(photos)
    pairs = zip(runs, results, strict=True)
    compared = [compare(run.detections, d, str(i)) for i, (run, d) in enumerate(pairs)]
    verdict = explain(check(compared), compared, lambda name: runs[int(name)].trace)
    assert verdict.detections >= 100
    assert verdict.passed, "\n".join(map(str, [verdict, *verdict.excesses]))
