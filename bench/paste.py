"""Paste, threshold and run-length encode 100 masks: ours against torchvision and pycocotools.

Medians over interleaved repeats on equal threads; the run lengths of every mask must be
byte-identical. In the first table the boxes have the same size in pixels at every image size (our
time must not grow with the image), in the second they scale with the image (it grows with the
box). The reference keeps all dense masks in memory, as torchvision's model does: 7 GB at 4K. Ours
is also measured in NumPy, without the C kernel. Exit status 1 when a mask differs or the target
at 1080p is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

IMAGES = {"720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}
SIDE = 28
MEAN_AREA_AT_1080P = 45_000
TARGET = 150
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table; times are medians in milliseconds for all masks together."""

    boxes: str
    image: str
    image_hw: tuple[int, int]
    masks: int
    mean_box_area_px: int
    ours_ms: float
    numpy_ms: float
    reference_ms: float
    ratio: float
    identical_masks: int


def soft_masks(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Star-shaped blobs with soft, noisy borders, float32 [count, SIDE, SIDE] in (0, 1)."""
    import numpy as np

    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1) * 2 - 1
    angle, radius = np.arctan2(y, x), np.hypot(y, x)
    order = np.arange(1, 6)[:, None, None]
    masks = []
    for _ in range(count):
        waves = rng.normal(0, 0.2, order.shape) / order
        phases = rng.uniform(0, 2 * np.pi, order.shape)
        edge = 0.75 + (waves * np.cos(order * angle + phases)).sum(axis=0)
        logits = (edge - radius) * rng.uniform(6, 25) + rng.normal(0, 0.15, radius.shape)
        masks.append(1 / (1 + np.exp(-logits)))
    return np.asarray(masks, np.float32)


def boxes_in(
    image_hw: tuple[int, int], count: int, mean_area_px: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Boxes of varied size and shape inside the image, float32 [count, 4] xyxy."""
    import numpy as np

    height, width = image_hw
    sides = np.exp(rng.normal(0, 0.45, (count, 2)))
    sides *= np.sqrt(mean_area_px / sides.prod(axis=1).mean())
    sides = np.minimum(sides, [width, height])
    corner = rng.random((count, 2)) * (np.array([width, height]) - sides)
    return np.concatenate((corner, corner + sides), axis=1).astype(np.float32)


def ours(
    masks: NDArray[np.float32], boxes: NDArray[np.float32], image_hw: tuple[int, int]
) -> list[str]:
    """The run lengths of all masks, as `Detections.rle` makes them."""
    from runtime.masks.paste import MaskRule
    from runtime.masks.rle_from_masks import encode_pasted

    return [rle["counts"] for rle in encode_pasted(masks, boxes, image_hw, MaskRule())]


def in_numpy(
    masks: NDArray[np.float32], boxes: NDArray[np.float32], image_hw: tuple[int, int]
) -> list[str]:
    """The same without the C kernel."""
    from runtime.masks import rle
    from runtime.masks.paste import MaskRule, paste_crops

    crops = paste_crops(masks, boxes, image_hw, MaskRule())
    return [rle.encode(c.columns, c.x0_px, c.y0_px, image_hw)["counts"] for c in crops]


def reference(
    masks: NDArray[np.float32], boxes: NDArray[np.float32], image_hw: tuple[int, int]
) -> list[str]:
    """The same by torchvision, a threshold and pycocotools."""
    import numpy as np
    import torch
    from pycocotools import mask as coco_mask
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    soft = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), image_hw)
    dense = (soft[:, 0] > 0.5).numpy().view(np.uint8)
    encoded = [coco_mask.encode(np.asfortranarray(mask)) for mask in dense]
    return [rle["counts"].decode("ascii") for rle in encoded]


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Wall time in milliseconds, and the result."""
    start = time.perf_counter()
    result = call()
    return (time.perf_counter() - start) * 1e3, result


def measure(
    boxes_are: str,
    image: str,
    masks: NDArray[np.float32],
    boxes: NDArray[np.float32],
    repeats: int,
) -> Row:
    """Time all in turn and compare their run lengths."""
    image_hw = IMAGES[image]
    ours(masks, boxes, image_hw)
    in_numpy(masks, boxes, image_hw)
    encoders = (ours, in_numpy, reference)
    times: list[list[float]] = [[] for _ in encoders]
    identical = len(masks)
    for _ in range(repeats):
        all_texts = []
        for encode, elapsed_ms in zip(encoders, times, strict=True):
            elapsed, texts = timed(partial(encode, masks, boxes, image_hw))
            elapsed_ms.append(elapsed)
            all_texts.append(texts)
        identical = min(
            identical, sum(len(set(of_mask)) == 1 for of_mask in zip(*all_texts, strict=True))
        )
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).mean()
    mine, numpys, theirs = map(median, times)
    measured = (mine, numpys, theirs, theirs / mine, identical)
    return Row(boxes_are, image, image_hw, len(masks), round(float(area)), *measured)


def run(count: int, repeats: int) -> list[Row]:
    """Measure and print the rows of both tables."""
    import numpy as np

    rng = np.random.default_rng(7)
    masks = soft_masks(count, rng)
    fixed = boxes_in(IMAGES["720p"], count, MEAN_AREA_AT_1080P, rng)
    scaled = boxes_in(IMAGES["1080p"], count, MEAN_AREA_AT_1080P, rng)
    rows = []
    for boxes_are in ("same size", "scaled"):
        print(f"\nboxes: {boxes_are}")
        print("  image  box area px    ours ms  NumPy ms  reference ms   ratio  identical")
        for image, (height, _) in IMAGES.items():
            boxes = fixed if boxes_are == "same size" else scaled * np.float32(height / 1080)
            row = measure(boxes_are, image, masks, boxes, repeats)
            print(
                f"  {row.image:>5}  {row.mean_box_area_px:>11,}  {row.ours_ms:>9.1f}  "
                f"{row.numpy_ms:>8.1f}  {row.reference_ms:>12,.0f}  {row.ratio:>5.0f}x  "
                f"{row.identical_masks:>5}/{row.masks}",
                flush=True,
            )
            rows.append(row)
    return rows


def report(rows: list[Row], threads: int, options: argparse.Namespace) -> bool:
    """Write the result; return whether every mask is identical and the target is met."""
    from bench import results
    from runtime.masks.rle_from_masks import IS_COMPILED

    identical, total = (sum(getattr(r, n) for r in rows) for n in ("identical_masks", "masks"))
    full_hd = min(row.ratio for row in rows if row.image == "1080p")
    columns = (
        "boxes", "image", "box area px", "ours ms", "in NumPy ms", "torchvision ms", "ratio",
        "identical",
    )  # fmt: skip
    cells = [
        (
            row.boxes,
            row.image,
            f"{row.mean_box_area_px:,}",
            f"{row.ours_ms:.1f}",
            f"{row.numpy_ms:.1f}",
            f"{row.reference_ms:,.0f}",
            f"{row.ratio:.0f}×",
            f"{row.identical_masks} of {row.masks}",
        )
        for row in rows
    ]
    met = full_hd >= TARGET and identical == total
    text = (
        f"{rows[0].masks} masks of 28 x 28 to run lengths: ours against torchvision's "
        f"`paste_masks_in_image`, threshold and pycocotools' `encode`, {threads} threads, "
        f"{options.repeats} calls each in turn, medians. Boxes of the same size take the same time "
        "in every image; the time of boxes that scale with the image grows with their area. `in "
        f"NumPy`: ours without the C kernel{'' if IS_COMPILED else ', as all of ours here'}.\n\n"
        f"{results.table(columns, cells)}\n\n"
        f"Run lengths byte-identical for {identical} of {total} masks. "
        f"Smallest ratio at 1080p {full_hd:.0f}×, target {TARGET}×: {'met' if met else 'MISSED'}."
    )
    data = {"threads": threads, "repeats": options.repeats, "rows": [asdict(row) for row in rows]}
    results.write("Pasting masks", text, data, options.json, options.markdown)
    return met


def main(argv: list[str]) -> int:
    """Run the benchmark; 1 when any mask differs or the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--masks", type=int, default=100, help="masks per image (100)")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repeats (3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides (2)")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    options = parser.parse_args(argv)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    import torch

    torch.set_num_threads(options.threads)
    rows = run(options.masks, options.repeats)
    return 0 if report(rows, options.threads, options) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
