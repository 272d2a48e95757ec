"""Agreement, COCO AP, time and worst photo of one session on the held-out photos."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calib.evaluation.agreement import Scores, agreement, detect
from calib.evaluation.photos import EvaluationSet
from model.spec import ModelSpec
from runtime.annotations.labels import Labels
from runtime.compare.coco_ap import evaluate
from runtime.compare.coco_inputs import IouType
from runtime.detections import Detections
from runtime.formats.coco import rows_by_class
from runtime.sessions.session import Session
from runtime.sources.pixel_format import ValueRange

_RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class ApChange:
    """COCO AP of a candidate in points, and its change from the reference's AP.

    `low` to `high` is the change's 95 % bootstrap interval over photos. All are NaN without ground
    truth, as on photos with crowds only. `kind` is "bbox" or "segm".
    """

    kind: IouType
    ap: float
    change: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """One artifact on the evaluation photos.

    `worst` is the photo with the lowest agreement; `seconds` is the median of a photo, decoding
    and pasting included.
    """

    title: str
    scores: Scores
    worst: Path
    worst_scores: Scores
    seconds: float
    size_bytes: int
    changes: tuple[ApChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """The held-out photos, with the reference's detections on each."""

    photos: EvaluationSet
    detections: Sequence[Detections]
    spec: ModelSpec
    value_range: ValueRange | None = None


def evaluate_session(
    title: str,
    session: Session,
    size_bytes: int,
    reference: Reference,
    advance: Callable[[int], None],
) -> EvaluationRow:
    """Run a session on all photos and compare; closes the session."""
    seconds: list[float] = []
    last = time.perf_counter()

    def tick(count: int) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
        advance(count)

    results = detect(session, reference.photos.paths, tick, reference.value_range)
    pairs = zip(reference.detections, results, strict=True)
    by_photo = [agreement([one], [other]) for one, other in pairs]
    worst = max(range(len(results)), key=lambda i: by_photo[i].loss)
    changes: tuple[ApChange, ...] = ()
    labels = reference.photos.labels
    if labels is not None:
        kinds = [kind for kind in labels.iou_types if kind != "keypoints"]
        changes = tuple(_change(kind, reference, labels, results) for kind in kinds)
    return EvaluationRow(
        title,
        agreement(reference.detections, results),
        reference.photos.paths[worst],
        by_photo[worst],
        sorted(seconds)[len(seconds) // 2],
        size_bytes,
        changes,
    )


def _change(
    kind: IouType, reference: Reference, labels: Labels, results: Sequence[Detections]
) -> ApChange:
    ids = reference.photos.image_ids
    before, after = (
        # The draws set the image ids.
        [rows_by_class(one, 0, reference.spec.classes) for one in side]
        for side in (reference.detections, results)
    )

    def change(draw: Sequence[int]) -> tuple[float, float]:
        truth = resampled(labels.document, [ids[i] for i in draw])
        aps = []
        for side in (before, after):
            rows = [{**row, "image_id": n} for n, i in enumerate(draw, start=1) for row in side[i]]
            ap = evaluate(truth, rows, kind, range(1, len(draw) + 1)).ap
            # -1 without ground truth; NaN is left out of the interval.
            aps.append(math.nan if ap < 0.0 else 100 * ap)
        return aps[1], aps[1] - aps[0]

    ap, difference = change(range(len(ids)))
    low, high = interval(lambda draw: change(draw)[1], len(ids), _RESAMPLES)
    return ApChange(kind, ap, difference, low, high)


def resampled(document: Mapping[str, Any], ids: Sequence[int]) -> dict[str, Any]:
    """Annotations of a draw with replacement: each photo of the draw becomes an image of its own.

    Args:
        document: COCO instances.
        ids: of the drawn images, with repetitions; they become 1, 2, ….
    """
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for annotation in document["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    images = {image["id"]: image for image in document["images"]}
    annotations = [
        {**annotation, "image_id": number}
        for number, image_id in enumerate(ids, start=1)
        for annotation in by_image.get(image_id, ())
    ]
    return {
        "images": [{**images[i], "id": number} for number, i in enumerate(ids, start=1)],
        "categories": document["categories"],
        "annotations": [{**a, "id": number} for number, a in enumerate(annotations, start=1)],
    }


def interval(
    statistic: Callable[[Sequence[int]], float],
    count: int,
    resamples: int,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic over draws of photos with replacement.

    Args:
        statistic: of a sequence of indices below `count`, with repetitions.
        count: of photos.
        resamples: number of draws.
        level: fraction of the draws within the interval.
        seed: of the draws; the same seed draws the same photos.

    Source: Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982, sec. 10.4
    (percentile method).
    """
    random = np.random.default_rng(seed)
    draws = [random.integers(0, count, count).tolist() for _ in range(resamples)]
    values = [value for value in map(statistic, draws) if np.isfinite(value)]
    if not values:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
