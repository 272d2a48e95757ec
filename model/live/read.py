"""A live module to spec and network.

Legend: N images, H x W canvas, C channels of the photos.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from model.errors import ModelError, SpecError, UsageError
from model.families.assumptions import Assumption
from model.families.coco import numbered
from model.families.torchvision.dialect import DIALECT
from model.heads.kept import KeptParts
from model.live import heads as head_readers
from model.live import settings
from model.live.backbone import Backbone, read_backbone
from model.live.copying import (
    float32_copy,
    hooked_parts,
    set_norm_eps,
    tensors_sha256,
    without_hooks,
)
from model.live.faces import class_name, feature_maps, run_part
from model.live.wrappers import detector_in
from model.mask_rcnn import MaskRCNN
from model.spec import ClassSpec, ModelSpec, PoolerSpec, PreprocessSpec
from model.spec_options import SpecOptions, apply

_SIDES = (256, 320)
_LARGEST_SEARCHED = 1024
_KEPT_NAMES = {
    "body": "body.",
    "rpn_head": "rpn.head.",
    "box_head": "box_head.",
    "mask_head": "mask_head.",
    "keypoint_head": "keypoint_head.",
}


@dataclass(frozen=True, slots=True)
class LiveModel:
    """A live module that was read; has what a `model.checkpoint.Checkpoint` has.

    Attributes:
        path: of the weights file, or the class name of the module.
        sha256: of the weights file, or of the module's tensors.
        spec: read from the module, with the user's options.
        tensors: of the layers that are ours, by the names of `MaskRCNN`'s state dict.
        reference: a float32 copy of the module on the CPU, in eval mode, with the user's options.
        kept: the parts of the reference that the network contains as they are.
        kept_paths: their names in the module.
        notes: lines for the user.
        assumptions: none; every value is from the module.
        taken: empty; see `Checkpoint`.
    """

    path: Path
    sha256: str
    spec: ModelSpec
    tensors: Mapping[str, Tensor]
    reference: GeneralizedRCNN
    kept: KeptParts
    kept_paths: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    assumptions: tuple[Assumption, ...] = ()
    taken: str = ""

    def build(self) -> MaskRCNN:
        """The network in eval mode with these weights."""
        kept = without_hooks(copy.deepcopy(nn.ModuleDict(_modules(self.kept))))
        network = MaskRCNN(self.spec, KeptParts(**dict(kept.items())))
        network.load_state_dict(dict(self.tensors), strict=False)
        return network.eval().requires_grad_(False)


def read_live(
    model: object,
    options: SpecOptions | None = None,
    canvas_hw: tuple[int, int] | None = None,
    weights: tuple[Path, str] | None = None,
) -> LiveModel:
    """Read a torchvision detector; the object stays as it is.

    Args:
        model: a `GeneralizedRCNN`, or a module whose `forward` only calls one.
        options: override thresholds, counts, sides and class names, also of the reference.
        canvas_hw: a canvas that the body accepts; None takes any.
        weights: path and SHA-256 of the file that the module's weights are from.

    Raises:
        ModelError: a part that cannot be exported, named, with what to do.
        UsageError: an option that a live model does not have, or with an impossible value.
    """
    detector, inside = detector_in(model)
    copied = float32_copy(detector)
    settings.require_structure(copied)
    if options is not None and options.norm_eps is not None:
        set_norm_eps(copied, options.norm_eps)
        options = replace(options, norm_eps=None)
    with torch.inference_mode(False), torch.no_grad():
        spec, kept = _read(copied, canvas_hw)
    spec = _with_options(spec, options, copied)
    names = KeptParts(**kept.modules)
    network_names = _own_names(spec, names)
    state = copied.state_dict()
    tensors = {
        name: state[original]
        for name in network_names
        if (original := DIALECT.original(name, spec)) in state
    }
    path, sha256 = weights or (Path(type(detector).__name__), tensors_sha256(copied))
    notes = _notes(detector, inside, kept)
    return LiveModel(path, sha256, spec, tensors, copied, names, tuple(kept.paths), notes)


def _modules(kept: KeptParts) -> dict[str, nn.Module]:
    parts_by_name = {name: getattr(kept, name) for name in _KEPT_NAMES}
    return {name: module for name, module in parts_by_name.items() if module is not None}


def _own_names(spec: ModelSpec, kept: KeptParts) -> list[str]:
    """Names of the network's tensors that are not in kept modules."""
    with torch.device("meta"):
        network = MaskRCNN(spec, kept)
    prefixes = tuple(_KEPT_NAMES[name] for name in _modules(kept))
    return [n for n in network.state_dict() if not (prefixes and n.startswith(prefixes))]


def _read(
    model: GeneralizedRCNN, canvas_hw: tuple[int, int] | None
) -> tuple[ModelSpec, head_readers.Kept]:
    channels, hw, maps = _probe(model, canvas_hw)
    width = _same_width(model, maps)
    preprocess = settings.preprocess_spec(model.transform, channels)
    anchors = settings.anchor_spec(model.rpn.anchor_generator)
    if len(anchors.sizes) != len(maps):
        raise ModelError(
            f"rpn.anchor_generator: sizes for {len(anchors.sizes)} levels, but the backbone "
            f"returns {len(maps)} maps ({', '.join(maps)}); expected as many"
        )
    strides = tuple(max(1, round(hw[0] / m.shape[2])) for m in maps.values())
    backbone = read_backbone(model.backbone, maps, strides, channels)
    kept = head_readers.Kept()
    if backbone.kept is not None:
        kept.modules["body"] = backbone.kept
        kept.paths.append("backbone" if backbone.fpn is None else "backbone.body")
    rpn = settings.rpn_spec(model.rpn)
    rpn = head_readers.read_rpn_head(model.rpn.head, rpn, width, anchors.per_cell, kept)
    _require_rpn_outputs(model, maps, anchors.per_cell)
    heads = model.roi_heads

    def pooler(name: str) -> PoolerSpec:
        spec = settings.pooler_spec(getattr(heads, name), f"roi_heads.{name}", maps, hw)
        outputs = tuple(range(len(backbone.body.outputs)))
        return replace(spec, levels=()) if spec.levels == outputs else spec

    box_pooler = pooler("box_roi_pool")
    classes = head_readers.count_classes(heads, width, box_pooler)
    box = settings.box_spec(heads, box_pooler, rpn.post_nms, classes - 1)
    box = head_readers.read_box_head(heads, box, width, classes, kept)
    mask = keypoint = None
    if heads.has_mask():
        mask = head_readers.read_mask_head(heads, pooler("mask_roi_pool"), width, classes, kept)
    if heads.has_keypoint():
        keypoint = head_readers.read_keypoint_head(heads, pooler("keypoint_roi_pool"), width, kept)
    spec = ModelSpec(
        dialect="torchvision",
        architecture=_architecture(backbone, mask is not None, keypoint is not None),
        body=backbone.body,
        classes=numbered(classes - 1, background=True),
        fpn=backbone.fpn,
        preprocess=preprocess,
        anchors=anchors,
        rpn=rpn,
        box=box,
        mask=mask,
        keypoint=keypoint,
    )
    for name, head in (("box", spec.box), ("mask", spec.mask), ("keypoint", spec.keypoint)):
        if head is not None:
            settings.set_scales(getattr(heads, f"{name}_roi_pool"), head.pooler)
    return spec, kept


def _architecture(backbone: Backbone, has_masks: bool, has_keypoints: bool) -> str:
    heads = "mask" * has_masks + "_" * (has_masks and has_keypoints) + "keypoint" * has_keypoints
    pyramid = "" if backbone.fpn is None else "_fpn"
    return f"{heads or 'faster'}rcnn_{backbone.name}{pyramid}"


def _same_width(model: GeneralizedRCNN, maps: Mapping[str, Tensor]) -> int:
    widths = {int(m.shape[1]) for m in maps.values()}
    if len(widths) != 1:
        raise ModelError(
            f"backbone: {class_name(model.backbone)} returns maps of {sorted(widths)} channels; "
            "expected the same number on every level"
        )
    return widths.pop()


def _require_rpn_outputs(model: GeneralizedRCNN, maps: Mapping[str, Tensor], per_cell: int) -> None:
    head, levels = model.rpn.head, list(maps.values())
    output = run_part("rpn.head", head, levels)
    expected = [(per_cell, m.shape[2], m.shape[3]) for m in levels]
    deltas = [(4 * a, h, w) for a, h, w in expected]
    match output:
        case (list() as scores, list() as boxes):
            if [tuple(s.shape[1:]) for s in scores] == expected and deltas == [
                tuple(b.shape[1:]) for b in boxes
            ]:
                return
    raise ModelError(
        f"rpn.head: {class_name(head)} does not return scores [N, {per_cell}, H, W] and deltas "
        f"[N, {4 * per_cell}, H, W] for every level; expected two lists, for the {per_cell} "
        "anchors of each cell"
    )


def _probe(
    model: GeneralizedRCNN, canvas_hw: tuple[int, int] | None
) -> tuple[int, tuple[int, int], dict[str, Tensor]]:
    """Channels of the photos, a canvas that the backbone accepts, and its maps of it.

    Raises:
        ModelError: it accepts no such canvas; a size that it accepts is named.
    """
    transform, backbone = model.transform, model.backbone
    divisor = int(transform.size_divisible)
    hw = canvas_hw or _fixed_canvas(transform.fixed_size, divisor)
    hw = hw or (-(-_SIDES[0] // divisor) * divisor, -(-_SIDES[1] // divisor) * divisor)
    problem: ModelError | None = None
    for channels in _channels(model):
        try:
            output = run_part("backbone", backbone, torch.zeros(1, channels, *hw))
        except ModelError as error:
            problem = problem or error
            continue
        return channels, hw, feature_maps(output, "backbone", backbone)
    assert problem is not None
    for channels in _channels(model):
        for side in _accepted_sides(backbone, channels, divisor):
            given = "" if canvas_hw is None else f", got {hw[0]}x{hw[1]}"
            raise ModelError(
                f"backbone: {class_name(backbone)} needs a canvas of {side}x{side}{given}; export "
                f"with --size {side}x{side}, or set the model's fixed_size to ({side}, {side})"
            )
    raise problem


def _fixed_canvas(fixed_size: Any, divisor: int) -> tuple[int, int] | None:
    if fixed_size is None:
        return None
    width, height = (-(-int(side) // divisor) * divisor for side in fixed_size)
    return height, width


def _channels(model: GeneralizedRCNN) -> list[int]:
    """The numbers of channels that photos may have; torchvision repeats a single mean."""
    means = max(
        torch.as_tensor(v).numel() for v in (model.transform.image_mean, model.transform.image_std)
    )
    if means > 1:
        return [means]
    first = next((m for m in model.backbone.modules() if isinstance(m, nn.Conv2d)), None)
    found = [] if first is None else [int(first.in_channels)]
    return list(dict.fromkeys([*found, 1, 3]))


def _accepted_sides(backbone: nn.Module, channels: int, divisor: int) -> Iterator[int]:
    """Sides of square canvases that a backbone accepts, the ones that its parts name first."""
    try:
        shapes = copy.deepcopy(backbone).to("meta")
    except Exception:  # a module may refuse it
        return
    named = [
        getattr(part, name, None)
        for part in backbone.modules()
        for name in ("image_size", "img_size")
    ]
    sides = [v[0] if isinstance(v, tuple | list) and v else v for v in named]
    searched = range(divisor, _LARGEST_SEARCHED + 1, max(divisor, 8))
    for side in dict.fromkeys([*(s for s in sides if isinstance(s, int)), *searched]):
        if side % divisor == 0:
            try:
                shapes(torch.zeros(1, channels, side, side, device="meta"))
            except Exception:  # the user's code may raise anything
                continue
            yield side


def _with_options(
    spec: ModelSpec, options: SpecOptions | None, reference: GeneralizedRCNN
) -> ModelSpec:
    """Apply the options to the spec and to the reference."""
    if options is None:
        return spec
    merged = apply(spec, options)
    box, pre = merged.box, merged.preprocess
    allowed = replace(
        spec,
        classes=ClassSpec(merged.classes.names, merged.classes.dataset_ids),
        keypoint=None
        if spec.keypoint is None or merged.keypoint is None
        else replace(spec.keypoint, names=merged.keypoint.names),
        box=replace(
            spec.box,
            score_threshold=box.score_threshold,
            nms_iou=box.nms_iou,
            detections=box.detections,
            candidates=box.candidates,
        ),
        preprocess=_with_sides(spec.preprocess, pre),
    )
    if merged != allowed:
        field = next(
            name
            for name in ("preprocess", "anchors", "rpn", "box", "mask", "body", "fpn", "keypoint")
            if getattr(merged, name) != getattr(allowed, name)
        )
        raise UsageError(
            f"options: '{field}' is decided by the model, which has other values; set them on the "
            "model instead"
        )
    heads, transform = reference.roi_heads, reference.transform
    heads.nms_thresh, heads.detections_per_img = box.nms_iou, box.detections
    if box.score_threshold != spec.box.score_threshold:
        heads.score_thresh = box.score_threshold
    transform.min_size, transform.max_size = (pre.short_side,), pre.long_side
    return merged


def _with_sides(spec: PreprocessSpec, merged: PreprocessSpec) -> PreprocessSpec:
    try:
        return replace(spec, short_side=merged.short_side, long_side=merged.long_side)
    except SpecError as error:
        raise UsageError(str(error)) from error


def _notes(detector: GeneralizedRCNN, inside: str, kept: head_readers.Kept) -> tuple[str, ...]:
    notes = []
    if inside:
        notes.append(f"read: its part '{inside}' ({class_name(detector)})")
    if kept.paths:
        notes.append(f"kept as the user's own modules: {'; '.join(kept.paths)}")
    hooked = hooked_parts(detector)
    if hooked:
        notes.append(f"left out: the hooks of {', '.join(hooked[:4])}")
    return tuple(notes)
