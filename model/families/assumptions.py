"""The assumptions that several dialects share, by the field of `ModelSpec`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from model.families import coco
from model.families.dialect import Assumption
from model.spec import ModelSpec, PoolerSpec

_ROWS: Mapping[str, tuple[str, str, Callable[[ModelSpec], str]]] = {
    "box.score_threshold": (
        "score threshold", "--score-threshold", lambda s: f"{s.box.score_threshold:g}"
    ),
    "box.nms_iou": ("NMS IoU", "--nms-iou", lambda s: f"{s.box.nms_iou:g}"),
    "box.detections": ("detections per image", "--detections", lambda s: str(s.box.detections)),
    "box.box_weights": ("box weights", "--spec", lambda s: joined(s.box.box_weights)),
    "box.pooler": ("pooling", "--spec", lambda s: pooling(s.box.pooler)),
    "classes.names": ("class names", "--names", lambda s: class_names(s)),
    "preprocess.short_side": ("short side", "--short-side", lambda s: str(s.preprocess.short_side)),
    "preprocess.long_side": ("long side", "--long-side", lambda s: str(s.preprocess.long_side)),
    "preprocess.channel_order": ("channel order", "--spec", lambda s: s.preprocess.channel_order),
    "preprocess.mean": ("pixel mean", "--spec", lambda s: joined(s.preprocess.mean)),
    "preprocess.std": ("pixel std", "--spec", lambda s: joined(s.preprocess.std)),
    "rpn.pre_nms": ("RPN", "--spec", lambda s: proposals(s)),
}  # fmt: skip


def assumptions(spec: ModelSpec, *fields: str) -> list[Assumption]:
    """The assumptions about these fields, with the spec's values."""
    return [
        Assumption(what, text(spec), option, field)
        for field in fields
        for what, option, text in [_ROWS[field]]
    ]


def anchor_assumptions(spec: ModelSpec, *known_counts: int) -> list[Assumption]:
    """Sizes and ratios; required if the number per cell is not one of `known_counts`."""
    anchors = spec.anchors
    sizes, ratios = ", ".join(map(joined, anchors.sizes)), joined(anchors.ratios[0])
    is_unknown = anchors.per_cell not in known_counts
    if is_unknown:
        sizes = ratios = f"of {anchors.per_cell} anchors per cell"
    return [
        Assumption("anchor sizes", sizes, "--spec", "anchors.sizes", is_unknown),
        Assumption("anchor ratios", ratios, "--spec", "anchors.ratios", is_unknown),
    ]


def joined(values: Iterable[float]) -> str:
    """Numbers like "10/10/5/5"."""
    return "/".join(f"{value:g}" for value in values)


def proposals(spec: ModelSpec) -> str:
    """The RPN's filters like "1000 → NMS 0.7 → 1000"."""
    return f"{spec.rpn.pre_nms} → NMS {spec.rpn.nms_iou:g} → {spec.rpn.post_nms}"


def pooling(pooler: PoolerSpec) -> str:
    """RoIAlign with its size, alignment and samples."""
    side, samples = pooler.output_size, pooler.sampling_ratio or "adaptive"
    aligned = "aligned" if pooler.aligned else "not aligned"
    return f"RoIAlign {side}x{side}, {aligned}, sampling {samples}"


def class_names(spec: ModelSpec) -> str:
    """COCO's number of classes, or the first and the last name without the background."""
    names = spec.classes.names
    if names == coco.with_gaps().names:
        return f"COCO's {len(names)}"
    names = names[len(names) - spec.num_foreground :]
    if names == coco.without_gaps().names:
        return f"COCO's {len(names)}"
    return " … ".join(dict.fromkeys((names[0], names[-1])))
