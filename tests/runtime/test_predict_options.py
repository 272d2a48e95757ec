"""`maskport predict`: what is taken, what is kept, what is saved, and how a run goes on."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from runtime.predict import main

UInt8 = NDArray[np.uint8]


@pytest.fixture
def photos(tmp_path: Path, demo_pixels: UInt8) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, part in enumerate((demo_pixels, demo_pixels[:, 200:], demo_pixels[100:])):
        Image.fromarray(part).save(folder / f"p{index}.png")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def call(model: Path, *arguments: object) -> int:
    try:
        return main([str(model), "--threads", "1", *map(str, arguments)])
    except SystemExit as left:
        return int(left.code or 0)


def records(out: Path) -> list[dict[str, Any]]:
    lines = (out / "results.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for record in records(out) for row in record["detections"]]


def test_classes_and_thresholds_of_their_own(demo_onnx: Path, photos: Path, out: Path) -> None:
    assert call(demo_onnx, photos, "-o", out, "--save", "jsonl") == 0
    everything = rows(out)
    common = [name for name, _ in Counter(row["name"] for row in everything).most_common(2)]
    first, second = common
    assert call(demo_onnx, photos, "-o", out, "--save", "jsonl", "--classes", ",".join(common)) == 0
    assert {row["name"] for row in rows(out)} == set(common)
    limits = f"0.3,{first}=0.8"
    assert call(demo_onnx, photos, "-o", out, "--save", "jsonl", "--score-threshold", limits) == 0
    expected = [r for r in everything if r["score"] >= (0.8 if r["name"] == first else 0.3)]
    assert rows(out) == expected
    assert 0 < len(expected) < len(everything)
    assert {first, second} <= {row["name"] for row in expected}


def test_the_best_and_the_large(demo_onnx: Path, photos: Path, out: Path) -> None:
    assert call(demo_onnx, photos, "-o", out, "--save", "jsonl", "--top-k", 2) == 0
    assert [len(record["detections"]) for record in records(out)] == [2, 2, 2]
    arguments = ("-o", out, "--save", "json", "--min-area", 3000, "--score-threshold", 0.5)
    assert call(demo_onnx, photos, *arguments) == 0
    from pycocotools import mask

    result = json.loads((out / "results.json").read_text("utf-8"))
    assert len(result) >= 3
    assert min(mask.area(row["segmentation"]) for row in result) >= 3000


def test_usage_errors_leave_nothing(
    demo_onnx: Path,
    photos: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
    subtests: pytest.Subtests,
) -> None:
    for arguments, says in [
        (["--classes", "zebra"], "no class 'zebra'"),
        (["--score-threshold", "0.5,zebra=0.6"], "no class 'zebra'"),
        (["--score-threshold", "0.5,0.6"], "once"),
        (["--mask-threshold", "1"], "between 0 and 1"),
        (["--top-k", "0"], "whole number from 1"),
        (["--min-area", "-1"], "0 or more pixels"),
        (["--frame-stride", "0"], "whole number from 1"),
        (["--every", "0"], "whole number from 1"),
        (["--device", "tpu"], "expected cpu, cuda or cuda:N"),
        (["--scaled-decode"], "overlay are drawn from the whole photo"),
        (["--save", "json,png"], "got 'png'"),
        (["--labelme-shape", "mask"], "no labelme files are written; add --save labelme"),
        (["--save", "labelme", "--labelme-shape", "box"], "'polygon', 'mask'"),
    ]:
        with subtests.test(says):
            assert call(demo_onnx, photos, "-o", out, *arguments) == 2
            text = capsys.readouterr().err
            assert says in text
            assert text.startswith("error: ")
            assert text.count("\n") == 1
            assert not out.exists()


def test_every_kind_of_file(demo_onnx: Path, photos: Path, out: Path) -> None:
    kinds = "overlay,json,jsonl,rle,crops,yolo,labelme"
    assert call(demo_onnx, photos, "-o", out, "--save", kinds, "--score-threshold", 0.5) == 0
    names = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    for stem in ("p0", "p1", "p2"):
        assert {f"{stem}.png", f"labels/{stem}.txt", f"labelme/{stem}.json"} <= names
        count = len([name for name in names if name.startswith(f"crops/{stem}/")])
        record = next(r for r in records(out) if Path(r["image"]).stem == stem)
        assert count == len(record["detections"])
        lines = (out / "labels" / f"{stem}.txt").read_text("utf-8").splitlines()
        assert len(lines) == count
    assert {"results.json", "results.jsonl", "rle.json", "classes.txt"} <= names


def test_labelme_mask_shapes_are_resumed_as_such(
    demo_onnx: Path, photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save = ("-o", out, "--save", "jsonl,labelme")
    assert call(demo_onnx, photos / "p0.png", *save, "--labelme-shape", "mask") == 0
    shapes = json.loads((out / "labelme" / "p0.json").read_text("utf-8"))["shapes"]
    assert {shape["shape_type"] for shape in shapes} == {"mask"}
    assert len(shapes) == len(rows(out)) > 0
    assert call(demo_onnx, photos / "p0.png", *save, "--resume") == 2
    assert 'the earlier run had labelme_shape "mask"' in capsys.readouterr().err
    assert call(demo_onnx, photos / "p0.png", *save) == 0
    explicit = ("--labelme-shape", "polygon", "--resume")
    assert call(demo_onnx, photos / "p0.png", *save, *explicit) == 0


def test_a_list_and_standard_input(
    demo_onnx: Path,
    photos: Path,
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "list.txt").write_text("# mine\nphotos/p2.png\n\nphotos/none.png\n")
    assert call(demo_onnx, tmp_path / "list.txt", "-o", out, "--save", "jsonl") == 1
    assert [Path(r["image"]).name for r in records(out)] == ["p2.png"]
    errors = [s for s in capsys.readouterr().err.splitlines() if s.startswith("error: ")]
    assert "none.png: no such file" in errors[0]
    assert errors[1] == "error: 1 of 2 photos could not be used"
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{photos / 'p1.png'}\n{photos / 'p0.png'}\n"))
    assert call(demo_onnx, "-", "-o", out, "--save", "jsonl") == 0
    assert [Path(r["image"]).name for r in records(out)] == ["p1.png", "p0.png"]


def _killed(folder: Path, left: int) -> None:
    """What a kill leaves: `left` records and half of the next, no COCO file."""
    path = folder / "results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:left]) + lines[left][:100])
    (folder / "results.json").unlink()


def test_a_run_is_resumed(
    demo_onnx: Path, photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ("--save", "json,jsonl,overlay")
    assert call(demo_onnx, photos, "-o", out, *kinds) == 0
    whole = {name: (out / name).read_bytes() for name in ("results.json", "results.jsonl")}
    _killed(out, 1)
    before = (out / "p0.png").stat().st_mtime_ns
    capsys.readouterr()
    assert call(demo_onnx, photos, "-o", out, *kinds, "--resume") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("2 photos · ")
    assert "1 photo of the earlier run" in printed
    assert (out / "p0.png").stat().st_mtime_ns == before
    assert {name: (out / name).read_bytes() for name in whole} == whole
    assert call(demo_onnx, photos, "-o", out, *kinds, "--resume") == 0
    assert "3 photos of the earlier run" in capsys.readouterr().out


def test_results_of_two_kinds_are_not_mixed(
    demo_onnx: Path,
    photos: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
    subtests: pytest.Subtests,
) -> None:
    for option, says in [
        (["--score-threshold", "0.7"], "run had score_threshold"),
        (["--top-k", "3"], "the earlier run had top_k"),
    ]:
        with subtests.test(says):
            assert call(demo_onnx, photos, "-o", out, "--save", "jsonl") == 0
            before = (out / "results.jsonl").read_bytes()
            assert call(demo_onnx, photos, "-o", out, "--save", "jsonl", "--resume", *option) == 2
            assert says in capsys.readouterr().err
            assert (out / "results.jsonl").read_bytes() == before


def test_other_photos_do_not_get_ids_that_are_taken(
    demo_onnx: Path, photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(demo_onnx, photos / "p1.png", "-o", out, "--save", "jsonl") == 0
    assert call(demo_onnx, photos, "-o", out, "--save", "jsonl", "--resume") == 2
    text = capsys.readouterr().err.splitlines()[-1]
    assert "p1.png had image_id 0, now has 1" in text
    assert call(demo_onnx, photos / "p0.png", "-o", out, "--save", "jsonl", "--resume") == 2
    assert "p1.png had image_id 0, is not listed now" in capsys.readouterr().err


def test_ids_and_order_do_not_move(demo_onnx: Path, photos: Path, out: Path) -> None:
    bad = photos / "p1.png"
    sound = bad.read_bytes()
    bad.write_bytes(sound[:2000])
    assert call(demo_onnx, photos, "-o", out, "--save", "json") == 1
    assert {r["image_id"] for r in json.loads((out / "results.json").read_text())} == {0, 2}
    bad.write_bytes(sound)
    assert call(demo_onnx, photos, "-o", out, "--save", "json") == 0
    assert {r["image_id"] for r in json.loads((out / "results.json").read_text())} == {0, 1, 2}
    for index in range(3, 8):
        shutil.copy(photos / f"p{index % 3}.png", photos / f"p{index}.png")
    options = ("--save", "jsonl", "--batch", 3, "--workers", 4)
    assert call(demo_onnx, photos, "-o", out, *options) == 0
    assert [Path(r["image"]).stem for r in records(out)] == [f"p{n}" for n in range(8)]


def test_a_full_disk_stops_the_run(
    demo_onnx: Path, photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "p1.png").mkdir(parents=True)
    assert call(demo_onnx, photos, "-o", out) == 1
    text = capsys.readouterr().err
    assert "expected a file, got a folder" in text
    assert "Traceback" not in text
