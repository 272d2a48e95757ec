"""The photos' sizes, compared with those in the file: a photo was rotated or rescaled since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from model.errors import UsageError
from runtime.annotations.coco_file import ImageEntry
from runtime.sources.decoded import UprightSize

SizeHw = tuple[int, int]


def require_sizes(
    path: Path, images: Mapping[int, ImageEntry], sizes_hw: Mapping[int, SizeHw]
) -> None:
    """Refuse photos of another size than the file's: their AP would be near zero.

    Args:
        path: of the COCO file, for messages.
        images: by image id.
        sizes_hw: height and width of every photo, upright.

    Raises:
        UsageError: a photo of another size; a file without sizes has none to compare with.
    """
    others = {
        image_id: (expected, size_hw)
        for image_id, size_hw in sizes_hw.items()
        if (expected := images[image_id].size_hw) not in (None, size_hw)
    }
    if not others:
        return
    first = next(iter(others))
    expected, (height, width) = others[first]
    assert expected is not None
    remedy = (
        "its EXIF orientation rotates it, and the annotations are of the photo before that; "
        "leave it out, or rotate one of the two"
        if expected == (width, height)
        else "it was rescaled or cropped since; give the photos that were annotated"
    )
    raise UsageError(
        f"{path}: {len(others)} of {len(sizes_hw)} photos have another size than in the file: "
        f"{images[first].file_name} is {height} x {width}, annotated as {expected[0]} x "
        f"{expected[1]} (height x width); {remedy}"
    )


def turned_notice(sizes: Iterable[UprightSize]) -> list[str]:
    """A line about photos that are turned but have the file's size, as square ones."""
    turned = sum(size.is_turned for size in sizes)
    if not turned:
        return []
    return [
        f"{turned} photos have an EXIF orientation that rotates or mirrors them; the annotations "
        "are taken to be of the upright photos"
    ]
