"""Errors of `runtime/` that nothing else sets off: broken disks, absent libraries, odd objects."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.checkpoint import Checkpoint
from model.errors import (
    ArtifactError,
    DeviceError,
    ImageError,
    MissingDependencyError,
    UsageError,
)
from runtime import benchmark
from runtime.artifacts import engine_manifest
from runtime.cuda.driver import CudaRuntime
from runtime.device import library as device_library
from runtime.device.frames import read_frames
from runtime.device.library import library_of, stream_handle
from runtime.device.session import open_device_session
from runtime.preprocessing.canvas_selection import choose_canvas
from runtime.sessions.open import open_session
from runtime.sessions.torch import TorchSession
from runtime.sources import video
from runtime.sources.lists import read_list
from runtime.sources.photos import decode, find_photos
from runtime.sources.regular_file import open_regular


class Unwilling:
    """Of no known library, and keeps its memory to itself."""

    def __dlpack__(self, **_: object) -> object:
        raise BufferError("not today")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def refuse(error: BaseException) -> Callable[..., Any]:
    """A function that raises, whatever it is given."""

    def raising(*_: object, **__: object) -> Any:
        raise error

    return raising


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "iterdir", refuse(PermissionError(13, "Permission denied")))
    with pytest.raises(UsageError, match=r"cannot be listed \(Permission denied\)"):
        find_photos([str(tmp_path)])


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the list \(Is a directory\)"):
        read_list(tmp_path)


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no file can have this name"):
        open_regular(tmp_path / "a\0b.jpg")


def test_a_name_that_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot be read \(File name too long\)"):
        open_regular(tmp_path / ("a" * 300 + ".jpg"))


def test_a_palette_image_without_its_palette() -> None:
    image = Image.new("P", (3, 2))
    assert image.palette is not None
    image.palette.palette = b""
    with pytest.raises(ImageError, match="a palette image without its palette"):
        decode(image)


def test_a_photo_larger_than_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("L", (3, 2))
    monkeypatch.setattr(image, "load", refuse(MemoryError()))
    with pytest.raises(ImageError, match="larger than the memory; scale it down"):
        decode(image)


def frames_of(container: object) -> list[tuple[int, Any]]:
    @contextmanager
    def opened(_: object) -> Iterator[object]:
        yield container

    return list(video._frames(opened, "clip.mp4", 1, is_live=False))


def stream_of(context: object) -> SimpleNamespace:
    return SimpleNamespace(codec_context=context)


def test_videos_that_only_a_broken_decoder_gives() -> None:
    pytest.importorskip("av")
    context = SimpleNamespace(width=4, height=2, options={})
    unknown = SimpleNamespace(streams=SimpleNamespace(video=[stream_of(None)]))
    streams = SimpleNamespace(video=[stream_of(context)])
    empty = SimpleNamespace(streams=streams, demux=lambda _: iter(()))
    large = SimpleNamespace(streams=streams, demux=refuse(MemoryError()))
    said = [str(error) for one in (unknown, empty, large) for _, error in frames_of(one)]
    assert said == [
        "clip.mp4: this build of PyAV cannot decode the video; convert it, say to H.264",
        "clip.mp4: expected a video, got no frame",
        "clip.mp4: frame 0: larger than the memory; scale the video down",
    ]


def test_no_canvas_at_all(demo_checkpoint: Checkpoint) -> None:
    with pytest.raises(ImageError, match="no canvas to put a photo on"):
        choose_canvas((4, 4), demo_checkpoint.spec.preprocess, [])


def cuda_with(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    """A CUDA runtime that sees so many GPUs."""
    fake = SimpleNamespace(
        cudaError_t=SimpleNamespace(cudaSuccess=0), cudaGetDeviceCount=lambda: (0, gpus)
    )
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(runtime=fake))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake)  # type: ignore[arg-type]


def test_a_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_with(monkeypatch, 0)
    with pytest.raises(DeviceError, match="no CUDA GPU on this machine"):
        CudaRuntime()


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_with(monkeypatch, 2)
    with pytest.raises(DeviceError, match="device cuda:2: expected cuda:0 to cuda:1"):
        CudaRuntime(2)


def test_cuda_python_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'maskport\[engine\]'"):
        CudaRuntime()


def test_a_frame_that_keeps_its_memory() -> None:
    with pytest.raises(UsageError, match=r"frames: .* memory of Unwilling .not today"):
        read_frames(Unwilling(), "hwc")


def test_no_library_to_compute_with(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_Torch", "_CuPy"):
        monkeypatch.setattr(device_library, name, refuse(ImportError()))
    with pytest.raises(MissingDependencyError, match="neither is installed"):
        library_of(Unwilling())


@pytest.mark.parametrize("value", ["0", True, None, 1.5], ids=repr)
def test_what_is_no_stream(value: object) -> None:
    with pytest.raises(UsageError, match="stream: expected a CUDA stream, got"):
        stream_handle(value)


def test_device_files_opened_the_wrong_way(tmp_path: Path) -> None:
    engine, weights = tmp_path / "a.engine", tmp_path / "a.pth"
    engine.write_bytes(b"")
    weights.write_bytes(b"")
    with pytest.raises(UsageError, match=r"device cpu: .*a\.engine is an engine"):
        open_device_session(engine, "cpu")
    with pytest.raises(UsageError, match=r"runtime_cache: .*a\.pth is not a TensorRT-RTX engine"):
        open_device_session(weights, "cpu", runtime_cache=tmp_path / "cache")
    for path in (engine, weights):
        with pytest.raises(UsageError, match="device: expected cpu, cuda or cuda:N, got 'mps'"):
            open_device_session(path, "mps")


@pytest.mark.parametrize(("device", "index"), [("cuda", None), ("cuda:0", 0), ("cuda:1", 1)])
def test_an_engine_runs_on_the_gpu_that_is_named(
    device: str, index: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, given = tmp_path / "a.engine", {}
    path.write_bytes(b"")
    monkeypatch.setattr(
        "runtime.sessions.tensorrt.TensorRTSession", lambda *_, **named: given.update(named)
    )
    open_device_session(path, device)
    assert given["device_index"] == index


def test_a_manifest_larger_than_any(tmp_path: Path) -> None:
    engine = tmp_path / "a.engine"
    engine_manifest.manifest_path(engine).write_bytes(
        b" " * (engine_manifest._MAX_MANIFEST_BYTES + 1)
    )
    with pytest.raises(ArtifactError, match="larger than any manifest"):
        engine_manifest.read_engine_file(engine)


def test_an_engine_gone_or_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = SimpleNamespace(info=SimpleNamespace(size_bytes=0, sha256=""))
    monkeypatch.setattr(engine_manifest, "read_engine_file", lambda _: said)
    engine = tmp_path / "a.engine"
    with pytest.raises(ArtifactError, match=r"a\.engine: no such file"):
        engine_manifest.load_checked(engine)
    engine.write_bytes(b"")
    monkeypatch.setattr(Path, "read_bytes", refuse(OSError(5, "Input/output error")))
    with pytest.raises(ArtifactError, match=r"cannot be read \(Input/output error\)"):
        engine_manifest.load_checked(engine)


def test_torch_sessions_that_cannot_be(demo_checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match=r"mode: expected one of eager, .*, got 'fast'"):
        TorchSession(demo_checkpoint, mode="fast")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="mode cuda-graph: expected a CUDA device, got cpu"):
        TorchSession(demo_checkpoint, mode="cuda-graph")
    with pytest.raises(UsageError, match="device: expected cpu or cuda, got 'moon'"):
        TorchSession(demo_checkpoint, device="moon")
    session = TorchSession(demo_checkpoint)
    session.close()
    hw = np.full((1, 2), 64, np.float32)
    with pytest.raises(ArtifactError, match="the session is closed; open it again"):
        session.run({"images": np.zeros((1, 3, 64, 64), np.float32), "image_hw": hw})


def test_metadata_that_is_no_text(demo_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    damaged = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_modelmeta", refuse(damaged))
    with pytest.raises(ArtifactError, match=r"damaged metadata \(not UTF-8\)"):
        open_session(demo_onnx)


def test_a_file_with_another_hash(demo_onnx: Path) -> None:
    with pytest.raises(ArtifactError, match=r"its SHA-256 \w{16}… is not the expected 0{16}…"):
        open_session(demo_onnx, sha256="0" * 64)


def test_kernels_are_kept_for_engines_only(demo_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"runtime_cache: .* is not a TensorRT-RTX engine"):
        open_session(demo_onnx, runtime_cache=tmp_path / "cache")


@pytest.mark.parametrize("package", ["pycocotools", "matplotlib.figure"])
def test_a_benchmark_without_what_it_draws_and_scores_with(
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


def test_a_benchmark_of_speed_alone_takes_no_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"images": [], "annotations": [], "categories": []}), "utf-8")
    arguments = ["a.onnx", "--images", str(tmp_path), "--annotations", str(truth), "--only-speed"]
    assert benchmark.main(arguments) == 2
    assert re.search("^error: --annotations: --only-speed", capsys.readouterr().err)
