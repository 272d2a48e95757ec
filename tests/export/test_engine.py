"""Engines built by the real TensorRT-RTX, which needs no GPU, and what stops a build."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import engine
from export.builders.options import BuildOptions
from export.onnx_file import remove_checksum
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


@pytest.fixture(scope="module")
def built(demo_rtx_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("engines")
    return [r.path for r in engine.build_engine(demo_rtx_onnx, folder, ["sm86", "sm89"])]


def test_one_engine_per_architecture_each_with_its_manifest(
    built: list[Path], demo_rtx_onnx: Path
) -> None:
    assert [path.name for path in built] == ["shapes.rtx.sm86.engine", "shapes.rtx.sm89.engine"]
    assert built[0].read_bytes() != built[1].read_bytes()
    for path, architecture in zip(built, ("sm86", "sm89"), strict=True):
        plan, read = load_checked(path)
        assert len(plan) > 1_000_000
        assert read.info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert read.info.onnx_sha256 == hashlib.sha256(demo_rtx_onnx.read_bytes()).hexdigest()
        assert read.info.architecture == architecture
        assert (read.info.library, read.info.library_version) == ("tensorrt_rtx", trt.__version__)
        assert read.artifact.manifest.batch_range == (1, 2, 3)
        assert read.artifact.spec.classes.names[0] == "__background__"


def test_the_manifest_tells_inputs_outputs_and_precision(built: list[Path]) -> None:
    info = read_engine_file(built[0]).info
    shapes = {tensor.name: (tensor.mode, tensor.dtype, tensor.shape) for tensor in info.tensors}
    assert shapes["images"] == ("input", "float32", (-1, 3, 320, 448))
    assert shapes["labels"] == ("output", "int32", (-1, 100))
    assert shapes["nms_open"] == ("output", "int32", (-1,))
    # Every convolution and every product with weights, and none of NMS's half-precision ones.
    assert list(info.layer_types) == ["float32"]
    assert info.layer_types["float32"] > 40
    assert info.quantize_layers == 0


def test_the_command(demo_rtx_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    status = engine.main([str(demo_rtx_onnx), "--gpu", "sm120", "-o", str(tmp_path)])
    said = capsys.readouterr()
    assert status == 0
    assert "shapes.rtx.sm120.engine · " in said.out
    assert "sm120 50 %" in said.err
    assert "next: " in said.out
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "shapes.rtx.sm120.engine",
        "shapes.rtx.sm120.engine.json",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
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
    demo_rtx_onnx: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture
) -> None:
    import re

    try:
        status = engine.main([str(demo_rtx_onnx), *arguments])
    except SystemExit as left:
        status = int(str(left.code))
    said = capsys.readouterr().err
    assert status == 2
    assert re.search(rf"error: .*{says}", said)
    assert not list(demo_rtx_onnx.parent.glob("*.engine*"))


def _refused(path: Path, error: type[MaskportError], says: str) -> None:
    before = sorted(path.parent.iterdir())
    with pytest.raises(error, match=says) as caught:
        engine.build_engine(path, gpu=["sm89"])
    assert "\n" not in str(caught.value)
    assert sorted(path.parent.iterdir()) == before


def test_a_graph_for_onnx_runtime_says_how_to_export_again(demo_onnx: Path) -> None:
    _refused(demo_onnx, ArtifactError, "for onnxruntime .*--target tensorrt-rtx --size 800x1344")


@pytest.mark.parametrize("kept", [0, 10, 5000, 1_000_000])
def test_truncated(demo_rtx_onnx: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(demo_rtx_onnx.read_bytes()[:kept])
    _refused(path, ArtifactError, "damaged or truncated")


def test_without_our_metadata(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    onnx.save(_graph(helper.make_node("Relu", ["x"], ["y"])), path)
    _refused(path, ArtifactError, "holds no maskport metadata")


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
        size_threshold=0,
    )
    (report,) = engine.build_engine(path, gpu=["sm89"])
    assert report.info.size_bytes > 1_000_000


def _graph(node: onnx.NodeProto, *initialisers: onnx.TensorProto) -> onnx.ModelProto:
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8000]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], list(initialisers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(
    ("model", "says"),
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
def test_the_librarys_refusal_names_node_and_remedy(
    demo_rtx_onnx: Path, tmp_path: Path, model: onnx.ModelProto, says: str
) -> None:
    if model.graph.node[0].op_type == "TopK":
        model.graph.output[0].type.tensor_type.ClearField("shape")
    pairs = {e.key: e.value for e in remove_checksum(onnx.load(demo_rtx_onnx)).metadata_props}
    helper.set_model_props(model, pairs)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    _refused(path, EngineBuildError, says)


def test_a_promise_that_the_graph_does_not_keep(demo_rtx_onnx: Path, tmp_path: Path) -> None:
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
        rest = child.stderr.read()
        assert child.wait(120) == 130
    assert "sm89 stopped" in rest
    assert "interrupted" in rest
    assert "Traceback" not in rest
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


def test_a_second_build_replaces_the_first_whole(demo_rtx_onnx: Path, tmp_path: Path) -> None:
    (first,) = engine.build_engine(demo_rtx_onnx, tmp_path, ["sm89"])
    os.utime(first.path, (0, 0))
    (second,) = engine.build_engine(demo_rtx_onnx, tmp_path, ["sm89"])
    assert os.stat(second.path).st_mtime_ns > 0
    load_checked(second.path)
    assert manifest_path(second.path).is_file()
    assert len(list(tmp_path.iterdir())) == 2
