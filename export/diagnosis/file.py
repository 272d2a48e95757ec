"""A file of any kind that the commands read, judged by its suffix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.diagnosis.checkpoint import diagnose_checkpoint
from export.diagnosis.engine import diagnose_engine
from export.diagnosis.finding import Diagnosis, Finding
from export.diagnosis.model_file import diagnose_onnx
from model.errors import ArtifactError

_KINDS: dict[str, Callable[[Path], Diagnosis]] = {
    ".onnx": diagnose_onnx,
    ".engine": diagnose_engine,
    ".pth": diagnose_checkpoint,
    ".pt": diagnose_checkpoint,
    ".safetensors": diagnose_checkpoint,
    ".pkl": diagnose_checkpoint,
    ".h5": diagnose_checkpoint,
    ".hdf5": diagnose_checkpoint,
}


def diagnose_file(path: str | Path) -> list[Finding]:
    """What a file is, and what stops which target.

    Raises:
        ArtifactError: no such file, or none of a kind that a command reads.
    """
    return list(examine_file(Path(path)).findings)


def examine_file(path: Path) -> Diagnosis:
    """The findings, and what to run next. See `diagnose_file`."""
    require_known(path)
    return _KINDS[path.suffix.lower()](path)


def require_known(path: Path) -> None:
    """Refuse what is no file, and what no command reads.

    Raises:
        ArtifactError: see `diagnose_file`.
    """
    if not path.is_file():
        raise ArtifactError(
            f"{path}: no such file; expected an exported .onnx, an .engine or a checkpoint"
        )
    if path.suffix.lower() not in _KINDS:
        raise ArtifactError(
            f"{path}: doctor knows no '{path.suffix}' files; expected one of {', '.join(_KINDS)}"
        )
