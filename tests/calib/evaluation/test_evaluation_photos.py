"""The held-out photos: annotations are checked before calibration starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from calib.evaluation.photos import open_evaluation_set
from calib.quantize import main
from export.onnx_file import read_onnx

OUTLINE = [[4, 4, 9, 4, 9, 9]]


def _annotated(photos: list[Path], **fields: object) -> dict[str, Any]:
    """Annotations with one object on the first photo."""
    images = [
        {"id": i, "file_name": photo.name, "height": 240, "width": 320}
        for i, photo in enumerate(photos)
    ]
    one = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [4, 4, 9, 9], "area": 81, **fields}
    return {"images": images, "annotations": [one], "categories": [{"id": 1}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": {"height": 320, "width": 240}}, "0.png is 240 x 320, annotated as 320 x 240"),
        ({"images": {"height": 320, "width": 240}}, "height and width exchanged"),
        ({"images": {"height": 120}}, "give the photos that were annotated"),
        (
            {"annotations": {"category_id": 500}, "categories": {"id": 500}},
            "1 of its categories (500) are not among the 7 that the model can predict",
        ),
        ({"annotations": {"iscrowd": 1}}, "all 1 objects on these photos are crowds"),
        ({"annotations": {"category_id": 3}}, "1 of 1 annotations have a category_id that"),
        ({"annotations": {"image_id": 9}}, "all 1 annotations have an image_id that"),
        ({"images": {"file_name": "none.png"}}, "none of the 6 labeled photos"),
    ],
)
def test_unsuitable_annotations_are_refused_before_calibration(
    changes: dict[str, dict[str, Any]], message: str, demo_onnx: Path, scenes: list[Path],
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    document = _annotated(sorted(scenes), segmentation=OUTLINE)
    for part, fields in changes.items():
        document[part] = [{**entry, **fields} for entry in document[part]]
    file, folder = tmp_path / "a.json", str(scenes[0].parent)
    file.write_text(json.dumps(document))
    argv = [str(demo_onnx), folder, "-o", str(tmp_path / "q.onnx"), "--eval-images", folder]
    assert main([*argv, "--annotations", str(file)]) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error:" in text]
    assert message in line
    assert sorted(tmp_path.iterdir()) == [file]


def test_photos_without_annotations_are_left_out(
    demo_onnx: Path, scenes: list[Path], tmp_path: Path
) -> None:
    artifact, folder = read_onnx(demo_onnx).artifact, tmp_path / "photos"
    folder.mkdir()
    for scene in scenes[:3]:
        shutil.copy(scene, folder)
    file = tmp_path / "a.json"
    file.write_text(json.dumps(_annotated(scenes[:2], segmentation=OUTLINE)))
    photos, reasons = open_evaluation_set(str(folder), file, artifact)
    assert [path.name for path in photos.paths] == [scene.name for scene in scenes[:2]]
    assert list(photos.image_ids) == [0, 1]
    assert reasons == [f"1 photo of {folder} not in {file}"]
    photos, reasons = open_evaluation_set(str(folder), None, artifact)
    assert (len(photos.paths), reasons) == (3, [])
