"""What a quantised graph is to agree with, opened for the graph's own preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from model.errors import UsageError
from model.spec import ModelSpec
from runtime.artifacts.metadata import Artifact
from runtime.sessions.open import open_session
from runtime.sessions.session import Session

_CHECKPOINTS = (".pth", ".pt", ".pkl", ".safetensors", ".h5")
# What an export may change of a checkpoint, and what its detections hang on.
_KEPT = {
    "rpn": ("pre_nms", "post_nms", "nms_iou", "score_threshold"),
    "box": ("score_threshold", "nms_iou", "detections", "candidates"),
}
# What two models must share for their detections to be compared, as errors show it. Names of
# classes are not: a checkpoint has none until it is exported with some.
_FACTS: tuple[Callable[[ModelSpec], str], ...] = (
    lambda spec: f"{len(spec.classes.names)} classes",
    lambda spec: "no masks" if spec.mask is None else "masks",
)


def open_reference(path: Path, artifact: Artifact, threads: int | None) -> Session:
    """A session on a checkpoint, by PyTorch, or on an exported file.

    Args:
        path: the reference.
        artifact: of the graph that is judged; a checkpoint gets its preprocessing and what it was
            exported to keep (`_KEPT`), so that both answer the same question.
        threads: of the CPU; None takes all cores, and leaves PyTorch's own setting.

    Raises:
        UsageError: its classes are not the graph's, only one of the two has masks, or it is not
            float32 itself.
        MaskportError: it cannot be opened.
    """
    is_checkpoint = path.suffix.lower() in _CHECKPOINTS
    session = (_checkpoint if is_checkpoint else _exported)(path, artifact, threads)
    try:
        _require_alike(path, session.artifact, artifact)
    except UsageError:
        session.close()
        raise
    return session


def _require_alike(path: Path, found: Artifact, graph: Artifact) -> None:
    for of in _FACTS:
        theirs, ours = of(found.spec), of(graph.spec)
        if theirs != ours:
            raise UsageError(
                f"--reference {path}: it has {theirs}, the graph has {ours}; give the model "
                "that the graph was exported from"
            )
    if found.manifest.precision != "fp32":
        raise UsageError(
            f"--reference {path}: its precision is {found.manifest.precision}, and what that lost "
            "would count as right; give the FP32 file or the checkpoint"
        )


def asked_alike(reference: ModelSpec, graph: ModelSpec) -> ModelSpec:
    """A reference's spec with a graph's preprocessing, thresholds and limits of number."""
    rpn = {name: getattr(graph.rpn, name) for name in _KEPT["rpn"]}
    box = {name: getattr(graph.box, name) for name in _KEPT["box"]}
    return replace(
        reference,
        preprocess=graph.preprocess,
        rpn=replace(reference.rpn, **rpn),
        box=replace(reference.box, **box),
    )


def _exported(path: Path, artifact: Artifact, threads: int | None) -> Session:
    return open_session(path, None, threads)


def _checkpoint(path: Path, artifact: Artifact, threads: int | None) -> Session:
    import torch

    from model.checkpoint import load
    from runtime.sessions.torch import TorchSession

    if threads is not None:
        torch.set_num_threads(threads)
    checkpoint = load(path)
    return TorchSession(replace(checkpoint, spec=asked_alike(checkpoint.spec, artifact.spec)))
