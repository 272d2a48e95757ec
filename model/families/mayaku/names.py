"""mayaku's names of tensors as those of detectron2, whose modules it renames."""

from __future__ import annotations

import re

_FIRST_LEVEL = 2  # of the pyramid, over res2
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"backbone\.bottom_up\.stem\.0\.", "backbone.bottom_up.stem.conv1."),
        (r"backbone\.bottom_up\.stem\.1\.", "backbone.bottom_up.stem.conv1.norm."),
        (r"(backbone\.bottom_up\.res\d\.\d+\.)bn(\d)\.", r"\1conv\2.norm."),
        (r"(backbone\.bottom_up\.res\d\.\d+\.)downsample\.0\.", r"\1shortcut."),
        (r"(backbone\.bottom_up\.res\d\.\d+\.)downsample\.1\.", r"\1shortcut.norm."),
        (r"rpn\.head\.", "proposal_generator.rpn_head."),
        (r"roi_heads\.keypoint_head\.deconv\.", "roi_heads.keypoint_head.score_lowres."),
    )
)
# Lists of modules, whose numbers become part of a name.
_NUMBERED: tuple[tuple[re.Pattern[str], str, int], ...] = tuple(
    (re.compile(rf"{pattern}\.(\d+)\."), new, first)
    for pattern, new, first in (
        (r"backbone\.lateral_convs", "backbone.fpn_lateral", _FIRST_LEVEL),
        (r"backbone\.output_convs", "backbone.fpn_output", _FIRST_LEVEL),
        (r"roi_heads\.box_head\.convs", "roi_heads.box_head.conv", 1),
        (r"roi_heads\.box_head\.fcs", "roi_heads.box_head.fc", 1),
        (r"roi_heads\.mask_head\.convs", "roi_heads.mask_head.mask_fcn", 1),
        (r"roi_heads\.keypoint_head\.convs", "roi_heads.keypoint_head.conv_fcn", 1),
    )
)
# A convolution and its normalization are numbered, if there is a normalization.
_LAYER = re.compile(r"(backbone\.fpn_(?:lateral|output)\d+\.)([01])\.")


def detectron2_name(name: str) -> str:
    """detectron2's name of a tensor."""
    for pattern, new in _RULES:
        name = pattern.sub(new, name, count=1)
    for pattern, new, first in _NUMBERED:
        match = pattern.match(name)
        if match:
            name = f"{new}{int(match[1]) + first}.{name[match.end() :]}"
    return _LAYER.sub(lambda m: m[1] if m[2] == "0" else f"{m[1]}norm.", name)
