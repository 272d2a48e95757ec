"""What is checked before a library sees an engine: manifest, hash, version, GPU."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from model.errors import ArtifactError
from runtime.artifacts import engine_manifest
from runtime.artifacts.engine_manifest import manifest_path
from runtime.sessions.tensorrt import TensorRTSession
from tests.runtime.fake_gpu import FakeCuda, FakeTensorRT, write_engine
from tests.runtime.raising import raising


def test_changed_engines_never_reach_the_library(
    engine: Path, library: FakeTensorRT, cuda: FakeCuda
) -> None:
    """One bit of the engine, or one character of its manifest, anywhere."""
    rng = np.random.default_rng(60)
    plan, manifest = engine.read_bytes(), manifest_path(engine)
    text = manifest.read_text("utf-8")
    for index in range(60):
        if index % 2:
            changed = bytearray(plan)
            changed[int(rng.integers(len(plan)))] ^= 1 << int(rng.integers(8))
            engine.write_bytes(bytes(changed))
        else:
            manifest.write_text(_with_another_character(text, rng), "utf-8")
        with pytest.raises(ArtifactError):
            TensorRTSession(engine, cuda=cuda)
        engine.write_bytes(plan)
        manifest.write_text(text, "utf-8")
    assert library.deserialized == []
    TensorRTSession(engine, cuda=cuda).close()
    assert library.deserialized == [plan]


def _with_another_character(text: str, rng: np.random.Generator) -> str:
    """Anywhere in the manifest: a hash, a size, a name, a threshold of the spec, a space."""
    place = int(rng.integers(len(text)))
    other = "0123456789abcxyz,:. {}\n".replace(text[place], "")
    return text[:place] + other[int(rng.integers(len(other)))] + text[place + 1 :]


def test_manifests_that_do_not_fit(
    tiny_rtx_onnx: Path,
    tmp_path: Path,
    library: FakeTensorRT,
    cuda: FakeCuda,
    subtests: pytest.Subtests,
) -> None:
    for change, says in [
        ({"library_version": "1.6.0.1"}, "built with tensorrt_rtx 1.6.0.1"),
        ({"architecture": "sm86"}, "built for sm86, this GPU is sm89"),
        ({"size_bytes": 5}, "expected 5 bytes"),
        ({"library": "caffe"}, "not a readable manifest"),
        ({"tensors": ()}, "differ from its manifest"),
        ({"build_seconds": "1"}, "build_seconds: expected"),
        ({"hardware_compatible": "all"}, "hardware_compatible: expected"),
    ]:
        with subtests.test(says):
            library.deserialized.clear()
            engine = write_engine(tiny_rtx_onnx, tmp_path / "odd.sm89.engine", **change)
            with pytest.raises(ArtifactError, match=says) as caught:
                TensorRTSession(engine, cuda=cuda)
            assert "\n" not in str(caught.value)
            assert bool(library.deserialized) == (says == "differ from its manifest")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"schema_version": 2}', '{"schema_version": 1}', "[" * 1_500, "\x00"],
    ids=["empty", "cut", "list", "null", "newer", "parts", "deep", "zero"],
)
def test_manifests_that_are_none(
    engine: Path, library: FakeTensorRT, cuda: FakeCuda, text: str
) -> None:
    manifest_path(engine).write_text(text, "utf-8")
    with pytest.raises(ArtifactError, match="not a readable manifest"):
        TensorRTSession(engine, cuda=cuda)
    manifest_path(engine).unlink()
    with pytest.raises(ArtifactError, match=r"its manifest .* is missing"):
        TensorRTSession(engine, cuda=cuda)
    assert library.deserialized == []


def test_a_hash_from_outside(engine: Path, library: FakeTensorRT, cuda: FakeCuda) -> None:
    digest = hashlib.sha256(engine.read_bytes()).hexdigest()
    TensorRTSession(engine, digest.upper(), cuda=cuda).close()
    with pytest.raises(ArtifactError, match="is not the expected"):
        TensorRTSession(engine, "0" * 64, cuda=cuda)
    assert len(library.deserialized) == 1


def test_later_versions_run_version_compatible_engines_only(
    tiny_rtx_onnx: Path, tmp_path: Path, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = FakeTensorRT(cuda, "1.10.0.2")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", later)  # type: ignore[arg-type]
    engine = write_engine(tiny_rtx_onnx, tmp_path / "a.engine", version_compatible=True)
    TensorRTSession(engine, cuda=cuda).close()
    engine = write_engine(
        tiny_rtx_onnx, engine, version_compatible=True, library_version="1.11.0.0"
    )
    with pytest.raises(ArtifactError, match="built with"):
        TensorRTSession(engine, cuda=cuda)


def test_which_gpus_an_engine_of_sm86_runs_on(
    tiny_rtx_onnx: Path, tmp_path: Path, library: FakeTensorRT, subtests: pytest.Subtests
) -> None:
    for level, local, fits in [
        ("none", "sm89", False),
        ("none", "sm86", True),
        ("ampere-plus", "sm120", True),
        ("ampere-plus", "sm80", True),
        ("ampere-plus", "sm75", False),
        ("same-compute-capability", "sm86", True),
        ("same-compute-capability", "sm89", False),
    ]:
        with subtests.test(level=level):
            engine = write_engine(
                tiny_rtx_onnx, tmp_path / "a.engine", hardware_compatible=level, architecture="sm86"
            )
            library.cuda = cuda = FakeCuda(local)
            if fits:
                TensorRTSession(engine, cuda=cuda).close()
            else:
                with pytest.raises(ArtifactError, match=f"built for sm86, this GPU is {local}"):
                    TensorRTSession(engine, cuda=cuda)


def test_an_engine_missing_or_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tmp_path / "a.engine"
    engine_manifest.manifest_path(engine).write_bytes(
        b" " * (engine_manifest._MAX_MANIFEST_BYTES + 1)
    )
    with pytest.raises(ArtifactError, match="larger than any manifest"):
        engine_manifest.read_engine_file(engine)
    manifest = SimpleNamespace(info=SimpleNamespace(size_bytes=0, sha256=""))
    monkeypatch.setattr(engine_manifest, "read_engine_file", lambda _: manifest)
    with pytest.raises(ArtifactError, match=r"a\.engine: no such file"):
        engine_manifest.load_checked(engine)
    engine.write_bytes(b"")
    monkeypatch.setattr(Path, "read_bytes", raising(OSError(5, "Input/output error")))
    with pytest.raises(ArtifactError, match=r"cannot be read \(Input/output error\)"):
        engine_manifest.load_checked(engine)
