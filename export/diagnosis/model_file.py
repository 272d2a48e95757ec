"""Diagnosis of an ONNX file: integrity, origin, external data, and each target."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from export.diagnosis.finding import Diagnosis, Finding, of_error, predict_sample
from model.errors import ArtifactError, DeviceError, MissingDependencyError, in_brief
from runtime.artifacts.checksum import require_no_stale_checksum, verify_checksum
from runtime.artifacts.metadata import SPEC_KEY, Artifact, from_metadata
from runtime.cuda.driver import local_architecture

if TYPE_CHECKING:
    import onnx

_USUAL_GPU = "sm89"


def diagnose_onnx(path: Path) -> Diagnosis:
    """Check an ONNX file, ours or not, without running it."""
    try:
        from export.diagnosis.graph import diagnose_graph
        from export.onnx_file import parse_onnx, read_content
    except ImportError:
        install = "pip install 'maskport[export]'"
        return Diagnosis((Finding("problem", path.name, "reading it needs onnx", install),))
    try:
        content = read_content(path)
        model = parse_onnx(path, content)
    except ArtifactError as error:
        return Diagnosis((of_error("problem", path.name, error, path),))
    artifact, origin = _origin(model, path, content)
    data = _external_data(model, path)
    findings = [origin, *data]
    if not data:
        findings += _well_formed(model)
    findings += diagnose_graph(model, artifact)
    is_valid = all(f.status != "problem" for f in findings)
    return Diagnosis(tuple(findings), _next(artifact) if artifact and is_valid else ())


def _origin(model: onnx.ModelProto, path: Path, content: bytes) -> tuple[Artifact | None, Finding]:
    """The artifact in the file's metadata, and the finding about it."""
    pairs = {entry.key: entry.value for entry in model.metadata_props}
    if SPEC_KEY not in pairs:
        producer = model.producer_name or "an unnamed program"
        return None, Finding(
            "problem",
            path.name,
            f"written by {producer[:60]}, without maskport's metadata, so it cannot run here",
            "export its checkpoint with python -m export.onnx WEIGHTS",
        )
    try:
        artifact = from_metadata(path, pairs)
        has_checksum = verify_checksum(path, alone=False, content=content)
        require_no_stale_checksum(path, has_checksum, pairs)
    except ArtifactError as error:
        return None, of_error("problem", path.name, error, path)
    manifest, spec = artifact.manifest, artifact.spec
    canvas = f"canvas {manifest.height}x{manifest.width}" if manifest.canvas_hw else "any canvas"
    return artifact, Finding(
        "ok",
        path.name,
        f"{spec.architecture}, {spec.num_foreground} classes, {manifest.precision}, {canvas}, "
        f"exported by maskport {manifest.versions.get('maskport', '?')} for {manifest.target}",
    )


def _external_data(model: onnx.ModelProto, path: Path) -> list[Finding]:
    """Load tensors from other files of the folder; a finding if that is rejected."""
    from export.onnx_file import load_external

    try:
        load_external(model, path)
    except ArtifactError as error:
        remedy = "keep the data file beside the model, or save the model as one file"
        return [Finding("problem", "external data", str(error).removeprefix(f"{path}: "), remedy)]
    return []


def _well_formed(model: onnx.ModelProto) -> list[Finding]:
    import onnx

    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        detail = f"not valid ONNX ({in_brief(error)})"
        return [Finding("problem", "graph", detail, "export it again")]
    return [Finding("ok", "graph", f"valid ONNX, {len(model.graph.node)} nodes")]


def _next(artifact: Artifact) -> tuple[str, ...]:
    """The engine build, if its library is installed; otherwise predict, if ONNX Runtime is."""
    path = str(artifact.path)
    if artifact.manifest.target == "tensorrt-rtx":
        from export.builders.rtx import RtxLibrary

        try:
            return ("engine", path, "--gpu", _gpu(RtxLibrary().known()))
        except MissingDependencyError:
            pass
    if artifact.manifest.target == "tensorrt" and find_spec("tensorrt") and _local():
        return ("engine", path)
    return () if find_spec("onnxruntime") is None else predict_sample(artifact.path)


def _gpu(known: tuple[str, ...]) -> str:
    local = _local()
    return local if local in known else _USUAL_GPU


def _local() -> str | None:
    try:
        return local_architecture()
    except (MissingDependencyError, DeviceError):
        return None
