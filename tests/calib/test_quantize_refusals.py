"""What `maskport quantize` refuses, in one line, before the long part where it can."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from calib.evaluation import read_annotations
from calib.options import QuantizeOptions
from calib.quantize import main, quantize
from model.errors import ArtifactError, UsageError


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--rest", "fp16"], "int8 with fp32 alone; use --qdq tensorrt"),
        (["--format", "fp8"], "int8 with fp32 alone; use --qdq tensorrt"),
        (["--format", "fp8", "--qdq", "tensorrt", "--budget", "3"], "no FP8"),
        (["--reference", "x.onnx"], "nothing is compared"),
        (["--reference", "x.onnx", "--budget", "3"], "x.onnx: no such file"),
        (["--table", "nowhere/t.json"], "no such folder"),
        (["--import-cache", "c.cache"], "leave the photos out"),
        (["--budget", "-1"], "from 0 to 100"),
        (["--annotations", "a.json"], "give that folder too"),
    ],
)
def test_options_that_do_not_go_together(
    more: list[str], said: str, demo_onnx: Path, scenes: list[Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    argv = [str(demo_onnx), str(scenes[0].parent), "-o", str(tmp_path / "q.onnx"), *more]
    try:
        status = main(argv)
    except SystemExit as stopped:  # argparse's own refusals
        status = int(stopped.code or 0)
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error:" in text]
    assert status in (1, 2)
    assert said in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--budget", "--table", "--equalise", "--eval-images"])
def test_an_imported_cache_goes_with_nothing_that_needs_photos(
    option: str, demo_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "c.cache"
    cache.write_text("TRT-8601-EntropyCalibration2\nx: 3c010a14\n")
    value = {"--budget": "3", "--table": "t.json", "--equalise": "0.5"}.get(option, str(tmp_path))
    assert main([str(demo_onnx), "--import-cache", str(cache), option, value]) == 2
    assert f"{option} needs photos" in capsys.readouterr().err


def test_a_table_never_replaces_a_model(demo_onnx: Path, scenes: list[Path]) -> None:
    output = scenes[0].parent / "q.onnx"
    for table in (output, demo_onnx):
        options = QuantizeOptions(table=table, rounding="nearest")
        with pytest.raises(UsageError, match="overwrite a model"):
            quantize(demo_onnx, scenes, output, options)
    assert not output.exists()


def test_no_file_at_all(
    scenes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), str(scenes[0])]) == 1
    assert "no such file" in capsys.readouterr().err


def test_one_photo_under_many_names_is_one_photo(
    demo_onnx: Path, scenes: list[Path], tmp_path: Path
) -> None:
    copies = [tmp_path / f"{number}.png" for number in range(6)]
    for copy in copies:
        shutil.copy(scenes[0], copy)
    with pytest.raises(UsageError, match="1 usable photos"):
        quantize(demo_onnx, copies, tmp_path / "q.onnx", QuantizeOptions(rounding="nearest"))


@pytest.mark.slow
def test_photos_that_show_nothing_decide_nothing(demo_onnx: Path, tmp_path: Path) -> None:
    plain = [tmp_path / f"{level}.png" for level in (40, 90, 130, 200)]
    for path in plain:
        Image.new("RGB", (96, 64), (int(path.stem),) * 3).save(path)
    options = QuantizeOptions(rounding="nearest", budget=5.0)
    with pytest.raises((UsageError, ArtifactError), match="what the model knows"):
        quantize(demo_onnx, plain, tmp_path / "q.onnx", options)
    assert not (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("largest", float("inf")), ("largest", -1.0), ("exponent", 999_999), ("counts", "!!!")],
)
def test_a_table_with_impossible_numbers(
    field: str, value: object, demo_onnx: Path, standard_table: Path, scenes: list[Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    document = json.loads(standard_table.read_text())
    next(iter(document["tensors"].values()))[field] = value
    table = tmp_path / "t.json"
    table.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="damaged calibration table"):
        quantize(demo_onnx, scenes, tmp_path / "q.onnx", QuantizeOptions(table=table))


IMAGE = {"id": 1, "file_name": "a.jpg", "height": 4, "width": 5}
ROW = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1.0}


@pytest.mark.parametrize(
    "document",
    [
        "not json",
        [],
        {"images": [IMAGE], "annotations": [ROW]},
        {"images": [{**IMAGE, "id": "7"}], "annotations": [], "categories": []},
        {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []},
        {"images": [IMAGE], "annotations": [{"bbox": []}], "categories": []},
        {"images": [IMAGE, {**IMAGE, "id": 2}], "annotations": [], "categories": []},
    ],
)
def test_annotations_that_are_none(document: object, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(UsageError, match=r"--annotations .*labels\.json"):
        read_annotations(path)
