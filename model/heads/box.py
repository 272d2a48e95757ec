"""The box head: features of every proposal to class scores and boxes, then the detections.

Legend: N images, R proposals, C foreground classes, K candidates (proposal, class) that reach
NMS, D detections per image.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead

from model.box_coding import clip, decode, is_large_enough
from model.ops import OPAQUE, Operators
from model.spec import BoxHeadSpec


class Selection(NamedTuple):
    """Detections with static counts; rows that are not valid are zeros.

    boxes float32 [N, D, 4] xyxy canvas pixels; scores float32 [N, D]; labels int64 [N, D];
    valid bool [N, D]; nms_open int32 [N]; candidates_cut int32 [N].
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor
    nms_open: Tensor
    candidates_cut: Tensor


class BoxHead(nn.Module):
    """Pooled features [N * R, channels, P, P] to class logits and box deltas."""

    def __init__(self, channels: int, spec: BoxHeadSpec, num_foreground: int) -> None:
        super().__init__()
        side = spec.pooler.output_size
        self.trunk: nn.Module
        if spec.conv_widths:
            self.trunk = FastRCNNConvFCHead(
                (channels, side, side),
                list(spec.conv_widths),
                list(spec.fc_widths),
                norm_layer=partial(nn.BatchNorm2d, eps=spec.norm_eps),
            )
        else:
            self.trunk = TwoMLPHead(channels * side * side, spec.fc_widths[0])
        width = spec.fc_widths[-1]
        self.cls_score = nn.Linear(width, num_foreground + 1)
        self.bbox_pred = nn.Linear(width, 4 * delta_groups(spec, num_foreground))

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Answer logits [N * R, C + 1] and deltas [N * R, 4 * groups]."""
        features = self.trunk(pooled)
        return self.cls_score(features), self.bbox_pred(features)


def delta_groups(spec: BoxHeadSpec, num_foreground: int) -> int:
    """Boxes regressed per proposal: torchvision regresses one for the background as well."""
    if spec.class_agnostic:
        return 1
    return num_foreground + (spec.background == "first")


class DetectionSelector(nn.Module):
    """From class logits and deltas to the best D detections.

    Only the K best (proposal, class) pairs are decoded and reach NMS. Greedy NMS never looks
    down the score order, so the cut can matter only if fewer than D of the K survive; then
    `candidates_cut` counts the pairs left out, else it is 0.

    Source: Fast R-CNN, sec. 3.2; torchvision `RoIHeads.postprocess_detections`.
    """

    score_threshold: Tensor

    def __init__(self, spec: BoxHeadSpec) -> None:
        super().__init__()
        self.spec = spec
        self.operators: Operators = OPAQUE
        # A buffer, so that it is a named initialiser of the exported graph and can be changed.
        self.register_buffer(
            "score_threshold", torch.tensor(spec.score_threshold), persistent=False
        )

    def forward(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, valid: Tensor, image_hw: Tensor
    ) -> Selection:
        """Select.

        Args:
            logits: float32 [N * R, C + 1].
            deltas: float32 [N * R, 4 * groups].
            proposals: float32 [N, R, 4] xyxy, canvas pixels.
            valid: bool [N, R].
            image_hw: float32 [N, 2], true size of each image on the canvas.
        """
        spec, (count, num_proposals) = self.spec, valid.shape
        scores = torch.softmax(logits, dim=-1)
        scores = scores[:, 1:] if spec.background == "first" else scores[:, :-1]
        classes = scores.shape[1]
        flat = torch.where(valid.reshape(-1, 1), scores, -1.0)
        flat = flat.reshape(count, num_proposals * classes)
        ranked, index = flat.topk(min(spec.candidates, num_proposals * classes), dim=1)  # [N, K]
        row = torch.div(index, classes, rounding_mode="trunc")
        group = index - row * classes
        boxes = clip(_decode_candidates(deltas, proposals, row, group, spec), image_hw)
        passed = ranked > self.score_threshold
        eligible = passed & is_large_enough(boxes, spec.min_size, spec.min_size_inclusive)
        keep, nms_open = self.operators.nms_keep(
            boxes, eligible, group, classes, spec.nms_iou, "detections"
        )
        left_out = (flat > self.score_threshold).sum(dim=1) - passed.sum(dim=1)
        cut = torch.where(keep.sum(dim=1) < spec.detections, left_out, 0).to(torch.int32)
        labels = group + (1 if spec.background == "first" else 0)
        return _best(boxes, ranked, labels, keep, nms_open, cut, spec.detections)


def _decode_candidates(
    deltas: Tensor, proposals: Tensor, row: Tensor, group: Tensor, spec: BoxHeadSpec
) -> Tensor:
    count, num_proposals = proposals.shape[:2]
    groups = deltas.shape[1] // 4
    first_class = 1 if spec.background == "first" else 0
    entry = row if groups == 1 else row * groups + group + first_class
    table = deltas.reshape(count, num_proposals * groups, 4)
    picked = torch.gather(table, 1, entry[:, :, None].expand(-1, -1, 4))  # [N, K, 4]
    reference = torch.gather(proposals, 1, row[:, :, None].expand(-1, -1, 4))
    return decode(picked, reference, spec.box_weights)


def _best(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    keep: Tensor,
    nms_open: Tensor,
    cut: Tensor,
    detections: int,
) -> Selection:
    """The first D kept rows; candidates are sorted already, so order decides and ties cannot."""
    top = boxes.shape[1]
    position = torch.arange(top, 0, -1, device=boxes.device).to(boxes.dtype)
    rank, index = torch.where(keep, position, 0.0).topk(min(detections, top), dim=1)
    valid = rank > 0
    chosen = torch.gather(boxes, 1, index[:, :, None].expand(-1, -1, 4))
    return Selection(
        torch.where(valid[:, :, None], chosen, 0.0),
        torch.where(valid, torch.gather(scores, 1, index), 0.0),
        torch.where(valid, torch.gather(labels, 1, index), 0),
        valid,
        nms_open,
        cut,
    )
