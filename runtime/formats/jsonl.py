"""JSON Lines: one self-contained line per image, in original-image pixels.

A line is written in one piece, so a run that dies leaves whole lines and at most one torn one, at
the end. `Writer` cuts that off and goes on; `read_names` tells which photos need no second run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from model.errors import ArtifactError
from runtime.closing import Closing
from runtime.detections import Detections
from runtime.files import atomic_path
from runtime.formats.record_check import problem

_BLOCK_BYTES = 1 << 16


def record(image: str, detections: Detections, image_id: int | None = None) -> dict[str, Any]:
    """One image as a JSON object; `image` is its name as the caller knows it.

    Each detection has `label` (the checkpoint's class index), `category_id` (the data set's),
    `name`, `score`, `box_xyxy` and, where the model has masks, `rle` (COCO's compressed run
    lengths), where it has keypoints, `keypoints`, [x, y, score] by name.
    """
    found: list[dict[str, Any]] = [
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
    for row, rle in zip(found, detections.rle(), strict=False):
        row["rle"] = rle
    if detections.keypoints is not None:
        for row, points in zip(found, detections.keypoints.tolist(), strict=True):
            row["keypoints"] = dict(zip(detections.keypoint_names, points, strict=True))
    height, width = detections.image_hw
    return {
        "image": image,
        **({} if image_id is None else {"image_id": image_id}),
        "height": height,
        "width": width,
        "exact": detections.exact,
        "detections": found,
    }


def write(path: Path, results: Iterable[tuple[str, Detections]]) -> None:
    """Write one line per image, given by name, in the order in which they come.

    Raises:
        ArtifactError: The file cannot be written; an existing one then stays as it was.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for image, detections in results:
            file.write(_line(record(image, detections)))


class Writer(Closing):
    """Appends images to a JSON Lines file as they come; each is in the file when `add` returns.

    What an earlier run wrote gives way to the first image, or to none where a `with` block ends
    well without one: a run that comes to nothing costs no results.

    Args:
        path: The file.
        resume: Go on behind what an earlier run wrote; otherwise the file begins anew.

    Raises:
        ArtifactError: The file cannot be opened, or is no file.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self._path = path
        try:
            self._file = self._opened()
            if resume:
                self._file.truncate(_whole_bytes(path))
            self.has_old = not resume and os.fstat(self._file.fileno()).st_size > 0
        except OSError as error:
            raise self._failed(error) from error

    def add(self, image: str, detections: Detections, image_id: int | None = None) -> None:
        """Append one image.

        Raises:
            ArtifactError: It cannot be written; what was written before stays whole.
        """
        line = _line(record(image, detections, image_id))
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
        """Close the file of a run that ended well: without an image it is empty.

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
        """Bring the file to the disk and close it; again does nothing.

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

    def _opened(self) -> BinaryIO:
        # Not buffered: a line is one write.
        return self._path.open("ab", buffering=0)

    def _replace_old(self, content: bytes) -> None:
        with atomic_path(self._path) as temporary:
            temporary.write_bytes(content)
        self.has_old = False
        self._file.close()
        try:
            self._file = self._opened()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> ArtifactError:
        return ArtifactError(
            f"cannot write {self._path}: {error.strerror or error}; name a folder that exists, is "
            "writable and has room"
        )


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, one after the other; a torn last line is none.

    Raises:
        ArtifactError: The file cannot be read, or a line is not a record.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield _parsed(path, number, line)
    except OSError as error:
        raise ArtifactError(
            f"cannot read {path}: {error.strerror or error}; check permissions and disk"
        ) from error


def read_names(path: Path) -> set[str]:
    """Names of the images that a file has whole records of; none where there is no file.

    Raises:
        ArtifactError: As `read`.
    """
    return {found["image"] for found in read(path)} if path.exists() else set()


def _line(found: dict[str, Any]) -> bytes:
    return json.dumps(found, allow_nan=False).encode("ascii") + b"\n"


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    found: Any = None
    with suppress(ValueError, RecursionError):
        found = json.loads(line)
    if (
        not isinstance(found, dict)
        or not isinstance(found.get("image"), str)
        or not isinstance(found.get("detections"), list)
    ):
        raise ArtifactError(
            f"{path}, line {number}: expected a record of an image as maskport writes it; remove "
            "the line, or predict again without resume"
        )
    if (what := problem(found)) is not None:
        raise ArtifactError(
            f"{path}, line {number} ({found['image']}): {what}; remove the line, or predict again "
            "without resume"
        )
    return found


def _whole_bytes(path: Path) -> int:
    """Bytes up to the end of the last line that ends."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(end - _BLOCK_BYTES, 0)
            file.seek(start)
            place = file.read(end - start).rfind(b"\n")
            if place >= 0:
                return start + place + 1
            end = start
    return 0
