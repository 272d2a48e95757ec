"""The held-out photos and their annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calib.calibration.photos import require_resizable
from model.errors import ImageError, UsageError
from runtime.artifacts.metadata import Artifact
from runtime.cli.console import plural
from runtime.compare.coco_annotations import (
    CocoAnnotations,
    ImageId,
    labeled_photos,
    read_annotations,
    require_objects,
    require_sizes,
)
from runtime.sources.photos import decode, files_at, find_photos


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Photos that no choice was made on; with annotations, the image id of each photo."""

    paths: Sequence[Path]
    annotations: CocoAnnotations | None = None
    image_ids: Sequence[ImageId] = ()


def open_evaluation_set(
    folder: str, annotations: Path | None, artifact: Artifact
) -> tuple[EvaluationSet, list[str]]:
    """The photos of a folder; with annotations, those that they name.

    Args:
        folder: of the photos; without annotations also a file or a pattern.
        annotations: COCO JSON.
        artifact: of the FP32 file.

    Returns:
        the usable photos, and why others were left out.

    Raises:
        UsageError: no photo can be decoded, or annotations that AP cannot be computed from.
    """
    coco = None if annotations is None else read_annotations(annotations)
    photos: dict[ImageId, Path] = (
        dict(enumerate(find_photos([folder])))
        if coco is None
        else labeled_photos(coco, Path(folder))
    )
    unusable, sizes_hw = [], {}
    for image_id, path in photos.items():
        try:
            pixels = decode(path)
            require_resizable(pixels, path, artifact)
        except ImageError as error:
            unusable.append(str(error))
            continue
        sizes_hw[image_id] = (pixels.shape[0], pixels.shape[1])
    if not sizes_hw:
        raise UsageError(
            f"--eval-images: none of {len(photos)} photos can be used ({unusable[0]}); use others"
        )
    paths = [photos[image_id] for image_id in sizes_hw]
    if coco is None:
        return EvaluationSet(paths), unusable
    require_sizes(coco, sizes_hw)
    require_objects(coco, sizes_hw, artifact.spec)
    unlabeled = set(files_at(folder)) - set(photos.values())
    if unlabeled:
        unusable.append(f"{plural(len(unlabeled), 'photo')} of {folder} not in {annotations}")
    return EvaluationSet(paths, coco, list(sizes_hw)), unusable
