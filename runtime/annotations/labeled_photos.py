"""The photos of a COCO file that are in a folder, with their sizes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from model.errors import ImageError
from runtime.annotations.coco_file import CocoFile, ImageEntry, read_coco
from runtime.annotations.ids import numbered
from runtime.annotations.photo_files import find_files
from runtime.sources.decoded import UprightSize
from runtime.sources.photos import upright_size


@dataclass(frozen=True, slots=True)
class LabeledPhotos:
    """The photos of a COCO file that are in a folder.

    Attributes:
        file: the COCO file.
        images: its images by number. The number is the id, if that is a whole number from 0.
        photos: files by number of the image.
        sizes: of the photos whose header can be read.
        notices: a line for each oddity.
    """

    file: CocoFile
    images: Mapping[int, ImageEntry]
    photos: Mapping[int, Path]
    sizes: Mapping[int, UprightSize]
    notices: tuple[str, ...]

    def only(self, numbers: Collection[int]) -> LabeledPhotos:
        """These photos only."""
        kept = set(numbers)
        photos = {number: path for number, path in self.photos.items() if number in kept}
        sizes = {number: size for number, size in self.sizes.items() if number in kept}
        return replace(self, photos=photos, sizes=sizes)


def find_labeled_photos(
    path: Path, folder: Path, *, allow_unreadable: bool = False
) -> LabeledPhotos:
    """Read a COCO file, find its photos and read their sizes.

    Args:
        path: of the COCO file.
        folder: of the photos.
        allow_unreadable: keep photos that cannot be opened, without a size.

    Raises:
        ImageError: a photo that cannot be opened.
        UsageError: not COCO instances, ids that contradict, no photo, or one of several images.
    """
    file = read_coco(path)
    files = find_files(path, file.images, folder)
    numbers = numbered(one.id for one in file.images)
    images = {numbers[one.id]: one for one in file.images}
    photos = {numbers[image_id]: photo for image_id, photo in files.photos.items()}
    sizes = {}
    for number, photo in photos.items():
        try:
            sizes[number] = upright_size(photo)
        except ImageError:
            if not allow_unreadable:
                raise
    notices = (*file.notices, *files.notices)
    return LabeledPhotos(file, images, photos, sizes, notices)
