"""Keypoints with and without COCO's sigmas, limits of detections, and the costs of errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.errors import UsageError
from model.spec import KeypointHeadSpec, ModelSpec
from runtime.annotations.labels import Labels
from runtime.compare.coco_inputs import IouType
from runtime.evaluation.score import ScoreOptions, Scorer
from tests.reliability import tiny

pytest.importorskip("pycocotools")
pytest.importorskip("hotcoco")

# Apart by more than their size.
BOXES = [[30 * n, 10, 20, 20] for n in range(3)]
CROWD = [100, 100, 100, 100]


def _spec(keypoints: int = 0, detections: int = 8) -> ModelSpec:
    box = replace(tiny.SPEC.box, detections=detections, candidates=400)
    rpn = replace(tiny.SPEC.rpn, pre_nms=400, post_nms=400)
    spec = replace(tiny.SPEC, box=box, rpn=rpn)
    if not keypoints:
        return spec
    names = tuple(map(str, range(keypoints)))
    head = KeypointHeadSpec(spec.box.pooler, (8,), names)
    return replace(spec, mask=None, keypoint=head)


def _labels(annotations: list[Any], *iou_types: IouType) -> Labels:
    document = {
        "images": [{"id": 1, "height": 300, "width": 300}],
        "categories": [{"id": 1, "name": "round"}, {"id": 2, "name": "square"}],
        "annotations": annotations,
    }
    return Labels(Path("truth.json"), document, {1: Path("1.png")}, iou_types, ())


def _object(number: int, box: list[int], **fields: Any) -> dict[str, Any]:
    area = box[2] * box[3]
    ids = {"id": number, "image_id": 1, "category_id": 1}
    return {**ids, "bbox": box, "area": area, "iscrowd": 0, **fields}


def _row(box: list[float], score: float, category: int = 1, **fields: Any) -> Any:
    return {"image_id": 1, "category_id": category, "bbox": box, "score": score, **fields}


def test_keypoints_by_their_number(subtests: pytest.Subtests) -> None:
    for count, note in ((17, None), (3, "OKS with sigma 0.0669, the mean of COCO's")):
        with subtests.test(str(count)):
            points = [float(n) for k in range(count) for n in (10 + k, 20 + 3 * k, 2)]
            labels = _labels(
                [_object(1, [5, 15, 60, 60], keypoints=points, num_keypoints=count)],
                "bbox",
                "keypoints",
            )
            rows = [_row([5, 15, 60, 60], 0.9, keypoints=points)]
            scorer = Scorer(labels, _spec(count), ScoreOptions())
            result = scorer.scores(rows)
            assert list(result) == ["bbox", "keypoints"]
            assert result["keypoints"].ap == pytest.approx(1.0)
            assert result["keypoints"].max_detections == 20
            assert result["bbox"].max_detections == 100
            assert any(line.startswith(note or "OKS") for line in scorer.notes()) == bool(note)
            given = Scorer(labels, _spec(count), ScoreOptions(sigmas=[0.05] * count))
            assert given.scores(rows)["keypoints"].ap == pytest.approx(1.0)
            assert len(given.notes()) == 1
    with pytest.raises(UsageError, match="one for each of the model's 3 keypoints, got 2"):
        Scorer(labels, _spec(3), ScoreOptions(sigmas=[0.1, 0.1]))


def test_narrow_sigmas_ask_for_more(subtests: pytest.Subtests) -> None:
    points = [10.0, 10, 2, 40, 10, 2, 10, 40, 2]
    near = [11.0, 11, 2, 41, 11, 2, 11, 41, 2]
    labels = _labels([_object(1, [5, 5, 40, 40], keypoints=points, num_keypoints=3)], "keypoints")
    rows = [_row([5, 5, 40, 40], 0.9, keypoints=near)]
    aps = [
        Scorer(labels, _spec(3), ScoreOptions(sigmas=[sigma] * 3)).scores(rows)["keypoints"].ap
        for sigma in (0.1, 0.01)
    ]
    assert aps[0] == pytest.approx(1.0)
    assert aps[1] < 0.5


def test_the_limit_is_the_artifact_s() -> None:
    labels = _labels([_object(1, BOXES[0])], "bbox")
    for detections, given, expected in (
        (8, None, "at most 100 detections per photo and class (COCO's number)"),
        (300, None, "at most 300 detections per photo and class (the artifact's number)"),
        (300, 50, "at most 50 detections per photo and class (--max-detections)"),
    ):
        scorer = Scorer(labels, _spec(detections=detections), ScoreOptions(given))
        assert scorer.notes()[0].startswith(expected)
        assert scorer.scores([])["bbox"].max_detections == scorer.limit


def test_each_error_has_one_kind() -> None:
    labels = _labels(
        [*(_object(n, box) for n, box in enumerate(BOXES, 1)), _object(9, CROWD, iscrowd=1)],
        "bbox",
    )
    scorer = Scorer(labels, _spec(), ScoreOptions())
    good = [_row([*BOXES[0]], 0.6)]
    assert {kind: one.count for kind, one in scorer.costs(good).items() if one.count} == {
        "missed": 2
    }
    for kind, row in (
        ("class", _row([*BOXES[1]], 0.9, category=2)),
        ("location", _row([BOXES[1][0] + 10, 10, 20, 20], 0.9)),
        ("class and location", _row([BOXES[1][0] + 10, 10, 20, 20], 0.9, category=2)),
        ("duplicate", _row([1, 10, 20, 20], 0.5)),
        ("background", _row([200, 10, 20, 20], 0.9)),
    ):
        costs = scorer.costs([*good, row])
        counts = {name: one.count for name, one in costs.items() if one.count and name != "missed"}
        assert counts == {kind: 1}, kind
    assert not scorer.costs([*good, _row([120, 120, 20, 20], 0.9)])["background"].count
    assert scorer.costs([*good, _row([200, 10, 20, 20], 0.9)])["background"].cost > 0.1
