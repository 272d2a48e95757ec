"""`maskport doctor` on each type of file."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
from onnx import TensorProto, helper

import export.diagnosis.file as engine_diagnosis
import export.diagnosis.model_file as model_file
import runtime.sessions.tensorrt_library as tensorrt_library
from export.diagnosis.file import diagnose_file, diagnose_spec
from export.diagnosis.finding import Finding
from export.onnx_file import remove_checksum
from export.targets import TARGETS
from model.checkpoint import Checkpoint
from model.errors import DeviceError
from model.spec import PoolerSpec
from runtime.artifacts.engine_manifest import EngineInfo, manifest_path, to_text
from runtime.artifacts.metadata import Artifact, Manifest

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "examples" / "demo" / "shapes.pth"


def named(findings: list[Finding], start: str) -> Finding:
    return next(f for f in findings if f.subject.startswith(start))


def problems(findings: list[Finding]) -> list[str]:
    return [f.line() for f in findings if f.status == "problem"]


def test_a_file_for_onnxruntime(demo_onnx: Path) -> None:
    diagnosis = diagnose_file(demo_onnx)
    findings = list(diagnosis.findings)
    assert problems(findings) == []
    assert "for onnxruntime" in findings[0].detail
    assert named(findings, "target onnxruntime").status == "ok"
    blocked = named(findings, "target tensorrt-rtx")
    assert blocked.status == "n/a"
    assert "NonMaxSuppression 'node_" in blocked.detail
    assert "--target tensorrt-rtx --size 320x544" in blocked.remedy
    assert diagnosis.next[:2] == ("predict", str(demo_onnx))


@pytest.mark.parametrize(("local", "gpu"), [(None, "sm89"), ("sm86", "sm86"), ("sm90", "sm89")])
def test_a_file_for_rtx(
    demo_rtx_onnx: Path, local: str | None, gpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(model_file, "_local", lambda: local)
    diagnosis = diagnose_file(demo_rtx_onnx)
    assert {f.status for f in diagnosis.findings} == {"ok"}
    assert diagnosis.next == ("engine", str(demo_rtx_onnx), "--gpu", gpu)
    other = named(list(diagnosis.findings), "target tensorrt")
    assert "exported for tensorrt-rtx" in other.detail


def foreign(path: Path) -> onnx.ModelProto:
    node = helper.make_node("Add", ["x", "w"], ["y"], name="sum")
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4], [1.0] * 4)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model.producer_name = "somebody"
    onnx.save(model, path)
    return model


def test_a_foreign_file_is_diagnosed(tmp_path: Path) -> None:
    foreign(tmp_path / "f.onnx")
    diagnosis = diagnose_file(tmp_path / "f.onnx")
    (line,) = problems(list(diagnosis.findings))
    assert "written by somebody, without maskport's metadata" in line
    assert [f.status for f in diagnosis.findings[-3:]] == ["ok"] * 3
    assert diagnosis.next == ()


def test_damaged_metadata(demo_onnx: Path, tmp_path: Path) -> None:
    model = remove_checksum(onnx.load(demo_onnx))
    next(e for e in model.metadata_props if e.key == "maskport.spec").value = "{"
    onnx.save(model, tmp_path / "m.onnx")
    assert "damaged metadata" in problems(diagnose_file(tmp_path / "m.onnx").findings)[0]


@pytest.mark.parametrize("location", ["../w.bin", "none.bin"])
def test_external_data_outside(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(16))
    model = foreign(folder / "f.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "f.onnx").write_bytes(model.SerializeToString())
    finding = named(diagnose_file(folder / "f.onnx").findings, "external data")
    assert finding.status == "problem"
    assert location in finding.detail
    assert "beside the model" in finding.remedy


@pytest.mark.parametrize("length", [0, 100, 0.5, 0.99])
def test_a_truncated_file(length: float, demo_onnx: Path, tmp_path: Path) -> None:
    data = demo_onnx.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(length * len(data)) if length < 1 else int(length)])
    (finding,) = diagnose_file(path).findings
    assert finding.status == "problem"
    assert "damaged or truncated" in finding.remedy


def test_an_invalid_graph(tmp_path: Path) -> None:
    model = foreign(tmp_path / "f.onnx")
    model.graph.node.add(op_type="Abs", input=["nowhere"], output=["z"])
    (tmp_path / "f.onnx").write_bytes(model.SerializeToString())
    finding = named(diagnose_file(tmp_path / "f.onnx").findings, "graph")
    assert (finding.status, finding.remedy) == ("problem", "export it again")
    assert "nowhere" in finding.detail


@pytest.fixture
def engine(demo_checkpoint: Checkpoint, tmp_path: Path) -> Path:
    path, plan = tmp_path / "m.sm89.engine", b"not really a plan"
    manifest = Manifest("tensorrt-rtx", "native", "fp32", "0" * 64, 1, 256, 320)
    info = EngineInfo(
        sha256=hashlib.sha256(plan).hexdigest(),
        size_bytes=len(plan),
        library="tensorrt_rtx",
        library_version="1.7.1",
        architecture="sm89",
        onnx_sha256="0" * 64,
        tensors=(),
    )
    path.write_bytes(plan)
    artifact = Artifact(path, demo_checkpoint.spec, manifest)
    manifest_path(path).write_text(to_text(artifact, info), "utf-8")
    return path


def on_gpu(
    monkeypatch: pytest.MonkeyPatch, architecture: str = "sm89", version: str = "1.7.1"
) -> None:
    def loaded(name: str) -> SimpleNamespace:
        return SimpleNamespace(__name__=name, __version__=version)

    monkeypatch.setattr(tensorrt_library, "importlib", SimpleNamespace(import_module=loaded))
    monkeypatch.setattr(engine_diagnosis, "local_architecture", lambda: architecture)


def statuses(findings: list[Finding]) -> dict[str, str]:
    return {f.subject: f.status for f in findings}


def test_a_matching_engine(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch)
    diagnosis = diagnose_file(engine)
    assert statuses(list(diagnosis.findings)) == dict.fromkeys(
        ("manifest", "hash", "library", "GPU"), "ok"
    )
    assert diagnosis.next[:2] == ("predict", str(engine))


def test_a_tampered_engine(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch)
    data = bytearray(engine.read_bytes())
    data[3] ^= 1
    engine.write_bytes(data)
    (line,) = problems(diagnose_file(engine).findings)
    assert "hash: its SHA-256" in line
    assert "build it again" in line
    assert diagnose_file(engine).next == ()


def test_an_engine_without_its_manifest(engine: Path) -> None:
    manifest_path(engine).unlink()
    (finding,) = diagnose_file(engine).findings
    assert (finding.status, finding.subject) == ("problem", "manifest")
    assert "build it again with maskport engine" in finding.remedy


@pytest.mark.parametrize(
    ("architecture", "version", "subject", "remedy"),
    [
        ("sm89", "1.6.0", "library", "build it again"),
        ("sm120", "1.7.1", "GPU", "build it for sm120"),
    ],
    ids=["another version", "another GPU"],
)
def test_an_engine_for_another_version_or_gpu(
    architecture: str,
    version: str,
    subject: str,
    remedy: str,
    engine: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_gpu(monkeypatch, architecture, version)
    findings = diagnose_file(engine).findings
    assert [f.subject for f in findings if f.status == "problem"] == [subject]
    assert remedy in named(findings, subject).remedy


def test_an_engine_where_nothing_is_installed(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise DeviceError("no CUDA GPU on this machine; run it where the GPU is")

    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr(engine_diagnosis, "local_architecture", fail)
    findings = diagnose_file(engine).findings
    assert statuses(findings) == {
        "manifest": "ok", "hash": "ok", "library": "n/a", "GPU": "n/a",
    }  # fmt: skip
    assert "maskport[rtx]" in named(findings, "library").remedy


def test_a_changed_manifest(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch)
    manifest = manifest_path(engine)
    manifest.write_text(manifest.read_text("utf-8").replace('"sm89"', '"sm86"'), "utf-8")
    (finding,) = [f for f in diagnose_file(engine).findings if f.status == "problem"]
    assert "changed since it was written" in finding.detail


def test_a_checkpoint() -> None:
    diagnosis = diagnose_file(WEIGHTS)
    findings = list(diagnosis.findings)
    assert {f.status for f in findings} == {"ok"}
    assert findings[0].detail == "torchvision, maskrcnn_resnet_18_narrow_fpn, 7 classes"
    assert any("--short-side" in f.detail for f in findings if f.subject == "assumed")
    assert "--size 800x1344" in named(findings, "target tensorrt-rtx").detail
    assert diagnosis.next == ("export", str(WEIGHTS))


def test_an_unknown_checkpoint(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "odd.pt")
    (finding,) = diagnose_file(tmp_path / "odd.pt").findings
    assert finding.status == "problem"
    assert "not a known Mask R-CNN" in finding.detail


def test_adaptive_sampling_and_many_proposals_can_be_exported(demo_checkpoint: Checkpoint) -> None:
    spec = demo_checkpoint.spec
    pooler: PoolerSpec = replace(spec.box.pooler, sampling_ratio=0)
    unusual = replace(
        spec, box=replace(spec.box, pooler=pooler), rpn=replace(spec.rpn, pre_nms=6000)
    )
    assert {diagnose_spec(unusual, target).status for target in TARGETS.values()} == {"ok"}
