"""Transform, anchors, thresholds and poolers of a live model, to the fields of a spec."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from model.errors import ModelError
from model.heads.rpn import cell_anchors
from model.live.faces import require_own
from model.spec import AnchorSpec, BoxHeadSpec, PoolerSpec, PreprocessSpec, RpnSpec

_MANY_CANDIDATES = 2000
_LARGEST_SIDE = 16384
# Methods of torchvision's classes that inference does not use.
_TRAINING = {
    GeneralizedRCNNTransform: ("torch_choice", "_onnx_batch_images"),
    RegionProposalNetwork: ("assign_targets_to_anchors", "compute_loss"),
    RoIHeads: (
        "assign_targets_to_proposals",
        "subsample",
        "add_gt_proposals",
        "check_targets",
        "select_training_samples",
    ),
    GeneralizedRCNN: ("forward",),
}


def require_structure(model: GeneralizedRCNN) -> None:
    """Require torchvision's transform, region proposal network and RoI heads.

    Raises:
        ModelError: one of them is of another class, or replaces a method.
    """
    own = "set its values instead, or export the model without it"
    parts: list[tuple[object, type, str]] = [
        (model, GeneralizedRCNN, "model"),
        (model.transform, GeneralizedRCNNTransform, "transform"),
        (model.rpn, RegionProposalNetwork, "rpn"),
        (model.rpn.box_coder, BoxCoder, "rpn.box_coder"),
        (model.roi_heads, RoIHeads, "roi_heads"),
        (model.roi_heads.box_coder, BoxCoder, "roi_heads.box_coder"),
    ]
    for part, base, where in parts:
        require_own(part, base, where, own, _TRAINING.get(base, ()))
    require_own(
        model.rpn.anchor_generator,
        AnchorGenerator,
        "rpn.anchor_generator",
        "set its cell_anchors instead",
        ("generate_anchors",),
    )


def preprocess_spec(transform: GeneralizedRCNNTransform, channels: int) -> PreprocessSpec:
    """Sides, mean and std; torchvision takes photos from 0 to 1, RGB if there are 3 channels.

    Raises:
        ModelError: a value that no photo can have.
    """
    long_side = min(float(transform.max_size), _LARGEST_SIDE)
    # Evaluation takes the last of several sides.
    short_side = min(float(transform.min_size[-1]), long_side)
    sides = {"min_size": short_side, "max_size": long_side}
    for name, side in sides.items():
        if side != int(side) or side < 1:
            raise ModelError(f"transform: expected a whole {name} of at least 1, got {side}")
    fixed = transform.fixed_size  # width and height
    return PreprocessSpec(
        short_side=int(short_side),
        long_side=int(long_side),
        mean=_per_channel("image_mean", transform.image_mean, channels),
        std=_per_channel("image_std", transform.image_std, channels),
        size_divisor=int(transform.size_divisible),
        fixed_hw=None if fixed is None else (int(fixed[1]), int(fixed[0])),
    )


def _per_channel(name: str, values: Any, channels: int) -> tuple[float, ...]:
    numbers = tuple(torch.as_tensor(values, dtype=torch.float64).reshape(-1).tolist())
    if len(numbers) not in (1, channels):
        raise ModelError(
            f"transform: {name} has {len(numbers)} values, the model takes {channels} channels; "
            "expected one value per channel"
        )
    return numbers * (channels // len(numbers))


def anchor_spec(generator: AnchorGenerator) -> AnchorSpec:
    """Sizes and ratios, and the cells if they do not follow from them.

    Raises:
        ModelError: levels with different numbers of anchors per cell.
    """
    sizes = tuple(tuple(float(s) for s in level) for level in generator.sizes)
    ratios = tuple(tuple(float(r) for r in level) for level in generator.aspect_ratios)
    cells = [cell.float() for cell in generator.cell_anchors]
    counts = {len(cell) for cell in cells}
    if len(counts) != 1 or len(cells) != len(sizes) or len(ratios) != len(sizes):
        raise ModelError(
            f"rpn.anchor_generator: expected equally many anchors per cell on every level, got "
            f"{[len(cell) for cell in cells]}"
        )
    explicit = tuple(tuple(_four(row) for row in cell.tolist()) for cell in cells)
    spec = AnchorSpec(sizes, ratios, cells=explicit)
    try:
        computed = replace(spec, cells=())
    except Exception:  # sizes and ratios of a subclass may have another meaning
        return spec
    same = all(torch.equal(cell, cell_anchors(computed, i)) for i, cell in enumerate(cells))
    return computed if same else spec


def _four(row: Sequence[float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = row
    return x0, y0, x1, y1


def rpn_spec(rpn: RegionProposalNetwork) -> RpnSpec:
    """Counts and thresholds of inference; the head's fields are those of `RpnSpec`."""
    return RpnSpec(
        pre_nms=int(rpn._pre_nms_top_n["testing"]),
        post_nms=int(rpn._post_nms_top_n["testing"]),
        nms_iou=min(float(rpn.nms_thresh), 1.0),
        min_size=float(rpn.min_size),
        score_threshold=max(float(rpn.score_thresh), 0.0),
        box_weights=_four(rpn.box_coder.weights),
        max_log_ratio=float(rpn.box_coder.bbox_xform_clip),
    )


def box_spec(heads: RoIHeads, pooler: PoolerSpec, proposals: int, classes: int) -> BoxHeadSpec:
    """Thresholds and counts of the final selection; the head's fields are those of `BoxHeadSpec`.

    Args:
        heads: of the model.
        pooler: of the box head.
        proposals: most proposals of an image.
        classes: number of classes without the background.
    """
    threshold = float(heads.score_thresh)
    detections = min(int(heads.detections_per_img), proposals * classes)
    return BoxHeadSpec(
        pooler,
        box_weights=_four(heads.box_coder.weights),
        max_log_ratio=float(heads.box_coder.bbox_xform_clip),
        score_threshold=max(threshold, 0.0),
        # Every score is above a negative threshold.
        score_inclusive=threshold < 0,
        nms_iou=min(float(heads.nms_thresh), 1.0),
        detections=detections,
        candidates=max(_MANY_CANDIDATES, 4 * detections),
    )


def pooler_spec(
    pooler: object, where: str, maps: Mapping[str, Tensor], canvas_hw: tuple[int, int]
) -> PoolerSpec:
    """Size, samples, levels and level rule of a pooler.

    A pooler that has run keeps the scales of its first photos; a fresh one would compute them from
    the next, here from `maps`.

    Args:
        pooler: of the model.
        where: its path in the model.
        maps: the maps of the pyramid, of a canvas of `canvas_hw`.
        canvas_hw: of `maps`, in pixels.

    Raises:
        ModelError: another class, a size that is not square, or levels that do not double.
    """
    own = require_own(pooler, MultiScaleRoIAlign, where, "use a torchvision.ops.MultiScaleRoIAlign")
    names = list(maps)
    levels = tuple(i for i, name in enumerate(names) if name in own.featmap_names)
    if not levels:
        raise ModelError(
            f"{where}: featmap_names {list(own.featmap_names)} are none of the body's maps; "
            f"expected some of {names}"
        )
    height, width = own.output_size
    if height != width:
        raise ModelError(
            f"{where}: output_size {height}x{width} cannot be exported; expected a square"
        )
    inferred = [_scale(maps[names[level]], canvas_hw) for level in levels]
    scales = inferred if own.scales is None else [float(s) for s in own.scales]
    strides = tuple(round(1 / scale) for scale in scales)
    is_doubling = all(b in (a, 2 * a) for a, b in pairwise(strides))
    if len(strides) != len(levels) or min(strides) < 1 or not is_doubling:
        raise ModelError(
            f"{where}: levels of strides {', '.join(f'{1 / s:g}' for s in scales)} for "
            f"{list(own.featmap_names)} cannot be exported; expected strides that each equal or "
            "double the one before"
        )
    rule = own.map_levels
    return PoolerSpec(
        output_size=int(height),
        sampling_ratio=max(int(own.sampling_ratio), 0),
        strides=strides,
        canonical_size=float(own.canonical_scale if rule is None else rule.s0),
        canonical_level=int(own.canonical_level if rule is None else rule.lvl0),
        outer_eps=1e-6 if rule is None else float(rule.eps),
        levels=levels,
    )


def set_scales(pooler: MultiScaleRoIAlign, spec: PoolerSpec) -> None:
    """Set the scales that a pooler which has not run would take from its first photos."""
    if pooler.scales is None or pooler.map_levels is None:
        from torchvision.ops.poolers import initLevelMapper

        pooler.scales = [1.0 / stride for stride in spec.strides]
        finest, coarsest = (int(math.log2(s)) for s in (spec.strides[0], spec.strides[-1]))
        pooler.map_levels = initLevelMapper(
            finest, coarsest, int(spec.canonical_size), spec.canonical_level, spec.outer_eps
        )


def _scale(feature: Tensor, canvas_hw: tuple[int, int]) -> float:
    """As `torchvision.ops.poolers._infer_scale`, from the height."""
    return float(2 ** float(torch.tensor(feature.shape[2] / canvas_hw[0]).log2().round()))
