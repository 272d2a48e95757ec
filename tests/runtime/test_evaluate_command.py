"""`maskport evaluate`: scores, its file, and its exit status."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from runtime.compare.coco_inputs import areas_px
from runtime.evaluate import main
from runtime.formats.coco import rows
from runtime.predictor import Predictor

pytest.importorskip("pycocotools")


@pytest.fixture(scope="module")
def labelled(
    demo_onnx: Path, demo_pixels: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two photos in `images/`, with the model's detections above 0.5 as ground truth."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "images").mkdir()
    photos = {7: demo_pixels, 9: demo_pixels[:, 200:]}
    images, annotations = [], []
    with Predictor.open(demo_onnx, threads=1) as predictor:
        for image_id, pixels in photos.items():
            name = f"{image_id}.png"
            Image.fromarray(pixels).save(folder / "images" / name)
            detections = predictor.predict(pixels, score_threshold=0.5)
            annotations += rows(detections, image_id)
            height, width = detections.image_hw
            images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        categories = [{"id": i, "name": n} for i, n in enumerate(predictor.spec.classes.names)][1:]
    assert len(annotations) >= 10
    truth = [
        {**row, "id": number, "iscrowd": 0, "area": areas_px([row["segmentation"]], "segm")[0]}
        for number, row in enumerate(annotations, start=1)
    ]
    _write(folder / "truth.json", images, truth, categories)
    return folder


def _write(path: Path, images: Sequence[Any], annotations: Sequence[Any], categories: Any) -> None:
    truth = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(truth), "utf-8")


def call(model: Path, labelled: Path, *arguments: object, annotations: Path | None = None) -> int:
    inputs = [
        "--images",
        labelled / "images",
        "--annotations",
        annotations or labelled / "truth.json",
    ]
    return main([str(a) for a in (model, "--threads", 1, *inputs, *arguments)])


def test_a_model_scores_100_against_its_own_detections(
    demo_onnx: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(demo_onnx, labelled, "--run-dir", tmp_path / "run") == 0
    out = capsys.readouterr().out
    # Rows below 0.5 rank after all true ones, so they do not lower the AP.
    assert re.search(r"^box  AP 100\.00 · AP50 100\.00 · AP75 100\.00", out, re.MULTILINE)
    assert re.search(r"^mask AP 100\.00 · AP50 100\.00 · AP75 100\.00", out, re.MULTILINE)
    assert re.search(r"^2 photos · decode [\d.]+ ms", out, re.MULTILINE)
    document = json.loads((tmp_path / "run" / "evaluate.json").read_text("utf-8"))
    assert document["schema_version"] == 2
    assert document["artifact"] == demo_onnx.name
    assert document["photos"] == 2
    assert document["segm"]["ap"] == pytest.approx(1.0)
    assert set(document["bbox"]) == set(document["segm"])


def test_other_annotations(
    demo_onnx: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = json.loads((labelled / "truth.json").read_text("utf-8"))
    for annotation in truth["annotations"]:
        annotation["category_id"] = annotation["category_id"] % len(truth["categories"]) + 1
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth), "utf-8")
    assert call(demo_onnx, labelled, annotations=path) == 0
    shown = re.search(r"^mask AP ([\d.]+)", capsys.readouterr().out, re.MULTILINE)
    assert shown
    assert float(shown[1]) < 50
    truth = json.loads((labelled / "truth.json").read_text("utf-8"))
    truth["images"].append({"id": 1, "file_name": "none.png", "height": 1, "width": 1})
    path.write_text(json.dumps(truth), "utf-8")
    assert call(demo_onnx, labelled, annotations=path) == 0
    assert "1 of 3 labeled photos are not in" in capsys.readouterr().out


def test_bad_annotations_are_a_usage_error(
    demo_onnx: Path,
    labelled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    subtests: pytest.Subtests,
) -> None:
    for text, expected in [
        ("", "not a readable JSON file"),
        ("{", "not a readable JSON file"),
        ("[]", "expected COCO's images"),
        ('{"images": []}', "'images' is empty"),
        ('{"images": [{"id": 1, "file_name": "x"}]}', "'annotations' is missing"),
        ('{"annotations": [], "categories": []}', "'images' is missing"),
        (
            '{"images": [{"id": 1}], "annotations": [], "categories": []}',
            "expected a string as 'file_name' of every entry",
        ),
        (
            '{"images": [{"id": 1, "file_name": 5}], "annotations": [], "categories": []}',
            "expected a string as 'file_name' of every entry",
        ),
        (
            '{"images": [{"id": [1], "file_name": "x"}], "annotations": [], "categories": []}',
            "images: expected an integer or a string as 'id'",
        ),
        (
            '{"images": [{"id": 1, "file_name": "x"}], "annotations": [],'
            ' "categories": [{"id": {}}]}',
            "categories: expected an integer or a string as 'id'",
        ),
        ("[" * 1_500, "not a readable JSON file"),
        ("1" * 4301, "not a readable JSON file"),
        (
            f'{{"images": [{{"id": 1, "file_name": "{"x" * 300}"}}],'
            ' "annotations": [], "categories": []}',
            "none of the 1 labeled photos",
        ),
        (
            '{"images": [{"id": 1, "file_name": "x.png"}], "annotations": [], "categories": []}',
            "none of the 1 labeled photos",
        ),
        (
            '{"images": [], "annotations": [], "categories": []}',
            "'images' is empty",
        ),
    ]:
        with subtests.test(expected):
            path = tmp_path / "truth.json"
            path.write_text(text, "utf-8")
            assert call(demo_onnx, labelled, annotations=path) == 2
            error = capsys.readouterr().err
            assert expected in error
            assert error.count("\n") == 1
            assert len(error) < 500


def test_missing_files(
    demo_onnx: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(demo_onnx, labelled, annotations=tmp_path / "none.json") == 2
    assert "none.json: no such file" in capsys.readouterr().err
    assert call(tmp_path / "none.onnx", labelled) == 1
    assert "none.onnx: no such file" in capsys.readouterr().err
    (tmp_path / "file").write_text("mine")
    assert call(demo_onnx, labelled, "--run-dir", tmp_path / "file") == 1
    captured = capsys.readouterr()
    assert "cannot create the folder" in captured.err
    assert "photos" not in captured.out
    assert (tmp_path / "file").read_text() == "mine"


def test_damaged_photo_stops_with_its_name(
    demo_onnx: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A score over the readable photos alone would be misleading."""
    (tmp_path / "images").mkdir()
    for name in ("7.png", "9.png"):
        whole = (labelled / "images" / name).read_bytes()
        (tmp_path / "images" / name).write_bytes(whole if name == "7.png" else whole[:2000])
    truth = labelled / "truth.json"
    assert call(demo_onnx, tmp_path, "--run-dir", tmp_path / "run", annotations=truth) == 1
    assert f"{tmp_path / 'images' / '9.png'}: damaged or truncated" in capsys.readouterr().err
    assert not (tmp_path / "run" / "evaluate.json").exists()


def test_options_are_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["model.onnx"])
    assert exit_.value.code == 2
    assert "--images" in capsys.readouterr().err


def test_annotations_that_cannot_be_used(
    demo_onnx: Path,
    labelled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    subtests: pytest.Subtests,
) -> None:
    for wrong, expected in [
        ({"annotations": 5}, "expected lists"),
        ({"categories": [{"name": "x"}]}, "categories: expected an"),
        ({"categories": [{"id": 77}]}, "annotations have a category_id that 'categories' does not"),
        ({"annotations": [{"id": 1}]}, "as 'image_id' of every entry"),
    ]:
        with subtests.test(expected):
            truth = json.loads((labelled / "truth.json").read_text("utf-8")) | wrong
            path = tmp_path / "wrong.json"
            path.write_text(json.dumps(truth), "utf-8")
            assert call(demo_onnx, labelled, annotations=path) == 2
            error = capsys.readouterr().err.splitlines()[-1]
            assert error.startswith(f"error: {path}: ")
            assert expected in error
