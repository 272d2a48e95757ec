"""Result files, read back by those who will read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.errors import ArtifactError
from model.spec import ClassSpec
from runtime import rle
from runtime.detections import Detections
from runtime.formats import coco, jsonl

CLASSES = ClassSpec(("cat", "dog", "cow"), dataset_ids=(17, 18, 21))


def detections(rows: int = 4, seed: int = 1, masks: bool = True) -> Detections:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (rows, 2))
    labels = rng.integers(0, 3, rows)
    return Detections(
        boxes=np.concatenate((corner, corner + rng.uniform(1, 40, (rows, 2))), axis=1).astype("f4"),
        scores=rng.random(rows, np.float32),
        labels=labels,
        names=tuple(CLASSES.names[label] for label in labels),
        mask_probs=rng.random((rows, 14, 14), np.float32) if masks else None,
        image_hw=(90, 120),
        exact=False,
    )


def failing() -> Iterator[tuple[int, Detections]]:
    yield 1, detections()
    raise RuntimeError("the second image")


def test_coco_rows_are_read_by_pycocotools(tmp_path: Path) -> None:
    coco_api = pytest.importorskip("pycocotools.coco")
    first, second = detections(seed=1), detections(seed=2)
    path = tmp_path / "results.json"
    coco.write(path, [(7, first), (9, second)], CLASSES)
    truth = coco_api.COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "height": 90, "width": 120} for i in (7, 9)],
        "categories": [{"id": i} for i in CLASSES.dataset_ids],
        "annotations": [],
    }
    truth.createIndex()
    loaded = truth.loadRes(str(path))
    for image_id, expected in ((7, first), (9, second)):
        rows = loaded.loadAnns(loaded.getAnnIds(imgIds=[image_id]))
        assert [row["category_id"] for row in rows] == [
            CLASSES.dataset_ids[label] for label in expected.labels
        ]
        assert expected.masks is not None
        for row, mask in zip(rows, expected.masks, strict=True):
            np.testing.assert_array_equal(loaded.annToMask(row), mask)


def test_coco_numbers_give_back_every_bit() -> None:
    found = detections(50)
    rows = json.loads(json.dumps(coco.rows(found, 3, CLASSES)))
    assert [row["image_id"] for row in rows] == [3] * 50
    scores = np.array([row["score"] for row in rows], np.float32)
    np.testing.assert_array_equal(scores, found.scores)
    xywh = np.array([row["bbox"] for row in rows])
    xyxy = np.concatenate((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), axis=1)
    np.testing.assert_array_equal(xyxy.astype(np.float32), found.boxes)


def test_coco_of_a_box_only_model_has_no_segmentation() -> None:
    rows = coco.rows(detections(masks=False), 3, CLASSES)
    assert len(rows) == 4
    assert all("segmentation" not in row for row in rows)


@pytest.mark.parametrize(
    "results",
    [[], [(1, detections(0))], [(1, detections(0)), (2, detections(1)), (3, detections(0))]],
    ids=["no-images", "nothing-found", "empty-around-one"],
)
def test_coco_file_is_a_list(tmp_path: Path, results: list[tuple[int, Detections]]) -> None:
    path = tmp_path / "results.json"
    coco.write(path, results, CLASSES)
    expected = [row for image_id, found in results for row in coco.rows(found, image_id, CLASSES)]
    assert json.loads(path.read_text()) == expected


def test_failure_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="second image"):
        coco.write(path, failing(), CLASSES)
    with pytest.raises(RuntimeError, match="second image"):
        jsonl.write(path, ((str(name), found) for name, found in failing()))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_jsonl_has_one_line_per_image(tmp_path: Path) -> None:
    found, path = detections(), tmp_path / "results.jsonl"
    awkward = "фото \u2028 \udcff\n.jpg"
    jsonl.write(path, [(awkward, found), ("b.jpg", replace(detections(0), exact=True))])
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    first, second = map(json.loads, lines)
    assert first["image"] == awkward
    assert (first["height"], first["width"], first["exact"]) == (90, 120, False)
    assert second == {
        "image": "b.jpg",
        "height": 90,
        "width": 120,
        "exact": True,
        "detections": [],
    }


def test_jsonl_detection_gives_back_every_bit() -> None:
    found = detections()
    rows = json.loads(json.dumps(jsonl.record("a.jpg", found)))["detections"]
    np.testing.assert_array_equal(
        np.array([row["box_xyxy"] for row in rows], np.float32), found.boxes
    )
    np.testing.assert_array_equal(np.array([row["score"] for row in rows], "f4"), found.scores)
    assert [row["label"] for row in rows] == found.labels.tolist()
    assert tuple(row["name"] for row in rows) == found.names
    assert found.masks is not None
    for row, mask in zip(rows, found.masks, strict=True):
        np.testing.assert_array_equal(rle.decode(row["rle"]), mask)


def test_jsonl_of_a_box_only_model_has_no_rle() -> None:
    rows = jsonl.record("a.jpg", detections(masks=False))["detections"]
    assert [sorted(row) for row in rows] == [["box_xyxy", "label", "name", "score"]] * 4


def test_unwritable_place_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "results"
    with pytest.raises(ArtifactError, match=r"cannot write .*No such file"):
        coco.write(path, [], CLASSES)
    with pytest.raises(ArtifactError, match=r"cannot write .*No such file"):
        jsonl.write(path, [])
