"""JSON Lines: one self-contained line per image, in original-image pixels.

A line is one write, so an interrupted run leaves whole lines and at most one partial line at the
end. `Writer` truncates that and continues; `read_names` lists the photos that are done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from model.errors import ArtifactError
from runtime.closing import Closing
from runtime.detections import Detections
from runtime.files import atomic_path

_BLOCK_BYTES = 1 << 16
# Larger than any pixel or score; NaN fails the comparison too.
_LARGEST = 1e30


def record(
    image: str, detections: Detections, image_id: int | None = None, sha256: str | None = None
) -> dict[str, Any]:
    """One image as a JSON object; `image` is its name, `sha256` of its file.

    Each detection has `label` (the checkpoint's class index), `category_id` (the data set's),
    `name`, `score`, `box_xyxy`, `rle` (COCO's compressed run lengths) if the model has masks, and
    `keypoints`, [x, y, score] by name, if it has keypoints.
    """
    rows: list[dict[str, Any]] = [
        {"label": label, "category_id": category, "name": name, "score": score, "box_xyxy": box}
        for label, category, name, score, box in zip(
            detections.labels.tolist(),
            detections.dataset_ids.tolist(),
            detections.names,
            detections.scores.tolist(),
            detections.boxes.tolist(),
            strict=True,
        )
    ]
    for row, rle in zip(rows, detections.rle(), strict=False):
        row["rle"] = rle
    if detections.keypoints is not None:
        for row, points in zip(rows, detections.keypoints.tolist(), strict=True):
            row["keypoints"] = dict(zip(detections.keypoint_names, points, strict=True))
    height, width = detections.image_hw
    return {
        "image": image,
        **({} if image_id is None else {"image_id": image_id}),
        **({} if sha256 is None else {"sha256": sha256}),
        "height": height,
        "width": width,
        "exact": detections.exact,
        "detections": rows,
    }


class Writer(Closing):
    """Appends images to a JSON Lines file; each is in the file when `add` returns.

    The first image replaces the content of an earlier run. Without any image the end of the `with`
    block does so, unless it ends with an error: a run that fails early loses no results.

    Args:
        path: The file.
        resume: Append to the content of an earlier run.

    Raises:
        ArtifactError: The file cannot be opened, or is not a file.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self._path = path
        try:
            self._file = self._open()
            if resume:
                self._file.truncate(_end_of_lines(path))
            self.has_old = not resume and os.fstat(self._file.fileno()).st_size > 0
        except OSError as error:
            raise self._failed(error) from error

    def add(
        self,
        image: str,
        detections: Detections,
        image_id: int | None = None,
        sha256: str | None = None,
    ) -> None:
        """Append one image.

        Raises:
            ArtifactError: It cannot be written; earlier lines stay whole.
        """
        entry = record(image, detections, image_id, sha256)
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        if self.has_old:
            self._replace_old(line)
            return
        size = 0
        try:
            size = self._file.seek(0, os.SEEK_END)
            written = self._file.write(line)
            if written != len(line):
                raise OSError(f"{written} of {len(line)} bytes were written")
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(size)
            raise self._failed(error) from error

    def finish(self) -> None:
        """Close the file after a successful run; without an image it becomes empty.

        Raises:
            ArtifactError: As `add` and `close`.
        """
        if self.has_old:
            self._replace_old(b"")
        self.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.close()

    def close(self) -> None:
        """Flush the file to the disk and close it; a second call does nothing.

        Raises:
            ArtifactError: The disk refused.
        """
        if self._file.closed:
            return
        try:
            with self._file:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from error

    def _open(self) -> BinaryIO:
        # Not buffered: a line is one write.
        return self._path.open("ab", buffering=0)

    def _replace_old(self, content: bytes) -> None:
        with atomic_path(self._path) as temporary:
            temporary.write_bytes(content)
        self.has_old = False
        self._file.close()
        try:
            self._file = self._open()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> ArtifactError:
        return ArtifactError(
            f"cannot write {self._path}: {error.strerror or error}; name a folder that exists, is "
            "writable and has room"
        )


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file, without a partial last line.

    Raises:
        ArtifactError: The file cannot be read, or a line is not a record.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield _parse(path, number, line)
    except OSError as error:
        raise ArtifactError(
            f"cannot read {path}: {error.strerror or error}; check permissions and disk"
        ) from error


def read_names(path: Path) -> set[str]:
    """Names of the images that have a record; empty without a file.

    Raises:
        ArtifactError: As `read`.
    """
    return {entry["image"] for entry in read(path)} if path.exists() else set()


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    entry: Any = None
    with suppress(ValueError, RecursionError):
        entry = json.loads(line)
    is_record = isinstance(entry, dict) and isinstance(entry.get("image"), str)
    where = f"{path}, line {number}" + (f" ({entry['image']})" if is_record else "")
    what = problem(entry) if is_record else "expected a record of an image as maskport writes it"
    if what is not None:
        raise ArtifactError(f"{where}: {what}; remove the line, or predict again without resume")
    record: dict[str, Any] = entry
    return record


def _end_of_lines(path: Path) -> int:
    """Offset behind the last newline."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(end - _BLOCK_BYTES, 0)
            file.seek(start)
            index = file.read(end - start).rfind(b"\n")
            if index >= 0:
                return start + index + 1
            end = start
    return 0


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
