"""Open a checkpoint: tensors and the spec they imply, with every assumption named."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import CheckpointError, SpecError, UsageError
from model.families import torchvision as torchvision_dialect
from model.families.dialect import Assumption, Dialect
from model.mask_rcnn import MaskRCNN
from model.spec import BoxHeadSpec, ClassSpec, ModelSpec, PreprocessSpec
from model.spec_json import merge
from model.weights_file import read_tensors, sha256_of

DIALECTS: tuple[Dialect, ...] = (torchvision_dialect.DIALECT,)


@dataclass(frozen=True, slots=True)
class SpecOptions:
    """What a user may say about a model; None keeps what the checkpoint or its dialect says.

    `overrides` is the content of a `--spec` file: nested fields of `ModelSpec` to replace.
    """

    short_side: int | None = None
    long_side: int | None = None
    score_threshold: float | None = None
    nms_iou: float | None = None
    detections: int | None = None
    candidates: int | None = None
    norm_eps: float | None = None
    names: tuple[str, ...] | None = None
    overrides: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was read: `tensors` bear the names of `MaskRCNN`'s state dict."""

    path: Path
    sha256: str
    spec: ModelSpec
    tensors: Mapping[str, Tensor]
    original: Mapping[str, Tensor]
    assumptions: tuple[Assumption, ...]

    def build(self) -> MaskRCNN:
        """The network in eval mode with these weights."""
        with torch.device("meta"):
            model = MaskRCNN(self.spec)
        model = MaskRCNN(self.spec) if _has_meta_only_buffers(model) else model
        model.load_state_dict(dict(self.tensors), strict=False)
        return model.eval().requires_grad_(False)


def load(path: str | Path, options: SpecOptions | None = None) -> Checkpoint:
    """Read a checkpoint safely and recognise its dialect and architecture.

    Args:
        path: a `.pth`, `.pt` or `.safetensors` file.
        options: what the weights cannot tell and the user wants to say.

    Raises:
        CheckpointError: the file cannot be read, is of no known dialect, or lacks tensors.
        SpecError: an option contradicts the weights.
    """
    path, options = Path(path), options or SpecOptions()
    original = read_tensors(path)
    sha256 = sha256_of(path)
    dialect = next((d for d in DIALECTS if d.recognises(original)), None)
    if dialect is None:
        raise CheckpointError(_unknown_dialect(path, original))
    reading = dialect.read(original, sha256, path)
    spec = _apply(reading.spec, options)
    tensors = {dialect.canonical(name): t for name, t in original.items()}
    _check_keys(path, spec, tensors, dialect)
    assumed = tuple(a for a in reading.assumptions if not _was_said(a, options))
    return Checkpoint(path, sha256, spec, tensors, original, assumed)


def _has_meta_only_buffers(model: MaskRCNN) -> bool:
    # Anchors, mean and std are computed when the module is made and are in no checkpoint.
    return any(b.is_meta for b in model.buffers())


def _apply(spec: ModelSpec, options: SpecOptions) -> ModelSpec:
    if options.overrides:
        spec = merge(spec, options.overrides)
    spec = replace(
        spec,
        preprocess=_preprocess(spec.preprocess, options),
        box=_box(spec.box, options),
        classes=spec.classes if options.names is None else _named(spec, options.names),
    )
    return spec if options.norm_eps is None else _with_norm_eps(spec, options.norm_eps)


def _preprocess(spec: PreprocessSpec, options: SpecOptions) -> PreprocessSpec:
    short = spec.short_side if options.short_side is None else options.short_side
    long = spec.long_side if options.long_side is None else options.long_side
    return replace(spec, short_side=short, long_side=long)


def _box(spec: BoxHeadSpec, options: SpecOptions) -> BoxHeadSpec:
    detections = spec.detections if options.detections is None else options.detections
    candidates = max(spec.candidates, 4 * detections)
    return replace(
        spec,
        score_threshold=(
            spec.score_threshold if options.score_threshold is None else options.score_threshold
        ),
        nms_iou=spec.nms_iou if options.nms_iou is None else options.nms_iou,
        detections=detections,
        candidates=candidates if options.candidates is None else options.candidates,
    )


def _named(spec: ModelSpec, names: tuple[str, ...]) -> ClassSpec:
    """Class names from the user, with or without the background."""
    expected = len(spec.classes.names)
    if spec.box.background == "first" and len(names) == expected - 1:
        names = ("__background__", *names)
    if len(names) != expected:
        raise UsageError(
            f"--names: expected {expected - (spec.box.background == 'first')} class names (or "
            f"{expected} with the background first), got {len(names)}"
        )
    return replace(spec.classes, names=names)


def _with_norm_eps(spec: ModelSpec, eps: float) -> ModelSpec:
    return replace(
        spec,
        body=replace(spec.body, norm_eps=eps),
        fpn=replace(spec.fpn, norm_eps=eps),
        box=replace(spec.box, norm_eps=eps),
        mask=None if spec.mask is None else replace(spec.mask, norm_eps=eps),
    )


def _was_said(assumption: Assumption, options: SpecOptions) -> bool:
    said = {
        "--short-side": options.short_side,
        "--long-side": options.long_side,
        "--score-threshold": options.score_threshold,
        "--nms-iou": options.nms_iou,
        "--detections": options.detections,
        "--norm-eps": options.norm_eps,
        "--names": options.names,
    }
    return said.get(assumption.option) is not None


def _check_keys(
    path: Path, spec: ModelSpec, tensors: Mapping[str, Tensor], dialect: Dialect
) -> None:
    """Every tensor that the spec's network needs is there, with its shape, and no other."""
    with torch.device("meta"):
        expected = {n: tuple(t.shape) for n, t in MaskRCNN(spec).state_dict().items()}
    # FrozenBatchNorm has no such counter and inference does not read it.
    expected = {n: s for n, s in expected.items() if not n.endswith("num_batches_tracked")}
    given = {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
    missing = [n for n in expected if n not in given]
    extra = [n for n in given if n not in expected]
    if missing or extra:
        raise CheckpointError(f"{path}: {_key_report(missing, extra, given, expected, dialect)}")
    for name, shape in expected.items():
        if tuple(given[name].shape) != shape:
            raise CheckpointError(
                f"{path}: tensor '{dialect.original(name)}' has shape "
                f"{tuple(given[name].shape)}, expected {shape} for {spec.architecture}"
            )


def _key_report(
    missing: list[str],
    extra: list[str],
    given: Iterable[str],
    expected: Iterable[str],
    dialect: Dialect,
) -> str:
    parts = []
    if missing:
        name = dialect.original(missing[0])
        close = difflib.get_close_matches(name, [dialect.original(n) for n in extra or given], n=1)
        hint = f" (closest in the file: '{close[0]}')" if close else ""
        parts.append(f"{len(missing)} tensors are missing, first '{name}'{hint}")
    if extra:
        name = dialect.original(extra[0])
        known = [dialect.original(n) for n in missing or expected]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" (closest expected name: '{close[0]}')" if close else ""
        parts.append(f"{len(extra)} tensors are not of this network, first '{name}'{hint}")
    return "; ".join(parts) + f"; expected a {dialect.name} Mask R-CNN or Faster R-CNN"


def _unknown_dialect(path: Path, tensors: Mapping[str, Tensor]) -> str:
    found = ", ".join(f"'{n}'" for n in list(tensors)[:3])
    known = "; ".join(f"{d.name} has '{d.landmark}'" for d in DIALECTS)
    return f"{path}: not a Mask R-CNN that is known here (it has {found}, …; {known})"


def read_spec_file(path: Path) -> Mapping[str, Any]:
    """Read a `--spec` file: a JSON object with the fields of `ModelSpec` to replace."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SpecError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(data, dict):
        raise SpecError(f"{path}: expected a JSON object, got {type(data).__name__}")
    data.pop("schema_version", None)
    return data
