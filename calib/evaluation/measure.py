"""The proof: what a quantised file finds on photos that nothing was chosen by."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calib.evaluation.agreement import Scores, detect, scores
from calib.evaluation.annotations import image_ids
from model.spec import ModelSpec
from runtime.compare.bootstrap import interval
from runtime.compare.coco_ap import evaluate
from runtime.detections import Detections
from runtime.formats.coco import rows_by_class
from runtime.sessions.session import Session

_RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class ApChange:
    """COCO AP of a candidate in points, its change, and the change's 95 % interval over photos.

    All are NaN where there is nothing to find, as on photos with crowds alone.
    """

    kind: str
    ap: float
    change: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Proof:
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
class EvaluationPhotos:
    """Photos, what the reference finds on them, and labels where there are some."""

    photos: Sequence[Path]
    references: Sequence[Detections]
    spec: ModelSpec
    truth: Mapping[str, Any] | None = None

    @property
    def image_ids(self) -> list[int]:
        """Of the annotations, by file name."""
        assert self.truth is not None
        return image_ids(self.photos, self.truth)


def prove(
    title: str,
    session: Session,
    size_bytes: int,
    on: EvaluationPhotos,
    advance: Callable[[int], None],
) -> Proof:
    """Run a session, which is closed after it, on all photos and compare."""
    seconds: list[float] = []
    last = time.perf_counter()

    def tick(count: int) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
        advance(count)

    found = detect(session, on.photos, tick)
    one_by_one = [scores([r], [f]) for r, f in zip(on.references, found, strict=True)]
    worst = max(range(len(found)), key=lambda i: one_by_one[i].loss)
    changes: tuple[ApChange, ...] = ()
    if on.truth is not None:
        kinds = ("bbox",) if one_by_one[0].mask is None else ("bbox", "segm")
        changes = tuple(_change(kind, on, found) for kind in kinds)
    return Proof(
        title,
        scores(on.references, found),
        on.photos[worst],
        one_by_one[worst],
        sorted(seconds)[len(seconds) // 2],
        size_bytes,
        changes,
    )


def _change(kind: str, on: EvaluationPhotos, found: Sequence[Detections]) -> ApChange:
    ids, truth = on.image_ids, on.truth
    assert truth is not None
    sides = [_rows(side, ids, on.spec) for side in (on.references, found)]

    def change(chosen: Sequence[int]) -> tuple[float, float]:
        drawn = resampled(truth, [ids[i] for i in chosen])
        numbers = list(range(1, len(chosen) + 1))
        aps = []
        for side in sides:
            rows = [
                {**row, "image_id": number}
                for number, i in zip(numbers, chosen, strict=True)
                for row in side[i]
            ]
            ap = evaluate(drawn, rows, kind, numbers).ap  # type: ignore[arg-type]
            # -1 where a draw has nothing to find: no number then, and none in the interval.
            aps.append(math.nan if ap < 0.0 else 100 * ap)
        return aps[1], aps[1] - aps[0]

    ap, difference = change(range(len(ids)))
    low, high = interval(lambda chosen: change(chosen)[1], len(ids), _RESAMPLES)
    return ApChange(kind, ap, difference, low, high)


def _rows(
    side: Sequence[Detections], ids: Sequence[int], spec: ModelSpec
) -> list[list[dict[str, Any]]]:
    return [
        [dict(row) for row in rows_by_class(found, image_id, spec.classes)]
        for found, image_id in zip(side, ids, strict=True)
    ]


def resampled(truth: Mapping[str, Any], ids: Sequence[int]) -> dict[str, Any]:
    """Annotations of a draw with replacement: every drawn photo under a number of its own."""
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for annotation in truth["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    images = {image["id"]: image for image in truth["images"]}
    annotations = [
        {**annotation, "image_id": number}
        for number, image_id in enumerate(ids, start=1)
        for annotation in by_image.get(image_id, ())
    ]
    return {
        "images": [{**images[i], "id": number} for number, i in enumerate(ids, start=1)],
        "categories": truth["categories"],
        "annotations": [{**a, "id": number} for number, a in enumerate(annotations, start=1)],
    }
