"""Heat maps to keypoints where they are: tensors of a device in, tensors out.

A photo's heat maps are 20 MB; only its boxes, 2 kB, come to the host, to know the sizes.

Legend: D detections, J keypoints, S side of a heat map; boxes are xyxy in canvas pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model.errors import MissingDependencyError
from runtime.keypoints import KeypointScore, grids_of

if TYPE_CHECKING:
    import torch

# Resized maps that stand in memory at a time: 64 MB.
_BLOCK_PIXELS = 1 << 24


def decode_on_device(
    heatmaps: Any, boxes_xyxy: Any, score: KeypointScore = "logit"
) -> torch.Tensor:
    """Do what `runtime.keypoints.decode` does, on the heat maps' device.

    Args:
        heatmaps: float32 [D, J, S, S] logits; a torch tensor, or anything that gives a DLPack
            capsule (`__dlpack__`), of any device.
        boxes_xyxy: float32 [D, 4], canvas pixels, of the same device.
        score: see there.

    Returns:
        float32 [D, J, 3] on that device: x, y in canvas pixels, score. Of equal peaks, whichever
        the device finds.

    Raises:
        ArtifactError: a box is larger than any canvas.
        MissingDependencyError: PyTorch is not installed.
    """
    try:
        import torch
        from torch.utils.dlpack import from_dlpack
    except ImportError as error:
        raise MissingDependencyError(
            "keypoints on a device need PyTorch; pip install 'maskport[export]', or decode them "
            "with runtime.keypoints"
        ) from error
    with torch.no_grad():
        maps, boxes = (from_dlpack(given) for given in (heatmaps, boxes_xyxy))
        grids = grids_of(boxes.cpu().numpy())
        peaks, places = maps.new_empty(maps.shape[:2]), boxes.new_empty((*maps.shape[:2], 2))
        for row, (width, height) in enumerate(grids.size.tolist()):
            peaks[row], place = _peaks(maps[row], height, width)
            places[row] = torch.stack((place % width, place // width), dim=1)
        corner, step = (
            torch.from_numpy(part).to(maps.device)[:, None] for part in (grids.corner, grids.step)
        )
        third = peaks if score == "logit" else _softmax_score(maps, peaks)
        return torch.cat(((places + 0.5) * step + corner, third[..., None]), dim=2)


def _peaks(maps: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest pixel of each map, [J, S, S], resized to the box, and its place: [J] each."""
    import torch

    at_a_time = max(1, _BLOCK_PIXELS // (height * width))
    found = []
    for some in torch.split(maps[:, None], at_a_time):
        resized = torch.nn.functional.interpolate(some, (height, width), mode="bicubic")
        found.append(resized.flatten(1).max(dim=1))
    values, indices = zip(*found, strict=True)
    return torch.cat(values), torch.cat(indices)


def _softmax_score(maps: torch.Tensor, peaks: torch.Tensor) -> torch.Tensor:
    """Share of each resized peak, [D, J], in its map's positions."""
    import torch

    logits = maps.flatten(2)
    highest = logits.amax(dim=2)
    return torch.exp(peaks - highest) / torch.exp(logits - highest[..., None]).sum(dim=2)
