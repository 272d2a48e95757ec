"""The lines and the file of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.cli.console import aligned, plural, printable
from runtime.compare.ap_losses import ErrorCost
from runtime.compare.coco_ap import ApResult
from runtime.compare.coco_inputs import IouType
from runtime.files import atomic_path

# 2: `evaluator`, `max_detections`, `classes` and `errors` were added.
SCHEMA_VERSION = 2
_TITLES: Mapping[IouType, str] = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}
# Of each class on the screen; the file has all.
_CLASS_NUMBERS = ("ap", "ap50", "ap75")


@dataclass(frozen=True, slots=True)
class ErrorChange:
    """What each kind of error costs, in another artifact (`before`) and in this one (`after`)."""

    other: str
    before: Mapping[str, ErrorCost]
    after: Mapping[str, ErrorCost]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The numbers of an artifact on labeled photos.

    Attributes:
        photos: their number.
        resumed: how many of them an earlier run has detected.
        scores: by IoU type: "bbox", and "segm" and "keypoints" if model and labels have them.
        class_names: by category id.
        evaluator: name and version of the library.
        notes: a line for each choice that changes numbers.
        times: the mean times of the stages; "" if no photo was run.
        errors: the change from another artifact, if one was named.
    """

    photos: int
    resumed: int
    scores: Mapping[IouType, ApResult]
    class_names: Mapping[int, str]
    evaluator: str
    notes: Sequence[str]
    times: str
    errors: ErrorChange | None


def lines(evaluation: Evaluation) -> Iterator[str]:
    """The report on the screen, in points of 100."""
    photos = plural(evaluation.photos, "photo")
    yield f"{photos} · {evaluation.times}" if evaluation.times else photos
    if evaluation.resumed:
        yield f"{plural(evaluation.resumed, 'photo')} of the earlier run"
    yield from evaluation.notes
    width = max(len(_TITLES[one]) for one in evaluation.scores)
    for iou_type, result in evaluation.scores.items():
        for prefix in ("ap", "ar"):
            numbers = [
                f"{name.removeprefix(f'{prefix}_') if '_' in name else name.upper()} {_points(one)}"
                for name, one in result.numbers.items()
                if name.startswith(prefix)
            ]
            yield f"{_TITLES[iou_type]:<{width}} {' · '.join(numbers)}"
    yield from _class_lines(evaluation)
    if evaluation.errors is not None:
        yield from _error_lines(evaluation.errors)


def write(folder: Path, artifact: Path, evaluation: Evaluation) -> None:
    """Write `evaluate.json`, in fractions of 1.

    Raises:
        ArtifactError: it cannot be written.
    """
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "artifact": artifact.name,
        "photos": evaluation.photos,
        "evaluator": evaluation.evaluator,
        "max_detections": {
            iou_type: result.max_detections for iou_type, result in evaluation.scores.items()
        },
        **{iou_type: dict(result.numbers) for iou_type, result in evaluation.scores.items()},
    }
    if classes := _by_class(evaluation):
        document["classes"] = classes
    if evaluation.errors is not None:
        document["errors"] = asdict(evaluation.errors)
    with atomic_path(folder / "evaluate.json") as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _by_class(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The numbers of each class by IoU type; empty if they were not requested."""
    ids = {one: None for result in evaluation.scores.values() for one in result.by_class}
    return [
        {
            "category_id": category_id,
            "name": evaluation.class_names[category_id],
            **{
                iou_type: dict(result.by_class[category_id])
                for iou_type, result in evaluation.scores.items()
            },
        }
        for category_id in ids
    ]


def _class_lines(evaluation: Evaluation) -> list[str]:
    classes = _by_class(evaluation)
    if not classes:
        return []
    columns = [(one, name) for one in evaluation.scores for name in _CLASS_NUMBERS]
    titles = ["class", *(f"{_TITLES[one]} {name.upper()}" for one, name in columns)]
    cells = [
        [printable(entry["name"]), *(_points(entry[one][name]) for one, name in columns)]
        for entry in classes
    ]
    return aligned([titles, *cells])


def _error_lines(errors: ErrorChange) -> list[str]:
    titles = ["error", f"AP50 cost in {printable(errors.other)}", "here", "change", "errors"]
    cells = []
    for kind, after in errors.after.items():
        before = errors.before.get(kind)
        if before is None:  # of masks, which the other one lacks
            cells.append([kind, "–", f"{100 * after.cost:.2f}", "", ""])
            continue
        counts = "" if after.count is None else f"{before.count} → {after.count}"
        change = f"{100 * (after.cost - before.cost):+.2f}"
        cells.append([kind, f"{100 * before.cost:.2f}", f"{100 * after.cost:.2f}", change, counts])
    return aligned([titles, *cells])


def _points(number: float) -> str:
    """Points of 100; COCO's -1 is no number."""
    return "–" if number < 0 else f"{100 * number:.2f}"
