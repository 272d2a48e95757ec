"""Files that cannot be used: one line that has the file, the count, the entry and a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from model.errors import ImageError, UsageError
from runtime.annotations.labeled_photos import find_labeled_photos
from tests.runtime.annotations.coco_files import (
    HEIGHT,
    KEYPOINT_SPEC,
    SPEC,
    WIDTH,
    Change,
    Document,
    labels,
    plain,
    rectangle,
)

pytest.importorskip("pycocotools")
SEGMENTATION, COUNTS = "segmentation: expected polygons of three", "segmentation counts: expected"


def _first(part: str, **fields: Any) -> Change:
    return lambda document: document[part][0].update(fields)


def _all(part: str, **fields: Any) -> Change:
    return lambda document: [entry.update(fields) for entry in document[part]]


def _without(part: str) -> Change:
    return lambda document: document.pop(part)


def _two_images_with_one_id(document: Document) -> None:
    document["images"].append({**document["images"][0], "file_name": "other.png"})


def _half_size(document: Document) -> None:
    for image in document["images"]:
        image["height"], image["width"] = HEIGHT // 2, WIDTH // 2


def _exchanged(document: Document) -> None:
    for image in document["images"]:
        image["height"], image["width"] = WIDTH, HEIGHT


def _masks_of_half_size(document: Document) -> None:
    for one in document["annotations"]:
        one["segmentation"] = {"size": [HEIGHT // 2, WIDTH // 2], "counts": [HEIGHT * WIDTH // 4]}


def _transposed(document: Document) -> None:
    document["annotations"][0]["segmentation"]["size"].reverse()


REFUSED: list[tuple[Change, str]] = [
    (_without("images"), "'images' is missing"),
    (_without("annotations"), "'annotations' is missing"),
    (_all("images", id=None), "images: expected an integer or a string as 'id' of every entry"),
    (_first("images", id=True), "got True in number 1"),
    (_first("images", id=1.5), "got 1.5 in number 1"),
    (_first("images", id=2.0**60), "as 'id' of every entry"),
    (_first("images", file_name=None), "images: expected a string as 'file_name' of every entry"),
    (_first("images", height="tall"), "image '1.png': height: expected a number of pixels"),
    (_first("images", width=-1), "image '1.png': width: expected a number of pixels, got -1"),
    (_first("annotations", image_id=None), "an integer or a string as 'image_id' of every entry"),
    (_first("annotations", category_id=float("nan")), "as 'category_id' of every entry, got nan"),
    (lambda d: d.update(images=[]), "'images' is empty; expected the annotated photos"),
    (lambda d: d.update(annotations={}), "expected lists of images, annotations and categories"),
    (lambda d: d.update(annotations=[1]), "expected lists of images, annotations and categories"),
    (lambda d: d.update(categories="cat"), "expected lists of images, annotations and categories"),
    (lambda d: d.update(annotations=[]), "nothing is labeled on any of the 2 photos"),
    (_all("annotations", iscrowd=1), "all 4 objects on these photos are crowds"),
    (_two_images_with_one_id, "1 image ids are used for several entries, like 1 for '1.png' and"),
    (_all("categories", id=7), "1 category ids are used for several entries, like 7 for 'cat'"),
    (_all("images", file_name="1.png"), "2 images are named 1.png (ids 1, 2; 1 such photos)"),
    (_all("images", file_name="no.png"), "has none of the 2 labeled photos"),
    (_all("annotations", image_id=9), "all 4 annotations have an image_id that 'images' does not"),
    (_first("annotations", category_id=9), "1 of 4 annotations have a category_id that"),
    (_half_size, "2 of 2 photos have another size than in the file: 1.png is 30 x 40, annotated"),
    (_exchanged, "it was rotated since, or the file has its height and width exchanged"),
    (_masks_of_half_size, "expected the photo's size [30, 40], got [15, 20] (4 of 4 objects)"),
    (_transposed, "the photo's size [30, 40] (it is [height, width]), got [40, 30] (1 of 4"),
    (_first("annotations", bbox=["a"] * 4), "bbox: expected four numbers of pixels"),
    (_first("annotations", bbox=[1]), "bbox: expected four numbers of pixels"),
    (_first("annotations", bbox=[0, 0, float("nan"), 1]), "bbox: expected four numbers"),
    (_first("annotations", bbox=[0, 0, 10**400, 1]), "bbox: expected four numbers"),
    (_all("annotations", bbox=[5, 5, -3, 4]), "with sides from 0, got [5, 5, -3, 4] (4 of 4"),
    (
        _first("annotations", bbox=None, segmentation=[]),
        "bbox: expected four numbers of pixels, or",
    ),
    (_first("annotations", area=-1), "object 1 on image 1: area: expected a number of pixels"),
    (_first("annotations", area="big"), "area: expected a number of pixels, got 'big'"),
    (_first("annotations", iscrowd=2), "iscrowd: expected 0 or 1, got 2"),
    (_first("annotations", iscrowd="no"), "iscrowd: expected 0 or 1, got 'no'"),
    (_first("annotations", segmentation="abc"), SEGMENTATION),
    (_first("annotations", segmentation=[[1, 2]]), SEGMENTATION),
    (_first("annotations", segmentation=[[1, 2, 9, 9]]), SEGMENTATION),
    (_first("annotations", segmentation=[1, 2, 9, 9]), SEGMENTATION),
    (_first("annotations", segmentation=[[0, 0, 4, 0, 4, 4, 1]]), SEGMENTATION),
    (_first("annotations", segmentation=[["a"] * 6]), SEGMENTATION),
    (_first("annotations", segmentation=[[0, 0, 1e6 + 1, 0, 4, 4]]), SEGMENTATION),
    (_first("annotations", segmentation=[[0, 0, float("nan"), 0, 4, 4]]), SEGMENTATION),
    (_first("annotations", segmentation=[None]), SEGMENTATION),
    (_first("annotations", segmentation={"counts": [1200]}), "segmentation size: expected"),
    (_first("annotations", segmentation=rectangle(0, 0, 2, 2) | {"counts": [5]}), COUNTS),
    (_first("annotations", segmentation=rectangle(0, 0, 2, 2) | {"counts": [1201, -1]}), COUNTS),
    (_first("annotations", segmentation=rectangle(0, 0, 2, 2) | {"counts": "\u00e9"}), COUNTS),
    (_first("annotations", segmentation=rectangle(0, 0, 2, 2) | {"counts": "3"}), COUNTS),
    (_first("annotations", segmentation=rectangle(0, 0, 2, 2) | {"counts": None}), COUNTS),
]


def test_refusals_are_one_line(folder: Path, subtests: pytest.Subtests) -> None:
    for number, (change, message) in enumerate(REFUSED):
        with subtests.test(number=number, message=message):
            document = plain()
            change(document)
            with pytest.raises(UsageError) as raised:
                labels(folder, document)
            line = str(raised.value)
            assert message in line
            assert "labels.json" in line
            assert "\n" not in line
            assert len(line) < 400


def test_files_that_are_no_coco_files(folder: Path, subtests: pytest.Subtests) -> None:
    for text, message in [
        ("", "not a readable JSON file"),
        ("[" * 1500, "not a readable JSON file"),
        ("1" * 4301, "not a readable JSON file"),
        ("[]", "got a list, as of COCO results"),
        ("5", "got a int"),
    ]:
        with subtests.test(text[:9]), pytest.raises(UsageError, match=message):
            labels(folder, text)
    with pytest.raises(UsageError, match="no such file; expected COCO annotations"):
        find_labeled_photos(folder / "none.json", folder)
    with pytest.raises(UsageError, match="cannot be read"):
        find_labeled_photos(folder, folder)


def test_wrong_objects_on_other_photos_do_not_matter(folder: Path) -> None:
    document = plain()
    document["images"].append({"id": 3, "file_name": "missing.png"})
    document["annotations"].append({"image_id": 3, "category_id": 1, "bbox": "none"})
    assert len(labels(folder, document).document["annotations"]) == 4


@pytest.mark.parametrize(
    "fields",
    [{"keypoints": [1, 2]}, {"keypoints": "a"}, {"keypoints": [1, 2, 2], "num_keypoints": -1}],
)
def test_wrong_keypoints(fields: Document, folder: Path) -> None:
    document = plain()
    document["annotations"][0].update(fields)
    with pytest.raises(UsageError, match="keypoints: expected"):
        labels(folder, document, KEYPOINT_SPEC)
    labels(folder, document, SPEC)


def _turn(path: Path, orientation: int, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    image.getexif()[ExifTags.Base.Orientation] = orientation
    image.save(path, exif=image.getexif())


def test_rotated_photos(folder: Path) -> None:
    _turn(folder / "1.png", 6, (WIDTH, HEIGHT))
    with pytest.raises(UsageError, match=r"1 of 2 photos.*is 40 x 30.*30 x 40.*EXIF orientation"):
        labels(folder, plain())
    _turn(folder / "1.png", 3, (WIDTH, HEIGHT))
    (line,) = labels(folder, plain()).notices
    assert line.startswith("photos with an EXIF orientation that rotates or mirrors them: 1;")


def test_photos_that_cannot_be_opened(folder: Path) -> None:
    (folder / "2.png").write_bytes(b"no photo")
    with pytest.raises(ImageError, match=r"2\.png"):
        labels(folder, plain())
    path = folder / "labels.json"
    found = find_labeled_photos(path, folder, allow_unreadable=True)
    assert (sorted(found.photos), sorted(found.sizes)) == ([1, 2], [1])
    assert sorted(found.only([2]).photos) == [2]
