"""Diagnosis of a file, selected by its suffix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.diagnosis.checkpoint import diagnose_checkpoint
from export.diagnosis.engine import diagnose_engine
from export.diagnosis.finding import Diagnosis
from export.diagnosis.model_file import diagnose_onnx
from model.errors import ArtifactError

_BY_SUFFIX: dict[str, Callable[[Path], Diagnosis]] = {
    ".onnx": diagnose_onnx,
    ".engine": diagnose_engine,
    ".pth": diagnose_checkpoint,
    ".pt": diagnose_checkpoint,
    ".safetensors": diagnose_checkpoint,
    ".pkl": diagnose_checkpoint,
    ".h5": diagnose_checkpoint,
    ".hdf5": diagnose_checkpoint,
}


def diagnose_file(path: Path) -> Diagnosis:
    """Describe a file, and what prevents which target.

    Raises:
        ArtifactError: no such file, or a suffix that no command reads.
    """
    require_known(path)
    return _BY_SUFFIX[path.suffix.lower()](path)


def require_known(path: Path) -> None:
    """Reject a missing file, and a suffix that no command reads.

    Raises:
        ArtifactError: see `diagnose_file`.
    """
    if not path.is_file():
        raise ArtifactError(
            f"{path}: no such file; expected an exported .onnx, an .engine or a checkpoint"
        )
    if path.suffix.lower() not in _BY_SUFFIX:
        raise ArtifactError(
            f"{path}: unknown suffix '{path.suffix}'; expected one of {', '.join(_BY_SUFFIX)}"
        )
