"""Diagnosis of an ONNX graph against each target."""

from __future__ import annotations

import onnx

from export.diagnosis.finding import Finding, Status
from export.diagnosis.graph_rules import ONNXRUNTIME, TENSORRT, Blocker, Context
from export.diagnosis.graph_view import GraphView
from export.targets import TARGETS, Target, landscape_hw
from runtime.artifacts.metadata import Artifact

_SHOWN = 3


def diagnose_graph(model: onnx.ModelProto, artifact: Artifact | None) -> list[Finding]:
    """One finding per target.

    A blocker is a problem for the target that the file was exported for, and for every target if
    that is unknown; otherwise the target counts as absent.

    Args:
        model: a readable graph.
        artifact: from the file's metadata; None if it is not ours.
    """
    view = GraphView(model)
    return [
        _finding(target, _blockers(view, target, artifact), artifact) for target in TARGETS.values()
    ]


def _blockers(view: GraphView, target: Target, artifact: Artifact | None) -> list[Blocker]:
    """Everything that prevents one target, in the order of the rules."""
    command = f"python -m export.onnx WEIGHTS --target {target.name}"
    if target.engine:
        command += f" --size {_canvas(artifact)}"
    context = Context(command, None if artifact is None else artifact.manifest)
    rules = TENSORRT if target.engine else ONNXRUNTIME
    return [blocker for rule in rules for blocker in rule(view, context)]


def _finding(target: Target, blockers: list[Blocker], artifact: Artifact | None) -> Finding:
    subject = f"target {target.name}"
    exported_for = None if artifact is None else artifact.manifest.target
    exported_for = exported_for if exported_for in TARGETS else None
    if not blockers:
        return Finding("ok", subject, _approval(target, exported_for))
    status: Status = "problem" if exported_for in (None, target.name) else "absent"
    shown = [str(blocker) for blocker in blockers[:_SHOWN]]
    if len(blockers) > _SHOWN:
        shown.append(f"and {len(blockers) - _SHOWN} more")
    remedies = dict.fromkeys(blocker.remedy for blocker in blockers[:_SHOWN])
    return Finding(status, subject, "; ".join(shown), "; ".join(remedies))


def _approval(target: Target, exported_for: str | None) -> str:
    if not target.engine or exported_for in (None, target.name):
        return "compatible"
    return f"compatible, but exported for {exported_for}; export it with --target {target.name}"


def _canvas(artifact: Artifact | None) -> str:
    """The file's own canvas, or the landscape canvas of its spec."""
    if artifact is None:
        return "800x1344"
    height, width = artifact.manifest.canvas_hw or landscape_hw(artifact.spec.preprocess)
    return f"{height}x{width}"
