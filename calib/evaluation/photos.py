"""The held-out photos and their annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calib.calibration.photos import require_resizable
from model.errors import ImageError, UsageError
from runtime.annotations.labeled_photos import find_labeled_photos
from runtime.annotations.labels import Labels, labels_for
from runtime.artifacts.metadata import Artifact
from runtime.cli.console import plural
from runtime.sources.photos import decode_as, files_at, find_photos
from runtime.sources.pixel_format import PixelFormat, ValueRange


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Photos that no choice was made on; with labels, the image id of each photo."""

    paths: Sequence[Path]
    labels: Labels | None = None
    image_ids: Sequence[int] = ()


def open_evaluation_set(
    folder: str,
    annotations: Path | None,
    artifact: Artifact,
    value_range: ValueRange | None = None,
) -> tuple[EvaluationSet, list[str]]:
    """The photos of a folder; with annotations, those that they name.

    Args:
        folder: of the photos; without annotations also a file or a pattern.
        annotations: COCO JSON.
        artifact: of the FP32 file.
        value_range: of the photos, see `runtime.predictor.Predictor`.

    Returns:
        the usable photos, and why others were left out.

    Raises:
        UsageError: no photo can be decoded, or annotations that AP cannot be computed from.
    """
    labeled = (
        None
        if annotations is None
        else find_labeled_photos(annotations, Path(folder), allow_unreadable=True)
    )
    photos = dict(enumerate(find_photos([folder]))) if labeled is None else labeled.photos
    form = PixelFormat(artifact.spec.preprocess.channels, value_range)
    unusable: list[str] = []
    usable: list[int] = []
    for image_id, path in photos.items():
        try:
            require_resizable(decode_as(path, form), path, artifact)
        except ImageError as error:
            unusable.append(str(error))
            continue
        usable.append(image_id)
    if not usable:
        raise UsageError(
            f"--eval-images: none of {len(photos)} photos can be used ({unusable[0]}); use others"
        )
    paths = [photos[image_id] for image_id in usable]
    if labeled is None:
        return EvaluationSet(paths), unusable
    unlabeled = set(files_at(folder)) - set(photos.values())
    if unlabeled:
        unusable.append(f"{plural(len(unlabeled), 'photo')} of {folder} not in {annotations}")
    labels = labels_for(labeled.only(usable), artifact.spec)
    return EvaluationSet(paths, labels, usable), unusable
