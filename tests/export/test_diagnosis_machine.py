"""`maskport doctor` on the machine: packages, known bad installations, the GPU."""

from __future__ import annotations

import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

import export.diagnosis.machine as machine
from export.diagnosis.finding import Finding
from export.diagnosis.machine import ProbeResult, diagnose_machine, probe
from export.diagnosis.packages import PACKAGES, diagnose_packages
from model.errors import DeviceError, MissingDependencyError
from runtime.masks import rle_from_masks
from runtime.preprocessing import torch_bilinear

ROOT = Path(__file__).resolve().parents[2]
GOOD = {name: package.minimum for name, package in PACKAGES.items()} | {"torch": "2.15.0+cu130"}
del GOOD["onnxruntime-gpu"]


def install(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)


def named(findings: list[Finding], start: str) -> Finding:
    return next(f for f in findings if f.subject.startswith(start))


def problems(findings: list[Finding]) -> list[str]:
    return [f.line() for f in findings if f.status == "problem"]


def test_the_table_is_that_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    for package in PACKAGES.values():
        declared = project["dependencies"] if package.extra is None else extras[package.extra]
        assert f"{package.name}{package.range}" in declared
    listed = {r.split(">")[0] for e in extras if e != "dev" for r in extras[e]}
    assert {name for name in listed if not name.startswith("maskport[")} <= set(PACKAGES)


def test_versions_in_range_are_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, GOOD)
    findings = diagnose_packages()
    assert problems(findings) == []
    assert named(findings, "torch ").line() == "ok       torch 2.15.0+cu130"


@pytest.mark.parametrize(
    ("name", "version", "remedy"),
    [
        ("torch", "2.13.0", "pip install 'torch>=2.10,!=2.13.*'"),
        ("torch", "2.9.1+cpu", "pip install 'torch>=2.10,!=2.13.*'"),
        ("tensorrt", "10.9.0.34", "pip install 'tensorrt>=10.12'"),
        ("numpy", "1.24.4", "pip install 'numpy>=1.26'"),
    ],
)
def test_versions_out_of_range(
    name: str, version: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, GOOD | {name: version})
    finding = named(diagnose_packages(), f"{name} {version}")
    assert (finding.status, finding.remedy) == ("problem", remedy)


def test_the_cpu_only_build_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, GOOD | {"torch": "2.13.0"})
    assert "CPU-only build" in named(diagnose_packages(), "torch 2.13.0").detail


def test_both_wheels_of_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, GOOD | {"onnxruntime-gpu": "1.24.0"})
    (line,) = problems(diagnose_packages())
    assert "pip uninstall onnxruntime onnxruntime-gpu, then install one" in line


@pytest.mark.parametrize("wheel", ["onnxruntime", "onnxruntime-gpu"])
def test_one_wheel_is_enough(wheel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"onnxruntime": "onnxruntime-gpu", "onnxruntime-gpu": "onnxruntime"}[wheel]
    versions = {n: v for n, v in GOOD.items() if not n.startswith("onnxruntime")}
    install(monkeypatch, versions | {wheel: "1.24.0"})
    findings = diagnose_packages()
    assert problems(findings) == []
    finding = next(f for f in findings if f.subject == other)
    assert finding.status == "n/a"
    # The remedy must not install both.
    assert "maskport[" not in finding.remedy


@pytest.mark.parametrize(
    ("name", "status", "remedy"),
    [
        ("tensorrt-rtx", "n/a", "pip install 'maskport[rtx]'"),
        ("tensorrt", "n/a", "pip install 'maskport[tensorrt]'"),
        ("pycocotools", "n/a", "pip install 'maskport[eval]'"),
        ("onnx-ir", "n/a", "pip install 'maskport[export]'"),
        ("numpy", "problem", "pip install 'maskport'"),
    ],
)
def test_what_is_not_installed(
    name: str, status: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, {n: v for n, v in GOOD.items() if n != name})
    finding = next(f for f in diagnose_packages() if f.subject == name)
    assert (finding.status, finding.detail, finding.remedy) == (status, "not installed", remedy)


def test_another_name_of_the_same_library(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {name: version for name, version in GOOD.items() if name != "tensorrt"}
    install(monkeypatch, others | {"tensorrt-cu13": "11.4.0"})
    assert named(diagnose_packages(), "tensorrt 11.4.0").status == "ok"


def test_this_machine_works() -> None:
    findings = diagnose_machine()
    assert named(findings, f"torch {metadata.version('torch')}").status == "ok"
    assert "compatible" in named(findings, "torch with torchvision").detail
    assert "CPU" in named(findings, "ONNX Runtime providers").detail


@pytest.mark.parametrize(
    ("module", "subject"),
    [(torch_bilinear, "resize kernel"), (rle_from_masks, "run-length kernel")],
)
def test_loops_that_were_not_compiled(
    module: ModuleType, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IS_COMPILED", False)
    (finding,) = (one for one in machine._compiled_loops() if one.subject == subject)
    assert finding.status == "n/a"
    assert "the same results" in finding.detail
    monkeypatch.setattr(module, "IS_COMPILED", True)
    assert [one.status for one in machine._compiled_loops() if one.subject == subject] == ["ok"]


def test_a_torch_that_torchvision_cannot_load_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    message = "RuntimeError: operator torchvision::nms does not exist"
    monkeypatch.setattr(machine, "probe", lambda code: ProbeResult(False, message))
    finding = named(diagnose_machine(), "torch with torchvision")
    assert finding.status == "problem"
    assert "operator torchvision::nms does not exist" in finding.detail
    assert "CPU-only build" in finding.detail
    assert finding.remedy == "pip install --force-reinstall 'torch>=2.10,!=2.13.*' torchvision"


@pytest.mark.parametrize(
    ("code", "succeeded", "text"),
    [
        ("print('one'); print('two')", True, "two"),
        ("raise RuntimeError('operator')", False, "RuntimeError: operator"),
        ("import os; os.abort()", False, "crashed (signal 6)"),
        ("import time; time.sleep(60)", False, "no result within 1 s"),
    ],
    ids=["works", "raises", "crashes", "hangs"],
)
def test_probe(code: str, succeeded: bool, text: str) -> None:
    assert probe(code, time_limit_s=1.0 if "sleep" in code else 30.0) == ProbeResult(
        succeeded, text
    )


def test_a_file_of_the_working_folder_does_not_shadow_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(3)", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert probe("import json; print(json.dumps([1]))") == ProbeResult(True, "[1]")


@pytest.mark.parametrize(
    "error",
    [
        DeviceError("no CUDA GPU on this machine; run it where the GPU is"),
        MissingDependencyError("cuda-python is not installed; pip install 'maskport[engine]'"),
    ],
    ids=["no GPU", "no bindings"],
)
def test_no_gpu_is_absent(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise error

    monkeypatch.setattr(machine, "local_architecture", fail)
    monkeypatch.setattr(machine, "probe", lambda code: ProbeResult(True, "tried"))
    finding = named(diagnose_machine(), "GPU")
    assert (finding.status, f"{finding.detail}; {finding.remedy}") == ("n/a", str(error))


def test_a_gpu_that_rtx_does_not_support(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(machine, "local_architecture", lambda: "sm90")
    monkeypatch.setattr(machine, "probe", lambda code: ProbeResult(True, "tried"))
    findings = diagnose_machine()
    assert named(findings, "GPU").detail == "sm90"
    assert "sm89" in named(findings, "TensorRT-RTX").detail
    finding = named(findings, "TensorRT-RTX on sm90")
    assert (finding.status, finding.remedy) == ("n/a", "export with --target tensorrt")


def test_installed_but_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr(machine, "probe", lambda code: ProbeResult(True, "tried"))
    install(monkeypatch, GOOD)
    finding = next(f for f in diagnose_machine() if f.subject == "TensorRT-RTX")
    assert finding.status == "problem"
    assert "installed, but cannot be imported" in finding.detail
