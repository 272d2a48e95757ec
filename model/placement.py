"""The window of each image on the canvas.

Legend: N images, H x W canvas, K boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Windows:
    """Size and position of each image on the canvas.

    Attributes:
        image_hw: float32 [N, 2], size on the canvas, in pixels.
        origin_yx: float32 [N, 2], first row and column; None for the top left corner.
        canvas_hw: height and width of the canvas in pixels, possibly symbolic.
    """

    image_hw: Tensor
    origin_yx: Tensor | None
    canvas_hw: tuple[int, int]

    def inside(self) -> Tensor:
        """Bool [N, H, W]: the pixels inside the image."""
        y = torch.arange(self.canvas_hw[0], device=self.image_hw.device)[None, :, None]
        x = torch.arange(self.canvas_hw[1], device=self.image_hw.device)[None, None, :]
        end = self.image_hw if self.origin_yx is None else self.origin_yx + self.image_hw
        inside = (y < end[:, 0, None, None]) & (x < end[:, 1, None, None])
        if self.origin_yx is None:
            return inside
        first = self.origin_yx[:, :, None, None]
        return inside & (y >= first[:, 0]) & (x >= first[:, 1])

    def clip(self, boxes: Tensor, to: Literal["image", "canvas"], end_shift: int) -> Tensor:
        """Clip boxes to the images or to the canvas.

        Args:
            boxes: float32 [N, K, 4] xyxy, canvas pixels.
            to: the region to clip to.
            end_shift: added to the right and bottom edges (see `model.spec.AnchorSpec`).
        """
        if to == "canvas":
            one = boxes.new_ones(1)  # a side may be symbolic: a product with it is a tensor
            end = torch.cat([one * self.canvas_hw[1], one * self.canvas_hw[0]] * 2)
            return torch.minimum(boxes.clamp(min=0.0), end + end_shift)
        end_yx = self.image_hw if self.origin_yx is None else self.origin_yx + self.image_hw
        end = torch.cat([end_yx[:, 1:], end_yx[:, :1]] * 2, dim=1)[:, None]  # [N, 1, 4]
        if end_shift:
            end = end + end_shift
        if self.origin_yx is None:
            return torch.minimum(boxes.clamp(min=0.0), end)
        start = torch.cat([self.origin_yx[:, 1:], self.origin_yx[:, :1]] * 2, dim=1)[:, None]
        return torch.minimum(torch.maximum(boxes, start), end)


def image_windows(
    image_hw: Tensor, canvas_hw: tuple[int, int], placement: Literal["top-left", "centred"]
) -> Windows:
    """Place images of these sizes; "centred" rounds towards the top left (Matterport)."""
    if placement == "top-left":
        return Windows(image_hw, None, canvas_hw)
    spare_yx = torch.stack([canvas_hw[0] - image_hw[:, 0], canvas_hw[1] - image_hw[:, 1]], dim=1)
    return Windows(image_hw, torch.floor(spare_yx / 2), canvas_hw)
