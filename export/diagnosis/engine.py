"""Diagnosis of an engine: manifest, hash, library and GPU; it is never deserialized."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.diagnosis.finding import Diagnosis, Finding, Status, of_error, predict_sample
from model.errors import ArtifactError, DeviceError, MaskportError, MissingDependencyError
from runtime.artifacts.engine_manifest import EngineFile, load_checked, read_engine_file
from runtime.cuda.driver import local_architecture
from runtime.sessions.tensorrt_library import check_architecture, load_library


def diagnose_engine(path: Path) -> Diagnosis:
    """Check everything that must match before an engine can run here.

    A missing library or GPU is absent; one that does not match is a problem.
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
        status: Status = "absent" if is_absent else "problem"
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
