"""An ONNX graph against each target."""

from __future__ import annotations

import onnx

from export.diagnosis.finding import Finding, Status
from export.diagnosis.graph_rules import ONNXRUNTIME, TENSORRT, Case, Stop
from export.diagnosis.graph_view import GraphView
from export.targets import TARGETS, Target, landscape_hw
from runtime.artifacts.metadata import Artifact

_SHOWN = 3


def diagnose_graph(model: onnx.ModelProto, artifact: Artifact | None) -> list[Finding]:
    """One finding per target.

    A stop is a problem for the target that the file was exported for, and for a file of which
    that is not known; for other targets it is merely not meant.

    Args:
        model: a readable graph.
        artifact: what the file says of itself; None where it is not ours.
    """
    view = GraphView(model)
    return [
        _finding(target, _stops(view, target, artifact), artifact) for target in TARGETS.values()
    ]


def _stops(view: GraphView, target: Target, artifact: Artifact | None) -> list[Stop]:
    """All that stops one target, in the order of the rules."""
    command = f"python -m export.onnx WEIGHTS --target {target.name}"
    if target.engine:
        command += f" --size {_canvas(artifact)}"
    case = Case(command, None if artifact is None else artifact.manifest)
    rules = TENSORRT if target.engine else ONNXRUNTIME
    return [stop for rule in rules for stop in rule(view, case)]


def _finding(target: Target, stops: list[Stop], artifact: Artifact | None) -> Finding:
    subject = f"target {target.name}"
    made_for = None if artifact is None else artifact.manifest.target
    made_for = made_for if made_for in TARGETS else None
    if not stops:
        return Finding("ok", subject, _approval(target, made_for))
    status: Status = "problem" if made_for in (None, target.name) else "absent"
    shown = [str(stop) for stop in stops[:_SHOWN]]
    if len(stops) > _SHOWN:
        shown.append(f"and {len(stops) - _SHOWN} more")
    remedies = dict.fromkeys(stop.remedy for stop in stops[:_SHOWN])
    return Finding(status, subject, "; ".join(shown), "; ".join(remedies))


def _approval(target: Target, made_for: str | None) -> str:
    if not target.engine or made_for in (None, target.name):
        return "nothing stops it"
    return (
        f"nothing in the graph stops it, but maskport engine takes {made_for}, which the file "
        f"was exported for; export it with --target {target.name}"
    )


def _canvas(artifact: Artifact | None) -> str:
    """The file's own canvas, or the one that its spec's resize fills with landscape photos."""
    if artifact is None:
        return "800x1344"
    manifest = artifact.manifest
    height, width = landscape_hw(artifact.spec.preprocess)
    return f"{manifest.height or height}x{manifest.width or width}"
