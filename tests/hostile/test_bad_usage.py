"""Wrong options and files: one line, the documented status, and every file as it was."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from PIL import Image

import calib.quantize
import export.parity.check
import export.tracing
import runtime.benchmark
import runtime.evaluate
import runtime.predict
from export.onnx import export_onnx, main
from export.tracing import GraphShape
from model.checkpoint import SpecOptions
from model.errors import ArtifactError, ExportError, UsageError
from tests.small_checkpoint import sound_state

ROOT = Path(__file__).resolve().parents[2]
USAGE, FAILED = 2, 1
SPECS = {
    "typo": {"box": {"nms_iuo": 0.4}},
    "null": {"box": None},
    "type": {"box": {"nms_iou": "half"}},
    "value": {"box": {"nms_iou": 4}},
    "network": {"box": {"fc_widths": [5, 5]}},
    "version": {"schema_version": 99},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with sound weights, a photo, an old export and odd files."""
    monkeypatch.chdir(tmp_path)
    torch.save(sound_state(), "w.pth")
    Image.new("RGB", (64, 48)).save("photo.png")
    Path("old.onnx").write_text("old")
    Path("text.txt").write_text("no image\n")
    Path("latin.txt").write_bytes("façade\nrêve\n".encode("latin-1"))
    Path("three.txt").write_text("one\ntwo\nthree\nfour\n")
    Path("broken.json").write_text("{")
    Path("folder").mkdir()
    Path("device").symlink_to("/dev/null")
    for name, content in SPECS.items():
        Path(f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def _contents(folder: Path) -> dict[str, bytes | None]:
    return {p.name: p.read_bytes() if p.is_file() else None for p in sorted(folder.iterdir())}


def _error_of(
    args: Sequence[str], status: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> str:
    before = _contents(folder)
    try:
        returned = main(args)
    except SystemExit as stop:  # argparse's way
        returned = stop.code  # type: ignore[assignment]
    out, err = capsys.readouterr()
    assert returned == status, err
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert _contents(folder) == before
    return err


WRONG_OPTIONS: tuple[tuple[str, str], ...] = (
    ("--size 0x0", "multiple of 32"),
    ("--size 100x100", "for instance 128"),
    ("--size 64x100", "width: expected a multiple of 32"),
    ("--size 999999x32", "16384"),
    ("--size 9999999x32", "HEIGHTxWIDTH"),
    ("--size abc", "'abc'"),
    ("--size 800", "'800'"),
    ("--size 800x", "'800x'"),
    ("--size 32x32x32", "HEIGHTxWIDTH"),
    ("--size -32x32", "--size"),
    ("--batch 0", "--batch"),
    ("--batch -1", "--batch"),
    ("--batch 1025", "1 to 1024"),
    ("--batch two", "'two'"),
    ("--max-sampling 0", "--max-sampling"),
    ("--max-sampling 3", "only for TensorRT targets; leave it out"),
    ("--max-sampling 33 --target tensorrt-rtx", "1 to 32, got 33"),
    ("--opset 22", "no RoiAlign kernel"),
    ("--opset 0", "18, 19, 20, 21"),
    ("--opset x", "--opset"),
    ("--short-side 0", "--short-side"),
    ("--short-side -5", "--short-side"),
    ("--short-side 1334", "--long-side"),
    ("--long-side 799", "--short-side"),
    ("--long-side 99999", "16384"),
    ("--score-threshold 1.5", "from 0 to 1"),
    ("--score-threshold nan", "from 0 to 1"),
    ("--score-threshold x", "'x'"),
    ("--nms-iou -1", "from 0 to 1"),
    ("--nms-iou nan", "from 0 to 1"),
    ("--detections 0", "--detections"),
    ("--detections 100000", "--detections"),
    ("--detections 99999999", "--detections"),
    ("--candidates 0", "--candidates"),
    ("--candidates 99", "--candidates"),
    ("--norm-eps nan", "norm_eps"),
    ("--norm-eps -1", "norm_eps"),
    ("--names one", "expected 2 class names (or 3 with the background first), got 1"),
    ("--names a,b,c,d", "got 4"),
    ("--names three.txt", "got 4"),
    ("--names nothing.txt", "no such file"),
    ("--names folder/names", "no such file"),
    ("--names latin.txt", "UTF-8"),
    ("--names " + ",".join(["name"] * 300), "got 300"),
    ("--names ,", "got 0"),
    ("-o w.pth", "overwrite"),
    ("-o ./folder/../w.pth", "overwrite"),
    ("-o photo.png --check-image photo.png", "overwrite"),
    ("--check-image nothing.png", "no such file"),
    ("--check-image folder", "--check-image"),
    ("--check-image device", "--check-image"),
    ("--no-such-option", "--no-such-option"),
    ("-o", "expected one argument"),
    ("another.pth", "another.pth"),
)


def test_wrong_options_are_usage_errors(
    folder: Path, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    for args, message in WRONG_OPTIONS:
        with subtests.test(args):
            assert message in _error_of(["w.pth", *args.split(" ")], USAGE, folder, capsys)


WRONG_FILES: tuple[tuple[str, str], ...] = (
    ("-o missing/model.onnx", "cannot write missing/model.onnx: No such file"),
    ("-o folder", "expected a file, got a folder"),
    ("-o /dev/full", "expected a file, got a device"),
    ("-o " + "x" * 400, "File name too long"),
    ("--check-image text.txt", "text.txt: unknown image format"),
    ("--spec nothing.json", "no such file"),
    ("--spec device", "no such file"),
    ("--spec folder", "no such file"),
    ("--spec broken.json", "JSON"),
    ("--spec latin.txt", "JSON"),
    ("--spec typo.json", "did you mean 'nms_iou'?"),
    ("--spec null.json", "spec.box: expected an object"),
    ("--spec type.json", "spec.box.nms_iou: expected float, got 'half'"),
    ("--spec value.json", "nms_iou must be in [0, 1], got 4.0"),
    ("--spec network.json", "roi_heads.box_head.fc6.weight"),
    ("--spec version.json", "schema_version 2, got 99"),
)


def test_wrong_files_are_failures(
    folder: Path, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    for args, message in WRONG_FILES:
        with subtests.test(args):
            assert message in _error_of(["w.pth", *args.split(" ")], FAILED, folder, capsys)


@pytest.mark.parametrize("library", ["torch", "onnxscript"])
def test_a_missing_library_is_named_with_what_to_install(
    library: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(
            importlib.util, "find_spec", lambda name: None if name == library else find_spec(name)
        )
        line = _error_of(["w.pth"], FAILED, folder, capsys)
    assert f"needs {library}," in line
    assert "pip install 'maskport[export]'" in line


@pytest.mark.parametrize("weights", [".", "/", ""])
def test_weights_without_a_name(
    weights: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "expected a weights file" in _error_of([weights], USAGE, folder, capsys)


def test_missing_weights_are_named_before_the_missing_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _error_of(["nowhere/weights.pth"], FAILED, folder, capsys)
    assert line.startswith("error: nowhere/weights.pth: no such file")


def test_an_onnx_file_is_no_weights_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "overwrite" in _error_of(["old.onnx"], USAGE, folder, capsys)
    assert "PyTorch weights" in _error_of(["old.onnx", "-o", "n.onnx"], FAILED, folder, capsys)


@pytest.mark.parametrize("options", [{"opset": 22}, {"opset": 0}, {"shape": GraphShape(batch=0)}])
def test_the_function_refuses_what_the_command_refuses(
    options: dict[str, int], folder: Path
) -> None:
    with pytest.raises(UsageError):
        export_onnx("w.pth", "model.onnx", check_photo=None, **options)  # type: ignore[arg-type]
    assert not Path("model.onnx").exists()


def test_the_command_itself(folder: Path) -> None:
    command = [sys.executable, "-m", "export.onnx", "w.pth", "--size", "100x100"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    before = _contents(folder)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == USAGE
    assert done.stdout == ""
    assert done.stderr.startswith("error: --size: height: expected a multiple of 32")
    assert done.stderr.count("\n") == 1
    assert _contents(folder) == before


# Failures after the trace; the trace itself is replaced by a graph that takes no time.


def _small_graph(*_: object) -> ir.Model:
    """One addition of 400 kB of weights."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [100_000])
    total = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [100_000])
    weights = onnx.numpy_helper.from_array(np.ones(100_000, np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])], "graph", [value], [total], [weights]
    )
    opset = onnx.helper.make_opsetid("", 18)
    return ir.serde.deserialize_model(onnx.helper.make_model(graph, opset_imports=[opset]))


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.tracing, "trace", _small_graph)


@contextmanager
def _full_disk(limit_bytes: int) -> Iterator[None]:
    """No file may grow beyond the limit: writing fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("traced")
def test_a_sound_export_replaces_the_old_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _contents(folder)
    assert main(["w.pth", "-o", "old.onnx", "--no-check", "--names", "cat,dog"]) == 0
    assert set(_contents(folder)) == set(before)
    assert onnx.load("old.onnx").producer_name == "maskport"
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("next: ")
    assert " old.onnx " in last


@pytest.mark.usefixtures("traced")
def test_assumptions_are_printed_unless_given(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["w.pth", "--no-check"]) == 0
    plain = capsys.readouterr().out
    for option in ("--short-side", "--long-side", "--norm-eps", "--names", "--score-threshold"):
        assert f"({option})" in plain
    Path("given.json").write_text(json.dumps({"anchors": {"ratios": [[0.5, 1, 2]] * 5}}))
    options = "--short-side 320 --long-side 533 --norm-eps 0 --names cat,dog --score-threshold 0.1"
    assert main(["w.pth", "--no-check", *options.split(), "--spec", "given.json"]) == 0
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("assumed: ")]
    listed = "\n".join(lines)
    for option in ("--short-side", "--norm-eps", "--names", "--score-threshold"):
        assert f"({option})" not in listed
    assert "anchors: sizes 32 | 64 | 128 | 256 | 512, cells none (--spec)" in listed
    assert "box: nms_iou 0.5 (--nms-iou), detections 100 (--detections), " in listed


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("target", ["old.onnx", "new.onnx"])
def test_a_full_disk(target: str, folder: Path) -> None:
    before = _contents(folder)
    with _full_disk(100_000), pytest.raises(ArtifactError) as caught:
        export_onnx("w.pth", target, check_photo=None)
    assert str(caught.value).startswith(f"cannot write {target}: ")
    assert "\n" not in str(caught.value)
    assert _contents(folder) == before


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "error", [ExportError("differs"), KeyboardInterrupt()], ids=["check", "^C"]
)
def test_a_failed_check_leaves_the_old_file(
    error: BaseException,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    before = _contents(folder)
    monkeypatch.setattr(export.parity.check, "check_file", fail)
    status = main(["w.pth", "-o", "old.onnx", "--check-image", "photo.png"])
    assert status == (FAILED if isinstance(error, ExportError) else 130)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == ("error: differs" if isinstance(error, ExportError) else "interrupted")
    assert _contents(folder) == before


def test_a_bad_output_costs_no_trace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("traced although the output cannot be written")

    monkeypatch.setattr(export.tracing, "trace", fail)
    with pytest.raises(ArtifactError):
        export_onnx("w.pth", "missing/model.onnx", SpecOptions(), check_photo=None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_is_not_writable(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder").chmod(0o500)
    line = _error_of(["w.pth", "-o", "folder/model.onnx"], FAILED, folder, capsys)
    assert "Permission denied" in line


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (calib.quantize.main, ["m.onnx", "photos"]),
        (runtime.benchmark.main, ["m.onnx", "--images", "photos"]),
        (runtime.evaluate.main, ["m.onnx", "a.json", "photos"]),
        (runtime.predict.main, ["m.onnx", "photos"]),
    ],
)
def test_threads_have_a_bound_in_every_command(
    command: Callable[[Sequence[str]], int],
    arguments: Sequence[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for threads in ("0", "-1", "1025", "many", ""):
        with pytest.raises(SystemExit, match=str(USAGE)):
            command([*arguments, "--threads", threads])
        (line,) = capsys.readouterr().err.splitlines()
        start = "error: argument --threads: expected a whole number from 1 to 1024"
        assert line.startswith(start), threads
