"""Diagnosis of a file, selected by its suffix; nothing in it is executed or deserialized."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.diagnosis.finding import Diagnosis, Finding, Status, of_error, predict_sample
from export.diagnosis.model_file import diagnose_onnx
from export.targets import TARGETS, Target, landscape_hw
from model.errors import (
    ArtifactError,
    CheckpointError,
    DeviceError,
    MaskportError,
    MissingDependencyError,
    SpecError,
    in_brief,
)
from model.spec import ModelSpec
from runtime.artifacts.engine_manifest import EngineFile, load_checked, read_engine_file
from runtime.cuda.driver import local_architecture
from runtime.sessions.open import CHECKPOINT_SUFFIXES, backend_of
from runtime.sessions.tensorrt_library import check_architecture, load_library


def diagnose_engine(path: Path) -> Diagnosis:
    """Check everything that must match before an engine can run here.

    A missing library or GPU is not available; one that does not match is a problem.
    """
    try:
        engine = read_engine_file(path)
    except ArtifactError as error:
        return Diagnosis((of_error("problem", "manifest", error, path),))
    info, artifact = engine.info, engine.artifact
    summary = f"{artifact.spec.architecture}, {artifact.manifest.precision}, "
    findings = (
        Finding("ok", "manifest", f"{summary}for {info.architecture}"),
        _try("hash", path, lambda: _hash(path)),
        _try("library", path, lambda: _library(engine)),
        _try("GPU", path, lambda: _gpu(engine)),
    )
    is_clean = all(finding.status == "ok" for finding in findings)
    return Diagnosis(findings, predict_sample(path) if is_clean else ())


def _try(subject: str, path: Path, check: Callable[[], str]) -> Finding:
    try:
        return Finding("ok", subject, check())
    except MaskportError as error:
        is_absent = isinstance(error, MissingDependencyError | DeviceError)
        status: Status = "n/a" if is_absent else "problem"
        return of_error(status, subject, error, path)


def _hash(path: Path) -> str:
    _, engine = load_checked(path)
    return f"matches the manifest, {engine.info.sha256[:16]}…"


def _library(engine: EngineFile) -> str:
    version = load_library(engine).__version__
    return f"{engine.info.library} {version}, built with {engine.info.library_version}"


def _gpu(engine: EngineFile) -> str:
    local = local_architecture()
    check_architecture(engine, local)
    return f"{local}, built for {engine.info.architecture}"


def diagnose_checkpoint(path: Path) -> Diagnosis:
    """Read a checkpoint as the export does, without running anything in it."""
    try:
        from model.checkpoint import load
        from model.families.assumptions import listing
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision without its extension
        reason = in_brief(error)
        remedy = "pip install 'maskport[export]', which includes torch and torchvision"
        return Diagnosis((Finding("problem", path.name, f"cannot be read ({reason})", remedy),))
    try:
        checkpoint = load(path)
    except (CheckpointError, SpecError) as error:
        return Diagnosis((of_error("problem", path.name, error, path),))
    spec = checkpoint.spec
    summary = f"{spec.dialect}, {spec.architecture}, {spec.num_foreground} classes"
    findings = [Finding("ok", path.name, summary)]
    read = [checkpoint.taken, *checkpoint.notes] if checkpoint.taken else checkpoint.notes
    findings += [Finding("ok", "read", note) for note in read]
    findings += [Finding("ok", "assumed", line) for line in listing(checkpoint.assumptions)]
    findings += [diagnose_spec(spec, target) for target in TARGETS.values()]
    can_export = all(f.status == "ok" for f in findings)
    return Diagnosis(tuple(findings), ("export", str(path)) if can_export else ())


def diagnose_spec(spec: ModelSpec, target: Target) -> Finding:
    """Whether the network can be exported for a target."""
    subject = f"target {target.name}"
    if target.lowering == "standard":
        return Finding("ok", subject, "can be exported")
    height, width = landscape_hw(spec.preprocess)
    return Finding("ok", subject, f"can be exported with --size {height}x{width}")


_BY_BACKEND: dict[str, Callable[[Path], Diagnosis]] = {
    "onnxruntime": diagnose_onnx,
    "tensorrt": diagnose_engine,
    "torch": diagnose_checkpoint,
}


def diagnose_file(path: Path) -> Diagnosis:
    """Describe a file, and what prevents which target.

    Raises:
        ArtifactError: no such file, or a suffix that no command reads.
    """
    return _BY_BACKEND[require_known(path)](path)


def require_known(path: Path) -> str:
    """The backend of a file; a missing one, and one that no command reads, is refused.

    Raises:
        ArtifactError: see `diagnose_file`.
    """
    if not path.is_file():
        raise ArtifactError(
            f"{path}: no such file; expected an exported .onnx, an .engine or a checkpoint"
        )
    backend = backend_of(path)
    if backend is None:
        raise ArtifactError(
            f"{path}: unknown suffix '{path.suffix}'; expected .onnx, .engine or one of "
            f"{', '.join(CHECKPOINT_SUFFIXES)}"
        )
    return backend
