"""The photos' sizes, compared with those in the file: a photo was rotated or rescaled since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from model.errors import UsageError
from runtime.annotations.coco_file import ImageEntry
from runtime.sources.decoded import UprightSize


def require_sizes(
    path: Path, images: Mapping[int, ImageEntry], sizes: Mapping[int, UprightSize]
) -> None:
    """Refuse photos of another size than the file's: their AP would be near zero.

    Args:
        path: of the COCO file, for messages.
        images: by image id.
        sizes: of every photo.

    Raises:
        UsageError: a photo of another size; a file without sizes has none to compare with.
    """
    others = {
        image_id: expected
        for image_id, size in sizes.items()
        if (expected := images[image_id].size_hw) is not None and expected != size.hw
    }
    if not others:
        return
    first = next(iter(others))
    expected, (height, width) = others[first], sizes[first].hw
    if expected != (width, height):
        remedy = "it was rescaled or cropped since; give the photos that were annotated"
    elif sizes[first].is_turned:
        remedy = (
            "its EXIF orientation rotates it, and the annotations are of the photo before that; "
            "leave it out, or rotate one of the two"
        )
    else:
        remedy = "it was rotated since, or the file has its height and width exchanged; correct one"
    raise UsageError(
        f"{path}: {len(others)} of {len(sizes)} photos have another size than in the file: "
        f"{images[first].file_name} is {height} x {width}, annotated as {expected[0]} x "
        f"{expected[1]} (height x width); {remedy}"
    )


def turned_notice(sizes: Iterable[UprightSize]) -> list[str]:
    """A line about photos that are turned but have the file's size, as square ones."""
    turned = sum(size.is_turned for size in sizes)
    if not turned:
        return []
    return [
        f"photos with an EXIF orientation that rotates or mirrors them: {turned}; their "
        "annotations are taken to be of the upright photo"
    ]
