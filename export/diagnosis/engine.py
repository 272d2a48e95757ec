"""An engine: its manifest, its hash, the library and the GPU; it is never deserialised."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from export.diagnosis.finding import Diagnosis, Finding, Status, of_error
from model.errors import ArtifactError, DeviceError, MaskportError, MissingDependencyError
from runtime.artifacts.engine_manifest import EngineFile, load_checked, read_engine_file
from runtime.cuda.driver import local_architecture
from runtime.sessions.tensorrt_library import check_architecture, load_library


def diagnose_engine(path: Path) -> Diagnosis:
    """Look at all that must fit before an engine may run here.

    A library or a GPU that is not here is absent; one that is here and does not fit, a problem.
    """
    try:
        read = read_engine_file(path)
    except ArtifactError as error:
        return Diagnosis((of_error("problem", "manifest", error, path),))
    info, spec = read.info, read.artifact.spec
    told = f"{spec.architecture}, {read.artifact.manifest.precision}, for {info.architecture}"
    found = Diagnosis(
        (
            Finding("ok", "manifest", told),
            _try("hash", path, lambda: _hash(path)),
            _try("library", path, lambda: _library(read)),
            _try("GPU", path, lambda: _gpu(read)),
        )
    )
    if not found.is_clean:
        return found
    from export.onnx import SAMPLE_PHOTO

    step = ("predict", str(path), os.path.relpath(SAMPLE_PHOTO), "-o", "out")
    return Diagnosis(found.findings, step)


def _try(subject: str, path: Path, look: Callable[[], str]) -> Finding:
    try:
        return Finding("ok", subject, look())
    except MaskportError as error:
        is_absent = isinstance(error, MissingDependencyError | DeviceError)
        status: Status = "absent" if is_absent else "problem"
        return of_error(status, subject, error, path)


def _hash(path: Path) -> str:
    _, read = load_checked(path)
    return f"is the manifest's, {read.info.sha256[:16]}…"


def _library(read: EngineFile) -> str:
    module = load_library(read)
    return f"{read.info.library} {module.__version__}, built with {read.info.library_version}"


def _gpu(read: EngineFile) -> str:
    local = local_architecture()
    check_architecture(read, local)
    return f"{local}, built for {read.info.architecture}"
