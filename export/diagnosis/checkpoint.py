"""Diagnosis of a checkpoint: its content, assumptions, and what prevents which target."""

from __future__ import annotations

from pathlib import Path

from export.diagnosis.finding import Diagnosis, Finding, of_error
from export.targets import TARGETS, Target, landscape_hw
from model.errors import CheckpointError, SpecError, in_brief
from model.spec import ModelSpec


def diagnose_checkpoint(path: Path) -> Diagnosis:
    """Read a checkpoint as the export does, without running anything in it."""
    try:
        from model.checkpoint import load
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision without its extension
        reason = in_brief(error)
        remedy = "pip install 'maskport[export]', which torch and torchvision come with"
        return Diagnosis((Finding("problem", path.name, f"cannot be read ({reason})", remedy),))
    try:
        checkpoint = load(path)
    except (CheckpointError, SpecError) as error:
        return Diagnosis((of_error("problem", path.name, error, path),))
    spec = checkpoint.spec
    summary = f"{spec.dialect}, {spec.architecture}, {spec.num_foreground} classes"
    findings = [Finding("ok", path.name, summary)]
    findings += [Finding("ok", "read", note) for note in checkpoint.notes]
    findings += [Finding("ok", "assumed", str(a)) for a in checkpoint.assumptions]
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
