"""`maskport benchmark`: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.errors import ArtifactError, ImageError, UsageError
from runtime import benchmark
from runtime.benchmark import main
from runtime.benchmarking import passes, worker
from runtime.benchmarking.artifact_process import ArtifactProcess
from runtime.benchmarking.passes import Plan, measure
from runtime.benchmarking.quality import against_first, require_comparable
from runtime.benchmarking.timings import (
    STAGES,
    TOTAL,
    Timing,
    calls_needed,
    percentiles,
    stage_percentiles,
)
from runtime.benchmarking.worker import CompactDetections, OpenOptions, PhotoResult
from runtime.compare.coco_inputs import areas_px
from runtime.formats.coco import rows
from runtime.predictor import Predictor

pytest.importorskip("pycocotools")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def folder(
    demo_onnx: Path, demo_pixels: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two photos, a file that is none, and the demo model twice."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "photos").mkdir()
    Image.fromarray(demo_pixels).save(folder / "photos" / "7.png")
    Image.fromarray(demo_pixels[:, 200:]).save(folder / "photos" / "9.png")
    (folder / "one").mkdir()
    shutil.copy(folder / "photos" / "9.png", folder / "one")
    shutil.copy(demo_onnx, folder / "first.onnx")
    shutil.copy(demo_onnx, folder / "second.onnx")
    return folder


def call(*arguments: object) -> int:
    return main([str(a) for a in (*arguments, "--threads", 1)])


@pytest.mark.slow
def test_two_equal_artifacts_side_by_side(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for photo in (folder / "photos").iterdir():
        shutil.copy(photo, tmp_path / "photos")
    (tmp_path / "photos" / "8.jpg").write_bytes(b"not a photo")
    run = tmp_path / "run"
    files = (folder / "first.onnx", folder / "second.onnx")
    status = call(*files, "--images", tmp_path / "photos", "--repeats", 2, "--run-dir", run)
    printed = capsys.readouterr()
    # The bad photo is named and left out for both, and the exit status is not 0.
    assert status == 1
    assert re.search(r"^error: .*8\.jpg: unknown image format", printed.err, re.MULTILINE)
    assert "error: 1 of 3 photos could not be used" in printed.err
    assert f"A  {files[0]}\nB  {files[1]}" in printed.out
    assert re.search(r"^network +p50, ms +[\d.]+ +[\d.]+ +[\d.]+×$", printed.out, re.MULTILINE)
    assert re.search(r"^mask agreement AP with A +– +100\.00$", printed.out, re.MULTILINE)
    assert "note: 4 calls each, too few for p90 (10), p99 (100);" in printed.out
    assert (run / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads((run / "benchmark.json").read_text("utf-8"))
    assert document["schema_version"] == 1
    assert (document["photos"], document["left_out"], document["repeats"]) == (2, 1, 2)
    assert document["quality_against"] == "first"
    first, second = document["artifacts"]
    assert [first["artifact"], second["artifact"]] == ["first.onnx", "second.onnx"]
    assert first["detections"] == second["detections"] > 20
    assert (first["box_ap"], second["box_ap"]) == (None, pytest.approx(100))
    for artifact in (first, second):
        assert artifact["calls"] == 4
        assert artifact["size_bytes"] == files[0].stat().st_size
        assert set(artifact["stages"]) == {*STAGES, TOTAL}
        assert all(times["p50_ms"] > 0 for times in artifact["stages"].values())
        assert all(times["p99_ms"] is None for times in artifact["stages"].values())
        # Python, NumPy and ONNX Runtime alone take this much; a photo's tensors are small.
        assert 30e6 < artifact["peak_memory_bytes"] <= artifact["peak_memory_streamed_bytes"] < 2e9
    assert first["total_p50_ratio"] == 1


def test_with_labels_one_artifact_gives_ap(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, annotations = [], []
    with Predictor.open(folder / "first.onnx", threads=1) as predictor:
        for image_id in (7, 9):
            photo = folder / "photos" / f"{image_id}.png"
            detections = predictor.predict(photo, score_threshold=0.5)
            annotations += rows(detections, image_id)
            height, width = detections.image_hw
            name = f"{image_id}.png"
            images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        names = predictor.spec.classes.names
    for number, row in enumerate(annotations, start=1):
        area = areas_px([row["segmentation"]], "segm")[0]
        row.update(id=number, iscrowd=0, area=area, category_id=row["category_id"] + 7)  # type: ignore[call-arg]
    categories = [{"id": i + 7, "name": n} for i, n in enumerate(names)][1:]
    truth: dict[str, Any] = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "truth.json").write_text(json.dumps(truth), "utf-8")
    inputs = ["--images", folder / "photos", "--annotations", tmp_path / "truth.json"]
    quick = ["--repeats", 1, "--batch", 2, "--run-dir", tmp_path]
    assert call(folder / "first.onnx", *inputs, *quick) == 0
    out = capsys.readouterr().out
    assert re.search(r"^box AP +100\.00$", out, re.MULTILINE)
    assert "categories are matched by name; 7 of 7 have other ids in the model" in out
    assert re.search(r"^next: .*runtime\.predict.*first\.onnx", out, re.MULTILINE)
    document = json.loads((tmp_path / "benchmark.json").read_text("utf-8"))
    assert document["artifacts"][0]["mask_ap"] == pytest.approx(100)
    assert document["artifacts"][0]["calls"] == 1
    assert document["quality_against"] == "labels"


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        pytest.param(("first.onnx", "none.onnx"), 1, r"none\.onnx: no such file", id="no-file"),
        pytest.param(
            ("first.onnx", "bad.onnx"), 1, r"bad\.onnx: ONNX Runtime cannot", id="damaged"
        ),
        pytest.param(
            ("first.onnx", "--score-threshold", "0.001"), 2, "export with --score-t", id="threshold"
        ),
        pytest.param(
            ("first.onnx", "--images", "empty"), 2, "empty: no photos found", id="no-photo"
        ),
        pytest.param(("first.onnx", "--images", "bad"), 2, "none of 1 photos could", id="all-bad"),
        pytest.param(("first.onnx", "--repeats", "0"), 2, "whole number from 1", id="repeats"),
        pytest.param(
            ("first.onnx", "--annotations", "bad.onnx"), 2, "not a readable JSON", id="annotations"
        ),
        pytest.param(
            ("first.onnx", "--run-dir", "bad.onnx"), 1, "cannot create the f", id="run-dir"
        ),
    ],
)
def test_an_error_is_one_line(
    folder: Path,
    arguments: Sequence[str],
    status: int,
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    (folder / "bad.onnx").write_bytes(b"nothing")
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "bad").mkdir(exist_ok=True)
    (folder / "bad" / "x.jpg").write_bytes(b"nothing")
    complete = [*arguments, *([] if "--images" in arguments else ["--images", "one"])]
    if "--repeats" in arguments:
        with pytest.raises(SystemExit) as exit_:
            call(*complete)
        assert exit_.value.code == status
    else:
        assert call(*complete) == status
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert re.search(expected, lines[-1])


def test_a_process_that_dies_raises_an_error(folder: Path) -> None:
    with ArtifactProcess(OpenOptions(folder / "first.onnx", threads=1)) as process:
        assert len(process.detect(folder / "photos" / "7.png").detections) > 10
        pid = process._process.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(
            ArtifactError, match=r"first\.onnx: its process ended with exit code -9"
        ):
            process.detect(folder / "photos" / "7.png")


def test_stages_add_up_to_the_call(folder: Path) -> None:
    with Predictor.open(folder / "first.onnx", threads=1) as predictor:
        requests = worker.Requests(predictor, None)
        requests.time([folder / "photos" / "7.png"])
        timing = requests.time([folder / "photos" / "7.png", folder / "photos" / "9.png"])
    assert timing.photos == 2
    assert 0.8 * timing.total_s < sum(timing.seconds.values()) <= timing.total_s
    assert all(seconds > 0 for seconds in timing.seconds.values())


class _Recorder:
    """An artifact process that records its requests."""

    requests: list[tuple[str, str, str]] = []  # noqa: RUF012 - shared on purpose

    def __init__(self, options: OpenOptions) -> None:
        self.path, self.artifact = options.path, None

    def __enter__(self) -> _Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.requests.append(("close", self.path.name, ""))

    def detect(self, photo: Path) -> PhotoResult:
        if photo.name == "bad" and self.path.name == "b":
            raise ImageError("bad: too narrow for its canvas")
        return PhotoResult(_detections(0.0), [])

    def time(self, photos: Sequence[Path]) -> Timing:
        self.requests.append(("time", self.path.name, "+".join(p.name for p in photos)))
        return Timing(dict.fromkeys(STAGES, 0.1), 0.4, len(photos))

    def stream(self, photos: Sequence[Path], batch_size: int) -> float:
        self.requests.append(("stream", self.path.name, "+".join(p.name for p in photos)))
        return 0.5

    def peak_memory_bytes(self) -> None:
        return None


def test_artifacts_run_in_turn_photo_by_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "ArtifactProcess", _Recorder)
    monkeypatch.setattr(passes, "_PAUSE_S", 0.0)
    _Recorder.requests.clear()
    options = [OpenOptions(tmp_path / name) for name in "ab"]
    for one in options:
        one.path.write_bytes(b"12345")
    plan = Plan(repeats=1, batch=2)
    advanced: list[int] = []
    photos = [Path("1"), Path("bad"), Path("2"), Path("3")]
    measured = measure(options, photos, plan, advanced.append)
    assert _Recorder.requests[:4] == [
        ("time", "a", "1+2"), ("time", "b", "1+2"), ("time", "a", "3"), ("time", "b", "3"),
    ]  # fmt: skip
    assert _Recorder.requests[4:6] == [("stream", "a", "1+2+3"), ("stream", "b", "1+2+3")]
    assert sorted(_Recorder.requests[6:]) == [("close", "a", ""), ("close", "b", "")]
    assert [p.name for p in measured.photos] == ["1", "2", "3"]
    assert measured.left_out == 1
    assert sum(advanced) == plan.steps(4, 2)
    assert [a.streamed_per_s for a in measured.artifacts] == [6.0, 6.0]
    assert [a.size_bytes for a in measured.artifacts] == [5, 5]


def test_engines_are_opened_without_cpu_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: dict[str, object] = {}

    def fake_open(path: Path, **arguments: object) -> Predictor:
        opened[path.name] = arguments["threads"]
        raise ArtifactError("enough")

    monkeypatch.setattr(worker.Predictor, "open", fake_open)
    for options in (
        OpenOptions(Path("a.engine"), threads=3),
        OpenOptions(Path("b.plan"), backend="tensorrt", threads=3),
        OpenOptions(Path("c.onnx"), threads=3),
        OpenOptions(Path("d.onnx"), backend="onnxruntime-tensorrt", threads=3),
    ):
        with pytest.raises(ArtifactError, match="enough"):
            worker._serve(None, options)  # type: ignore[arg-type]
    assert opened == {"a.engine": None, "b.plan": None, "c.onnx": 3, "d.onnx": 3}


def _detections(shift_px: float) -> CompactDetections:
    boxes = np.array([[10, 10, 60, 60], [100, 100, 180, 160]], np.float32) + np.float32(shift_px)
    scores = np.array([0.9, 0.8], np.float32)
    return CompactDetections(boxes, scores, np.array([1, 2]), (200, 300), None, None, True)


def test_agreement_falls_with_the_boxes() -> None:
    first, near, far = ([PhotoResult(_detections(px), [])] for px in (0, 6, 60))
    ap = [against_first(first, other).box for other in (first, near, far)]
    assert ap[0] == pytest.approx(100)
    assert ap[2] == pytest.approx(0)
    assert ap[1] is not None
    assert 20 < ap[1] < 90
    assert against_first(first, first).mask is None


def test_other_classes_or_masks_are_not_compared(folder: Path) -> None:
    with Predictor.open(folder / "first.onnx", threads=1) as predictor:
        first = predictor.artifact
    require_comparable([first, first])
    names = tuple(reversed(first.spec.classes.names))
    others = {
        "its class names are not those": replace(
            first.spec, classes=replace(first.spec.classes, names=names)
        ),
        "it has no masks, unlike those": replace(first.spec, mask=None),
    }
    for reason, spec in others.items():
        other = replace(first, path=Path("other.onnx"), spec=spec)
        with pytest.raises(UsageError, match=rf"other\.onnx: {reason} of .*--only-speed"):
            require_comparable([first, other])


def test_percentiles_and_batches() -> None:
    seconds = np.random.default_rng(3).permutation(np.arange(1, 102) / 1e3)
    result = percentiles(list(seconds))
    # 101 values from 1 to 101: the linear rank of p is 1 + p.
    assert (result.p50_ms, result.p90_ms, result.p99_ms) == pytest.approx((51, 91, 100))
    assert result.most_ms == pytest.approx(101)
    timings = [
        Timing(dict.fromkeys(STAGES, 0.2), 0.8, 4),
        Timing(dict.fromkeys(STAGES, 0.1), 0.4, 2),
    ]
    stages = stage_percentiles(timings)
    assert stages["network"].p50_ms == pytest.approx(50)
    assert stages[TOTAL].p50_ms == pytest.approx(200)


@pytest.mark.parametrize("count", [1, 9, 10, 99, 100])
def test_a_percentile_needs_its_number_of_calls(count: int) -> None:
    result = percentiles([0.01] * count)
    assert (result.p50_ms is None, result.p90_ms is None, result.p99_ms is None) == (
        False, count < 10, count < 100,
    )  # fmt: skip
    assert [calls_needed(p) for p in (50, 90, 99)] == [1, 10, 100]


@pytest.mark.parametrize("package", ["pycocotools", "matplotlib.figure"])
def test_a_benchmark_without_its_libraries(
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    files = ["a.onnx", "b.onnx", "--images", str(tmp_path), "--run-dir", str(tmp_path / "run")]
    assert benchmark.main(files) == 1
    assert "pip install 'maskport[eval]', or pass --only-speed" in capsys.readouterr().err
    # Without both it gets as far as the missing file.
    assert benchmark.main([*files, "--only-speed"]) == 1
    assert "a.onnx: no such file" in capsys.readouterr().err


def test_a_benchmark_of_speed_alone_refuses_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"images": [], "annotations": [], "categories": []}), "utf-8")
    arguments = ["a.onnx", "--images", str(tmp_path), "--annotations", str(truth), "--only-speed"]
    assert benchmark.main(arguments) == 2
    assert re.search("^error: --annotations: --only-speed", capsys.readouterr().err)
