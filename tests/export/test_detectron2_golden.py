"""detectron2's recorded outputs against the eager network and the exported file, per photo.

The limits come from the record: with another convolution library detectron2 differs from itself by
up to 2.6e-4 in score, 0.017 px and 5.1e-3 in mask probability.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from pycocotools import mask as coco_mask

from export.engine import build_engine
from export.onnx import export_onnx
from export.parity.network_reference import NetworkEager
from export.parity.torchvision_reference import EagerRun
from export.tracing import GraphShape
from model.checkpoint import Checkpoint, load
from runtime.compare.attribution import explain
from runtime.compare.limits import check
from runtime.compare.matching import Comparison, compare
from runtime.compare.noise import RECORDED
from runtime.compare.result_protocol import DetectionResult
from runtime.predictor import Predictor
from runtime.sources.photos import decode

# Minutes for each on a slow machine.
pytestmark = [pytest.mark.data, pytest.mark.timeout(3600)]
# R50-C4 runs by default; the other models are slow.
CASES = ["d", *(pytest.param(case, marks=pytest.mark.slow) for case in "acefg")]
# detectron2's `batched_nms` on a CPU shifts boxes by class for up to this many.
_CLASS_SHIFT_UP_TO = 1000
# The margin in logits of a recorded peak over all values more than 2 px away; below it may move.
_CLEAR_MARGIN = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """The outputs of detectron2; implements `DetectionResult`."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    mask_probs: npt.NDArray[np.float32] | None
    rles: tuple[Mapping[str, Any], ...]
    image_hw: tuple[int, int]
    keypoints: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def masks(self) -> npt.NDArray[np.bool_] | None:
        if self.mask_probs is None:
            return None
        dense = np.zeros((len(self), *self.image_hw), np.bool_)
        for row, rle in enumerate(self.rles):
            dense[row] = coco_mask.decode(dict(rle)).astype(np.bool_)
        return dense

    def rle(self) -> tuple[Mapping[str, Any], ...]:
        return self.rles


@dataclass(frozen=True, slots=True)
class Case:
    """One recorded model: its checkpoint, and per photo the name, the pixels and the record."""

    folder: Path
    checkpoint: Checkpoint
    photos: tuple[tuple[str, npt.NDArray[np.uint8], Recorded], ...]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, data_folder: Path) -> Case:
    golden = data_folder / "golden" / "detectron2"
    folder = next(golden.glob(f"{request.param}_*"))
    checkpoint = load(folder / "model_final.pth")
    photos = tuple(
        (name, decode(golden / "images" / name), record) for name, record in _records(folder)
    )
    return Case(folder, checkpoint, photos)


def _records(folder: Path) -> Iterator[tuple[str, Recorded]]:
    arrays = np.load(folder / "golden.npz")
    for index, image in enumerate(json.loads((folder / "golden.json").read_text())["images"]):
        probs = f"img{index}_mask_probs"
        yield (
            image["file_name"],
            Recorded(
                arrays[f"img{index}_boxes"],
                arrays[f"img{index}_scores"],
                arrays[f"img{index}_classes"].astype(np.int64),
                arrays.get(probs),
                tuple(image.get("masks_rle", ())),
                (image["height"], image["width"]),
                arrays.get(f"img{index}_keypoints"),
            ),
        )


@pytest.fixture(scope="module")
def runs(case: Case) -> list[EagerRun]:
    eager = NetworkEager(case.checkpoint)
    return [eager.run(photo) for _, photo, _ in case.photos]


def _require_equal(case: Case, runs: list[EagerRun], results: list[DetectionResult]) -> None:
    """Within the record's limits; excesses are explained by near ties of the eager run."""
    rows: list[Comparison] = []
    traces = {}
    for (name, _, record), run, result in zip(case.photos, runs, results, strict=True):
        rows.append(compare(record, result, name))
        traces[name] = replace(run.trace, class_shift_up_to=_CLASS_SHIFT_UP_TO)
    verdict = explain(check(rows, RECORDED), rows, traces.__getitem__)
    assert verdict.passed, f"{verdict}: {[str(e) for e in verdict.excesses]}"
    assert verdict.detections >= 100
    assert len(verdict.excesses) <= 2


def test_the_eager_network(case: Case, runs: list[EagerRun]) -> None:
    _require_equal(case, runs, [run.detections for run in runs])


def test_the_exported_file(case: Case, runs: list[EagerRun], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(case.folder / "model_final.pth", path, check_photo=None)
    with Predictor.open(path) as predictor:
        _require_equal(case, runs, [predictor.predict(photo) for _, photo, _ in case.photos])


def test_the_resized_photos_are_detectron2s(case: Case) -> None:
    """Bit for bit: the uint8 input that was recorded for the first photo."""
    from runtime.preprocessing.canvas import to_canvas

    _, photo, _ = case.photos[0]
    arrays = np.load(case.folder / "golden.npz")
    recorded = arrays["inter_input"]
    canvas = to_canvas([photo], case.checkpoint.spec.preprocess)
    height, width = recorded.shape[1:]
    assert canvas.image_hw[0].tolist() == [height, width]
    np.testing.assert_array_equal(canvas.images[0, :, :height, :width], recorded)


def test_keypoints(case: Case, runs: list[EagerRun]) -> None:
    """Within half a pixel, and equal scores, wherever the recorded peak is clear."""
    if case.checkpoint.spec.keypoint is None:
        assert not any("keypoint" in name for name in np.load(case.folder / "golden.npz"))
        return
    arrays, clear_ones = np.load(case.folder / "golden.npz"), 0
    for index, (run, (name, _, record)) in enumerate(zip(runs, case.photos, strict=True)):
        rows, columns = compare(record, run.detections, name).matching.pairs.T
        keypoints = run.detections.keypoints
        assert keypoints is not None
        expected = arrays[f"img{index}_keypoints"][rows]
        is_clear = arrays[f"img{index}_keypoint_margin"][rows] > _CLEAR_MARGIN
        clear_ones += int(is_clear.sum())
        difference = np.abs(keypoints[columns] - expected)[is_clear]
        assert difference[:, :2].max() <= 0.5, name
        np.testing.assert_allclose(
            keypoints[columns][is_clear][:, 2], expected[is_clear][:, 2], rtol=2e-2, atol=1e-4
        )
    assert clear_ones > 1000


def test_the_zoo_file_is_the_same_model(data_folder: Path) -> None:
    """The `.pkl` of the zoo and the `.pth` of the training: the same spec and tensors."""
    golden = data_folder / "golden" / "detectron2"
    for path in golden.glob("*/*.pkl"):
        zoo, trained = load(path), load(path.parent / "model_final.pth")
        assert zoo.spec == trained.spec
        assert set(zoo.tensors) == set(trained.tensors)
        assert all(torch.equal(zoo.tensors[n], t) for n, t in trained.tensors.items())


def _sample_bytes(path: Path) -> list[int]:
    """The size of each tensor of RoI samples."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.value_info}
    samples = [shapes[n.output[0]] for n in graph.node if n.op_type == "GridSample"]
    assert all(min(shape) > 0 for shape in samples)  # no dynamic side
    return [4 * math.prod(shape) for shape in samples]


@pytest.mark.slow
def test_native_equals_standard_and_compiles(case: Case, tmp_path: Path) -> None:
    """On one canvas, at the documented default: nothing cut, nothing open."""
    pre = case.checkpoint.spec.preprocess
    side = -(-pre.long_side // 32) * 32
    shape, weights = GraphShape(1, side, side), case.folder / "model_final.pth"
    standard, native = tmp_path / "model.onnx", tmp_path / "model.rtx.onnx"
    export_onnx(weights, standard, shape=shape, check_photo=None)
    export_onnx(weights, native, shape=shape, check_photo=None, target="tensorrt-rtx")
    eager, rows, traces = NetworkEager(case.checkpoint, (side, side)), [], {}
    with Predictor.open(standard) as one, Predictor.open(native, on_uncertified="raise") as other:
        for name, photo, _ in case.photos:
            rows.append(compare(one.predict(photo), other.predict(photo), name))
            traces[name] = eager.run(photo).trace
    verdict = explain(check(rows), rows, traces.__getitem__)
    assert verdict.passed, f"{verdict}: {[str(e) for e in verdict.excesses]}"
    assert verdict.detections >= 100
    assert max(_sample_bytes(native)) <= 256e6
    (report,) = build_engine(native, gpu=["sm86"])
    assert set(report.info.layer_types) == {"float32"}
