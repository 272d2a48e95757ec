"""Calibration photos: the runtime's own way from file to canvas, and what cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model.arrays import UInt8
from model.errors import ImageError, UsageError
from runtime.artifacts.metadata import Artifact
from runtime.preprocessing.canvas import Canvas, resized_hw, to_canvas
from runtime.sources.photos import decode

# Ranges of fewer photos move from one set to the next; of fewer than the least they say nothing.
ADVISED, LEAST = 32, 4


@dataclass(slots=True)
class Skipped:
    """Photos that were not used, and why, a line each."""

    photos: list[Path] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def add(self, photo: Path, reason: str) -> None:
        """One more."""
        self.photos.append(photo)
        self.reasons.append(reason)


def read_photo(path: Path, artifact: Artifact) -> UInt8:
    """Decode a photo and see that it says something.

    Raises:
        ImageError: it cannot be decoded, is black all over, or the resize rule leaves nothing.
    """
    pixels = decode(path)
    if not pixels.any():
        raise ImageError(f"{path}: black all over; it would only calibrate the bias")
    require_resizable(pixels, path, artifact)
    return pixels


def require_resizable(pixels: UInt8, path: Path, artifact: Artifact) -> None:
    """Refuse what the resize rule leaves nothing of.

    Raises:
        ImageError: such a photo, with its name.
    """
    try:
        resized_hw(pixels.shape[:2], artifact.spec.preprocess, canvas_hw(artifact))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def digest(path: Path) -> str:
    """What a table remembers a photo by; "" where it cannot be read, which decoding will say."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    except OSError:
        return ""


def canvases(
    paths: Sequence[Path], artifact: Artifact, skipped: Skipped
) -> Iterator[tuple[list[Path], Canvas]]:
    """Batches of as many photos as the graph needs at least, with the files they came from.

    A last batch that is not full is filled with its own photos, never with blank ones.
    """
    rows = artifact.manifest.batch_bounds[0]
    taken: list[Path] = []
    pixels: list[UInt8] = []
    for path in paths:
        try:
            pixels.append(read_photo(path, artifact))
        except ImageError as error:
            text = str(error)
            skipped.add(path, text if str(path) in text else f"{path}: {text}")
            continue
        taken.append(path)
        if len(taken) == rows:
            yield taken, _canvas(pixels, artifact)
            taken, pixels = [], []
    if taken:
        filled = [pixels[i % len(pixels)] for i in range(rows)]
        yield taken, _canvas(filled, artifact)


def require_enough(used: int, skipped: Skipped) -> None:
    """Refuse to calibrate on next to nothing.

    Raises:
        UsageError: fewer usable photos than the least.
    """
    if used < LEAST:
        found = f"{used} usable photos, {len(skipped.reasons)} skipped"
        if skipped.reasons:
            found = f"{found} ({skipped.reasons[0]})"
        raise UsageError(
            f"calibration: {found}; expected at least {LEAST}, and {ADVISED} or more for ranges "
            "that hold"
        )


def canvas_hw(artifact: Artifact) -> tuple[int, int] | None:
    """The graph's fixed canvas, if it has one."""
    height, width = artifact.manifest.height, artifact.manifest.width
    return None if height is None or width is None else (height, width)


def _canvas(pixels: Sequence[UInt8], artifact: Artifact) -> Canvas:
    return to_canvas(pixels, artifact.spec.preprocess, canvas_hw(artifact))
