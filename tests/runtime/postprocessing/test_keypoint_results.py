"""Keypoints from network outputs to results, files and drawings."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.spec import ClassSpec, KeypointHeadSpec, ModelSpec, PoolerSpec, ResNetSpec
from model.spec.heads import COCO_KEYPOINTS
from runtime.detections import Detections
from runtime.drawing.overlay import LIMBS
from runtime.formats import coco, jsonl
from runtime.postprocessing.from_raw import RawDetections, from_raw, raw_rows
from runtime.selection import Selection
from tests.oracles.keypoints import keypoint

NAMES = ("nose", "left_eye", "tail")
SPEC = ModelSpec(
    dialect="torchvision",
    architecture="keypointrcnn_resnet50_fpn",
    body=ResNetSpec((3, 4, 6, 3), "bottleneck", 64, (64, 128, 256, 512), (256, 512, 1024, 2048)),
    classes=ClassSpec(("background", "cat")),
    keypoint=KeypointHeadSpec(PoolerSpec(2), (8,), NAMES),
)
IMAGE_HW, RESIZED_HW = (375, 500), (320, 426)


def outputs(filled: int = 4, rows: int = 6) -> dict[str, NDArray[Any]]:
    """Outputs of a session for two photos, `filled` rows of the second."""
    rng = np.random.default_rng(4)
    low = rng.uniform(0, 200, (2, rows, 2))
    return {
        "boxes": np.concatenate((low, low + rng.uniform(5, 90, low.shape)), axis=2).astype("f4"),
        "scores": rng.random((2, rows), np.float32),
        "labels": np.ones((2, rows), np.int32),
        "keypoint_heatmaps": rng.normal(size=(2, rows, 3, 8, 8)).astype(np.float32),
        "counts": np.array([0, filled], np.int32),
        "nms_open": np.zeros(2, np.int32),
        "samples_cut": np.zeros(2, np.int32),
        "candidates_cut": np.zeros(2, np.int32),
    }


def raw() -> RawDetections:
    return raw_rows(outputs(), 1)


def results(names: tuple[str, ...] = NAMES, rows: int = 3) -> Detections:
    rng = np.random.default_rng(1)
    points = rng.uniform(10, 200, (rows, len(names), 3)).astype(np.float32)
    low, high = points[..., :2].min(axis=1), points[..., :2].max(axis=1)
    return Detections(
        boxes=np.concatenate((low, high), axis=1),
        scores=np.linspace(0.9, 0.6, rows, dtype=np.float32),
        labels=np.ones(rows, np.int64),
        names=("cat",) * rows,
        mask_probs=None,
        image_hw=(220, 240),
        keypoints=points,
        keypoint_names=names,
    )


def test_the_filled_rows_of_a_photo_are_taken() -> None:
    given = outputs()
    maps = raw().keypoint_heatmaps
    assert maps is not None
    np.testing.assert_array_equal(maps, given["keypoint_heatmaps"][1, :4])
    del given["keypoint_heatmaps"]
    assert raw_rows(given, 1).keypoint_heatmaps is None


@pytest.mark.parametrize("score", ["logit", "softmax"])
def test_keypoints_come_to_the_original_image(score: str) -> None:
    head = KeypointHeadSpec(PoolerSpec(2), (8,), NAMES, score)  # type: ignore[arg-type]
    network = raw()
    result = from_raw(network, replace(SPEC, keypoint=head), IMAGE_HW, RESIZED_HW)
    assert result.keypoint_names == NAMES
    for row, maps in enumerate(network.keypoint_heatmaps):
        for j, heatmap in enumerate(maps):
            x, y, peak, share = keypoint(heatmap, network.boxes[row])
            expected = (x * 500 / 426, y * 375 / 320, peak if score == "logit" else share)
            np.testing.assert_allclose(result.keypoints[row, j], expected, rtol=1e-5, atol=1e-5)


def test_torchvision_scales_keypoints_alike() -> None:
    torch = pytest.importorskip("torch")
    transform = pytest.importorskip("torchvision.models.detection.transform")
    heads = pytest.importorskip("torchvision.models.detection.roi_heads")
    network = raw()
    canvas, _ = heads.heatmaps_to_keypoints(
        torch.tensor(network.keypoint_heatmaps), torch.tensor(network.boxes)
    )
    expected = transform.resize_keypoints(canvas, RESIZED_HW, IMAGE_HW)
    result = from_raw(network, SPEC, IMAGE_HW, RESIZED_HW).keypoints
    np.testing.assert_array_equal(result[..., :2], expected[..., :2].numpy())


def test_keypoints_outside_the_image() -> None:
    network = raw()
    network.boxes[:] = [-60, -80, -20, -30]
    result = from_raw(network, SPEC, IMAGE_HW, RESIZED_HW).keypoints
    assert (result[..., :2] < 0).all()
    far = np.full((1, 2, 3), 3e38, np.float32)
    result = replace(results(("nose", "left_eye"), 1), keypoints=far)
    assert result.draw(np.zeros((220, 240, 3), np.uint8)).size == (240, 220)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_with_a_bad_heat_map_is_dropped_and_counted(bad: float) -> None:
    network, good = raw(), from_raw(raw(), SPEC, IMAGE_HW, RESIZED_HW)
    network.keypoint_heatmaps[2, 1, 5, 5] = bad
    network.boxes[3, 2] = bad
    result = from_raw(network, SPEC, IMAGE_HW, RESIZED_HW)
    assert (len(result), result.dropped) == (2, 2)
    np.testing.assert_array_equal(result.keypoints, good.keypoints[:2])


def test_select_keeps_the_rows_of_keypoints() -> None:
    result = results()
    part = result.select(Selection(score_threshold=0.7))
    assert len(part) == 2
    np.testing.assert_array_equal(part.keypoints, result.keypoints[:2])
    assert part.keypoint_names == NAMES


def test_contradictory_keypoints_are_refused(subtests: pytest.Subtests) -> None:
    for case, change in [
        ("names", {"keypoint_names": ("nose",)}),
        ("rows", {"keypoints": np.zeros((2, 3, 3), np.float32)}),
        ("float64", {"keypoints": np.zeros((3, 3, 3))}),
        ("nan", {"keypoints": np.full((3, 3, 3), np.nan, np.float32)}),
    ]:
        with subtests.test(case), pytest.raises(ValueError, match="keypoints"):
            replace(results(), **change)


def test_coco_scores_them_as_its_own() -> None:
    """pycocotools reads the rows, and finds the results perfect as their own ground truth."""
    tools = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    rows = json.loads(json.dumps(coco.rows_by_class(results(COCO_KEYPOINTS), 5, SPEC.classes)))
    assert all(len(row["keypoints"]) == 51 for row in rows)
    assert {v for row in rows for v in row["keypoints"][2::3]} == {2}
    truth, result = tools.COCO(), tools.COCO()
    for dataset in (truth, result):
        annotations = [
            row | {"id": i + 1, "area": row["bbox"][2] * row["bbox"][3], "num_keypoints": 17}
            for i, row in enumerate(rows)
        ]
        dataset.dataset = {
            "images": [{"id": 5}],
            "categories": [{"id": 1}],
            "annotations": [{"iscrowd": 0, **annotation} for annotation in annotations],
        }
        dataset.createIndex()
    evaluation = cocoeval.COCOeval(truth, result, "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == 1.0


def test_files_give_back_every_bit() -> None:
    result = results()
    lines = json.loads(json.dumps(jsonl.record("a.jpg", result)))["detections"]
    assert [tuple(line["keypoints"]) for line in lines] == [NAMES] * 3
    read = np.array([list(line["keypoints"].values()) for line in lines], np.float32)
    np.testing.assert_array_equal(read, result.keypoints)
    rows = np.array([row["keypoints"] for row in coco.rows(result, 1)], np.float32)
    np.testing.assert_array_equal(rows.reshape(3, 3, 3)[..., :2], result.keypoints[..., :2])


def test_a_person_is_drawn_with_limbs_and_others_with_dots() -> None:
    assert len(LIMBS) == 19
    assert {name for limb in LIMBS for name in limb} == set(COCO_KEYPOINTS)
    gray = np.full((220, 240, 3), 90, np.uint8)
    result = replace(results(("nose", "left_eye"), 1), boxes=np.zeros((1, 4), np.float32))
    points = np.array([[[30, 150, 1], [200, 150, 1]]], np.float32)
    person = np.asarray(replace(result, keypoints=points).draw(gray))
    other = np.asarray(
        replace(result, keypoints=points, keypoint_names=("head", "tail")).draw(gray)
    )
    for picture, has_line in ((person, True), (other, False)):
        assert (picture[150, [30, 200]] != 90).any(axis=1).all()
        assert (picture[150, 40:190] != 90).any(axis=1).all() == has_line
        assert (picture[160:] == 90).all()
