"""The overlay: what it paints, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from model.errors import ImageError
from runtime.detections import Detections
from runtime.drawing.overlay import instance_colors
from runtime.sources.photos import decode


def sample_detections(
    image_hw: tuple[int, int], *boxes: tuple[float, ...], masks: bool = True
) -> Detections:
    rows = len(boxes)
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(rows, 4),
        scores=np.linspace(0.9, 0.5, rows, dtype=np.float32),
        labels=np.arange(rows, dtype=np.int64),
        names=tuple(f"thing {row}" for row in range(rows)),
        mask_probs=np.full((rows, 28, 28), 0.9, np.float32) if masks else None,
        image_hw=image_hw,
    )


def gray(image_hw: tuple[int, int]) -> NDArray[np.uint8]:
    return np.full((*image_hw, 3), 90, np.uint8)


def test_paints_the_mask_only() -> None:
    image = gray((300, 400))
    picture = np.asarray(sample_detections((300, 400), (150, 120, 250, 220)).draw(image))
    changed = (picture != image).any(axis=-1)
    assert changed[125:215, 155:245].all()
    changed[95:225, 145:260] = False
    assert not changed.any()
    assert (image == 90).all()


def test_masks_are_translucent_and_boxes_hollow() -> None:
    picture = np.asarray(sample_detections((300, 400), (150, 120, 250, 220)).draw(gray((300, 400))))
    color = np.array(instance_colors([0])[0])
    middle = picture[170, 200]
    assert (np.sign(middle.astype(int) - 90) == np.sign(color - 90)).all()
    assert not np.array_equal(middle, color)
    solid = (picture == color).all(axis=-1)
    assert solid[170, 145:155].any()
    assert not solid[140:200, 170:230].any()
    picture = np.asarray(
        sample_detections((300, 400), (150, 120, 250, 220), masks=False).draw(gray((300, 400)))
    )
    assert (picture[140:200, 170:230] == 90).all()
    assert (picture[120, 160:240] != 90).any()


def test_pictures_of_any_mode_and_name() -> None:
    picture = sample_detections((30, 40), (5, 5, 20, 20)).draw(Image.new("L", (40, 30)))
    assert (picture.mode, picture.size) == ("RGB", (40, 30))
    image = gray((20, 30))
    np.testing.assert_array_equal(np.asarray(sample_detections((20, 30)).draw(image)), image)
    named = replace(sample_detections((60, 80), (10, 30, 60, 55)), names=("two\nlines",))
    assert named.draw(gray((60, 80))).size == (80, 60)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_with_an_exif_orientation_is_turned_as_for_the_network(turn: int) -> None:
    stored = Image.fromarray(np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3))
    stored.getexif()[ExifTags.Base.Orientation] = turn
    upright = decode(stored)
    detections = sample_detections(upright.shape[:2], (5, 5, 20, 20))
    np.testing.assert_array_equal(detections.draw(stored), detections.draw(upright))
    for ours, expected in zip(detections.cutouts(stored), detections.cutouts(upright), strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("side", [1, 8, 40, 2500])
def test_works_at_any_size_with_boxes_outside(side: int) -> None:
    boxes = ((-50, -50, -20, -20), (side, side, side + 9, side + 9), (-5, -5, side + 5, side + 5))
    picture = sample_detections((side, side), *boxes).draw(gray((side, side)))
    assert picture.size == (side, side)
    assert np.asarray(picture).std() > 0 or side == 1


@pytest.mark.parametrize(
    "image",
    [gray((30, 41)), gray((40, 30)), gray((30, 40))[..., :2], gray((30, 40)).astype(np.float32)],
    ids=["wider", "transposed", "two-channels", "float"],
)
def test_another_image_is_refused(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ImageError, match=r"expected an RGB image as uint8 \[30, 40, 3\]"):
        sample_detections((30, 40), (5, 5, 20, 20)).draw(image)


def test_colors_are_stable_and_distinct() -> None:
    assert instance_colors([3, 7, 3]) == instance_colors([3, 7, 3])
    assert instance_colors([7])[0] == instance_colors([3, 7])[1]
    assert len(set(instance_colors(list(range(91))))) == 91
    assert len(set(instance_colors([1] * 12))) == 12
