"""COCO AP: hand-computed values, empty results, crowds, and pycocotools' traps."""

from __future__ import annotations

import copy
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.errors import MissingDependencyError, UsageError
from runtime.compare.coco_ap import evaluate
from runtime.compare.coco_inputs import IouType
from runtime.masks.rle import encode

pytest.importorskip("pycocotools")


Box = tuple[int, int, int, int]


def _box(xywh: NDArray[np.int64]) -> Box:
    x0, y0, width, height = (int(number) for number in xywh)
    return x0, y0, width, height


def _rle(x0: int, y0: int, width: int, height: int) -> dict[str, Any]:
    return dict(encode(np.ones((width, height), dtype=np.bool_), x0, y0, (100, 100)))


def _object(number: int, image: int, box: Box, crowd: int = 0) -> Any:
    return {
        "id": number,
        "image_id": image,
        "category_id": 7,
        "bbox": list(box),
        "segmentation": _rle(*box),
        "area": box[2] * box[3],
        "iscrowd": crowd,
    }


def _result(image: int, box: Box, score: float) -> Any:
    return {
        "image_id": image,
        "category_id": 7,
        "bbox": list(box),
        "segmentation": _rle(*box),
        "score": score,
    }


def _truth(*objects: Any) -> Any:
    return {
        "images": [{"id": image, "height": 100, "width": 100} for image in (1, 2)],
        "categories": [{"id": 7, "name": "thing"}],
        "annotations": list(objects),
    }


A, B, ELSEWHERE = (10, 10, 40, 40), (55, 55, 40, 40), (0, 60, 40, 40)
TWO = _truth(_object(1, 1, A), _object(2, 1, B))


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_hand_computed_ap(iou_type: IouType, subtests: pytest.Subtests) -> None:
    for case, results, expected in [
        ("all", [_result(1, A, 0.9), _result(1, B, 0.8)], 1.0),
        # Precision 1 at the 51 recall thresholds 0, 0.01, ... 0.50, and 0 at the other 50.
        ("half", [_result(1, A, 0.9)], 51 / 101),
        ("half, after a miss", [_result(1, ELSEWHERE, 0.9), _result(1, A, 0.8)], 51 / 101 / 2),
        ("nothing", [], 0.0),
    ]:
        with subtests.test(case):
            result = evaluate(TWO, results, iou_type, [1])
            assert result.ap == pytest.approx(expected, abs=1e-12)
            assert result.numbers["ap_small"] == -1.0
            assert result.numbers["ap_medium"] == pytest.approx(expected, abs=1e-12)


def test_all_twelve_numbers_are_coco_s() -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    boxes = np.concatenate((rng.integers(0, 45, (20, 2)), rng.integers(5, 55, (20, 2))), axis=1)
    near = boxes + rng.integers(-2, 1, boxes.shape) * [0, 0, 1, 1]
    truth = _truth(*(_object(i + 1, 1 + i % 2, _box(b)) for i, b in enumerate(boxes)))
    results = [_result(1 + i % 2, _box(b), float(rng.uniform())) for i, b in enumerate(near)]
    plain = COCO()
    plain.dataset = copy.deepcopy(truth)
    plain.createIndex()
    evaluation = COCOeval(plain, plain.loadRes(copy.deepcopy(results)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert 0.1 < evaluation.stats[0] < 0.9
    assert list(evaluate(truth, results, "bbox", [1, 2]).numbers.values()) == list(evaluation.stats)


def test_crowds_other_images_and_no_objects() -> None:
    crowd = _truth(_object(1, 1, A), _object(2, 1, (50, 50, 50, 50), crowd=1))
    inside = [_result(1, (60, 60, 10, 10), 0.99), _result(1, A, 0.9)]
    assert evaluate(crowd, inside, "bbox", [1]).ap == pytest.approx(1.0)
    assert evaluate(_truth(_object(1, 1, A)), inside, "bbox", [1]).ap == pytest.approx(0.5)
    truth = _truth(_object(1, 1, A), _object(2, 2, A))
    results = [_result(1, A, 0.9)]
    assert evaluate(truth, results, "bbox", [1]).ap == pytest.approx(1.0)
    assert evaluate(truth, results, "bbox", [1, 2]).ap == pytest.approx(51 / 101)
    assert set(evaluate(_truth(), [_result(1, A, 0.9)], "bbox", [1]).numbers.values()) == {-1.0}


def test_masks_are_sized_by_their_own_area() -> None:
    # The box of a diagonal line is medium, the line itself small: a small false alarm.
    diagonal = dict(encode(np.eye(60, dtype=np.bool_), 40, 0, (100, 100)))
    stray = {**_result(1, (40, 0, 60, 60), 0.95), "segmentation": diagonal}
    result = evaluate(TWO, [stray, _result(1, A, 0.9), _result(1, B, 0.8)], "segm", [1])
    assert result.numbers["ap_medium"] == pytest.approx(1.0)
    assert result.ap < 1.0


def test_inputs_are_left_alone_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = copy.deepcopy(TWO), [_result(1, A, 0.9)]
    before = copy.deepcopy((truth, results))
    evaluate(truth, results, "segm", [1])
    assert (truth, results) == before
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("ids", [[], [1, 5]], ids=["none", "unknown"])
def test_images_without_annotations_are_named(ids: list[int]) -> None:
    with pytest.raises(UsageError, match="ids of the 2 annotated images"):
        evaluate(TWO, [], "bbox", ids)


def test_rows_and_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"image_id": 1, "category_id": 7, "score": 0.5, "bbox": [0, 0, 5, 5]}
    with pytest.raises(UsageError, match="expected 'segmentation' in result row 1"):
        evaluate(TWO, [row], "segm", [1])
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'maskport\[eval\]'"):
        evaluate(TWO, [], "bbox", [1])
