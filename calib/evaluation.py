"""The proof: what a quantised file finds on photos that nothing was chosen by."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calib.judge import Scores, detect, scores
from model.errors import UsageError
from model.spec import ModelSpec
from runtime.compare.bootstrap import interval
from runtime.compare.coco_ap import evaluate
from runtime.detections import Detections
from runtime.formats.coco import rows_by_class
from runtime.sessions.session import Session

_RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class ApChange:
    """COCO AP of a candidate in points, its change, and the change's 95 % interval over photos."""

    kind: str
    ap: float
    change: float
    low: float
    high: float

    def __str__(self) -> str:
        name = "box" if self.kind == "bbox" else "mask"
        return f"{name} AP {self.ap:.2f} ({self.change:+.2f}, {self.low:+.2f} to {self.high:+.2f})"


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


def image_ids(photos: Sequence[Path], truth: Mapping[str, Any]) -> list[int]:
    """The annotations' id of every photo.

    Raises:
        UsageError: a photo that the annotations do not name.
    """
    known = {Path(str(image["file_name"])).name: int(image["id"]) for image in truth["images"]}
    missing = [photo.name for photo in photos if photo.name not in known]
    if missing:
        raise UsageError(
            f"--annotations: {len(missing)} of {len(photos)} photos are not in it, for instance "
            f"{missing[0]}; give the annotations of --eval-images"
        )
    return [known[photo.name] for photo in photos]


def require_truth(photos: Sequence[Path], truth: Mapping[str, Any], spec: ModelSpec) -> None:
    """Refuse annotations that no AP can be made of.

    Raises:
        UsageError: no object on any of the photos, or objects without an outline for mask AP.
    """
    ids = set(image_ids(photos, truth))
    objects = [one for one in truth["annotations"] if one["image_id"] in ids]
    if not objects:
        raise UsageError(
            f"--annotations: no object on any of the {len(photos)} photos of --eval-images; give "
            "their annotations, or leave --annotations out"
        )
    bare = sum(not one.get("segmentation") for one in objects)
    if spec.mask is not None and bare:
        raise UsageError(
            f"--annotations: {bare} of {len(objects)} objects have no segmentation, which mask AP "
            "needs; expected polygons or run lengths, or leave --annotations out"
        )


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
            aps.append(100 * evaluate(drawn, rows, kind, numbers).ap)  # type: ignore[arg-type]
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


def read_annotations(path: Path) -> Mapping[str, Any]:
    """COCO annotations.

    Raises:
        UsageError: not readable, or no COCO annotations.
    """
    try:
        truth = json.loads(path.read_text("utf-8"))
        for image in truth["images"]:
            _require(image, id=int, file_name=str, height=int, width=int)
        for annotation in truth["annotations"]:
            annotation.setdefault("iscrowd", 0)
            _require(annotation, image_id=int, category_id=int, bbox=list, area=(int, float))
            _require(annotation, iscrowd=int)
        for category in truth["categories"]:
            _require(category, id=int)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"--annotations {path}: not COCO annotations ({' '.join(str(error).split())[:100]})"
        ) from error
    names = [Path(image["file_name"]).name for image in truth["images"]]
    if len(set(names)) < len(names):
        raise UsageError(f"--annotations {path}: two images have the same file name")
    answer: Mapping[str, Any] = truth
    return answer


def _require(row: Mapping[str, Any], **kinds: type | tuple[type, ...]) -> None:
    for field, kind in kinds.items():
        if not isinstance(row[field], kind):
            raise TypeError(f"{field}: {row[field]!r}")
