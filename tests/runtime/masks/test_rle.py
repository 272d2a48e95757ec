"""Run lengths against pycocotools, byte for byte."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from model.arrays import Bool
from model.errors import ArtifactError
from runtime.masks import rle

coco_mask = pytest.importorskip("pycocotools.mask")

IMAGE_HW = (37, 53)


def blank(height: int = IMAGE_HW[0], width: int = IMAGE_HW[1]) -> Bool:
    return np.zeros((height, width), np.bool_)


def marked(*places: tuple[int | slice, int | slice]) -> Bool:
    image = blank()
    for place in places:
        image[place] = True
    return image


def frame() -> Bool:
    image = np.ones(IMAGE_HW, np.bool_)
    image[1:-1, 1:-1] = False
    return image


def random_image(density: float) -> Bool:
    return np.random.default_rng(5).random(IMAGE_HW) < density


WHOLE = slice(None)
IMAGES: dict[str, Callable[[], Bool]] = {
    "empty": blank,
    "full": lambda: ~blank(),
    "first-pixel": lambda: marked((0, 0)),
    "last-pixel": lambda: marked((-1, -1)),
    "middle-pixel": lambda: marked((17, 20)),
    "one-column": lambda: marked((WHOLE, 4)),
    "columns-that-merge": lambda: marked((WHOLE, slice(4, 9))),
    "last-columns": lambda: marked((WHOLE, slice(-3, None))),
    "foot-meets-head": lambda: marked((slice(30, None), 7), (slice(0, 4), 8)),
    "one-row": lambda: marked((0, WHOLE)),
    "border": frame,
    "all-but-the-border": lambda: ~frame(),
    "chessboard": lambda: np.indices(IMAGE_HW).sum(axis=0) % 2 == 0,
    "sparse": lambda: random_image(0.01),
    "noise": lambda: random_image(0.5),
    "dense": lambda: random_image(0.99),
    "one-by-one-off": lambda: blank(1, 1),
    "one-by-one-on": lambda: ~blank(1, 1),
    "long-runs": lambda: np.arange(700 * 900).reshape(700, 900) % 250_001 < 3,
}
all_images = pytest.mark.parametrize("make", IMAGES.values(), ids=IMAGES.keys())


def expected_text(image: Bool) -> str:
    encoded = coco_mask.encode(np.asfortranarray(image.astype(np.uint8)))
    text: str = encoded["counts"].decode("ascii")
    return text


def encode_crop(image: Bool, x0: int, y0: int, x1: int, y1: int) -> rle.Rle:
    columns = np.ascontiguousarray(image[y0:y1, x0:x1].T)
    height, width = image.shape
    return rle.encode(columns, x0, y0, (height, width))


@all_images
def test_whole_image_is_pycocotools(make: Callable[[], Bool]) -> None:
    image = make()
    encoded = encode_crop(image, 0, 0, image.shape[1], image.shape[0])
    assert encoded == {"size": list(image.shape), "counts": expected_text(image)}


@all_images
def test_tight_crop_is_pycocotools(make: Callable[[], Bool]) -> None:
    image = make()
    rows, columns = np.nonzero(image)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if rows.size else (0,) * 4
    assert encode_crop(image, *map(int, box))["counts"] == expected_text(image)


@all_images
def test_decode_and_area_undo_encode(make: Callable[[], Bool]) -> None:
    image = make()
    encoded: rle.Rle = {"size": list(image.shape), "counts": expected_text(image)}
    np.testing.assert_array_equal(rle.decode(encoded), image)
    assert rle.area(encoded) == np.count_nonzero(image)


def test_random_crops_are_pycocotools() -> None:
    rng = np.random.default_rng(8)
    for _ in range(300):
        height, width = map(int, rng.integers(1, 40, 2))
        y0, y1 = sorted(map(int, rng.integers(0, height + 1, 2)))
        x0, x1 = sorted(map(int, rng.integers(0, width + 1, 2)))
        image = np.zeros((height, width), np.bool_)
        image[y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < rng.random()
        encoded = encode_crop(image, x0, y0, x1, y1)
        assert encoded["counts"] == expected_text(image)
        np.testing.assert_array_equal(rle.decode(encoded), image)


def test_wide_image_needs_long_groups() -> None:
    image_hw = (16_000, 16_000)
    encoded = rle.encode(np.ones((1, 1), np.bool_), 15_999, 15_998, image_hw)
    decoded = coco_mask.area({"size": list(image_hw), "counts": encoded["counts"].encode()})
    assert decoded == rle.area(encoded) == 1
    box = coco_mask.toBbox({"size": list(image_hw), "counts": encoded["counts"].encode()})
    assert box.tolist() == [15_999, 15_998, 1, 1]


@pytest.mark.parametrize(
    "text",
    ["", "\x01", "~~", "é", "04"],
    ids=[
        "empty",
        "control-character",
        "beyond-the-alphabet",
        "not-ascii",
        "too-few-pixels",
    ],
)
def test_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError, match=r"run lengths: expected .* the text is damaged"):
        rle.decode({"size": [3, 3], "counts": text})


def test_a_text_that_ends_inside_a_number_is_refused() -> None:
    """A truncated file; the cut is found in a text of our own."""
    text = rle.encode(np.ones((30, 30), np.bool_), 3, 2, (90, 90))["counts"]
    end = next(index for index, letter in enumerate(text) if (ord(letter) - 48) & 32)
    with pytest.raises(ArtifactError, match="the text is damaged"):
        rle.decode({"size": [90, 90], "counts": text[: end + 1]})


def test_text_of_another_size_is_refused() -> None:
    with pytest.raises(ArtifactError, match="fill 3 x 4 = 12 pixels, got 1 runs of 9"):
        rle.area({"size": [3, 4], "counts": expected_text(blank(3, 3))})
