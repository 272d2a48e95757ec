"""What a line of JSON Lines must hold so that other files can be made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# More than any pixel or score, and little enough to be reckoned with; nor is it NaN.
_MOST = 1e30


def problem(record: Mapping[str, Any]) -> str | None:
    """The first thing in a record that is not as `jsonl.record` writes it, in words.

    Args:
        record: With an image's name as `image` and a list as `detections`.
    """
    for side in ("height", "width"):
        if type(record.get(side)) is not int:
            return f"{side}: expected a whole number"
    if "image_id" in record and type(record["image_id"]) is not int:
        return "image_id: expected a whole number"
    for row, found in enumerate(record["detections"]):
        if (what := _problem_of(found)) is not None:
            return f"detections[{row}]{what}"
    return None


def _problem_of(found: Any) -> str | None:
    if not isinstance(found, dict):
        return ": expected an object"
    checks = {
        ".label: expected a whole number": type(found.get("label")) is int,
        ".category_id: expected a whole number": type(found.get("category_id")) is int,
        ".name: expected a text": isinstance(found.get("name"), str),
        ".score: expected a number": _are_numbers([found.get("score")], 1),
        ".box_xyxy: expected four numbers": _are_numbers(found.get("box_xyxy"), 4),
        ".rle: expected size and counts": "rle" not in found or _is_rle(found["rle"]),
        ".keypoints: expected three numbers by name": (
            "keypoints" not in found or _are_keypoints(found["keypoints"])
        ),
    }
    return next((what for what, is_so in checks.items() if not is_so), None)


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(v) in (int, float) and abs(v) <= _MOST for v in values)
    )


def _is_rle(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("counts"), str)
        and _are_numbers(value.get("size"), 2)
    )


def _are_keypoints(value: Any) -> bool:
    return isinstance(value, dict) and all(_are_numbers(point, 3) for point in value.values())
