"""`maskport evaluate`: its numbers and files, interrupted runs, and two artifacts compared."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

from export.onnx_file import remove_checksum
from runtime.cli.console import Bar
from runtime.compare.coco_inputs import areas_px
from runtime.evaluate import evaluate, main
from runtime.formats.coco import rows
from runtime.predictor import Predictor
from tests.reliability import tiny

pytest.importorskip("pycocotools")

PHOTOS = 4


@pytest.fixture(scope="module")
def labeled(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos in `photos/`, with the model's detections as ground truth."""
    folder = tmp_path_factory.mktemp("labeled")
    (folder / "photos").mkdir()
    images, found = [], list[Any]()
    with Predictor.open(tiny_onnx, threads=1) as predictor:
        for number in range(1, PHOTOS + 1):
            pixels = tiny.photo(seed=number)
            name = f"{number}.png"
            Image.fromarray(pixels).save(folder / "photos" / name)
            height, width = pixels.shape[:2]
            images.append({"id": number, "file_name": name, "height": height, "width": width})
            found += rows(predictor.predict(pixels), number)
        names = predictor.spec.classes.names
    areas = areas_px([row["segmentation"] for row in found], "segm")
    truth = {
        "images": images,
        "categories": [{"id": n, "name": names[n]} for n in range(1, len(names))],
        "annotations": [
            {**row, "id": number, "iscrowd": 0, "area": area}
            for number, (row, area) in enumerate(zip(found, areas, strict=True), start=1)
            # Empty masks match nothing.
            if area
        ],
    }
    assert len(truth["annotations"]) >= PHOTOS
    (folder / "truth.json").write_text(json.dumps(truth), "utf-8")
    return folder


def call(model: Path, labeled: Path, *arguments: object) -> int:
    inputs = ("--images", labeled / "photos", "--annotations", labeled / "truth.json")
    return main([str(a) for a in (model, "--threads", 1, *inputs, *arguments)])


@pytest.fixture
def other(tiny_onnx: Path, tmp_path: Path) -> Path:
    """The same model in another file."""
    model = onnx.load(tiny_onnx)
    model.doc_string = "another export"
    remove_checksum(model)
    path = tmp_path / "other.onnx"
    onnx.save(model, path)
    return path


def test_numbers_on_the_screen_and_in_the_file(
    tiny_onnx: Path, labeled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tiny_onnx, labeled, "--run-dir", tmp_path, "--per-class") == 0
    out = capsys.readouterr().out
    assert re.search(
        r"^at most 100 detections per photo and class \(COCO's.*\) · hotcoco 1", out, re.M
    )
    for kind in ("box ", "mask"):
        assert re.search(rf"^{kind} AP [\d.]+ · AP50 [\d.]+ · AP75 [\d.]+ · small", out, re.M)
        assert re.search(rf"^{kind} AR1 [\d.]+ · AR10 [\d.]+ · AR100 [\d.]+ · small", out, re.M)
    assert re.search(r"^class +box AP +box AP50 .* mask AP75$", out, re.M)
    document = json.loads((tmp_path / "evaluate.json").read_text("utf-8"))
    assert document["schema_version"] == 2
    assert document["max_detections"] == {"bbox": 100, "segm": 100}
    assert len(document["bbox"]) == len(document["segm"]) == 12
    assert [entry["name"] for entry in document["classes"]] == ["round", "square"]
    assert document["classes"][0]["segm"].keys() == document["segm"].keys()


def test_limits_of_detections(
    tiny_onnx: Path, labeled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tiny_onnx, labeled, "--max-detections", 3) == 0
    out = capsys.readouterr().out
    assert "at most 3 detections per photo and class (--max-detections)" in out
    assert "AR1 " in out
    assert "AR3 " in out
    assert "AR10 " not in out


def test_an_interrupted_run_continues(
    tiny_onnx: Path,
    labeled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(tiny_onnx, labeled, "--run-dir", tmp_path / "whole") == 0
    done = []

    def interrupt(self: Bar, count: int = 1) -> None:
        done.append(count)
        if len(done) == 2:
            raise KeyboardInterrupt

    folder = tmp_path / "parts"
    with monkeypatch.context() as patched:
        patched.setattr(Bar, "advance", interrupt)
        assert call(tiny_onnx, labeled, "--run-dir", folder) == 130
    assert not (folder / "evaluate.json").exists()
    # A kill may leave a part of a record.
    with (folder / "results.jsonl").open("a") as file:
        file.write('{"image": "3.p')
    capsys.readouterr()
    assert call(tiny_onnx, labeled, "--run-dir", folder) == 0
    assert "2 photos of the earlier run" in capsys.readouterr().out
    parts, whole = (
        [json.loads(line) for line in (one / "results.jsonl").read_text("utf-8").splitlines()]
        for one in (folder, tmp_path / "whole")
    )
    assert parts == whole
    result, expected = (
        (one / "evaluate.json").read_bytes() for one in (folder, tmp_path / "whole")
    )
    assert result == expected
    # All is there: other numbers need no photo.
    assert call(tiny_onnx, labeled, "--run-dir", folder, "--per-class") == 0
    assert f"{PHOTOS} photos of the earlier run" in capsys.readouterr().out


def test_a_run_continues_after_a_damaged_photo_is_replaced_or_removed(
    tiny_onnx: Path, labeled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = tmp_path / "inputs"
    shutil.copytree(labeled, inputs)
    photo = inputs / "photos" / f"{PHOTOS}.png"
    intact = photo.read_bytes()
    photo.write_bytes(intact[: len(intact) // 2])
    assert call(tiny_onnx, inputs, "--run-dir", tmp_path / "replaced") == 1
    assert f"{photo}: damaged or truncated" in capsys.readouterr().err
    shutil.copytree(tmp_path / "replaced", tmp_path / "removed")
    photo.write_bytes(intact)
    assert call(tiny_onnx, inputs, "--run-dir", tmp_path / "replaced") == 0
    earlier = f"{PHOTOS - 1} photos of the earlier run"
    assert earlier in capsys.readouterr().out
    photo.unlink()
    assert call(tiny_onnx, inputs, "--run-dir", tmp_path / "removed") == 0
    # Detections of a photo that is gone do not count either.
    assert call(tiny_onnx, inputs, "--run-dir", tmp_path / "replaced") == 0
    assert capsys.readouterr().out.count(earlier) == 2
    documents = [(tmp_path / one / "evaluate.json").read_text() for one in ("replaced", "removed")]
    assert documents[0] == documents[1]


def test_runs_of_other_inputs_are_refused(
    tiny_onnx: Path,
    other: Path,
    labeled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    subtests: pytest.Subtests,
) -> None:
    folder = tmp_path / "run"
    assert call(tiny_onnx, labeled, "--run-dir", folder) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    changed = tmp_path / "changed"
    (changed / "photos").mkdir(parents=True)
    for path in (labeled / "photos").iterdir():
        # Of the same size.
        (changed / "photos" / path.name).write_bytes(path.read_bytes()[:-1] + b"!")
    text = (labeled / "truth.json").read_text("utf-8")
    (changed / "truth.json").write_text(text, "utf-8")
    annotations = tmp_path / "annotations"
    (annotations / "photos").mkdir(parents=True)
    for path in (labeled / "photos").iterdir():
        (annotations / "photos" / path.name).write_bytes(path.read_bytes())
    (annotations / "truth.json").write_text(text + "\n", "utf-8")
    for model, inputs, expected in (
        (other, labeled, "the earlier run had artifact"),
        (tiny_onnx, changed, f"{changed / 'photos' / '1.png'} has another content"),
        (tiny_onnx, annotations, "the earlier run had annotations"),
    ):
        with subtests.test(expected):
            capsys.readouterr()
            assert call(model, inputs, "--run-dir", folder) == 2
            error = capsys.readouterr().err.splitlines()[-1]
            assert error.startswith(f"error: {folder}: {expected}")
            assert "name another folder" in error
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_errors_of_two_artifacts(
    tiny_onnx: Path,
    other: Path,
    labeled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = tmp_path / "run"
    assert call(tiny_onnx, labeled, "--run-dir", run_dir, "--against", other) == 0
    out = capsys.readouterr().out
    assert re.search(r"^error +AP50 cost in other.onnx +here +change +errors$", out, re.M)
    kinds = ("class", "location", "duplicate", "background", "missed", "mask only")
    for kind in kinds:
        assert re.search(rf"^{kind}  .* \+0\.00", out, re.M), kind
    document = json.loads((run_dir / "evaluate.json").read_text("utf-8"))
    assert set(kinds) < set(document["errors"]["after"])
    # The folder of an evaluation is as good as the artifact.
    arguments = (labeled / "photos", labeled / "truth.json", None, 1)
    result = evaluate(other, *arguments, against=run_dir)
    assert result.errors is not None
    assert result.errors.other == "run"
    assert result.errors.before == result.errors.after
    # A model without masks.
    log = run_dir / "results.jsonl"
    log.write_text(re.sub(r', "rle": \{.*?\}', "", log.read_text("utf-8")), "utf-8")
    capsys.readouterr()
    assert call(other, labeled, "--against", run_dir) == 0
    assert re.search(r"^mask only +– +\d", capsys.readouterr().out, re.M)
    log.write_bytes(b"")
    assert call(other, labeled, "--against", run_dir) == 2
    assert "detections of 0 of 4 photos; finish that run" in capsys.readouterr().err


def test_pycocotools_alone(
    tiny_onnx: Path,
    labeled: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = (tiny_onnx, labeled / "photos", labeled / "truth.json", None, 1)
    expected = evaluate(*arguments).scores
    monkeypatch.setitem(__import__("sys").modules, "hotcoco", None)
    result = evaluate(*arguments)
    assert result.evaluator.startswith("pycocotools 2")
    assert result.evaluator in result.notes[0]
    for iou_type, ap in result.scores.items():
        assert ap.numbers == pytest.approx(expected[iou_type].numbers, abs=1e-12)
    assert call(tiny_onnx, labeled, "--against", tiny_onnx) == 1
    assert "comparing errors needs hotcoco" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "0", "0.1,-1", "a", "nan", "inf"])
def test_sigmas_are_positive_numbers(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["m.onnx", "--images", "d", "--annotations", "a.json", "--sigmas", text])
    assert "expected positive numbers as 0.05,0.1" in capsys.readouterr().err
