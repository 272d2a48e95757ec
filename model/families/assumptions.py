"""The assumptions of a checkpoint: what neither its file nor the user says about the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby

from model.spec import ModelSpec
from model.spec.body import GROUPS_OF_GROUP_NORM
from model.spec_options import OPTIONS, SpecOptions, is_set
from model.spec_text import leaves, shown

# Fields that every dialect reads from names and shapes, and the ones that are this project's own.
_BY_WEIGHTS = (
    "dialect", "architecture", "*.module", "*.norm", "body.kind", "*.map_side", "body.blocks",
    "body.block", "body.stem_channels", "body.widths", "body.channels", "body.groups",
    "body.outputs", "body.width_multiplier", "body.reduced_tail", "fpn", "fpn.channels",
    "roi_stage", "roi_stage.blocks", "roi_stage.width", "roi_stage.channels", "roi_stage.groups",
    "rpn.conv_widths", "box.conv_widths", "box.fc_widths", "box.class_agnostic", "mask",
    "mask.conv_widths", "mask.deconv_width", "mask.class_agnostic", "keypoint",
    "keypoint.conv_widths", "classes.dataset_ids", "box.candidates",
)  # fmt: skip
# Fields that no framework's user sets.
_CONVENTIONS = (
    "preprocess.resize_rule", "preprocess.interpolation", "preprocess.value_range",
    "preprocess.square", "preprocess.placement", "preprocess.padding", "body.stem_pool",
    "anchors.order", "anchors.rounded", "anchors.stride_rule", "anchors.end_shift",
    "rpn.min_size_inclusive", "rpn.size_clamp", "rpn.top_over", "rpn.clip_to",
    "*.pooler.inner_eps", "*.pooler.quantise", "*.pooler.reduce", "*.pooler.placement",
    "*.pooler.crop_frame", "box.background", "box.choice", "box.score_inclusive",
    "box.size_clamp", "box.min_size", "box.min_size_inclusive", "box.to_image", "mask.paste",
    "mask.threshold", "mask.threshold_inclusive", "keypoint.score",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Assumption:
    """A value that is in neither the checkpoint nor the user's options.

    `field` is its path in `ModelSpec`, `option` what overrides it.
    """

    field: str
    value: str
    option: str

    def __str__(self) -> str:
        return f"{self.field} {self.value} ({self.option})"


def unknown_fields(spec: ModelSpec, known: Iterable[str]) -> tuple[str, ...]:
    """The paths of all fields that weights cannot tell.

    Args:
        spec: of the checkpoint.
        known: patterns of further paths: what the framework's code fixes or its configuration has.
    """
    patterns = [*_BY_WEIGHTS, *_CONVENTIONS, *known]
    if spec.roi_stage is None:  # the first linear layer has the pooled side
        patterns.append("box.pooler.output_size")
    return tuple(
        path
        for path, value in leaves(spec)
        if _is_used(path, spec)
        # Names tell GroupNorm from BatchNorm, but not its groups.
        and (value == "group_norm" or not any(fnmatchcase(path, each) for each in patterns))
    )


def _is_used(path: str, spec: ModelSpec) -> bool:
    """Whether a field has an effect in this network."""
    name, _, leaf = path.partition(".")
    part = getattr(spec, name)
    if leaf == "norm_eps":
        return bool(part.norm != "none" and getattr(part, "conv_widths", ...) != ())
    if path in ("preprocess.short_side", "preprocess.long_side"):
        return spec.preprocess.fixed_hw is None
    if path == "body.stride_in_1x1":
        return bool(part.block != "basic")
    return bool(path != "mask.dilation" or part.conv_widths)


def assumptions(
    spec: ModelSpec, paths: Iterable[str], options: SpecOptions
) -> tuple[Assumption, ...]:
    """The assumptions that are left after the user's options, with the final values."""
    values = dict(leaves(spec))
    return tuple(
        Assumption(path, _shown(path, values[path], spec), OPTIONS.get(path, "--spec"))
        for path in paths
        if path in values and _is_used(path, spec) and not is_set(path, options)
    )


def _shown(path: str, value: object, spec: ModelSpec) -> str:
    if path.endswith(".pooler.levels"):  # empty for all of them
        value = getattr(spec, path.partition(".")[0]).pooler.pooled_levels
    groups = f" of {GROUPS_OF_GROUP_NORM} groups" if value == "group_norm" else ""
    return f"{shown(value)}{groups}"


def listing(assumed: Iterable[Assumption]) -> Iterator[str]:
    """One line per part of the spec, "rpn: pre_nms 1000, nms_iou 0.7 (--spec)"."""
    for part, rows in groupby(assumed, lambda a: a.field.partition(".")[0]):
        own, rest = [], []
        for row in rows:
            text = f"{row.field.partition('.')[2]} {row.value}"
            if row.option == "--spec":
                rest.append(text)
            else:
                own.append(f"{text} ({row.option})")
        if rest:
            own.append(f"{', '.join(rest)} (--spec)")
        yield f"{part}: {', '.join(own)}"
