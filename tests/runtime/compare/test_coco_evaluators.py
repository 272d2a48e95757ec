"""Both evaluators against pycocotools as others use it: fed with dense masks, on untidy sets.

Scores tie, photos have more than 100 detections or none, areas lie on COCO's borders, objects are
crowds, polygons or run lengths.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.errors import UsageError
from runtime.compare.coco_ap import evaluate
from runtime.compare.coco_evaluators import Evaluator
from runtime.compare.coco_inputs import COCO_SIGMAS, IouType, areas_px
from runtime.masks.rle import encode

pytest.importorskip("pycocotools")

SIZE_HW = 100, 120
EVALUATORS: tuple[Evaluator, ...] = ("hotcoco", "pycocotools")
# Photos, categories, most objects and most detections of a photo.
SETS = {"usual": (8, 3, 6, 12), "crowded": (2, 1, 30, 150), "no results": (3, 2, 4, 0)}
Scene = tuple[dict[str, Any], list[dict[str, Any]], list[NDArray[np.bool_]]]


def _mask(rng: np.random.Generator) -> NDArray[np.bool_]:
    """One or two rectangles, some of exactly 32 x 32 or 96 x 96 pixels."""
    mask = np.zeros(SIZE_HW, np.bool_)
    for _ in range(rng.integers(1, 3)):
        side = rng.choice([0, 32, 96])
        height, width = (side, side) if side else rng.integers(1, 60, 2)
        y = rng.integers(0, max(SIZE_HW[0] - height, 1))
        x = rng.integers(0, max(SIZE_HW[1] - width, 1))
        mask[y : y + height, x : x + width] = True
        if side:
            break
    return mask


def _box(mask: NDArray[np.bool_]) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]


def _rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    return dict(encode(np.ascontiguousarray(mask.T), 0, 0, SIZE_HW))


def _polygon(box: Sequence[float]) -> list[list[float]]:
    x, y, width, height = box
    return [[x, y, x + width, y + 0.4, x + width, y + height, x - 0.3, y + height]]


def _scene(seed: int, images: int, categories: int, objects: int, detections: int) -> Scene:
    """COCO annotations, result rows, and the rows' dense masks."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    rows, dense = [], []
    # Ids that a double cannot tell apart, in no order.
    image_ids = [2**53 + int(n) for n in rng.permutation(images)]
    for image_id in image_ids:
        masks = [_mask(rng) for _ in range(rng.integers(0, objects + 1))]
        for number, mask in enumerate(masks):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 7 * int(rng.integers(1, categories + 1)),
                    "bbox": _box(mask),
                    "area": float(rng.choice([mask.sum(), 32**2, 96**2])),
                    "iscrowd": int(rng.random() < 0.15),
                    "segmentation": _rle(mask) if number % 2 else _polygon(_box(mask)),
                }
            )
        for _ in range(rng.integers(0, detections + 1)):
            mask = _mask(rng)
            if masks and rng.random() < 0.7:
                shift = rng.integers(-3, 4, 2)
                mask = np.roll(masks[rng.integers(len(masks))], shift, (0, 1))
            row = {"image_id": image_id, "category_id": 7 * int(rng.integers(1, categories + 1))}
            score = float(rng.choice([0.25, 0.5, rng.random()]))
            rows.append({**row, "score": score, "bbox": _box(mask), "segmentation": _rle(mask)})
            dense.append(mask)
    height, width = SIZE_HW
    truth = {
        "images": [{"id": one, "height": height, "width": width} for one in image_ids],
        "categories": [{"id": 7 * n, "name": f"c{n}"} for n in range(1, categories + 1)],
        "annotations": annotations,
    }
    return truth, rows, dense


def _reference(
    truth: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    iou_type: IouType,
    limits: list[int],
    sigmas: Sequence[float] = (),
) -> list[float]:
    """The numbers in COCO's order, by pycocotools alone; AP at the last of `limits`."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        plain = COCO()
        plain.dataset = {**truth, "annotations": [dict(one) for one in truth["annotations"]]}
        plain.createIndex()
        found = plain.loadRes([dict(row) for row in rows]) if rows else COCO()
        evaluation = COCOeval(plain, found, iou_type)
        evaluation.params.maxDets = limits
        if sigmas:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    if iou_type != "keypoints":
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        known = precision[precision > -1]
        evaluation.stats[0] = known.mean() if known.size else -1.0
    return list(evaluation.stats)


def test_boxes_and_masks_equal_pycocotools_fed_with_dense_masks(
    subtests: pytest.Subtests,
) -> None:
    from pycocotools import mask as coco_mask

    for seed, (name, sizes) in enumerate(SETS.items()):
        truth, rows, dense = _scene(seed, *sizes)
        without_boxes = [
            {
                **{key: row[key] for key in ("image_id", "category_id", "score")},
                "segmentation": coco_mask.encode(np.asfortranarray(mask, np.uint8)),
            }
            for row, mask in zip(rows, dense, strict=True)
        ]
        ids = [image["id"] for image in truth["images"]]
        for iou_type, fed in (("bbox", rows), ("segm", without_boxes)):
            for most in (100, 300):
                expected = _reference(truth, fed, iou_type, [1, 10, most])
                for evaluator in EVALUATORS:
                    with subtests.test(f"{name}, {iou_type}, {most}, {evaluator}"):
                        result = evaluate(
                            truth, rows, iou_type, ids, max_detections=most, evaluator=evaluator
                        )
                        numbers = list(result.numbers.values())
                        np.testing.assert_allclose(numbers, expected, rtol=0, atol=1e-12)


@pytest.mark.data
def test_real_annotations_equal_pycocotools_fed_with_dense_masks(data_folder: Path) -> None:
    """COCO's polygons and crowds; the results are its objects, some moved or confused."""
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO

    path = data_folder / "coco" / "annotations" / "instances_val2017.json"
    truth = json.loads(path.read_text("utf-8"))
    with contextlib.redirect_stdout(io.StringIO()):
        labels = COCO(path)
    rng = np.random.default_rng(0)
    rows, dense = [], []
    for one in truth["annotations"]:
        mask = np.roll(labels.annToMask(one), rng.integers(-4, 5, 2), (0, 1)).astype(np.bool_)
        if mask.any() and rng.random() < 0.9:
            category = int(rng.choice([1, *[one["category_id"]] * 4]))
            row = {"image_id": one["image_id"], "category_id": category, "bbox": _box(mask)}
            score = float(rng.choice([0.5, rng.random()]))
            height, width = mask.shape
            rle = dict(encode(np.ascontiguousarray(mask.T), 0, 0, (height, width)))
            rows.append({**row, "score": score, "segmentation": rle})
            encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            dense.append({**row, "score": score, "segmentation": encoded})
            del dense[-1]["bbox"]
    ids = [image["id"] for image in truth["images"]]
    for iou_type, fed in (("bbox", rows), ("segm", dense)):
        expected = _reference(truth, fed, iou_type, [1, 10, 100])
        assert 0.2 < expected[0] < 0.9
        result = evaluate(truth, rows, iou_type, ids)
        numbers = list(result.numbers.values())
        np.testing.assert_allclose(numbers, expected, rtol=0, atol=1e-12)


def _keypoint_scene(seed: int, count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    rows = []
    for image_id in range(1, 5):
        for _ in range(rng.integers(0, 5)):
            size = rng.uniform(10, 120)
            points = rng.uniform(0, 200, 2) + rng.uniform(-size, size, (count, 2))
            seen = rng.integers(0, 3, (count, 1)) * (rng.random() < 0.8)
            low, span = points.min(0), np.ptp(points, axis=0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "keypoints": np.hstack((points, seen)).ravel().tolist(),
                    "num_keypoints": int((seen > 0).sum()),
                    "bbox": [*low.tolist(), *span.tolist()],
                    "area": float(rng.choice([span.prod() / 2, 96**2])),
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
            for _ in range(rng.integers(0, 9)):
                near = points + rng.normal(0, rng.choice([1, 5, 30]), points.shape)
                keypoints = np.hstack((near, np.full((count, 1), 2))).ravel().tolist()
                row = {"image_id": image_id, "category_id": 1, "keypoints": keypoints}
                rows.append({**row, "score": float(rng.choice([0.5, rng.random()]))})
    images = [{"id": one} for one in range(1, 5)]
    document = {"images": images, "categories": [{"id": 1}], "annotations": annotations}
    return document, rows


def test_keypoints_equal_pycocotools(subtests: pytest.Subtests) -> None:
    for count, sigmas in ((17, ()), (5, (0.05, 0.1, 0.02, 0.08, 0.07))):
        truth, rows = _keypoint_scene(count, count)
        expected = _reference(truth, rows, "keypoints", [20], sigmas or COCO_SIGMAS)
        assert 0 < expected[0] < 1
        for evaluator in EVALUATORS:
            with subtests.test(f"{count}, {evaluator}"):
                result = evaluate(
                    truth, rows, "keypoints", [1, 2, 3, 4], sigmas=sigmas, evaluator=evaluator
                )
                numbers = list(result.numbers.values())
                np.testing.assert_allclose(numbers, expected, rtol=0, atol=1e-12)


def test_keypoints_of_another_number_need_their_sigmas() -> None:
    truth, rows = _keypoint_scene(5, 5)
    with pytest.raises(UsageError, match="expected 17 keypoints as there are sigmas, got 5"):
        evaluate(truth, rows, "keypoints", [1, 2, 3, 4])


def test_300_detections_against_their_own_truth() -> None:
    boxes = [(20 * (n % 20), 20 * (n // 20), 15, 15) for n in range(300)]
    objects = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": list(box), "area": 225, "iscrowd": 0}
        for n, box in enumerate(boxes, start=1)
    ]
    truth = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": objects}
    rows = [{**one, "score": 1 - n / 400} for n, one in enumerate(objects)]
    result = evaluate(truth, rows, "bbox", [1])
    assert result.max_detections == 300
    assert result.ap == 1.0
    assert result.numbers["ar300"] == 1.0
    # Recall 1/3 at precision 1: the thresholds 0, 0.01, ... 0.33.
    limited = evaluate(truth, rows, "bbox", [1], max_detections=100)
    assert limited.ap == pytest.approx(34 / 101)


def test_areas_of_many_masks() -> None:
    masks = [np.ones((2, n), np.bool_) for n in range(1, 301)]
    shapes = [encode(mask, 0, 0, (400, 4)) for mask in masks]
    assert areas_px(shapes, "segm") == [2 * n for n in range(1, 301)]


def test_numbers_of_each_class() -> None:
    truth, rows, _ = _scene(0, *SETS["usual"])
    ids = [image["id"] for image in truth["images"]]
    whole = evaluate(truth, rows, "bbox", ids, per_class=True)
    assert list(whole.by_class) == [7, 14, 21]
    for category, numbers in whole.by_class.items():
        only = {**truth, "categories": [{"id": category}]}
        assert evaluate(only, rows, "bbox", ids).numbers == numbers
