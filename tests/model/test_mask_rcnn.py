"""The forward itself: static counts, levels without a pyramid, padding, certificates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.mask_rcnn import MaskRCNN, Outputs
from model.spec import (
    AnchorSpec,
    BoxHeadSpec,
    ClassSpec,
    MaskHeadSpec,
    ModelSpec,
    PoolerSpec,
    PreprocessSpec,
    ResNetSpec,
    RpnSpec,
)

# One level of stride 16, background last, anchors size by size: what C4 checkpoints need.
C4 = ModelSpec(
    dialect="test",
    architecture="c4",
    body=ResNetSpec((1, 1, 1), "bottleneck", 8, (4, 8, 16), (16, 32, 64), outputs=(2,),
                    stride_in_1x1=True, dilations=(1, 1, 1)),
    classes=ClassSpec(("a", "b", "c")),
    fpn=None,
    preprocess=PreprocessSpec(160, 288, size_divisor=1),
    anchors=AnchorSpec(((16.0, 32.0, 64.0),), ((0.5, 1.0, 2.0),), "size-major", False, 0.0,
                       "nominal"),
    rpn=RpnSpec(pre_nms=600, post_nms=100),
    box=BoxHeadSpec(pooler=PoolerSpec(7, 2, True, (16,)), fc_widths=(32, 32), background="last",
                    score_threshold=0.3, detections=40, candidates=200),
    mask=MaskHeadSpec(pooler=PoolerSpec(7, 2, True, (16,)), conv_widths=(), deconv_width=8),
)  # fmt: skip


def _run(spec: ModelSpec, batch: int = 2) -> Outputs:
    torch.manual_seed(2)
    model = MaskRCNN(spec).eval()
    torch.nn.init.normal_(model.box_head.cls_score.weight, std=2.0)
    image_hw = torch.tensor([[150.0, 200.0], [90.0, 131.0]])[:batch]
    with torch.inference_mode():
        return model(torch.rand(batch, 3, 150, 201), image_hw)


def test_a_body_without_a_pyramid() -> None:
    out = _run(C4)
    assert out.masks.shape == (2, 40, 14, 14)
    assert out.boxes.shape == (2, 40, 4)
    assert (out.counts > 0).all()
    for row, (height, width) in enumerate([(150, 200), (90, 131)]):
        count = int(out.counts[row])
        boxes = out.boxes[row, :count]
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert boxes[:, [0, 2]].max() <= width
        assert boxes[:, [1, 3]].max() <= height
        assert (out.scores[row, :count] > 0.3).all()
        assert (out.scores[row, :count].diff() <= 0).all()
        assert out.labels[row, :count].max() <= 2
        assert not out.boxes[row, count:].any()
        assert not out.masks[row, count:].any()


def test_a_cut_is_reported_only_where_it_can_matter() -> None:
    """Candidates left out are counted only if fewer than D survive."""
    generous = replace(C4, box=replace(C4.box, candidates=300, score_threshold=0.2))
    tight = replace(generous, box=replace(generous.box, candidates=40))
    few = replace(tight, box=replace(tight.box, detections=3))
    full, cut, enough = (_run(spec) for spec in (generous, tight, few))
    assert full.candidates_cut.tolist() == [0, 0]
    assert (cut.counts < full.counts).all()
    assert (cut.candidates_cut > 0).all()
    assert enough.candidates_cut.tolist() == [0, 0]
    torch.testing.assert_close(enough.boxes[:, :3], full.boxes[:, :3])


def test_a_limit_above_the_anchors_of_a_level() -> None:
    """10 x 13 cells of 9 anchors are 1170; asking for 5000 changes nothing but padding."""
    torch.manual_seed(0)
    plenty = replace(C4, rpn=replace(C4.rpn, pre_nms=5000))
    exact = replace(C4, rpn=replace(C4.rpn, pre_nms=1170))
    for name, a, b in zip(Outputs._fields, _run(plenty), _run(exact), strict=True):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.parametrize("batch", [1, 2])
def test_what_lies_in_the_padding_is_ignored(batch: int) -> None:
    torch.manual_seed(1)
    model = MaskRCNN(C4).eval()
    image_hw = torch.tensor([[100.0, 120.0], [150.0, 80.0]])[:batch]
    images = torch.rand(batch, 3, 150, 201)
    noisy = images.clone()
    for row, (height, width) in enumerate(image_hw.int().tolist()):
        noisy[row, :, height:] = 7.0
        noisy[row, :, :, width:] = -3.0
    with torch.inference_mode():
        for a, b in zip(model(images, image_hw), model(noisy, image_hw), strict=True):
            assert (a is b is None) or torch.equal(a, b)
