"""Cutouts: their pixels and their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.errors import ArtifactError, ImageError
from runtime.formats import crops
from runtime.formats.names import file_stem
from tests.runtime.formats.test_annotation_files import (
    IMAGE_HW,
    dense,
    example,
    off_image,
    picture,
)


def test_a_cutout_is_the_photo_with_the_mask_as_alpha() -> None:
    detections, pixels = example(20), picture()
    pictures = detections.cutouts(pixels)
    assert len(pictures) == 20
    for row, cutout in enumerate(pictures):
        mask, cut = dense(detections)[row], np.asarray(cutout)
        assert cutout.mode == "RGBA"
        x0, y0 = np.floor(detections.boxes[row, :2].clip(0)).astype(int)
        rows, columns = np.nonzero(mask)
        # The window starts at the box, or at the mask if that extends further.
        left, top = min(x0, columns.min(initial=90)), min(y0, rows.min(initial=60))
        height, width = cut.shape[:2]
        np.testing.assert_array_equal(cut[..., :3], pixels[top : top + height, left : left + width])
        whole = np.zeros(IMAGE_HW, np.uint8)
        whole[top : top + height, left : left + width] = cut[..., 3]
        np.testing.assert_array_equal(whole, mask * 255)


def test_cutouts_of_a_box_only_model_are_rgb() -> None:
    detections = example(1, masks=False)
    whole_pixels = replace(detections, boxes=np.array([[10.4, 5, 20.2, 30.9]], np.float32))
    (cutout,) = whole_pixels.cutouts(Image.fromarray(picture()))
    assert (cutout.mode, cutout.size) == ("RGB", (11, 26))
    np.testing.assert_array_equal(np.asarray(cutout), picture()[5:31, 10:21])


@pytest.mark.parametrize("masks", [False, True])
def test_a_cutout_outside_the_image_has_no_size(masks: bool) -> None:
    pictures = off_image(example(3, masks=masks), 1).cutouts(picture())
    assert pictures[1].size == (0, 0)
    assert min(pictures[0].size) > 0
    assert example(0).cutouts(picture()) == []


def test_cutouts_of_other_photos_and_into_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cutouts: expected an RGB image as uint8 \[60, 90, 3\]"):
        example().cutouts(picture()[:-1])
    (tmp_path / "a").write_text("a file")
    with pytest.raises(ArtifactError, match="cannot write"):
        crops.write(tmp_path / "a", picture(), example())


def test_cutout_files_of_an_earlier_run_are_removed(tmp_path: Path) -> None:
    detections = off_image(example(4), 1)
    crops.write(tmp_path / "a", picture(), detections)
    (tmp_path / "a" / "mine.png").write_text("not ours")
    names = {path.name for path in (tmp_path / "a").iterdir()} - {"mine.png"}
    assert names == {f"{row:03d}-{file_stem(detections.names[row])}.png" for row in (0, 2, 3)}
    with Image.open(tmp_path / "a" / f"000-{file_stem(detections.names[0])}.png") as saved:
        np.testing.assert_array_equal(
            np.asarray(saved), np.asarray(detections.cutouts(picture())[0])
        )
    crops.write(tmp_path / "a", picture(), detections.take([0]))
    assert len(list((tmp_path / "a").iterdir())) == 2
    crops.write(tmp_path / "b", picture(), example(0))
    assert not (tmp_path / "b").exists()
