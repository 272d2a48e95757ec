"""From class logits and deltas to the best detections.

Legend: N images, R proposals, C foreground classes, K candidates (proposal, class) that reach
NMS, D detections per image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.heads.box_coding import decode, is_large_enough
from model.ops import OPAQUE, Operators
from model.placement import Windows
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


class Candidates(NamedTuple):
    """The K best (proposal, class) pairs, best first.

    scores float32 [N, K]; row int64 [N, K], the proposal; group int64 [N, K], the class counted
    from the first foreground class; above int64 [N], the number of all pairs that pass the
    threshold.
    """

    scores: Tensor
    row: Tensor
    group: Tensor
    above: Tensor


class DetectionSelector(nn.Module):
    """Score, select candidates, decode, suppress, and keep the best D.

    Only the K best (proposal, class) pairs are decoded and reach NMS. In greedy NMS a box depends
    only on boxes with higher scores, so the limit K matters only if fewer than D of the K survive;
    then `candidates_cut` counts the pairs above the threshold that were left out, else it is 0.

    Source: Fast R-CNN, sec. 3.2; torchvision `RoIHeads.postprocess_detections`; detectron2
    `fast_rcnn_inference`; Matterport `refine_detections_graph` ("best-class").
    """

    score_threshold: Tensor

    def __init__(self, spec: BoxHeadSpec, num_foreground: int, end_shift: int) -> None:
        super().__init__()
        self.spec = spec
        self.classes = num_foreground
        self.end_shift = end_shift
        self.first_class = 1 if spec.background == "first" else 0
        self.operators: Operators = OPAQUE
        # A buffer, so that it is a named initializer of the exported graph and can be changed.
        self.register_buffer(
            "score_threshold", torch.tensor(spec.score_threshold), persistent=False
        )

    def forward(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, valid: Tensor, windows: Windows
    ) -> Selection:
        """Select the detections.

        Args:
            logits: float32 [N * R, C + 1].
            deltas: float32 [N * R, 4 * groups].
            proposals: float32 [N, R, 4] xyxy, canvas pixels.
            valid: bool [N, R].
            windows: of the images on the canvas.
        """
        spec = self.spec
        best = self.candidates(logits, valid)
        boxes = self.decode(deltas, proposals, best)
        boxes = windows.clip(boxes, "image", self.end_shift)
        passed = self._passes(best.scores)
        eligible = passed & is_large_enough(boxes, spec.min_size, spec.min_size_inclusive)
        keep, nms_open = self.operators.nms_keep(
            boxes, eligible, best.group, self.classes, spec.nms_iou, "detections"
        )
        omitted = best.above - passed.sum(dim=1)
        cut = torch.where(keep.sum(dim=1) < spec.detections, omitted, 0).to(torch.int32)
        labels = best.group + self.first_class
        return _best(boxes, best.scores, labels, keep, nms_open, cut, spec.detections)

    def _passes(self, scores: Tensor) -> Tensor:
        if self.spec.score_inclusive:
            return scores >= self.score_threshold
        return scores > self.score_threshold

    def candidates(self, logits: Tensor, valid: Tensor) -> Candidates:
        """The K best (proposal, class) pairs."""
        if self.spec.choice == "best-class":
            return self._best_class_of_each(logits, valid)
        count, num_proposals = valid.shape
        is_softmax = self.spec.scoring == "softmax"
        scores = torch.softmax(logits, dim=-1) if is_softmax else torch.sigmoid(logits)
        scores = scores[:, 1:] if self.first_class else scores[:, :-1]
        flat = torch.where(valid.reshape(-1, 1), scores, -1.0)
        flat = flat.reshape(count, num_proposals * self.classes)
        ranked, index = flat.topk(
            min(self.spec.candidates, num_proposals * self.classes), dim=1
        )  # [N, K]
        row = torch.div(index, self.classes, rounding_mode="trunc")
        above = self._passes(flat).sum(dim=1)
        return Candidates(ranked, row, index - row * self.classes, above)

    def _best_class_of_each(self, logits: Tensor, valid: Tensor) -> Candidates:
        """One candidate per proposal, none if the background is best."""
        scores, label = torch.softmax(logits, dim=-1).max(dim=-1)
        group = (label - self.first_class).reshape(valid.shape)
        is_object = valid & (group >= 0) & (group < self.classes)
        flat = torch.where(is_object, scores.reshape(valid.shape), -1.0)
        ranked, row = flat.topk(min(self.spec.candidates, valid.shape[1]), dim=1)
        group = torch.gather(group, 1, row).clamp(0, self.classes - 1)
        return Candidates(ranked, row, group, self._passes(flat).sum(dim=1))

    def decode(self, deltas: Tensor, proposals: Tensor, best: Candidates) -> Tensor:
        """Boxes of candidates, float32 [N, K, 4] xyxy canvas pixels, not clipped."""
        count, num_proposals = proposals.shape[:2]
        groups = deltas.shape[1] // 4
        index = best.row
        if not self.spec.class_agnostic:
            index = best.row * groups + best.group + self.first_class
        flat = deltas.reshape(count, num_proposals * groups, 4)
        selected = torch.gather(flat, 1, index[:, :, None].expand(-1, -1, 4))  # [N, K, 4]
        reference = torch.gather(proposals, 1, best.row[:, :, None].expand(-1, -1, 4))
        spec = self.spec
        return decode(selected, reference, spec.box_weights, spec.size_clamp, spec.max_log_ratio)


def _best(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    keep: Tensor,
    nms_open: Tensor,
    cut: Tensor,
    detections: int,
) -> Selection:
    """The first D kept rows; candidates are sorted, so that their order breaks all ties."""
    top = boxes.shape[1]
    position = torch.arange(top, 0, -1, device=boxes.device).to(boxes.dtype)
    rank, index = torch.where(keep, position, 0.0).topk(min(detections, top), dim=1)
    valid = rank > 0
    selected = torch.gather(boxes, 1, index[:, :, None].expand(-1, -1, 4))
    return Selection(
        torch.where(valid[:, :, None], selected, 0.0),
        torch.where(valid, torch.gather(scores, 1, index), 0.0),
        torch.where(valid, torch.gather(labels, 1, index), 0),
        valid,
        nms_open,
        cut,
    )
