"""Files that open, and one-line errors for files that do not."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from model.errors import ArtifactError, MissingDependencyError, UsageError
from runtime.artifacts.metadata import MANIFEST_KEY, SPEC_KEY
from runtime.predictor import Predictor
from runtime.sessions import onnxruntime as ort_session
from runtime.sessions.open import open_session
from tests.runtime.raising import raising


def identity(**metadata: str) -> onnx.ModelProto:
    """A valid ONNX file without maskport's metadata."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, metadata)
    return model


def expect_one_line(
    path: Path, message: str, error: type[Exception] = ArtifactError, backend: str | None = None
) -> None:
    with pytest.raises(error, match=message) as caught:
        Predictor.open(path, backend=backend)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_open(demo_onnx: Path) -> None:
    session = open_session(demo_onnx, None, 1)
    assert session.artifact.path == demo_onnx
    assert session.artifact.spec.preprocess.short_side == 320
    assert session.artifact.spec.classes.names[0] == "__background__"
    assert session.artifact.manifest.lowering == "standard"
    assert session.artifact.manifest.batch is None
    session.close()
    predictor = Predictor.open(demo_onnx, threads=1)
    predictor.close()
    predictor.close()
    with pytest.raises(ArtifactError, match="closed"):
        predictor.predict(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize("threads", [0, -1, "2", 1.5, True])
def test_threads_are_at_least_one(demo_onnx: Path, threads: Any) -> None:
    with pytest.raises(UsageError, match="threads: expected a whole number from 1, got"):
        open_session(demo_onnx, None, threads)


@pytest.mark.parametrize("threads", [1025, 100_000, 99_999_999_999])
def test_threads_are_no_more_than_any_machine_has_cores(demo_onnx: Path, threads: int) -> None:
    with pytest.raises(UsageError, match=r"expected at most 1024, got"):
        open_session(demo_onnx, None, threads)


def test_the_hashed_bytes_are_the_opened_bytes(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the file is exchanged after it was read; and the bytes are freed."""
    path = tmp_path / "m.onnx"
    whole = tiny_onnx.read_bytes()
    path.write_bytes(whole)
    check = ort_session.verify_checksum

    def exchange_before(*args: Any, **options: Any) -> bool:
        path.write_bytes(b"another")
        return check(*args, **options)

    monkeypatch.setattr(ort_session, "verify_checksum", exchange_before)
    opened = open_session(path, "onnxruntime", 1, hashlib.sha256(whole).hexdigest())
    assert path.read_bytes() == b"another"
    assert opened.artifact.path == path
    images = np.zeros((1, 3, 64, 64), np.float32)
    outputs = opened.run({"images": images, "image_hw": np.full((1, 2), 64, np.float32)})
    assert outputs["boxes"].shape[0] == 1
    inner = vars(opened)["_session"]
    assert [name for name, value in vars(inner).items() if isinstance(value, bytes)] == []


def test_a_file_that_cannot_be_read(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ArtifactError, match=r"cannot be read \(Input/output error\)"):
        open_session(tiny_onnx, sha256="0" * 64)


def test_missing_file_and_folder(tmp_path: Path, demo_onnx: Path) -> None:
    expect_one_line(tmp_path / "none.onnx", "no such file")
    (tmp_path / "folder.onnx").mkdir()
    expect_one_line(tmp_path / "folder.onnx", "no such file")
    path = tmp_path / "model.onnx"
    path.write_bytes(demo_onnx.read_bytes()[:-100_000])
    expect_one_line(path, "ONNX Runtime cannot open it")
    onnx.save(identity(author="somebody"), path)
    expect_one_line(path, "no maskport metadata")
    path = tmp_path / "model.plan"
    path.write_bytes(b"x")
    expect_one_line(path, r"no backend for '\.plan' files; expected one of \.onnx")


def test_garbage(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for case, content in [
        ("empty", b""),
        ("text", b"not a model at all\n" * 50),
        ("zeros", bytes(1000)),
    ]:
        with subtests.test(case):
            path = tmp_path / "model.onnx"
            path.write_bytes(content)
            expect_one_line(path, "cannot open it|no maskport metadata")


def _damage_json(spec: str, manifest: str) -> dict[str, str]:
    return {SPEC_KEY: spec[:-20], MANIFEST_KEY: manifest}


def _damage_field(spec: str, manifest: str) -> dict[str, str]:
    return {SPEC_KEY: spec.replace('"short_side"', '"shirt_side"'), MANIFEST_KEY: manifest}


def _later_version(spec: str, manifest: str) -> dict[str, str]:
    later = json.loads(manifest) | {"manifest_version": 99}
    return {SPEC_KEY: spec, MANIFEST_KEY: json.dumps(later)}


def _list_manifest(spec: str, _: str) -> dict[str, str]:
    return {SPEC_KEY: spec, MANIFEST_KEY: "[]"}


def _number_manifest(spec: str, _: str) -> dict[str, str]:
    return {SPEC_KEY: spec, MANIFEST_KEY: "7"}


def test_damaged_metadata(demo_onnx: Path, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for change, message in [
        (_damage_json, "damaged metadata"),
        (_damage_field, "damaged metadata"),
        (_later_version, "written by another version of maskport"),
        (_list_manifest, "damaged metadata"),
        (_number_manifest, "damaged metadata"),
    ]:
        with subtests.test(message):
            metadata = {p.key: p.value for p in onnx.load(demo_onnx).metadata_props}
            path = tmp_path / "model.onnx"
            onnx.save(identity(**change(metadata[SPEC_KEY], metadata[MANIFEST_KEY])), path)
            expect_one_line(path, message)


def test_a_named_backend_opens_any_suffix(demo_onnx: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(demo_onnx.read_bytes())
    with Predictor.open(path, backend="onnxruntime", threads=1) as predictor:
        assert predictor.spec.mask is not None
    known = "onnxruntime, onnxruntime-tensorrt, tensorrt, torch"
    with pytest.raises(UsageError, match=f"expected one of {known}, got 'tensorflow'"):
        Predictor.open(demo_onnx, backend="tensorflow")


def test_without_onnxruntime(demo_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'maskport\[cpu\]'"):
        Predictor.open(demo_onnx)


def test_checkpoint_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "weights.pth"
    path.write_bytes(b"x")
    with pytest.raises(MissingDependencyError, match=r"pip install 'maskport\[export\]'"):
        Predictor.open(path)


def test_metadata_that_is_not_utf_8(demo_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_modelmeta", raising(damaged))
    with pytest.raises(ArtifactError, match=r"damaged metadata \(not UTF-8\)"):
        open_session(demo_onnx)


def test_options_that_do_not_fit_the_file(demo_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"its SHA-256 \w{16}… is not the expected 0{16}…"):
        open_session(demo_onnx, sha256="0" * 64)
    with pytest.raises(UsageError, match=r"runtime_cache: .* is not a TensorRT-RTX engine"):
        open_session(demo_onnx, runtime_cache=tmp_path / "cache")
    session = open_session(demo_onnx, "onnxruntime", 1)
    inputs = {
        "images": np.zeros((1, 4, 64, 64), np.float32),
        "image_hw": np.ones((1, 2), np.float32),
    }
    with pytest.raises(ArtifactError, match="ONNX Runtime failed") as caught:
        session.run(inputs)
    assert str(demo_onnx) in str(caught.value)
    assert "\n" not in str(caught.value)
