"""Options and `--spec` files, which override the spec that a checkpoint gives."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.errors import SpecError, UsageError
from model.spec import ModelSpec, ResNetSpec
from model.spec_json import SCHEMA_VERSION, merge

# The option for a field; all others are set in a `--spec` file.
OPTIONS: Mapping[str, str] = {
    "preprocess.short_side": "--short-side",
    "preprocess.long_side": "--long-side",
    "box.score_threshold": "--score-threshold",
    "box.nms_iou": "--nms-iou",
    "box.detections": "--detections",
    "body.norm_eps": "--norm-eps",
    "fpn.norm_eps": "--norm-eps",
    "roi_stage.norm_eps": "--norm-eps",
    "box.norm_eps": "--norm-eps",
    "mask.norm_eps": "--norm-eps",
    "classes.names": "--names",
}


@dataclass(frozen=True, slots=True)
class SpecOptions:
    """A user's options; None keeps the value of the checkpoint or its dialect.

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


def apply(spec: ModelSpec, options: SpecOptions) -> ModelSpec:
    """Override fields of a spec; options take precedence over the spec file.

    Raises:
        UsageError: an option has an impossible value, or the names do not fit the classes.
        SpecError: the spec file has a field that is unknown, of the wrong type or impossible.
    """
    try:
        merged = merge(spec, _overrides(spec, options))
    except SpecError as error:
        if options.overrides:
            raise
        raise UsageError(str(error)) from error
    if len(merged.classes.names) != len(spec.classes.names):
        raise SpecError(
            f"spec.classes.names: expected {len(spec.classes.names)} names (as many as the "
            f"weights have, with the background), got {len(merged.classes.names)}"
        )
    return _scale_levels(spec, merged, options)


def _scale_levels(spec: ModelSpec, merged: ModelSpec, options: SpecOptions) -> ModelSpec:
    """Adapt the level rule to another canvas, for crops from corner to corner.

    Their box sides are fractions of the canvas less one pixel, times the whole canvas
    (Matterport's `PyramidROIAlign`).
    """
    old, new = spec.preprocess.long_side, merged.preprocess.long_side
    if old == new or not merged.preprocess.square:
        return merged
    heads: dict[str, Any] = {}
    for name in ("box", "mask", "keypoint"):
        head = getattr(merged, name)
        if head is None or head.pooler.crop_frame != "image":
            continue
        if not is_set(f"{name}.pooler.canonical_size", options):
            size = head.pooler.canonical_size * (1 - 1 / new) / (1 - 1 / old)
            heads[name] = replace(head, pooler=replace(head.pooler, canonical_size=size))
    return replace(merged, **heads)


def is_set(field: str, options: SpecOptions) -> bool:
    """Whether the user set the field of `ModelSpec` at a path like `box.nms_iou`."""
    tree: object = options.overrides
    for name in field.split("."):
        if not isinstance(tree, Mapping) or name not in tree:
            return _by_option(options).get(field) is not None
        tree = tree[name]
    return True


def read_spec_file(path: Path) -> Mapping[str, Any]:
    """Read a `--spec` file: a JSON object with the fields of `ModelSpec` to replace.

    Raises:
        SpecError: no such file, not a JSON object, or of another schema version.
    """
    try:
        if not path.is_file():
            raise SpecError(f"{path}: no such file; expected JSON with fields of the spec")
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not a readable JSON file ({error}); correct it") from error
    if not isinstance(data, dict):
        raise SpecError(f"{path}: expected a JSON object, got {type(data).__name__}")
    version = data.pop("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise SpecError(f"{path}: expected schema_version {SCHEMA_VERSION}, got {version}")
    return data


def _by_option(options: SpecOptions) -> dict[str, object]:
    """The options by the fields of `ModelSpec` that they set; None if not given."""
    return {
        "preprocess.short_side": options.short_side,
        "preprocess.long_side": options.long_side,
        "box.score_threshold": options.score_threshold,
        "box.nms_iou": options.nms_iou,
        "box.detections": options.detections,
        "box.candidates": options.candidates,
        "body.norm_eps": options.norm_eps,
        "fpn.norm_eps": options.norm_eps,
        "roi_stage.norm_eps": options.norm_eps,
        "box.norm_eps": options.norm_eps,
        "mask.norm_eps": options.norm_eps,
        "classes.names": options.names,
    }


def _overrides(spec: ModelSpec, options: SpecOptions) -> dict[str, Any]:
    """Spec file and options as one tree of fields."""
    tree: dict[str, Any] = copy.deepcopy(dict(options.overrides or {}))
    fields = _by_option(options)
    if options.detections is not None and options.candidates is None:
        # With more detections more candidates must reach NMS, or too few remain.
        fields["box.candidates"] = max(spec.box.candidates, 4 * options.detections)
    if options.names is not None:
        fields["classes.names"] = _with_background(spec, options.names)
    for part in ("mask", "fpn", "roi_stage"):
        if getattr(spec, part) is None:
            del fields[f"{part}.norm_eps"]
    for path, value in fields.items():
        if value is not None:
            _put(tree, path, value)
    for head in ("box", "mask", "keypoint"):
        strides = _strides(spec, tree, head)
        if strides is not None:
            _put(tree, f"{head}.pooler.strides", strides)
    return tree


def _strides(spec: ModelSpec, tree: Mapping[str, Any], head: str) -> list[int] | None:
    """Strides of a head's pooler that follow from other levels or dilations; None if set or same.

    Values of a wrong type are left to `merge`, which names them.
    """
    part, body = getattr(spec, head), spec.body
    if part is None or not isinstance(body, ResNetSpec):
        return None
    pooler = part.pooler
    own, changed = _at(tree, f"{head}.pooler"), _at(tree, "body")
    if "strides" in own or not ("levels" in own or "dilations" in changed):
        return None
    try:
        body = replace(body, dilations=tuple(changed.get("dilations", body.dilations)))
        every = [body.stride(stage) for stage in body.outputs]
        every.append(2 * every[-1])
        return [every[i] for i in own.get("levels") or pooler.pooled_levels]
    except (SpecError, TypeError, IndexError):
        return None


def _at(tree: Any, path: str) -> Mapping[str, Any]:
    for name in path.split("."):
        tree = tree.get(name, {}) if isinstance(tree, Mapping) else {}
    return tree if isinstance(tree, Mapping) else {}


def _put(tree: Any, path: str, value: object) -> None:
    *parents, leaf = path.split(".")
    for name in parents:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            return  # `merge` raises the error
    tree[leaf] = value


def _with_background(spec: ModelSpec, names: tuple[str, ...]) -> tuple[str, ...]:
    """The user's class names, with the background added if it was left out."""
    expected = len(spec.classes.names)
    has_background = spec.box.background == "first"
    if has_background and len(names) == expected - 1:
        names = ("__background__", *names)
    if len(names) != expected:
        raise UsageError(
            f"--names: expected {expected - has_background} class names (or "
            f"{expected} with the background first), got {len(names)}"
        )
    return names
