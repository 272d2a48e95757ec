"""The mask head: the predicted class's channel by a sigmoid, as if the others were not there."""

from __future__ import annotations

import torch

from model.heads.mask import MaskHead
from model.spec import MaskHeadSpec, PoolerSpec

SPEC = MaskHeadSpec(PoolerSpec(7), conv_widths=(8,), deconv_width=8)


def _head(num_outputs: int = 5) -> MaskHead:
    torch.manual_seed(0)
    head = MaskHead(8, SPEC, num_outputs).eval()
    torch.nn.init.normal_(head.predictor.mask_fcn_logits.weight, std=2.0)
    return head


def _all_logits(head: MaskHead, pooled: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = head.predictor(head.convs(pooled))
    return logits


@torch.inference_mode()
def test_classes_of_masks() -> None:
    head, pooled = _head(), torch.rand(4, 8, 7, 7)
    labels = torch.tensor([3, 1, 4, 0])
    logits = _all_logits(head, pooled)
    expected = torch.sigmoid(logits[torch.arange(4), labels])
    torch.testing.assert_close(head(pooled, labels), expected, atol=1e-5, rtol=0)
    torch.manual_seed(1)
    spec = MaskHeadSpec(PoolerSpec(7), (8,), 8, class_agnostic=True)
    head, pooled = MaskHead(8, spec, 1).eval(), torch.rand(2, 8, 7, 7)
    assert torch.equal(head(pooled, torch.tensor([7, 0])), head(pooled, torch.tensor([0, 3])))


@torch.inference_mode()
def test_classes_do_not_compete() -> None:
    """Mask R-CNN, sec. 3 and table 2b: a softmax over classes would let another class take pixels.

    Another class's logits are raised everywhere. The predicted class's mask does not move; under a
    softmax it would lose most of its pixels.
    """
    head, pooled = _head(), torch.rand(3, 8, 7, 7)
    labels = torch.full((3,), 2)
    before = head(pooled, labels)
    softmax_before = _all_logits(head, pooled).softmax(dim=1)[:, 2]
    head.predictor.mask_fcn_logits.bias[1] += 20.0
    assert torch.equal(head(pooled, labels), before)
    softmax_after = _all_logits(head, pooled).softmax(dim=1)[:, 2]
    assert (before > 0.5).sum() > 50
    assert (softmax_before > 0.5).sum() > 50
    assert (softmax_after > 0.5).sum() < 0.2 * (softmax_before > 0.5).sum()
