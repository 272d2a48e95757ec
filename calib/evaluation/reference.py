"""The session to agree with: the input graph, another file or a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from calib.context import RunContext
from model.errors import UsageError
from model.spec import ModelSpec
from runtime.artifacts.metadata import Artifact
from runtime.sessions.open import backend_of, open_session
from runtime.sessions.session import Session

# Thresholds and limits that an export may change.
_RPN_FIELDS = ("pre_nms", "post_nms", "nms_iou", "score_threshold")
_BOX_FIELDS = ("score_threshold", "nms_iou", "detections", "candidates")
# What two models must share for their detections to be compared, as messages show it. Class names
# may differ: a checkpoint has none until it is exported with some.
_SHARED: tuple[Callable[[ModelSpec], str], ...] = (
    lambda spec: f"{len(spec.classes.names)} classes",
    lambda spec: "no masks" if spec.mask is None else "masks",
)


def open_reference(context: RunContext) -> Session:
    """The session of `--reference` and `--model`, or of the input file.

    A checkpoint or live model runs in PyTorch, with the file's preprocessing, thresholds and
    limits, so that the two are comparable. Without a number of threads PyTorch's own setting stays.

    Raises:
        UsageError: other classes than the graph's, only one of the two has masks, or the reference
            is not float32 itself.
        MaskportError: it cannot be opened.
    """
    path, model = context.options.reference, context.options.reference_model
    if model is not None or (path is not None and backend_of(path) == "torch"):
        session: Session = _open_in_pytorch(context)
    else:
        session = open_session(path or context.artifact.path, None, context.threads)
    try:
        _require_comparable(session.artifact.path, session.artifact, context.artifact)
    except UsageError:
        session.close()
        raise
    return session


def _require_comparable(path: Path, reference: Artifact, graph: Artifact) -> None:
    for shown in _SHARED:
        theirs, ours = shown(reference.spec), shown(graph.spec)
        if theirs != ours:
            raise UsageError(
                f"--reference {path}: it has {theirs}, the graph has {ours}; give the model "
                "that the graph was exported from"
            )
    precision = reference.manifest.precision
    if precision != "fp32":
        raise UsageError(
            f"--reference {path}: its precision is {precision}, so its own errors would count as "
            "correct; use the FP32 file or the checkpoint"
        )


def with_settings_of(graph: ModelSpec, reference: ModelSpec) -> ModelSpec:
    """A reference's spec with a graph's preprocessing, thresholds and limits."""
    return replace(
        reference,
        preprocess=graph.preprocess,
        rpn=replace(reference.rpn, **{name: getattr(graph.rpn, name) for name in _RPN_FIELDS}),
        box=replace(reference.box, **{name: getattr(graph.box, name) for name in _BOX_FIELDS}),
    )


def _open_in_pytorch(context: RunContext) -> Session:
    import torch

    from model.live.builder import Builder
    from model.live.source import open_model
    from runtime.sessions.torch import TorchSession

    if context.threads is not None:
        torch.set_num_threads(context.threads)
    options, model = context.options, context.options.reference_model
    if isinstance(model, Builder):
        checkpoint = open_model(options.reference, builder=model)
    else:
        checkpoint = open_model(options.reference if model is None else model)
    spec = with_settings_of(context.artifact.spec, checkpoint.spec)
    taken = {"preprocess", *(f"rpn.{f}" for f in _RPN_FIELDS), *(f"box.{f}" for f in _BOX_FIELDS)}
    assumed = tuple(
        a for a in checkpoint.assumptions if not {a.field, a.field.partition(".")[0]} & taken
    )
    return TorchSession(replace(checkpoint, spec=spec, assumptions=assumed))
