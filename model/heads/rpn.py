"""The region proposal network: scores and deltas per anchor, then the best proposals.

Legend: N images, L levels, A anchors per cell, n anchors of a level, K candidates kept per
level before NMS, R proposals per image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from torchvision.ops import Conv2dNormActivation

from model.heads.box_coding import decode, is_large_enough
from model.ops import OPAQUE, Operators
from model.placement import Windows
from model.spec import AnchorSpec, RpnSpec


class RegionProposalNetwork(nn.Module):
    """Proposals with static counts: always R rows, some of which may be invalid.

    `head` replaces the head of the spec; it has the face of `RpnHead`.

    Source: Faster R-CNN, sec. 3.1; torchvision `RegionProposalNetwork.filter_proposals`.
    """

    def __init__(
        self,
        channels: int,
        spec: RpnSpec,
        anchors: AnchorSpec,
        strides: Sequence[int],
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.operators: Operators = OPAQUE
        self.anchors = anchors
        self.strides = tuple(strides)
        self.head = head or RpnHead(channels, spec.conv_widths, anchors.per_cell)
        for level in range(len(anchors.sizes)):
            self.register_buffer(f"cell{level}", cell_anchors(anchors, level), persistent=False)

    def forward(
        self, features: Sequence[Tensor], windows: Windows
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Propose boxes.

        Args:
            features: one float32 [N, C, H_l, W_l] per level, finest first.
            windows: of the images on the canvas.

        Returns:
            boxes float32 [N, R, 4] xyxy canvas pixels, best first; valid bool [N, R]; nms_open
            int32 [N].
        """
        boxes, logits = self.candidates(features, windows)
        valid = is_large_enough(boxes, self.spec.min_size, self.spec.min_size_inclusive)
        # Logits rank like probabilities but without their ties: float32 sigmoids are all 1 above
        # a logit of 17, and ONNX Runtime's are all equal below -18.
        valid = valid & (logits > float("-inf"))
        if self.spec.score_threshold > 0:
            valid = valid & (torch.sigmoid(logits) >= self.spec.score_threshold)
        return self._suppress(boxes, logits, valid)

    def candidates(self, features: Sequence[Tensor], windows: Windows) -> tuple[Tensor, Tensor]:
        """The K best anchors of each level, or of all levels: the input of the filters and NMS.

        Returns:
            boxes float32 [N, L * K, 4] xyxy canvas pixels, decoded and clipped; logits float32
            [N, L * K], -inf in padding rows.
        """
        logits, deltas = self.head(features)
        levels = [
            self._flatten(level, logits[level].float(), deltas[level].float(), windows.canvas_hw)
            for level in range(len(features))
        ]
        if self.spec.top_over == "all":
            levels = [_concatenated(levels)]
        best = [self._best(*level) for level in levels]
        top_deltas, anchors, top_logits = (torch.cat(t, dim=1) for t in zip(*best, strict=True))
        spec = self.spec
        boxes = decode(top_deltas, anchors, spec.box_weights, spec.size_clamp, spec.max_log_ratio)
        return windows.clip(boxes, self.spec.clip_to, self.anchors.end_shift), top_logits

    def _flatten(
        self, level: int, logits: Tensor, deltas: Tensor, canvas_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All anchors of one level, cell by cell in row order.

        Returns:
            logits float32 [N, n]; deltas float32 [N, n, 4]; anchors float32 [n, 4].
        """
        count, per_cell = logits.shape[0], self.anchors.per_cell
        flat = logits.permute(0, 2, 3, 1).reshape(count, -1)
        anchors = self._anchors(level, (logits.shape[2], logits.shape[3]), canvas_hw)
        flat_deltas = deltas.reshape(count, per_cell, 4, deltas.shape[2], deltas.shape[3])
        return flat, flat_deltas.permute(0, 3, 4, 1, 2).reshape(count, -1, 4), anchors

    def _best(self, flat: Tensor, deltas: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The K anchors with the highest logits, best first.

        Returns:
            deltas float32 [N, K, 4]; anchors float32 [N, K, 4]; logits float32 [N, K].
        """
        top, count = self.spec.pre_nms, flat.shape[0]
        # A level may have fewer than K anchors; it is padded with -inf, which is never valid.
        padded = torch.cat([flat, flat.new_full((count, top), float("-inf"))], dim=1)
        values, index = padded.topk(top, dim=1)
        index = index.clamp(max=flat.shape[1] - 1)
        top_deltas = torch.gather(deltas, 1, index[:, :, None].expand(-1, -1, 4))
        # `embedding` is a row lookup, in every framework one plain Gather.
        return top_deltas, embedding(index, anchors), values

    def _anchors(self, level: int, grid_hw: tuple[int, int], canvas_hw: tuple[int, int]) -> Tensor:
        if self.anchors.stride_rule == "canvas":
            stride_yx = (canvas_hw[0] // grid_hw[0], canvas_hw[1] // grid_hw[1])
        else:
            stride_yx = (self.strides[level], self.strides[level])
        cell: Tensor = self.get_buffer(f"cell{level}")
        return grid_anchors(cell, grid_hw, stride_yx, self.anchors.offset)

    def _suppress(
        self, boxes: Tensor, logits: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """NMS per level or over all levels, then the best R of all levels."""
        top = self.spec.pre_nms
        levels = boxes.shape[1] // top
        flat_valid = valid.reshape(-1, top)
        groups = torch.zeros_like(flat_valid, dtype=torch.int64)
        keep, undecided = self.operators.nms_keep(
            boxes.reshape(-1, top, 4), flat_valid, groups, 1, self.spec.nms_iou, "proposals"
        )
        kept = torch.where(keep.reshape(-1, levels * top), logits, float("-inf"))
        best, index = kept.topk(min(self.spec.post_nms, levels * top), dim=1)
        proposals = torch.gather(boxes, 1, index[:, :, None].expand(-1, -1, 4))
        is_valid = best > float("-inf")
        # Invalid rows may have NaN or Inf coordinates, which must not reach the pooling.
        proposals = torch.where(is_valid[:, :, None], proposals, 0.0)
        nms_open = undecided.reshape(-1, levels).sum(dim=1).to(torch.int32)
        return proposals, is_valid, nms_open


def _concatenated(levels: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """All levels as one."""
    logits, deltas, anchors = zip(*levels, strict=True)
    return torch.cat(logits, dim=1), torch.cat(deltas, dim=1), torch.cat(anchors, dim=0)


class RpnHead(nn.Module):
    """3x3 convolutions, then an objectness logit and four deltas per anchor.

    Names of the children are torchvision's.

    Source: Faster R-CNN, sec. 3.1; torchvision `RPNHead`; detectron2 `StandardRPNHead`, whose
    convolutions may have any width.
    """

    def __init__(self, channels: int, widths: Sequence[int], per_cell: int) -> None:
        super().__init__()
        convs: list[nn.Module] = []
        for width in widths:
            outputs = width or channels
            convs.append(Conv2dNormActivation(channels, outputs, 3, norm_layer=None))
            channels = outputs
        self.conv = nn.Sequential(*convs)
        self.cls_logits = nn.Conv2d(channels, per_cell, 1)
        self.bbox_pred = nn.Conv2d(channels, 4 * per_cell, 1)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map [N, C, H_l, W_l] per level to logits [N, A, H_l, W_l] and deltas [N, 4A, …]."""
        hidden = [self.conv(feature) for feature in features]
        return [self.cls_logits(h) for h in hidden], [self.bbox_pred(h) for h in hidden]


def cell_anchors(spec: AnchorSpec, level: int) -> Tensor:
    """Anchors of one cell, centered on the origin.

    Returns:
        float32 [A, 4] xyxy, canvas pixels; ratio is height / width. `spec.cells` has precedence.

    Source: Faster R-CNN, sec. 3.1.1; torchvision `AnchorGenerator.generate_anchors` (rounded),
    detectron2 `DefaultAnchorGenerator` (not rounded).
    """
    if spec.cells:
        return torch.tensor(spec.cells[level], dtype=torch.float32)
    sizes = torch.tensor(spec.sizes[level], dtype=torch.float32)
    height_ratio = torch.sqrt(torch.tensor(spec.ratios[level], dtype=torch.float32))
    width_ratio = 1 / height_ratio
    if spec.order == "ratio-major":
        widths, heights = width_ratio[:, None] * sizes, height_ratio[:, None] * sizes
    else:
        widths, heights = sizes[:, None] * width_ratio, sizes[:, None] * height_ratio
    widths, heights = widths.reshape(-1), heights.reshape(-1)
    anchors = torch.stack([-widths, -heights, widths, heights], dim=1) / 2
    anchors = anchors.round() if spec.rounded else anchors
    return anchors + torch.tensor([0, 0, spec.end_shift, spec.end_shift])


def grid_anchors(
    cell: Tensor, grid_hw: tuple[int, int], stride_yx: tuple[int, int], offset: float
) -> Tensor:
    """Repeat a cell's anchors over a level's grid.

    Args:
        cell: float32 [A, 4].
        grid_hw: rows and columns of the level, possibly symbolic.
        stride_yx: canvas pixels per row and column, possibly symbolic.
        offset: center of the first cell, in strides.

    Returns:
        float32 [H * W * A, 4] xyxy, canvas pixels, cell by cell in row order.
    """
    y = torch.arange(grid_hw[0], device=cell.device).to(cell.dtype)
    x = torch.arange(grid_hw[1], device=cell.device).to(cell.dtype)
    y, x = (y + offset) * stride_yx[0], (x + offset) * stride_yx[1]
    zero = torch.zeros_like(y)[:, None] + torch.zeros_like(x)[None, :]  # [H, W]
    shift_y, shift_x = zero + y[:, None], zero + x[None, :]
    shifts = torch.stack([shift_x, shift_y, shift_x, shift_y], dim=-1)  # [H, W, 4]
    return (shifts[:, :, None, :] + cell).reshape(-1, 4)
