"""COCO average precision by pycocotools, without its output and its pitfalls.

pycocotools fails on an empty list of results, modifies the caller's annotations and rows, and takes
the size class of a row with a box and a mask from the box even for masks.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from model.errors import MissingDependencyError, UsageError

IouType = Literal["bbox", "segm"]
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ApResult:
    """COCO's twelve numbers, as fractions of 1; -1 where the ground truth has no such object.

    `ap` is the mean over IoU 0.50:0.95; `ar1` is the recall with one detection per image.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float


def evaluate(
    ground_truth: Json, results: Iterable[Json], iou_type: IouType, image_ids: Sequence[int]
) -> ApResult:
    """Score results against annotations; neither is changed.

    Args:
        ground_truth: COCO JSON with `images`, `annotations` (including crowds, whose detections
            are ignored) and `categories`.
        results: COCO result rows: `image_id`, `category_id`, `score`, and `bbox` (xywh, pixels)
            or `segmentation` (compressed RLE), as `iou_type` needs.
        iou_type: Overlap of boxes or of masks.
        image_ids: Images to score, one or more; results of others are ignored.

    Raises:
        UsageError: An image of `image_ids` is not in the ground truth, or a row lacks its field.
        MissingDependencyError: pycocotools is not installed.

    Source: COCOeval of pycocotools, default parameters (at most 100 detections per image).
    """
    require_pycocotools()
    from pycocotools import coco, cocoeval

    images = _named_images(ground_truth, image_ids)
    ids = {image["id"] for image in images}
    truth = [dict(a) for a in ground_truth["annotations"] if a["image_id"] in ids]
    of_images = [row for row in results if row["image_id"] in ids]
    rows = [_row(number, row, iou_type) for number, row in enumerate(of_images, start=1)]
    categories = [dict(category) for category in ground_truth["categories"]]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = cocoeval.COCOeval(
            _indexed(coco, images, categories, truth),
            _indexed(coco, images, categories, rows),
            iou_type,
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return ApResult(*(float(value) for value in evaluation.stats))


def _named_images(ground_truth: Json, image_ids: Sequence[int]) -> list[Json]:
    known = {image["id"]: image for image in ground_truth["images"]}
    ids = sorted(set(image_ids))
    missing = [image_id for image_id in ids if image_id not in known]
    if missing or not ids:
        raise UsageError(
            f"evaluate: expected one or more ids of the {len(known)} annotated images, got "
            f"{len(ids)}, not annotated: {missing[:3]}; evaluate the images of this annotation "
            "file"
        )
    return [known[image_id] for image_id in ids]


def shape_area_px(shape: Any, iou_type: IouType) -> float:
    """Area of a box (xywh) or a mask (compressed RLE), for COCO's size class."""
    if iou_type == "bbox":
        return float(shape[2] * shape[3])
    require_pycocotools()
    from pycocotools import mask

    return float(mask.area(shape))


def require_pycocotools(what: str = "COCO AP needs", alternative: str = "") -> None:
    """Check that AP can be computed; `what` and `alternative` are for the message.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} pycocotools, which is not installed; pip install 'maskport[eval]'{alternative}"
        ) from error


def _indexed(
    coco: Any, images: Sequence[Json], categories: Sequence[Json], rows: Sequence[Json]
) -> Any:
    """A COCO object of these annotations; `loadRes` fails on an empty list."""
    indexed = coco.COCO()
    indexed.dataset = {"images": images, "categories": categories, "annotations": rows}
    indexed.createIndex()
    return indexed


def _row(number: int, row: Json, iou_type: IouType) -> dict[str, Any]:
    """A result row as an annotation, with the area of its box or mask."""
    key = "bbox" if iou_type == "bbox" else "segmentation"
    if key not in row:
        raise UsageError(
            f"evaluate: expected '{key}' in result row {number}, got {sorted(row)}; predict with a "
            "model that has it, or evaluate the other IoU type"
        )
    shape = row[key]
    fields = {name: row[name] for name in ("image_id", "category_id", "score")}
    area_px = shape_area_px(shape, iou_type)
    return {**fields, key: shape, "area": area_px, "iscrowd": 0, "id": number}
