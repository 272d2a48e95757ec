"""What detectron2's zoo calls a model of these parts."""

from __future__ import annotations

from model.spec import KeypointHeadSpec, MaskHeadSpec, ResNetSpec

_DEPTHS: dict[tuple[int, ...], int] = {
    (2, 2, 2, 2): 18,
    (3, 4, 6, 3): 50,
    (3, 4, 23, 3): 101,
    (3, 8, 36, 3): 152,
}


def depth(body: ResNetSpec, res5_blocks: int | None) -> int:
    """`RESNETS.DEPTH`; C4 keeps the last stage in its RoI heads."""
    blocks = body.blocks if res5_blocks is None else (*body.blocks, res5_blocks)
    if blocks == (3, 4, 6, 3) and body.block == "basic":
        return 34
    return _DEPTHS.get(blocks, 2 + 3 * sum(blocks))


def architecture(
    body: ResNetSpec,
    kind: str,
    mask: MaskHeadSpec | None,
    keypoint: KeypointHeadSpec | None,
    res5_blocks: int | None,
) -> str:
    """As the zoo calls its models: `mask_rcnn_R_50_FPN`."""
    head = "mask_rcnn" if mask is not None else "faster_rcnn"
    head = "keypoint_rcnn" if keypoint is not None else head
    layers = depth(body, res5_blocks)
    per_group = body.widths[0] // body.groups
    name = f"X_{layers}_{body.groups}x{per_group}d" if body.groups > 1 else f"R_{layers}"
    return f"{head}_{name}_{kind}"
