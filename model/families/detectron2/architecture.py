"""detectron2's names of its zoo's models."""

from __future__ import annotations

from model.spec import KeypointHeadSpec, MaskHeadSpec, ResNetSpec


def depth(body: ResNetSpec, res5_blocks: int | None) -> int:
    """`RESNETS.DEPTH`; C4 has the last stage in its RoI heads."""
    return body.depth + 3 * (res5_blocks or 0)


def architecture(
    body: ResNetSpec,
    layout: str,
    mask: MaskHeadSpec | None,
    keypoint: KeypointHeadSpec | None,
    res5_blocks: int | None,
) -> str:
    """The zoo's name, like `mask_rcnn_R_50_FPN`."""
    head = "mask_rcnn" if mask is not None else "faster_rcnn"
    head = "keypoint_rcnn" if keypoint is not None else head
    layers = depth(body, res5_blocks)
    per_group = body.widths[0] // body.groups
    name = f"X_{layers}_{body.groups}x{per_group}d" if body.groups > 1 else f"R_{layers}"
    return f"{head}_{name}_{layout}"
