"""Validates a JSON Lines record before other files are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Larger than any pixel or score; NaN fails the comparison too.
_LARGEST = 1e30


def problem(record: Mapping[str, Any]) -> str | None:
    """The first field that differs from what `jsonl.record` writes, as a message; else None."""
    if not isinstance(record.get("detections"), list):
        return "detections: expected a list"
    for side in ("height", "width"):
        if type(record.get(side)) is not int:
            return f"{side}: expected an integer"
    if "image_id" in record and type(record["image_id"]) is not int:
        return "image_id: expected an integer"
    for row, detection in enumerate(record["detections"]):
        if (what := _problem_of(detection)) is not None:
            return f"detections[{row}]{what}"
    return None


def _problem_of(detection: Any) -> str | None:
    if not isinstance(detection, dict):
        return ": expected an object"
    checks = {
        ".label: expected an integer": type(detection.get("label")) is int,
        ".category_id: expected an integer": type(detection.get("category_id")) is int,
        ".name: expected a string": isinstance(detection.get("name"), str),
        ".score: expected a number": _are_numbers([detection.get("score")], 1),
        ".box_xyxy: expected four numbers": _are_numbers(detection.get("box_xyxy"), 4),
        ".rle: expected size and counts": "rle" not in detection or _is_rle(detection["rle"]),
        ".keypoints: expected three numbers by name": (
            "keypoints" not in detection or _are_keypoints(detection["keypoints"])
        ),
    }
    return next((what for what, is_valid in checks.items() if not is_valid), None)


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(v) in (int, float) and abs(v) <= _LARGEST for v in values)
    )


def _is_rle(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("counts"), str)
        and _are_numbers(value.get("size"), 2)
    )


def _are_keypoints(value: Any) -> bool:
    return isinstance(value, dict) and all(_are_numbers(point, 3) for point in value.values())
