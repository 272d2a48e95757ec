"""`maskport predict --resume`: only a run with the same settings is resumed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

from export.onnx_file import remove_checksum
from model.spec_json import from_json, to_json
from runtime.artifacts.metadata import MANIFEST_KEY, SPEC_KEY
from runtime.cli.photo_progress import PhotoProgress
from runtime.formats.lock import FolderLock
from runtime.predict import main
from runtime.predictor import Predictor
from runtime.sources import video
from tests.reliability import tiny


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, name in enumerate("abc"):
        Image.fromarray(tiny.photo(seed=seed)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def call(model: Path, *arguments: object) -> int:
    return main([str(model), "--threads", "1", *map(str, arguments)])


def images(out: Path) -> list[str]:
    lines = (out / "results.jsonl").read_text("utf-8").splitlines()
    return [Path(json.loads(line)["image"]).name for line in lines]


def cut_off(out: Path, left: int) -> None:
    """What a kill leaves: `left` records and half of the next."""
    path = out / "results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:left]) + lines[left][:50])


@contextmanager
def metadata(source: Path, target: Path) -> Iterator[dict[str, str]]:
    """Change what a copy says of itself: another export of the same weights."""
    model = onnx.load(source)
    result = {entry.key: entry.value for entry in model.metadata_props}
    yield result
    onnx.helper.set_model_props(model, result)
    remove_checksum(model)
    onnx.save(model, target)


def test_another_export_of_the_weights_is_refused(
    tiny_onnx: Path, photos: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (photos, "-o", out, "--save", "jsonl")
    assert call(tiny_onnx, *arguments) == 0
    before = (out / "results.jsonl").read_bytes()
    with metadata(tiny_onnx, tmp_path / "lower.onnx") as result:
        spec = from_json(result[SPEC_KEY])
        result[SPEC_KEY] = to_json(replace(spec, box=replace(spec.box, nms_iou=0.25)))
    assert call(tmp_path / "lower.onnx", *arguments, "--resume") == 2
    says = "the earlier run had spec.box.nms_iou 0.5, this one has 0.25; resume with the same"
    assert says in capsys.readouterr().err
    with metadata(tiny_onnx, tmp_path / "other.onnx") as result:
        manifest = json.loads(result[MANIFEST_KEY])
        result[MANIFEST_KEY] = json.dumps({**manifest, "lowering": "native"})
    assert call(tmp_path / "other.onnx", *arguments, "--resume") == 2
    assert (
        'the earlier run had lowering ["standard"], this one has ["native"]'
        in capsys.readouterr().err
    )
    assert (out / "results.jsonl").read_bytes() == before


def test_the_order_of_classes_does_not_matter(tiny_onnx: Path, photos: Path, out: Path) -> None:
    arguments: tuple[Any, ...] = (photos, "-o", out, "--save", "jsonl")
    assert call(tiny_onnx, *arguments, "--classes", "round,square") == 0
    assert call(tiny_onnx, *arguments, "--resume", "--classes", "square,round,square") == 0
    assert images(out) == ["a.png", "b.png", "c.png"]


def test_a_photo_named_twice_is_done_once(
    tiny_onnx: Path, photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, c = (photos / f"{name}.png" for name in "abc")
    arguments = (a, b, a, c, "-o", out, "--save", "jsonl,rle,json")
    assert call(tiny_onnx, *arguments) == 0
    assert images(out) == ["a.png", "b.png", "c.png"]
    assert f"note: {a}: listed more than once; repeats are skipped\n" in capsys.readouterr().err
    whole = (out / "results.jsonl").read_bytes()
    cut_off(out, 2)
    assert call(tiny_onnx, *arguments, "--resume") == 0
    assert (out / "results.jsonl").read_bytes() == whole
    assert call(tiny_onnx, *[photos] * 3, "-o", out, "--save", "jsonl") == 0
    notes = [s for s in capsys.readouterr().err.splitlines() if s.startswith("note: ")]
    assert notes[-1] == "note: more photos are listed more than once; repeats are skipped"
    assert len(notes) == 7


def test_earlier_results_stay_until_there_are_others(
    tiny_onnx: Path, photos: Path, out: Path
) -> None:
    arguments = (photos, "-o", out, "--save", "jsonl")
    assert call(tiny_onnx, *arguments) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "stream", stopped)
        assert call(tiny_onnx, *arguments, "--top-k", 1) == 130
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    # The first record of a run replaces those of the run before, and how that was made.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PhotoProgress, "advance", stopped)
        assert call(tiny_onnx, *arguments, "--top-k", 1) == 130
    assert images(out) == ["a.png"]
    assert call(tiny_onnx, *arguments, "--resume") == 2
    assert call(tiny_onnx, *arguments, "--resume", "--top-k", 1) == 0
    assert images(out) == ["a.png", "b.png", "c.png"]


def test_two_runs_do_not_write_into_one_folder(
    tiny_onnx: Path, photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (photos, "-o", out, "--save", "jsonl")
    assert call(tiny_onnx, *arguments) == 0
    with FolderLock(out):
        for more in ((), ("--resume",)):
            assert call(tiny_onnx, *arguments, *more) == 2
            says = f"error: {out}: another run is writing there; wait until it ends, or name"
            assert says in capsys.readouterr().err
    assert call(tiny_onnx, *arguments, "--resume") == 0
    assert images(out) == ["a.png", "b.png", "c.png"]


def _camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that never ends, and somebody who presses Ctrl-C after two of its frames."""

    def frames(*_: object) -> Iterator[tuple[int, Any]]:
        for number in itertools.count():
            yield number, tiny.photo(seed=number % 2)

    advance = PhotoProgress.advance

    def watched(progress: PhotoProgress, *arguments: Any, **options: Any) -> None:
        advance(progress, *arguments, **options)
        if progress.photos == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(video, "require_pyav", lambda: None)
    monkeypatch.setattr(video, "live_frames", frames)
    monkeypatch.setattr(PhotoProgress, "advance", watched)


def test_an_interrupt_ends_a_camera_with_all_its_files(
    tiny_onnx: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _camera(monkeypatch)
    assert call(tiny_onnx, "camera:0", "-o", out, "--save", "json") == 130
    rows = json.loads((out / "results.json").read_text("utf-8"))
    assert {row["image_id"] for row in rows} <= {0, 1} != set()
    assert [path.name for path in out.iterdir()] == ["results.json"]
    captured = capsys.readouterr()
    assert captured.out.startswith("2 photos · ")
    assert captured.err.splitlines()[-1] == "interrupted"


def test_a_camera_cannot_be_resumed(
    tiny_onnx: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, name in (("camera:0", "camera:0"), ("rtsp://me:pass@host/a?key", "rtsp://host/a")):
        assert call(tiny_onnx, place, "-o", out, "--save", "jsonl", "--resume") == 2
        says = f"error: --resume: {name} is live and cannot be resumed; omit --resume"
        assert capsys.readouterr().err.startswith(says)
    assert not out.exists()


def test_no_times_of_no_photos_and_spaces_between_kinds(
    tiny_onnx: Path, photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "a.png").write_bytes((photos / "a.png").read_bytes()[:200])
    assert call(tiny_onnx, photos / "a.png", "-o", out, "--save", "json, jsonl ,") == 1
    assert capsys.readouterr().out.splitlines()[0] == "0 photos"
    assert {path.name for path in out.iterdir()} >= {"results.json", "results.jsonl"}
