"""What `maskport quantize` refuses, in one line, before the long part where it can."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image
from pycocotools import mask

from calib.annotations import read_annotations, require_truth
from calib.import_cache import read_cache
from calib.layers import weighted_layers
from calib.observers.mse import Mse
from calib.options import QuantizeOptions
from calib.quantize import main, quantize
from calib.recipe import tensors_to_observe
from calib.writers.pairs import in_type_of
from model.errors import ArtifactError, UsageError
from runtime.sessions.session import open_session


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--rest", "fp16"], "int8 with fp32 alone; use --qdq tensorrt"),
        (["--format", "fp8"], "int8 with fp32 alone; use --qdq tensorrt"),
        (["--format", "fp8", "--qdq", "tensorrt", "--budget", "3"], "no FP8"),
        (["--reference", "x.onnx"], "nothing is compared"),
        (["--reference", "x.onnx", "--budget", "3"], "x.onnx: no such file"),
        (["--table", "nowhere/t.json"], "--table nowhere/t.json: no such folder"),
        (["-o", "nowhere/q.onnx"], "-o nowhere/q.onnx: no such folder"),
        (["--import-cache", "c.cache"], "leave the photos out"),
        (["--budget", "-1"], "from 0 to 100"),
        (["--annotations", "a.json"], "give that folder too"),
        (["--histograms"], "give --run-dir too"),
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


def test_a_layer_that_would_read_nothing_but_zeros_is_named(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], tmp_path: Path
) -> None:
    """The table is one that calibration writes of a tensor of zeros."""
    document = json.loads(standard_table.read_text())
    for tensor in document["tensors"].values():
        zeros = Mse()
        zeros.observe(np.zeros(tensor["seen"], np.float32))
        tensor |= zeros.state()
    table, output = tmp_path / "t.json", tmp_path / "q.onnx"
    table.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=r"tensors were zero on all 6 photos.*--preset"):
        quantize(demo_onnx, scenes, output, QuantizeOptions(table=table))
    assert not output.exists()


IMAGE = {"id": 1, "file_name": "a.jpg", "height": 4, "width": 5}
ROW = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1.0}
KIND = {"id": 1}
OUTLINE = [[0, 0, 4, 0, 4, 4]]


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


WRONG_OBJECTS: list[tuple[dict[str, object], str]] = [
    ({"bbox": ["a", "b", "c", "d"]}, "bbox: expected four numbers"),
    ({"bbox": [1]}, "bbox: expected four numbers"),
    ({"bbox": [0, 0, float("nan"), 1]}, "bbox: expected four numbers"),
    ({"bbox": [0, 0, 10**400, 1]}, "bbox: expected four numbers"),
    ({"area": float("nan")}, "area: expected a number"),
    ({"area": -1}, "area: expected a number"),
    ({"segmentation": [[1, 2]]}, "segmentation: expected polygons"),
    ({"segmentation": [[1, 2, 3, 4]]}, "segmentation: expected polygons"),
    ({"segmentation": [["a"] * 6]}, "segmentation: expected polygons"),
    ({"segmentation": [[0, 0, 1e300, 0, 4, 4]]}, "segmentation: expected polygons"),
    ({"segmentation": [[0, 0, 4, 0, 4, 4], []]}, "segmentation: expected polygons"),
    ({"segmentation": "abc"}, "segmentation: expected polygons"),
    ({"segmentation": {"counts": [1, 2]}}, "segmentation: expected polygons"),
    ({"segmentation": {"counts": [1, 2], "size": [4, 5]}}, "segmentation: expected polygons"),
    ({"segmentation": {"counts": [20], "size": [5, 4]}}, "segmentation: expected polygons"),
    ({"segmentation": {"counts": "zz~~~", "size": [4, 5]}}, "segmentation: expected polygons"),
    ({"segmentation": []}, "1 of 1 objects have no segmentation"),
    ({"category_id": 77}, "no object on any of the 1 photos"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG_OBJECTS, ids=str)
def test_objects_that_pycocotools_cannot_take(
    wrong: dict[str, object], said: str, demo_onnx: Path, tmp_path: Path
) -> None:
    truth = _read({**ROW, "id": 5, "segmentation": OUTLINE, **wrong}, tmp_path)
    spec = open_session(demo_onnx).artifact.spec
    with pytest.raises(UsageError, match=f"--annotations: .*{said}"):
        require_truth([Path("a.jpg")], truth, spec)
    # What no photo shows, and outlines of a model without masks, are not looked at.
    elsewhere = {**truth, "annotations": [*truth["annotations"], {**ROW, "segmentation": OUTLINE}]}
    elsewhere["annotations"][0]["image_id"] = 99
    require_truth([Path("a.jpg")], elsewhere, spec)


@pytest.mark.parametrize(
    "outline",
    [
        [[0, 0, 4, 0, 4, 4]],
        [[0, 0, 4, 0, 4, 4], [1, 1, 2, 2]],
        [[0, 0, 4, 0, 4, 4, 1]],
        {"counts": [3, 17], "size": [4, 5]},
        {"counts": "3a0", "size": [4, 5]},
    ],
    ids=str,
)
def test_outlines_that_it_can(outline: Any, demo_onnx: Path, tmp_path: Path) -> None:
    truth = _read({**ROW, "segmentation": outline}, tmp_path)
    require_truth([Path("a.jpg")], truth, open_session(demo_onnx).artifact.spec)
    runs = mask.frPyObjects(outline, 4, 5) if isinstance(outline, list) else [outline]
    assert len(runs) == (len(outline) if isinstance(outline, list) else 1)


def test_outlines_of_a_model_without_masks_are_not_looked_at(
    demo_onnx: Path, tmp_path: Path
) -> None:
    spec = replace(open_session(demo_onnx).artifact.spec, mask=None)
    require_truth([Path("a.jpg")], _read({**ROW, "segmentation": "abc"}, tmp_path), spec)


def _read(row: dict[str, Any], folder: Path) -> Mapping[str, Any]:
    path = folder / "labels.json"
    path.write_text(json.dumps({"images": [IMAGE], "annotations": [row], "categories": [KIND]}))
    return read_annotations(path)


def test_annotations_that_are_a_list_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"images": [IMAGE], "annotations": [1], "categories": [KIND]}))
    with pytest.raises(UsageError, match="not COCO annotations"):
        read_annotations(path)


def test_annotations_of_other_sizes_or_classes_are_refused_before_the_long_part(
    demo_onnx: Path, scenes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tmp_path / "a.json", str(scenes[0].parent)
    argv = [str(demo_onnx), folder, "-o", str(tmp_path / "q.onnx"), "--eval-images", folder]
    argv += ["--annotations", str(file)]
    document = _annotated(sorted(scenes), segmentation=[[4, 4, 9, 4, 9, 9]])
    turned = [{**image, "height": 320, "width": 240} for image in document["images"]]
    file.write_text(json.dumps({**document, "images": turned}))
    said = _complaint(argv, capsys)
    assert "0.png is 240 x 320, they say 320 x 240 (height x width): its EXIF orientation" in said
    smaller = [{**image, "height": 120} for image in document["images"]]
    file.write_text(json.dumps({**document, "images": smaller}))
    assert "give the photos that were annotated" in _complaint(argv, capsys)
    other = [{**one, "category_id": 500} for one in document["annotations"]]
    file.write_text(json.dumps({**document, "annotations": other, "categories": [{"id": 500}]}))
    assert "none of its category ids [500] is one that the model" in _complaint(argv, capsys)
    assert sorted(tmp_path.iterdir()) == [file]


def _complaint(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    status = main(argv)
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error:" in text]
    return f"{status} {line}"


def _annotated(photos: list[Path], **fields: object) -> dict[str, Any]:
    """Annotations with one object on the first photo."""
    images = [
        {"id": i, "file_name": photo.name, "height": 240, "width": 320}
        for i, photo in enumerate(photos)
    ]
    one = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [4, 4, 9, 9], "area": 81, **fields}
    return {"images": images, "annotations": [one], "categories": [{"id": 1}]}


def test_annotations_without_outlines_or_objects_are_refused_before_the_long_part(
    demo_onnx: Path, scenes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document, file = _annotated(sorted(scenes)), tmp_path / "a.json"
    output = tmp_path / "q.onnx"
    argv = [str(demo_onnx), str(scenes[0].parent), "-o", str(output)]
    argv += ["--eval-images", str(scenes[0].parent), "--annotations", str(file)]
    file.write_text(json.dumps(document))
    assert "2 error: --annotations: 1 of 1 objects have no segmentation" in _complaint(argv, capsys)
    file.write_text(json.dumps({**document, "annotations": []}))
    assert "2 error: --annotations: no object on any of the" in _complaint(argv, capsys)
    assert sorted(tmp_path.iterdir()) == [file]


def test_annotations_need_not_say_that_an_object_is_no_crowd(
    scenes: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(_annotated(scenes, segmentation=[[4, 4, 9, 4, 9, 9]])))
    (one,) = read_annotations(file)["annotations"]
    assert one["iscrowd"] == 0


def test_a_reference_that_is_none_is_refused_before_the_long_part(
    demo_onnx: Path, scenes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = tmp_path / "r.onnx"
    reference.write_bytes(b"no model")
    folder = str(scenes[0].parent)
    argv = [str(demo_onnx), folder, "-o", str(tmp_path / "q.onnx"), "--eval-images", folder]
    assert "r.onnx" in _complaint([*argv, "--reference", str(reference)], capsys)
    assert sorted(tmp_path.iterdir()) == [reference]


def test_an_evaluation_photo_that_the_resize_leaves_nothing_of_is_left_out(
    demo_onnx: Path, scenes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (5000, 1), "red").save(folder / "line.png")
    argv = [str(demo_onnx), str(scenes[0].parent), "-o", str(tmp_path / "q.onnx")]
    assert main([*argv, "--eval-images", str(folder)]) == 2
    errors = capsys.readouterr().err
    assert "line.png" in errors
    assert "left out" in errors
    assert not (tmp_path / "q.onnx").exists()


def test_the_first_photo_that_could_not_be_used_is_named_with_its_reason(
    demo_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shade in range(6):
        Image.new("RGB", (64, 48 + shade)).save(tmp_path / f"black{shade}.png")
    said = _complaint([str(demo_onnx), str(tmp_path), "-o", str(tmp_path / "q.onnx")], capsys)
    assert "0 usable photos, 6 skipped" in said
    assert "black0.png: black all over" in said


def test_copies_are_named_and_few_usable_photos_warned_of(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder, table = tmp_path / "photos", tmp_path / "t.json"
    folder.mkdir()
    shutil.copy(standard_table, table)
    for number in range(40):
        shutil.copy(scenes[number % 6], folder / f"{number:02}.png")
    for name in ("empty1.png", "empty2.png"):
        (folder / name).write_bytes(b"")
    argv = [str(demo_onnx), str(folder), "-o", str(tmp_path / "q.onnx"), "--table", str(table)]
    assert main([*argv, "--rounding", "nearest"]) == 0
    said = capsys.readouterr()
    assert "6 seen before · 36 skipped" in said.out
    assert said.err.count("the same file as") == 35
    assert "empty1.png" in said.err
    assert "empty2.png" in said.err
    assert "6 usable photos; ranges of fewer than 32" in said.err


def test_a_cache_may_hold_scales_of_other_graphs_that_are_none(tmp_path: Path) -> None:
    cache = tmp_path / "c.cache"
    head = "TRT-8601-EntropyCalibration2\n"
    cache.write_text(f"{head}(Unnamed Layer* 3) [Constant]_output: 0\nx: 3c010a14\n")
    assert read_cache(cache, ["x"])["x"] == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize(
    "bits",
    ["0", "1", "0a000000", "6e000000", "7f000000", "7f7fffff", "7f800000", "7fc00000", "bc010a14"],
)
def test_a_cache_with_a_scale_that_no_activation_has(bits: str, tmp_path: Path) -> None:
    cache = tmp_path / "c.cache"
    cache.write_text(f"TRT-8601-EntropyCalibration2\nx: {bits}\n")
    with pytest.raises(ArtifactError, match=r"expected a positive scale from .*, got .* for 'x'"):
        read_cache(cache, ["x"])


@pytest.mark.parametrize("bits", ["0a800000", "6d800000"])
@pytest.mark.filterwarnings("error")
def test_the_ends_of_what_a_cache_may_hold_can_be_written(
    bits: str, demo_onnx: Path, tmp_path: Path
) -> None:
    graph = ir.load(demo_onnx).graph
    names = tensors_to_observe(
        graph, [one for one in weighted_layers(graph) if not one.is_predictor]
    )
    cache = tmp_path / "c.cache"
    lines = [f"{name}: {bits}" for name in names]
    cache.write_text("\n".join(["TRT-8601-EntropyCalibration2", *lines]))
    quantize(demo_onnx, [], tmp_path / "q.onnx", QuantizeOptions(import_cache=cache, threads=1))


def test_a_cache_with_a_name_twice(tmp_path: Path) -> None:
    cache = tmp_path / "c.cache"
    cache.write_text("TRT-8601-EntropyCalibration2\nx: 3c010a14\ny: 3c010a14\nx: 3c010a15\n")
    with pytest.raises(ArtifactError, match="line 4: 'x' stands there twice"):
        read_cache(cache, ["x"])


def test_a_step_beyond_fp16_is_named() -> None:
    half = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT16))
    assert in_type_of(65504.0, half).dtype == np.float16
    with pytest.raises(ArtifactError, match=r"tensor 'x': .* beyond FP16; take --rest fp32"):
        in_type_of(1e6, half)
