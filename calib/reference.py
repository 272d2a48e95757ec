"""What a quantised graph is to agree with, opened for the graph's own preprocessing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from model.errors import UsageError
from runtime.artifact import Artifact
from runtime.sessions.session import Session, open_session

_CHECKPOINTS = (".pth", ".pt", ".pkl", ".safetensors", ".h5")


def open_reference(path: Path, artifact: Artifact, threads: int | None) -> Session:
    """A session on a checkpoint, by PyTorch, or on an exported file.

    Args:
        path: the reference.
        artifact: of the graph that is judged; a checkpoint gets its preprocessing.
        threads: of the CPU; None takes all cores.

    Raises:
        UsageError: its classes are not the graph's.
        MaskportError: it cannot be opened.
    """
    session = _checkpoint(path, artifact) if path.suffix.lower() in _CHECKPOINTS else None
    session = session or open_session(path, None, threads)
    found, wanted = session.artifact.spec.classes, artifact.spec.classes
    if len(found.names) != len(wanted.names):
        session.close()
        raise UsageError(
            f"--reference {path}: it has {len(found.names)} classes, the graph has "
            f"{len(wanted.names)}; give the model that the graph was exported from"
        )
    return session


def _checkpoint(path: Path, artifact: Artifact) -> Session:
    from model.checkpoint import load
    from runtime.sessions.torch import TorchSession

    checkpoint = load(path)
    spec = replace(checkpoint.spec, preprocess=artifact.spec.preprocess)
    return TorchSession(replace(checkpoint, spec=spec))
