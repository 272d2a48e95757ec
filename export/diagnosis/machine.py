"""Diagnosis of this machine: Python, packages, libraries (by running them), the GPU."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from export.diagnosis.finding import Finding, of_error
from export.diagnosis.packages import PACKAGES, diagnose_packages, installed_version
from model.errors import DeviceError, MaskportError, MissingDependencyError, in_brief
from runtime.cuda.driver import local_architecture
from runtime.masks import rle_from_masks
from runtime.preprocessing import torch_bilinear

TIME_LIMIT_S = 120.0
_OLDEST_PYTHON = (3, 11)
# The operator is in torchvision's extension, which a CPU-only torch may fail to load.
_TRY_TORCH = """
import torch, torchvision
kept = torchvision.ops.nms(torch.tensor([[0., 0, 2, 2], [0, 0, 2, 1.9]]), torch.ones(2), 0.5)
assert len(kept) == 1, f"nms kept {len(kept)} boxes of 2"
print(f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only")
"""
_BROKEN_EXTENSION = "operator torchvision::nms does not exist"
_TRY_ONNXRUNTIME = """
import onnxruntime
print(", ".join(p.removesuffix("ExecutionProvider") for p in onnxruntime.get_available_providers()))
"""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Whether the code succeeded, and its last line of output or error."""

    succeeded: bool
    text: str


def probe(code: str, time_limit_s: float = TIME_LIMIT_S) -> ProbeResult:
    """Run a few lines of Python in a new process: a broken library may crash or hang it."""
    # Without -P, a file in the working directory could shadow the library.
    command = [sys.executable, "-P", "-c", code]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    try:
        process = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=time_limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ProbeResult(False, f"no result within {time_limit_s:.0f} s")
    if process.returncode < 0:
        return ProbeResult(False, f"crashed (signal {-process.returncode})")
    lines = (process.stdout if process.returncode == 0 else process.stderr).strip().splitlines()
    return ProbeResult(process.returncode == 0, lines[-1][:300] if lines else "no output")


def diagnose_machine() -> list[Finding]:
    """Check everything that a command needs; takes seconds, because torch is imported."""
    architecture, gpu = _gpu()
    return [
        _python(),
        *_compiled_loops(),
        *diagnose_packages(),
        *_torch(),
        *_onnxruntime(),
        *_tensorrt(),
        gpu,
        *_rtx(architecture),
    ]


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return Finding("problem", f"Python {version}", "expected 3.11 or later", "install one")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("ok", f"Python {version} on {platform.machine()}, {cores} cores")


def _compiled_loops() -> Iterator[Finding]:
    compiled = {"resize kernel": torch_bilinear, "run-length kernel": rle_from_masks}
    for subject, module in compiled.items():
        if module.IS_COMPILED:
            yield Finding("ok", subject, "compiled")
        else:
            yield Finding(
                "n/a",
                subject,
                "not compiled: NumPy gives the same results, two to three times slower",
                "install a C compiler and Python's headers, then reinstall maskport",
            )


def _has(name: str) -> bool:
    return installed_version(name) is not None


def _torch() -> list[Finding]:
    """Import torch and torchvision and call an operator of torchvision's extension."""
    if not (_has("torch") and _has("torchvision")):
        return []
    result = probe(_TRY_TORCH)
    subject = "torch with torchvision"
    if result.succeeded:
        return [Finding("ok", subject, f"compatible ({result.text})")]
    remedy = f"pip install --force-reinstall 'torch{PACKAGES['torch'].range}' torchvision"
    detail = result.text
    if _BROKEN_EXTENSION in detail:
        detail = (
            f"{_BROKEN_EXTENSION}: this torch is a CPU-only build or does not match torchvision"
        )
    return [Finding("problem", subject, detail, remedy)]


def _onnxruntime() -> list[Finding]:
    """Import ONNX Runtime and list its providers."""
    if not (_has("onnxruntime") or _has("onnxruntime-gpu")):
        return []
    result = probe(_TRY_ONNXRUNTIME)
    if not result.succeeded:
        wheel = "onnxruntime-gpu" if _has("onnxruntime-gpu") else "onnxruntime"
        remedy = f"pip install --force-reinstall {wheel}"
        return [Finding("problem", "ONNX Runtime", result.text, remedy)]
    return [Finding("ok", "ONNX Runtime providers", result.text)]


def _tensorrt() -> list[Finding]:
    """Import TensorRT, if installed, and check its version."""
    if not _has("tensorrt"):
        return []
    from export.builders.tensorrt import TensorRTLibrary

    try:
        return [Finding("ok", "TensorRT", f"{TensorRTLibrary().version} can be imported")]
    except MissingDependencyError as error:
        return [_cannot_import("TensorRT", error)]


def _gpu() -> tuple[str | None, Finding]:
    """The local GPU's architecture, and the finding; a missing GPU is no problem."""
    try:
        architecture = local_architecture()
    except (MissingDependencyError, DeviceError) as error:
        return None, of_error("n/a", "GPU", error)
    return architecture, Finding("ok", "GPU", architecture)


def _rtx(architecture: str | None) -> list[Finding]:
    """Import TensorRT-RTX; report the GPUs that it builds for, and whether ours is one."""
    if not _has("tensorrt-rtx"):
        return []
    from export.builders.rtx import RtxLibrary

    try:
        known = RtxLibrary().known()
    except MaskportError as error:
        return [_cannot_import("TensorRT-RTX", error)]
    findings = [Finding("ok", "TensorRT-RTX", f"builds for {', '.join(known)}")]
    if architecture is not None and architecture not in known:
        findings.append(
            Finding(
                "n/a",
                f"TensorRT-RTX on {architecture}",
                "does not support the GPU of this machine",
                "export with --target tensorrt",
            )
        )
    return findings


def _cannot_import(library: str, error: MaskportError) -> Finding:
    """A finding for a library that is installed but fails to import."""
    if error.__cause__ is None:  # too old
        return of_error("problem", library, error)
    reason = in_brief(error.__cause__)
    return Finding("problem", library, f"installed, but cannot be imported ({reason})")
