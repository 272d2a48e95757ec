"""Calibration photos: decoded and checked, and batched into canvases by the runtime's own code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import ImageError, UsageError
from runtime.artifacts.metadata import Artifact
from runtime.cli.console import plural
from runtime.preprocessing.canvas import Canvas, resized_hw, to_canvas
from runtime.sources.photos import decode_as
from runtime.sources.pixel_format import RGB, PixelFormat, Pixels

if TYPE_CHECKING:
    from calib.context import RunContext


# With fewer than the advised number, ranges depend on the choice of photos.
ADVISED, LEAST = 32, 4


@dataclass(frozen=True, slots=True)
class Photo:
    """A file and the digest that a table lists it by; "" if the file cannot be read."""

    path: Path
    digest: str

    @classmethod
    def of(cls, path: Path) -> Photo:
        """Hash the file."""
        try:
            with path.open("rb") as stream:
                return cls(path, hashlib.file_digest(stream, "sha256").hexdigest()[:16])
        except OSError:
            return cls(path, "")


def unique_photos(paths: Iterable[str | Path | Photo], context: RunContext) -> list[Photo]:
    """Each file once, also if a path is repeated; copies of a file are skipped."""
    first: dict[str, Path] = {}
    unique: dict[Path, Photo] = {}
    for path in paths:
        photo = path if isinstance(path, Photo) else Photo.of(Path(path))
        original = first.setdefault(photo.digest, photo.path) if photo.digest else photo.path
        if original == photo.path:
            unique[photo.path] = photo
        else:
            context.skipped[photo.path] = f"{photo.path}: the same file as {original}"
    return list(unique.values())


def read_photo(path: Path, artifact: Artifact, form: PixelFormat = RGB) -> Pixels:
    """Decode and check a photo.

    Raises:
        ImageError: it cannot be decoded, is all black, or its resized size would be zero.
    """
    pixels = decode_as(path, form)
    if not (pixels if form.is_rgb else form.scaled(pixels)).any():
        raise ImageError(f"{path}: all black; its activations would come from biases only")
    require_resizable(pixels, path, artifact)
    return pixels


def require_resizable(pixels: Pixels, path: Path, artifact: Artifact) -> None:
    """Refuse a photo whose resized size would be zero.

    Raises:
        ImageError: with the photo's name.
    """
    try:
        resized_hw(pixels.shape[:2], artifact.spec.preprocess, artifact.manifest.canvas_hw)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def canvases(photos: Iterable[Photo], context: RunContext) -> Iterator[tuple[list[Photo], Canvas]]:
    """Batches of the graph's smallest batch size, and their photos; unusable ones are skipped.

    An incomplete last batch is filled with its own photos, not with blank ones.
    """
    rows = context.artifact.manifest.batch_bounds[0]
    batch: dict[Photo, Pixels] = {}
    for photo in photos:
        try:
            batch[photo] = context.pixels(photo)
        except ImageError as error:
            reason, name = str(error), str(photo.path)
            context.skipped[photo.path] = reason if name in reason else f"{name}: {reason}"
            continue
        if len(batch) == rows:
            yield list(batch), _canvas(list(batch.values()), context)
            batch = {}
    if batch:
        pixels = list(batch.values())
        filled = [pixels[i % len(pixels)] for i in range(rows)]
        yield list(batch), _canvas(filled, context)


def require_enough(used: int, context: RunContext) -> None:
    """Refuse to calibrate on too few photos.

    Raises:
        UsageError: fewer usable photos than `LEAST`.
    """
    if used < LEAST:
        reasons = list(context.skipped.values())
        counts = f"{plural(used, 'usable photo')}, {len(reasons)} skipped"
        if reasons:
            counts = f"{counts} ({reasons[0]})"
        raise UsageError(
            f"calibration: {counts}; expected at least {LEAST}, and {ADVISED} or more for stable "
            "ranges"
        )


def _canvas(pixels: Sequence[Pixels], context: RunContext) -> Canvas:
    form, artifact = context.form, context.artifact
    scaled = pixels if form.is_rgb else [form.scaled(one) for one in pixels]
    return to_canvas(scaled, artifact.spec.preprocess, artifact.manifest.canvas_hw)
