"""COCO's numbers of 5,000 photos with 36 detections each: time and memory, against pycocotools.

Both start from result rows in memory, masks as run lengths: pycocotools with `loadRes`, `evaluate`,
`accumulate` and `summarize`, as its demo does, this project with `runtime.compare.coco_ap`. They
run in turn, and medians count. Peak memory is that of a process that makes the rows and computes
the numbers of boxes and masks once. Exit status 1 when a number differs by more than 1e-12, boxes
take more than a tenth or masks more than a fifth of pycocotools' time, or memory exceeds 2 GB.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import child, results

# The parent of a measured process imports nothing large, see `bench.child`.
if TYPE_CHECKING:
    from runtime.compare.coco_inputs import IouType

IMAGE_HW = 480, 640
OBJECTS, CLASSES, MASKS = 7, 80, 500
MOST_OF_PYCOCOTOOLS: dict[IouType, float] = {"bbox": 1 / 10, "segm": 1 / 5}
MAX_DIFFERENCE, MAX_GB = 1e-12, 2.0


@dataclass(slots=True)
class Measured:
    """Seconds by run and the largest difference of the numbers."""

    iou_type: IouType
    ours_s: list[float] = field(default_factory=list)
    theirs_s: list[float] = field(default_factory=list)
    difference: float = 0.0

    @property
    def ratio(self) -> float:
        """Our median over pycocotools'."""
        return statistics.median(self.ours_s) / statistics.median(self.theirs_s)

    @property
    def has_passed(self) -> bool:
        """Whether time and numbers are within the limits."""
        is_fast = self.ratio <= MOST_OF_PYCOCOTOOLS[self.iou_type]
        return is_fast and self.difference <= MAX_DIFFERENCE


def scenes(photos: int, detections: int, seed: int = 0) -> tuple[dict[str, Any], list[Any]]:
    """Annotations and result rows: each detection is near an object, its class at times wrong."""
    import numpy as np

    from bench.paste import soft_masks
    from runtime.compare.coco_inputs import areas_px
    from runtime.detections import Detections
    from runtime.formats.coco import rows

    rng = np.random.default_rng(seed)
    probs = soft_masks(MASKS, rng)
    height, width = IMAGE_HW
    annotations, found = list[Any](), list[Any]()
    for image_id in range(1, photos + 1):
        low = rng.random((OBJECTS, 2)) * [0.8 * width, 0.8 * height]
        sides = np.exp(rng.uniform(np.log(12), np.log(400), (OBJECTS, 2)))
        objects = np.clip(np.hstack((low, low + sides)), 0, [width, height] * 2)
        of = np.concatenate((np.arange(OBJECTS), rng.integers(0, OBJECTS, detections)))
        jitter = rng.normal(0, 0.08, (OBJECTS + detections, 4)) * np.tile(sides, 2)[of]
        jitter[:OBJECTS] = 0
        boxes = (objects[of] + jitter).astype(np.float32)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        labels = rng.integers(0, CLASSES, OBJECTS)[of]
        labels[rng.random(labels.size) < 0.2] = rng.integers(CLASSES)
        both = Detections(
            boxes=boxes,
            scores=rng.random(labels.size, np.float32),
            labels=labels,
            names=("thing",) * labels.size,
            mask_probs=probs[rng.integers(0, MASKS, OBJECTS)[of]],
            image_hw=IMAGE_HW,
        )
        of_photo = rows(both, image_id)
        annotations += of_photo[:OBJECTS]
        found += of_photo[OBJECTS:]
    areas = areas_px([one["segmentation"] for one in annotations], "segm")
    truth = {
        "images": [{"id": n, "height": height, "width": width} for n in range(1, photos + 1)],
        "categories": [{"id": n, "name": str(n)} for n in range(CLASSES)],
        "annotations": [
            {**one, "id": n, "area": area, "iscrowd": int(n % 100 == 0)}
            for n, (one, area) in enumerate(zip(annotations, areas, strict=True), start=1)
        ],
    }
    return truth, found


def ours(truth: dict[str, Any], rows: list[Any], iou_type: IouType) -> list[float]:
    """The twelve numbers."""
    from runtime.compare.coco_ap import evaluate

    ids = [image["id"] for image in truth["images"]]
    return list(evaluate(truth, rows, iou_type, ids, evaluator="hotcoco").numbers.values())


def theirs(truth: dict[str, Any], rows: list[Any], iou_type: IouType) -> list[float]:
    """The same by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        labels = COCO()
        labels.dataset = truth
        labels.createIndex()
        evaluation = COCOeval(labels, labels.loadRes(rows), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(one) for one in evaluation.stats]


def measure(photos: int, detections: int, repeats: int) -> list[Measured]:
    """Both in turn, for boxes and for masks."""
    truth, rows = scenes(photos, detections)
    measured = []
    fields: dict[IouType, str] = {"bbox": "bbox", "segm": "segmentation"}
    for iou_type, key in fields.items():
        one = Measured(iou_type)
        for _ in range(repeats):
            # pycocotools changes its input, and sizes masks by their boxes where both are given.
            kept = ("image_id", "category_id", "score", key)
            copies = [{name: row[name] for name in kept} for row in rows]
            labels = {**truth, "annotations": [dict(a) for a in truth["annotations"]]}
            started = time.perf_counter()
            expected = theirs(labels, copies, iou_type)
            between = time.perf_counter()
            numbers = ours(truth, rows, iou_type)
            one.ours_s.append(time.perf_counter() - between)
            one.theirs_s.append(between - started)
            differences = [abs(a - b) for a, b in zip(numbers, expected, strict=True)]
            one.difference = max(one.difference, *differences)
        measured.append(one)
    return measured


def main() -> int:
    """Measure; status 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=5_000)
    parser.add_argument("--detections", type=int, default=36, help="of each photo")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--part", choices=("time", "memory"), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    if args.part == "memory":
        truth, rows = scenes(args.photos, args.detections)
        print(ours(truth, rows, "bbox"), ours(truth, rows, "segm"))
        return 0
    if args.part == "time":
        for one in measure(args.photos, args.detections, args.repeats):
            print(json.dumps([one.iou_type, one.ours_s, one.theirs_s, one.difference]))
        return 0
    common = (f"--photos={args.photos}", f"--detections={args.detections}")
    peak_gb = child.run((__file__, *common, "--part=memory")).peak_gb
    output = child.run((__file__, *common, f"--repeats={args.repeats}", "--part=time")).output
    measured = [Measured(*json.loads(line)) for line in output.splitlines()]
    _report(measured, peak_gb, args)
    return 0 if peak_gb <= MAX_GB and all(one.has_passed for one in measured) else 1


def _report(measured: list[Measured], peak_gb: float, args: argparse.Namespace) -> None:
    from runtime.compare.coco_evaluators import evaluator_version

    columns = (
        "overlap of", "here, s", "pycocotools, s", "ratio", "limit", "largest difference",
        "verdict",
    )  # fmt: skip
    cells = [
        [
            {"bbox": "boxes", "segm": "masks"}[one.iou_type],
            f"{statistics.median(one.ours_s):.2f}",
            f"{statistics.median(one.theirs_s):.2f}",
            f"1/{1 / one.ratio:.0f}",
            f"1/{1 / MOST_OF_PYCOCOTOOLS[one.iou_type]:.0f}",
            f"{one.difference:.1g}",
            "passed" if one.has_passed else "FAILED",
        ]
        for one in measured
    ]
    versions = f"{evaluator_version('hotcoco')} and {evaluator_version('pycocotools')}"
    text = (
        f"{args.photos} photos with {args.detections} detections each, {CLASSES} classes; medians "
        f"of {args.repeats} runs in turn; {versions}.\n\n{results.table(columns, cells)}\n\n"
        f"Peak memory, rows included: {peak_gb:.2f} GB (limit {MAX_GB:.0f} GB)."
    )
    data = {"rows": [dict(zip(columns, row, strict=True)) for row in cells], "peak_gb": peak_gb}
    results.write("Evaluation", text, data, args.json, args.markdown)


if __name__ == "__main__":
    sys.exit(main())
