"""Run lengths and polygons of random masks, compared with pycocotools and with the pixels.

10,000 masks for each paste rule: blobs, noise, empty, full, single pixels, masks over one or more
borders. For each, `Detections.rle()` must be byte-identical to pycocotools on the dense mask, and
the polygons, exact and simplified, must rasterize to the mask: IoU at least 0.98 if the mask has
more than 100 px. Exit status 1 when one fails.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import results
from bench.paste import soft_masks
from model.arrays import Bool, Float32
from model.spec import PasteRule
from runtime.detections import Detections
from runtime.masks.polygons import SAME_PIXELS_PX, Polygon

CASES = ("blob", "noise", "empty", "full", "pixel", "border")
# Fractions; blobs and borders are what models return, the others vary little.
_FRACTIONS = (0.4, 0.1, 0.1, 0.05, 0.1, 0.25)
SIDE, PER_IMAGE = 28, 20
MIN_AREA_PX, MIN_IOU = 100, 0.98


@dataclass(slots=True)
class Count:
    """Counts of one case under one paste rule."""

    paste: PasteRule
    case: str
    masks: int = 0
    identical: int = 0
    empty: int = 0
    full: int = 0
    single: int = 0
    large: int = 0
    exact_outlines: int = 0
    simplified_same: int = 0
    worst_iou: float = 1.0

    @property
    def has_passed(self) -> bool:
        """Whether every mask passed."""
        return self.identical == self.exact_outlines == self.masks and self.worst_iou >= MIN_IOU


def random_detections(
    rule: PasteRule, count: int, rng: np.random.Generator
) -> Iterator[tuple[list[str], Detections]]:
    """`count` masks in images of up to 20 each, with the case of every row."""
    while count > 0:
        rows = min(PER_IMAGE, count)
        count -= rows
        height, width = (int(side) for side in rng.integers(1, 220, 2))
        cases = [str(case) for case in rng.choice(CASES, rows, p=_FRACTIONS)]
        probs = soft_masks(rows, rng)
        boxes = np.empty((rows, 4), np.float32)
        for row, case in enumerate(cases):
            boxes[row] = _box(case, (height, width), rng)
            probs[row] = _probs(case, probs[row], rng)
        yield (
            cases,
            Detections(
                boxes=boxes,
                scores=np.ones(rows, np.float32),
                labels=np.zeros(rows, np.int64),
                names=("thing",) * rows,
                mask_probs=probs,
                image_hw=(height, width),
                paste=rule,
                mask_threshold=float(rng.choice((0.5, 0.3, 0.9))),
                mask_threshold_inclusive=bool(rng.integers(2)),
            ),
        )


def _box(case: str, image_hw: tuple[int, int], rng: np.random.Generator) -> Float32:
    extent = np.array(image_hw[::-1], np.float64)
    low, high = np.sort(rng.random((2, 2)), axis=0) * extent
    if case == "full":
        margin = rng.uniform(2, 50, 2)
        low, high = -margin, extent + margin
    elif case == "pixel":
        # The integer rule expands a box of one pixel over its neighbors, and a smaller one to one.
        inset = 0.3 * rng.integers(2)
        low = np.floor(low) + inset
        high = np.floor(low) + 1 - inset
    elif case == "border":
        margin = rng.uniform(0, 0.7, 2) * extent * rng.integers(0, 2, 2)
        low, high = (low - margin, high) if rng.integers(2) else (low, high + margin)
    elif case == "empty" and rng.integers(2):
        low, high = low + extent, high + extent + 1
    return np.concatenate((low, high)).astype(np.float32)


def _probs(case: str, blob: Float32, rng: np.random.Generator) -> Float32:
    if case == "noise":
        return rng.random(blob.shape, np.float32)
    if case in ("full", "pixel"):
        return np.ones_like(blob)
    return np.zeros_like(blob) if case == "empty" else blob


def check(count: int, seed: int, rules: Sequence[PasteRule] = get_args(PasteRule)) -> list[Count]:
    """Check `count` masks under each rule; needs pycocotools."""
    all_counts: list[Count] = []
    for index, rule in enumerate(rules):
        counts = {case: Count(rule, case) for case in CASES}
        for cases, detections in random_detections(
            rule, count, np.random.default_rng(seed + index)
        ):
            _check_image(detections, [counts[case] for case in cases])
        all_counts += counts.values()
    return all_counts


def _check_image(detections: Detections, counts: Sequence[Count]) -> None:
    from pycocotools import mask as coco_mask

    dense = detections.masks
    assert dense is not None
    exact, simple = detections.polygons(), detections.polygons(SAME_PIXELS_PX)
    for row, text in enumerate(detections.rle()):
        mask, count = dense[row], counts[row]
        area = int(mask.sum())
        theirs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        expected = {"size": list(theirs["size"]), "counts": theirs["counts"].decode("ascii")}
        count.masks += 1
        count.identical += text == expected
        count.empty += area == 0
        count.full += area == mask.size
        count.single += area == 1
        count.exact_outlines += bool((rasterize(exact[row], mask.shape) == mask).all())
        simplified = rasterize(simple[row], mask.shape)
        count.simplified_same += bool((simplified == mask).all())
        if area > MIN_AREA_PX:
            count.large += 1
            iou = np.count_nonzero(simplified & mask) / np.count_nonzero(simplified | mask)
            count.worst_iou = min(count.worst_iou, float(iou))


def rasterize(polygons: Sequence[Polygon], image_hw: tuple[int, ...]) -> Bool:
    """Pixels whose center is inside, by the even-odd rule, bool [H, W]."""
    height, width = image_hw
    rings = [ring for part in polygons for ring in (part.exterior, *part.holes)]
    if not rings:
        return np.zeros((height, width), np.bool_)
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    center = np.arange(height) + 0.5
    edge, row = np.nonzero((start[:, 1:] < center) != (end[:, 1:] < center))
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    crossing = x0 + (center[row] - y0) / (y1 - y0) * (x1 - x0)
    # A pixel is inside if the number of crossings right of its center is odd.
    column = np.ceil(crossing - 0.5).clip(0, width).astype(np.int64)
    crossings = np.zeros((height, width + 1), np.int64)
    np.add.at(crossings, (row, column), 1)
    to_the_right = crossings[:, ::-1].cumsum(axis=1)[:, ::-1]
    inside: Bool = to_the_right[:, 1:] % 2 == 1
    return inside


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="masks per rule")
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    counts = check(args.count, args.seed)
    _report(counts, args)
    return 0 if all(c.has_passed for c in counts) else 1


def _report(counts: Sequence[Count], args: argparse.Namespace) -> None:
    columns = (
        "paste", "case", "masks", "identical run lengths", "empty, full, one pixel",
        "exact outlines", "simplified, same pixels", "over 100 px", "worst IoU of those", "verdict",
    )  # fmt: skip
    cells = [
        [
            c.paste, c.case, c.masks, c.identical, f"{c.empty}, {c.full}, {c.single}",
            c.exact_outlines, c.simplified_same, c.large, f"{c.worst_iou:.4f}",
            "passed" if c.has_passed else "FAILED",
        ]
        for c in counts
    ]  # fmt: skip
    data = {"rows": [dict(zip(columns, row, strict=True)) for row in cells]}
    body = results.table(columns, cells)
    results.write("Run lengths and polygons", body, data, args.json, args.markdown)


if __name__ == "__main__":
    sys.exit(main())
