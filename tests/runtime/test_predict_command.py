"""`maskport predict`: the files it writes, and its exit status."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from runtime.masks import rle
from runtime.predict import main
from runtime.predictor import Predictor


@pytest.fixture
def photos(tmp_path: Path, demo_pixels: NDArray[np.uint8]) -> Path:
    """A folder with three photos of different sizes and kinds."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(demo_pixels).save(folder / "a.png")
    Image.fromarray(demo_pixels[:, :300]).save(folder / "b.jpg", quality=95)
    Image.fromarray(demo_pixels[100:300, :, 1]).save(folder / "c.png")
    (folder / "notes.txt").write_text("not a photo")
    return folder


def call(model: Path, *arguments: object) -> int:
    return main([str(model), "--threads", "1", *map(str, arguments)])


def files(folder: Path) -> list[str]:
    """What a user sees; a hidden note beside it lets a run go on."""
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_writes_overlays_and_coco_results(
    demo_onnx: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    assert call(demo_onnx, photos, "-o", out) == 0
    assert files(out) == ["a.png", "b.png", "c.png", "results.json"]
    for name, size in (("a", (640, 480)), ("b", (300, 480)), ("c", (640, 200))):
        with Image.open(out / f"{name}.png") as overlay:
            assert overlay.size == size
            assert overlay.mode == "RGB"
    with Image.open(out / "a.png") as overlay, Image.open(photos / "a.png") as photo:
        assert (np.asarray(overlay) != np.asarray(photo)).any()
    rows = json.loads((out / "results.json").read_text("utf-8"))
    assert {row["image_id"] for row in rows} == {0, 1, 2}
    with Predictor.open(demo_onnx, threads=1) as predictor:
        expected = predictor.predict(photos / "a.png")
    first = [row for row in rows if row["image_id"] == 0]
    assert [row["segmentation"] for row in first] == expected.rle()
    assert [row["category_id"] for row in first] == expected.labels.tolist()
    captured = capsys.readouterr()
    last = json.loads(captured.err.splitlines()[-1])
    assert (last["event"], last["photos"], last["failed"], last["total"]) == ("done", 3, 0, 3)
    assert list(last["stage_ms"]) == ["decode", "preprocess", "network", "results"]
    assert f"COCO results: {out / 'results.json'}" in captured.out
    assert captured.out.splitlines()[-1].startswith("next: ")
    assert call(demo_onnx, photos, "-o", tmp_path / "out") == 0
    line = next(s for s in capsys.readouterr().out.splitlines() if s.startswith("3 photos · "))
    times = {stage: float(ms) for stage, ms in re.findall(r"(\w+) ([\d.]+) ms", line)}
    assert list(times) == ["decode", "preprocess", "network", "results"]
    assert times["decode"] > 0.1  # a 640 x 480 PNG takes milliseconds
    assert times["network"] > 1


def test_json_lines_alone(demo_onnx: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("-o", out, "--save", "jsonl", "--score-threshold", 0.5)
    assert call(demo_onnx, photos / "*.png", *arguments) == 0
    assert files(out) == ["results.jsonl"]
    lines = (out / "results.jsonl").read_text("utf-8").splitlines()
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert [r["image"] for r in records] == [str(photos / "a.png"), str(photos / "c.png")]
    assert (records[0]["height"], records[0]["width"]) == (480, 640)
    assert len(records[0]["detections"]) >= 5
    for row in records[0]["detections"]:
        assert row["score"] >= 0.5
        mask = rle.decode(row["rle"])
        assert mask.shape == (480, 640)
        assert mask.any()


def test_one_bad_photo_does_not_stop_the_others(
    demo_onnx: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "bad.jpg").write_bytes((photos / "b.jpg").read_bytes()[:5000])
    Image.new("RGB", (20000, 1)).save(photos / "flat.png")
    out = tmp_path / "out"
    assert call(demo_onnx, photos, "-o", out) == 1
    assert files(out) == ["a.png", "b.png", "c.png", "results.json"]
    rows = json.loads((out / "results.json").read_text("utf-8"))
    # Numbered by place, so a photo's id does not depend on whether another can be read.
    assert {row["image_id"] for row in rows} == {0, 1, 3}
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert errors[0].count(str(photos / "bad.jpg")) == 1
    assert "truncated" in errors[0]
    assert errors[1].startswith(f"error: {photos / 'flat.png'}: a photo of 1x20000")
    assert errors[2] == "error: 2 of 5 photos could not be used"
    assert "3 photos · " in captured.out
    assert "next: " not in captured.out


def test_only_bad_photos_and_a_checkpoint(
    demo_onnx: Path, tmp_path: Path, demo_photo: Path
) -> None:
    (tmp_path / "bad.jpg").write_text("words")
    out = tmp_path / "out"
    assert call(demo_onnx, tmp_path / "bad.jpg", "-o", out) == 1
    assert files(out) == ["results.json"]
    assert json.loads((out / "results.json").read_text("utf-8")) == []
    weights = Path(__file__).resolve().parents[2] / "examples" / "demo" / "shapes.pth"
    assert call(weights, demo_photo, "-o", tmp_path / "out", "--save", "json") == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert len(rows) > 0


@pytest.mark.parametrize("place", ["file", "file/below", "/dev/null/below"])
def test_output_that_cannot_be_a_folder(
    demo_onnx: Path, photos: Path, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert call(demo_onnx, photos, "-o", tmp_path / place) == 1
    text = capsys.readouterr().err
    assert text.startswith(f"error: {tmp_path / place}: cannot create the folder")
    assert text.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_an_output_or_model_that_is_missing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], demo_onnx: Path
) -> None:
    out = tmp_path / "out"
    assert call(tmp_path / "none.onnx", photos, "-o", out) == 1
    assert "none.onnx: no such file" in capsys.readouterr().err
    assert not out.exists()
    (out / "results.json").mkdir(parents=True)
    assert call(demo_onnx, photos / "a.png", "-o", out, "--save", "json") == 1
    assert "expected a file, got a folder" in capsys.readouterr().err
    assert files(out) == ["results.json"]


def test_usage_errors(
    demo_onnx: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    subtests: pytest.Subtests,
) -> None:
    for arguments, says in [
        (["none.jpg"], "no photos found"),
        (["*.jpg"], "no photos found"),
        (["{photos}", "--save", "gif"], "expected some of overlay"),
        (["{photos}", "--save", ""], "expected some of overlay"),
        (["{photos}", "--score-threshold", "0.01"], "below the exported"),
        (["{photos}", "--score-threshold", "7"], "from 0 to 1|0 to 1"),
        (["{photos}", "--score-threshold", "x"], "0.5,person=0.7"),
        (["{photos}", "--backend", "x"], "backend"),
        (["{photos}", "--unknown"], "unrecognized"),
        ([], "required"),
    ]:
        with subtests.test(says):
            filled = [a.replace("{photos}", str(photos)) for a in arguments]
            try:
                status = main([str(demo_onnx), *filled, "-o", str(tmp_path / "out")])
            except SystemExit as left:
                status = int(left.code or 0)
            text = capsys.readouterr().err
            assert status == 2
            assert text.startswith("error: ")
            assert re.search(says, text)
            assert text.count("\n") == 1


def test_photos_are_never_overwritten(
    demo_onnx: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (photos / "a.png").read_bytes()
    assert call(demo_onnx, photos, "-o", photos) == 2
    assert "a.png would overwrite an input; name another folder" in capsys.readouterr().err
    assert (photos / "a.png").read_bytes() == before
    assert call(demo_onnx, photos / "a.png", "-o", photos, "--save", "jsonl") == 0
    assert (photos / "a.png").read_bytes() == before


def test_photos_are_named_by_stem_and_coco_id(
    demo_onnx: Path, photos: Path, tmp_path: Path
) -> None:
    places = [tmp_path / "x" / "1.png", tmp_path / "y" / "1.png", tmp_path / "z" / "1-2.png"]
    for place in places:
        place.parent.mkdir()
        shutil.copy(photos / "c.png", place)
    out = tmp_path / "out"
    assert call(demo_onnx, *places, "-o", out) == 0
    assert files(out) == ["1-2-2.png", "1-2.png", "1.png", "results.json"]
    rows = json.loads((out / "results.json").read_text("utf-8"))
    assert {row["image_id"] for row in rows} == {0, 1, 2}
    for image_id in (139, 785):
        shutil.copy(photos / "c.png", tmp_path / f"{image_id:012d}.png")
    assert call(demo_onnx, tmp_path / "*.png", "-o", out, "--save", "json") == 0
    rows = json.loads((out / "results.json").read_text("utf-8"))
    assert {row["image_id"] for row in rows} == {139, 785}


def test_overlay_of_a_turned_photo_is_upright(
    demo_onnx: Path, photos: Path, tmp_path: Path
) -> None:
    with Image.open(photos / "a.png") as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(tmp_path / "turned.png", exif=exif)
    out = tmp_path / "out"
    assert call(demo_onnx, tmp_path / "turned.png", "-o", out) == 0
    with Image.open(out / "turned.png") as overlay:
        assert overlay.size == (480, 640)


def test_warnings_about_large_photos_are_not_shown(
    demo_onnx: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 640 * 480 - 1)
    assert call(demo_onnx, photos / "a.png", "-o", tmp_path / "out") == 0
    assert [w for w in recwarn if issubclass(w.category, Image.DecompressionBombWarning)] == []
