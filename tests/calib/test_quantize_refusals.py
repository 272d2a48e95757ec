"""What `maskport quantize` refuses, in one line, before calibration where it can."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from calib.calibration.tensorrt_cache import read_cache
from calib.graph.formats import scales_in_dtype_of
from calib.graph.layers import hidden_layers
from calib.observers.histogram import Mse
from calib.options import QuantizeOptions
from calib.quantize import main, quantize
from calib.writers.registry import tensors_to_observe
from model.errors import ArtifactError, UsageError


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rest", "fp16"], "only for int8 with fp32; use --qdq-placement tensorrt"),
        (["--format", "fp8"], "only for int8 with fp32; use --qdq-placement tensorrt"),
        (["--format", "fp8", "--qdq", "tensorrt", "--budget", "3"], "no FP8"),
        (["--reference", "x.onnx"], "nothing is compared"),
        (["--reference", "x.onnx", "--budget", "3"], "x.onnx: no such file"),
        (["--table", "nowhere/t.json"], "--table nowhere/t.json: no such folder"),
        (["-o", "nowhere/q.onnx"], "-o nowhere/q.onnx: no such folder"),
        (["--import-cache", "c.cache"], "leave the photos out"),
        (["--budget", "-1"], "from 0 to 100"),
        (["--annotations", "a.json"], "add --eval-images"),
        (["--histograms"], "add --run-dir"),
    ],
)
def test_contradictory_options_are_refused(
    more: list[str], message: str, demo_onnx: Path, scenes: list[Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    argv = [str(demo_onnx), str(scenes[0].parent), "-o", str(tmp_path / "q.onnx"), *more]
    try:
        status = main(argv)
    except SystemExit as stopped:  # argparse's own refusals
        status = int(stopped.code or 0)
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error:" in text]
    assert status in (1, 2)
    assert message in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--budget", "--table", "--eval-images"])
def test_an_imported_cache_excludes_what_needs_photos(
    option: str, demo_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "c.cache"
    cache.write_text("TRT-8601-EntropyCalibration2\nx: 3c010a14\n")
    value = {"--budget": "3", "--table": "t.json"}.get(option, str(tmp_path))
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
    with pytest.raises(UsageError, match="1 usable photo,"):
        quantize(demo_onnx, copies, tmp_path / "q.onnx", QuantizeOptions(rounding="nearest"))


@pytest.mark.slow
def test_photos_without_objects_are_refused(demo_onnx: Path, tmp_path: Path) -> None:
    plain = [tmp_path / f"{level}.png" for level in (40, 90, 130, 200)]
    for path in plain:
        Image.new("RGB", (96, 64), (int(path.stem),) * 3).save(path)
    options = QuantizeOptions(rounding="nearest", budget=5.0)
    with pytest.raises((UsageError, ArtifactError), match="objects of the model's classes"):
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


def test_a_layer_that_reads_only_zeros_is_named(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], tmp_path: Path
) -> None:
    """With a table as calibration writes it for tensors of zeros."""
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


def test_an_unreadable_reference_is_refused_before_calibration(
    demo_onnx: Path, scenes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = tmp_path / "r.onnx"
    reference.write_bytes(b"no model")
    folder = str(scenes[0].parent)
    argv = [str(demo_onnx), folder, "-o", str(tmp_path / "q.onnx"), "--eval-images", folder]
    assert main([*argv, "--reference", str(reference)]) == 1
    streams = capsys.readouterr()
    warning, error = streams.err.splitlines()
    assert warning.startswith(f"warning: {len(scenes)} photos in both sets")
    assert error.startswith("error: ")
    assert "r.onnx" in error
    assert streams.out == ""
    assert sorted(tmp_path.iterdir()) == [reference]


def test_an_evaluation_photo_that_resizes_to_nothing_is_left_out(
    demo_onnx: Path, scenes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (5000, 1), "red").save(folder / "line.png")
    argv = [str(demo_onnx), str(scenes[0].parent), "-o", str(tmp_path / "q.onnx")]
    assert main([*argv, "--eval-images", str(folder)]) == 2
    errors = capsys.readouterr().err
    assert "line.png" in errors
    assert "none of 1 photos can be used" in errors
    assert not (tmp_path / "q.onnx").exists()


def test_the_first_unusable_photo_is_named_with_its_reason(
    demo_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shade in range(6):
        Image.new("RGB", (64, 48 + shade)).save(tmp_path / f"black{shade}.png")
    assert main([str(demo_onnx), str(tmp_path), "-o", str(tmp_path / "q.onnx")]) == 2
    error = capsys.readouterr().err
    assert "0 usable photos, 6 skipped" in error
    assert "black0.png: all black" in error


def test_copies_are_named_and_few_usable_photos_are_a_warning(
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
    streams = capsys.readouterr()
    assert "6 already in the table · 36 skipped" in streams.out
    assert streams.err.count("the same file as") == 35
    assert "empty1.png" in streams.err
    assert "empty2.png" in streams.err
    assert "6 usable photos; with fewer than 32" in streams.err


def test_unused_scales_of_a_cache_are_ignored(tmp_path: Path) -> None:
    cache = tmp_path / "c.cache"
    head = "TRT-8601-EntropyCalibration2\n"
    cache.write_text(f"{head}(Unnamed Layer* 3) [Constant]_output: 0\nx: 3c010a14\n")
    assert read_cache(cache, ["x"])["x"] == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize(
    "bits",
    ["0", "1", "0a000000", "6e000000", "7f000000", "7f7fffff", "7f800000", "7fc00000", "bc010a14"],
)
def test_an_impossible_scale_in_a_cache_is_refused(bits: str, tmp_path: Path) -> None:
    cache = tmp_path / "c.cache"
    cache.write_text(f"TRT-8601-EntropyCalibration2\nx: {bits}\n")
    with pytest.raises(ArtifactError, match=r"expected a positive scale from .*, got .* for 'x'"):
        read_cache(cache, ["x"])


@pytest.mark.parametrize("bits", ["0a800000", "6d800000"])
@pytest.mark.filterwarnings("error")
def test_the_limits_of_scales_in_a_cache_can_be_written(
    bits: str, demo_onnx: Path, tmp_path: Path
) -> None:
    graph = ir.load(demo_onnx).graph
    names = tensors_to_observe(graph, hidden_layers(graph))
    cache = tmp_path / "c.cache"
    lines = [f"{name}: {bits}" for name in names]
    cache.write_text("\n".join(["TRT-8601-EntropyCalibration2", *lines]))
    quantize(demo_onnx, [], tmp_path / "q.onnx", QuantizeOptions(import_cache=cache, threads=1))


def test_a_repeated_name_in_a_cache_is_refused(tmp_path: Path) -> None:
    cache = tmp_path / "c.cache"
    cache.write_text("TRT-8601-EntropyCalibration2\nx: 3c010a14\ny: 3c010a14\nx: 3c010a15\n")
    with pytest.raises(ArtifactError, match="line 4: 'x' is repeated"):
        read_cache(cache, ["x"])


def test_a_scale_beyond_fp16_is_named() -> None:
    half = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT16))
    assert scales_in_dtype_of(half, 65504.0).dtype == np.float16
    with pytest.raises(ArtifactError, match=r"tensor 'x': .* exceeds FP16; use --float-type fp32"):
        scales_in_dtype_of(half, 1e6)
