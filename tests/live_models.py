"""A live model itself as the reference: its own `forward`, transform and paste.

Legend: H x W canvas.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from export.parity.eager_variants import model_noise
from export.parity.torchvision_reference import (
    EagerDetections,
    TorchvisionEager,
    _detections,
)
from model.arrays import UInt8
from model.live.read import LiveModel, read_live
from runtime.compare.limits import Verdict
from runtime.compare.matching import compare
from runtime.compare.noise_check import check_with_noise
from runtime.detections import Detections


def run_object(
    model: nn.Module, photos: Sequence[UInt8], canvas_hw: tuple[int, int] | None = None
) -> list[EagerDetections]:
    """Run the module's own `forward` on photos that share a canvas.

    On a fixed canvas its transform resizes the photos to fit it, and pads to it.
    """
    live = read_live(model, canvas_hw=canvas_hw)
    running = copy.deepcopy(model).eval()
    tensors = [torch.from_numpy(p.copy()).permute(2, 0, 1).float() / 255 for p in photos]
    if canvas_hw is not None:
        _fit(running, canvas_hw)
    with torch.inference_mode():
        # torchvision takes the strides of its poolers from its first photo: one that is not flat.
        running([torch.zeros(len(tensors[0]), *(canvas_hw or (96, 128)))])
    on_canvas: list[Tensor] = []
    original = running.transform.postprocess

    def postprocess(result: list[dict[str, Tensor]], *sizes: object) -> object:
        on_canvas.extend(dict(each) for each in result)  # the masks before they are pasted
        return original(result, *sizes)

    running.transform.postprocess = postprocess
    with torch.inference_mode():
        results = running(tensors)
    return [
        _detections(result, raw, live.spec, photo.shape[:2])
        for result, raw, photo in zip(results, on_canvas, photos, strict=True)
    ]


def _fit(model: nn.Module, canvas_hw: tuple[int, int]) -> None:
    transform = model.transform
    resize, fixed = transform.resize, transform.fixed_size

    def resize_to_fit(image: Tensor, target: object = None) -> object:
        height, width = image.shape[-2:]
        short, long = transform.min_size[-1], transform.max_size
        scale = min(
            long / max(height, width),
            short / min(height, width),
            canvas_hw[0] / height,
            canvas_hw[1] / width,
        )
        transform.fixed_size = fixed or (math.floor(width * scale), math.floor(height * scale))
        return resize(image, target)

    def pad(images: list[Tensor], size_divisible: int = 32) -> Tensor:
        batch = images[0].new_zeros(len(images), len(images[0]), *canvas_hw)
        for row, image in zip(batch, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = image
        return batch

    transform.resize, transform.batch_images = resize_to_fit, pad


def verdict_of(
    model: nn.Module,
    photos: Sequence[UInt8],
    results: Sequence[Detections],
    canvas_hw: tuple[int, int] | None = None,
) -> Verdict:
    """Compare with the object, in the limits of a file widened by the model's own noise."""
    live: LiveModel = read_live(model, canvas_hw=canvas_hw)
    eager = TorchvisionEager(live, canvas_hw)
    objects = run_object(model, photos, canvas_hw)
    by_name = {str(index): photo for index, photo in enumerate(photos)}
    runs = dict(zip(by_name, eager.run_batch(photos), strict=True))
    pairs = [compare(*pair) for pair in zip(objects, results, by_name, strict=True)]
    threshold = live.spec.box.score_threshold
    verdict, _ = check_with_noise(
        pairs,
        lambda name: runs[name].trace,
        lambda: model_noise(eager, by_name, runs, threshold),
    )
    return verdict


def photos_of(channels: int = 3, seed: int = 5) -> list[np.ndarray]:
    """Three shapes of photos."""
    from tests.lively import picture

    shapes = ((150, 200), (220, 140), (96, 250))
    pictures = [picture(h, w, seed + i) for i, (h, w) in enumerate(shapes)]
    return [p[:, :, [c % 3 for c in range(channels)]] for p in pictures]
