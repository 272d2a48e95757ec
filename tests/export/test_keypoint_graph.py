"""A keypoint graph: its head runs on filled rows only; it is checked and compiled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image
from torchvision.models import resnet
from torchvision.models.detection import KeypointRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from export.engine import build_engine
from export.onnx import export_onnx
from export.parity.check import check_file
from export.roles import ROLE_KEY
from export.tracing import GraphShape
from model.checkpoint import SpecOptions, load
from model.errors import ExportError
from model.native.options import NativeOptions
from runtime.artifacts.engine_manifest import read_engine_file
from runtime.predictor import Predictor
from runtime.sources.photos import decode
from tests.lively import enliven, picture

KEYPOINTS, ROWS, WIDTH = 5, 30, 16
OPTIONS = SpecOptions(short_side=96, long_side=160, detections=ROWS, candidates=200)


@dataclass(frozen=True)
class Exported:
    """A checkpoint, its dynamic ONNX file, and the report of the check on `photo`."""

    weights: Path
    photo: Path
    path: Path
    parity: str


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("keypoints")
    names = {f"layer{i + 1}": str(i) for i in range(4)}
    body = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1])
    backbone = BackboneWithFPN(body, names, [64, 128, 256, 512], WIDTH, LastLevelMaxPool())
    model = KeypointRCNN(
        backbone,
        min_size=96,
        max_size=160,
        box_head=TwoMLPHead(WIDTH * 49, 32),
        box_predictor=FastRCNNPredictor(32, 3),
        keypoint_head=KeypointRCNNHeads(WIDTH, (WIDTH,)),
        keypoint_predictor=KeypointRCNNPredictor(WIDTH, KEYPOINTS),
    )
    torch.save(enliven(model, seed=3).state_dict(), folder / "weights.pth")
    Image.fromarray(picture(120, 160, 1)).save(folder / "photo.png")
    paths = [folder / name for name in ("weights.pth", "photo.png", "model.onnx")]
    report = export_onnx(paths[0], paths[2], OPTIONS, check_photo=paths[1])
    return Exported(*paths, str(report.check))


def test_the_check_compares_keypoints(exported: Exported) -> None:
    assert f"{ROWS} of {ROWS} detections equal" in exported.parity
    assert " · keypoint 0.00" in exported.parity
    with Predictor.open(exported.path) as predictor:
        detections = predictor.predict(exported.photo)
    assert detections.keypoint_names == tuple(f"keypoint_{i}" for i in range(KEYPOINTS))
    assert detections.keypoints is not None
    assert detections.keypoints.shape == (ROWS, KEYPOINTS, 3)
    inside = (detections.keypoints[..., :2] >= detections.boxes[:, None, :2] - 1).all(axis=2)
    inside &= (detections.keypoints[..., :2] <= detections.boxes[:, None, 2:] + 1).all(axis=2)
    assert inside.all()


@pytest.mark.parametrize(
    ("by", "message"),
    [
        pytest.param((0.05, 0, 0), r"keypoint_px 0\.0", id="position"),
        pytest.param((0, 0, 0.02), r"keypoint_score 0\.0", id="score"),
    ],
)
def test_the_check_refuses_a_wrong_keypoint(
    exported: Exported,
    by: tuple[float, float, float],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Wrong(Predictor):
        def predict(self, *arguments: object, **options: object) -> object:  # type: ignore[override]
            result = super().predict(*arguments, **options)  # type: ignore[call-overload]
            result.keypoints[3, 2] += np.array(by, np.float32)
            return result

    checkpoint, pixels = load(exported.weights, OPTIONS), decode(exported.photo)
    assert check_file(checkpoint, exported.path, pixels, "photo").verdict.passed
    monkeypatch.setattr("export.parity.check.Predictor", Wrong)
    with pytest.raises(ExportError, match=rf"label \d, keypoint 2: {message}"):
        check_file(checkpoint, exported.path, pixels, "photo")


def _head_rows(path: Path, feed: dict[str, np.ndarray], target: Path) -> tuple[int, np.ndarray]:
    """The number of rows in the keypoint head's convolution, and the filled rows per image."""
    model = onnx.load(path)
    convolution = next(
        node
        for node in model.graph.node
        if node.op_type == "Conv"
        and any(p.key == ROLE_KEY and p.value == "keypoint_head" for p in node.metadata_props)
    )
    model.graph.output.append(helper.make_empty_tensor_value_info(convolution.output[0]))
    for tensor in model.graph.initializer:
        if tensor.name == "select.score_threshold":
            threshold = np.array(feed.pop("threshold"), np.float32)
            tensor.CopyFrom(numpy_helper.from_array(threshold, tensor.name))
    onnx.save(model, target)
    session = ort.InferenceSession(target, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, feed), strict=True))
    maps, counts = outputs["keypoint_heatmaps"], outputs["counts"]
    assert maps.shape == (2, ROWS, KEYPOINTS, 56, 56)
    for image, count in enumerate(counts):
        assert np.abs(maps[image, :count]).max(axis=(2, 3)).all()
        assert not maps[image, count:].any()
    return len(outputs[convolution.output[0]]), counts


def test_the_head_runs_on_filled_rows_only(exported: Exported, tmp_path: Path) -> None:
    images = np.stack([picture(96, 128, seed).transpose(2, 0, 1) for seed in (1, 2)])
    feed = {
        "images": (images / 255).astype(np.float32),
        "image_hw": np.array([[96, 128], [40, 50]], np.float32),
    }
    with Predictor.open(exported.path) as predictor:
        scores = predictor.predict(picture(96, 128, 1)).scores
    middle = float(scores[ROWS // 2])
    rows, counts = _head_rows(exported.path, feed | {"threshold": middle}, tmp_path / "some.onnx")
    assert rows == counts.sum() + (counts[0] == 0)
    assert 0 < counts.sum() < 2 * ROWS
    rows, counts = _head_rows(exported.path, feed | {"threshold": 1.0}, tmp_path / "none.onnx")
    # Runtimes differ on a convolution without rows, so one is always computed.
    assert (rows, counts.tolist()) == (1, [0, 0])


def test_a_native_graph_compiles(exported: Exported, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    path = tmp_path / "model.rtx.onnx"
    shape = GraphShape(1, 96, 160)
    rounds = NativeOptions(proposal_rounds=64, detection_rounds=64)
    report = export_onnx(
        exported.weights,
        path,
        OPTIONS,
        shape,
        check_photo=exported.photo,
        target="tensorrt-rtx",
        native_options=rounds,
    )
    assert " · keypoint 0.00" in str(report.check)
    (built,) = build_engine(path, gpu=["sm89"])
    tensors = {t.name: (t.dtype, t.shape) for t in read_engine_file(built.path).info.tensors}
    assert tensors["keypoint_heatmaps"] == ("float32", (1, ROWS, KEYPOINTS, 56, 56))
    assert "masks" not in tensors
    assert set(built.info.layer_types) == {"float32"}
