"""Engines built by TensorRT-RTX, which needs no GPU, and failing builds."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import engine
from export.builders import builder
from export.builders.options import BuildOptions
from export.onnx_file import read_onnx, remove_checksum
from model.errors import (
    ArtifactError,
    DeviceError,
    EngineBuildError,
    MaskportError,
    MissingDependencyError,
    UsageError,
)
from runtime.artifacts.engine_manifest import load_checked, manifest_path, read_engine_file
from tests import interrupts

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


@dataclass(frozen=True)
class Built:
    """The engines for sm86 and sm89, and the output of the command."""

    paths: list[Path]
    status: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def built(demo_rtx_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("engines")
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = engine.main([str(demo_rtx_onnx), "--gpu", "sm86,sm89", "-o", str(folder)])
    return Built(sorted(folder.glob("*.engine")), status, out.getvalue(), err.getvalue())


def test_one_engine_per_architecture_each_with_its_manifest(
    built: Built, demo_rtx_onnx: Path
) -> None:
    paths = built.paths
    assert [path.name for path in paths] == ["shapes.rtx.sm86.engine", "shapes.rtx.sm89.engine"]
    assert len(list(paths[0].parent.iterdir())) == 4
    assert paths[0].read_bytes() != paths[1].read_bytes()
    for path, architecture in zip(paths, ("sm86", "sm89"), strict=True):
        plan, read = load_checked(path)
        assert len(plan) > 1_000_000
        assert read.info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert read.info.onnx_sha256 == hashlib.sha256(demo_rtx_onnx.read_bytes()).hexdigest()
        assert read.info.architecture == architecture
        assert (read.info.library, read.info.library_version) == ("tensorrt_rtx", trt.__version__)
        assert read.artifact.manifest.batch_range == (1, 2, 3)
        assert read.artifact.spec.classes.names[0] == "__background__"


def test_the_manifest_has_inputs_outputs_and_precision(built: Built) -> None:
    info = read_engine_file(built.paths[0]).info
    shapes = {tensor.name: (tensor.mode, tensor.dtype, tensor.shape) for tensor in info.tensors}
    assert shapes["images"] == ("input", "float32", (-1, 3, 320, 448))
    assert shapes["labels"] == ("output", "int32", (-1, 100))
    assert shapes["nms_open"] == ("output", "int32", (-1,))
    # Convolutions and products with weights, without NMS's half-precision products.
    assert list(info.layer_types) == ["float32"]
    assert info.layer_types["float32"] > 40
    assert info.quantize_layers == 0


def test_the_command(built: Built) -> None:
    assert built.status == 0
    assert "shapes.rtx.sm89.engine · " in built.stdout
    assert "sm89 50 %" in built.stderr
    assert "next: " in built.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param([], "--gpu: expected one or more of sm75,", id="no-gpu"),
        pytest.param(["--gpu", "sm90"], "--gpu sm90: TensorRT-RTX .* builds for sm75", id="hopper"),
        pytest.param(["--gpu", "rtx4090"], "expected architectures like sm86,sm89", id="name"),
        pytest.param(["--gpu", "sm89", "-o", "nowhere"], "-o nowhere: no such folder", id="folder"),
        pytest.param(["--gpu", "sm89", "--timing-cache", "t"], "only for TensorRT", id="cache"),
        pytest.param(["--gpu", "sm89", "--version-compatible"], "only for TensorRT", id="version"),
        pytest.param(["--gpu", "sm89", "--level", "9"], "--level", id="level"),
    ],
)
def test_usage(
    demo_rtx_onnx: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    try:
        status = engine.main([str(demo_rtx_onnx), *arguments])
    except SystemExit as left:
        status = int(str(left.code))
    stderr = capsys.readouterr().err
    assert status == 2
    assert re.search(rf"error: .*{message}", stderr)
    assert not list(demo_rtx_onnx.parent.glob("*.engine*"))


def _refused(path: Path, error: type[MaskportError], message: str) -> None:
    before = sorted(path.parent.iterdir())
    with pytest.raises(error, match=message) as caught:
        engine.build_engine(path, gpu=["sm89"])
    assert "\n" not in str(caught.value)
    assert sorted(path.parent.iterdir()) == before


def test_a_graph_for_onnx_runtime_must_be_exported_again(demo_onnx: Path) -> None:
    _refused(demo_onnx, ArtifactError, "for onnxruntime .*--target tensorrt-rtx --size 800x1344")


@pytest.mark.parametrize("length", [0, 10, 5000, 1_000_000])
def test_truncated(demo_rtx_onnx: Path, tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(demo_rtx_onnx.read_bytes()[:length])
    _refused(path, ArtifactError, "damaged or truncated")


def test_without_our_metadata(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    onnx.save(_graph(helper.make_node("Relu", ["x"], ["y"])), path)
    _refused(path, ArtifactError, "no maskport metadata")


def test_external_data_from_elsewhere(demo_rtx_onnx: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(4096))
    model = remove_checksum(onnx.load(demo_rtx_onnx))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../w.bin")
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    _refused(folder / "m.onnx", ArtifactError, "takes its data from")


def test_external_data_in_the_folder_is_read(demo_rtx_onnx: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(
        remove_checksum(onnx.load(demo_rtx_onnx)),
        path,
        save_as_external_data=True,
        location="m.data",
    )
    expected = onnx.load(demo_rtx_onnx).graph.initializer
    for loaded, tensor in zip(read_onnx(path).model.graph.initializer, expected, strict=True):
        np.testing.assert_array_equal(*map(numpy_helper.to_array, (loaded, tensor)))


def _graph(node: onnx.NodeProto, *initializers: onnx.TensorProto) -> onnx.ModelProto:
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8000]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param(
            _graph(
                helper.make_node("TopK", ["x", "k"], ["y", "i"], name="too_many", axis=1),
                numpy_helper.from_array(np.array([6000]), "k"),
            ),
            "'too_many': .*K exceeds the maximum.*--candidates",
            id="top-k",
        ),
        pytest.param(
            _graph(helper.make_node("NonZero", ["x"], ["y"], name="where")),
            "NonZero node 'where': .*--target tensorrt-rtx",
            id="data-dependent",
        ),
        pytest.param(
            _graph(helper.make_node("Unheard", ["x"], ["y"], name="odd")),
            "Unheard node 'odd'",
            id="unknown",
        ),
    ],
)
def test_a_parser_error_gives_node_and_remedy(
    demo_rtx_onnx: Path, tmp_path: Path, model: onnx.ModelProto, message: str
) -> None:
    if model.graph.node[0].op_type == "TopK":
        model.graph.output[0].type.tensor_type.ClearField("shape")
    pairs = {e.key: e.value for e in remove_checksum(onnx.load(demo_rtx_onnx)).metadata_props}
    helper.set_model_props(model, pairs)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    _refused(path, EngineBuildError, message)


def test_another_precision_in_the_manifest(demo_rtx_onnx: Path, tmp_path: Path) -> None:
    model = remove_checksum(onnx.load(demo_rtx_onnx))
    for entry in model.metadata_props:
        if entry.key == "maskport.manifest":
            entry.value = json.dumps({**json.loads(entry.value), "precision": "fp16"})
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    _refused(path, EngineBuildError, "expected most convolutions in float16, got [0-9]+ float32")


def test_the_library_is_not_installed(demo_rtx_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    _refused(demo_rtx_onnx, MissingDependencyError, r"pip install 'maskport\[rtx\]'")


def test_an_interrupted_build_leaves_nothing(demo_rtx_onnx: Path, tmp_path: Path) -> None:
    command = ["-m", "export.engine", demo_rtx_onnx, "--gpu", "sm89", "-o", tmp_path]
    root = Path(__file__).resolve().parents[2]
    with interrupts.python(command, cwd=root, stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("sm89 33 %"):
                break
        child.send_signal(signal.SIGINT)
        output = child.stderr.read()
        assert child.wait(120) == 130
    assert "sm89 stopped" in output
    assert "interrupted" in output
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []


class _AsTensorRT(ModuleType):
    """TensorRT-RTX under the name and version of TensorRT: the same builder API."""

    def __init__(self, version: str) -> None:
        super().__init__("tensorrt")
        self.__version__ = version

    def __getattr__(self, name: str) -> object:
        return getattr(trt, name)


def _for_tensorrt(source: Path, target: Path) -> Path:
    model = remove_checksum(onnx.load(source))
    for entry in model.metadata_props:
        if entry.key == "maskport.manifest":
            entry.value = json.dumps({**json.loads(entry.value), "target": "tensorrt"})
    target.write_bytes(model.SerializeToString())
    return target


def test_the_tensorrt_adapter_builds_for_the_local_gpu(
    demo_rtx_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _for_tensorrt(demo_rtx_onnx, tmp_path / "m.trt.onnx")
    monkeypatch.setitem(sys.modules, "tensorrt", _AsTensorRT("11.4.0.106"))
    monkeypatch.setattr("export.builders.tensorrt.local_architecture", lambda: "sm86")
    inspected = '{"Layers": [{"Outputs": [{"Format/Datatype": "Row major linear FP32"}]}]}'
    monkeypatch.setattr("export.builders.inspection.inspect_engine", lambda *_: inspected)
    options = BuildOptions(workspace_bytes=2**30, optimization_level=2)
    (report,) = engine.build_engine(path, options=options)
    assert report.path.name == "m.trt.sm86.engine"
    assert (report.info.library, report.info.library_version) == ("tensorrt", "11.4.0.106")
    assert report.info.options["workspace_bytes"] == 2**30
    with pytest.raises(UsageError, match="builds for the local GPU, sm86"):
        engine.build_engine(path, gpu=["sm89"])


def test_tensorrt_without_its_library_a_gpu_or_a_version(
    demo_rtx_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _for_tensorrt(demo_rtx_onnx, tmp_path / "m.trt.onnx")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match="TensorRT is not installed"):
        engine.build_engine(path)
    monkeypatch.setitem(sys.modules, "tensorrt", _AsTensorRT("10.9.0.34"))
    with pytest.raises(MissingDependencyError, match=r"expected 10\.12 or later"):
        engine.build_engine(path)
    monkeypatch.setitem(sys.modules, "tensorrt", _AsTensorRT("10.12.0.36"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DeviceError):
        engine.build_engine(path)
    assert not list(tmp_path.glob("*.engine"))


def test_a_second_build_replaces_the_first(
    built: Built, demo_rtx_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (built.paths[1], manifest_path(built.paths[1])):
        os.utime(shutil.copy(path, tmp_path), (0, 0))
    second = builder.Built(b"another plan", (), {"float32": 1}, 0, (), 1.0)
    monkeypatch.setattr(builder, "build", lambda *_: second)
    (report,) = engine.build_engine(demo_rtx_onnx, tmp_path, ["sm89"])
    plan, _ = load_checked(report.path)
    assert plan == b"another plan"
    assert all(path.stat().st_mtime_ns > 0 for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 2
