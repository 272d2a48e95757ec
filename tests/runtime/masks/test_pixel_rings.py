"""Rings over a mask's pixels, painted as their readers do: by Pillow and by supervision."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from model.arrays import Bool, Int64
from runtime.masks.paste import MaskCrop
from runtime.masks.pixel_rings import IN_PIXEL_PX, MaskRing, mask_rings, part_rings
from tests.oracles.polygons import parts
from tests.runtime.masks.test_polygons import NAMED, drawn, random_mask


def crop(mask: Bool) -> MaskCrop:
    return MaskCrop(0, 0, np.ascontiguousarray(mask.T))


def painted_parts(rings: Sequence[Int64], image_hw: tuple[int, ...]) -> Bool:
    """As labelme does."""
    image = Image.new("L", image_hw[::-1])
    draw = ImageDraw.Draw(image)
    for ring in rings:
        vertices = [(x, y) for x, y in (ring + IN_PIXEL_PX).tolist()]
        draw.polygon(vertices, outline=1, fill=1)
    return np.asarray(image) > 0


def painted(ring: Int64, image_hw: tuple[int, ...]) -> Bool:
    """As OpenCV does, in supervision's copy of it or by itself."""
    supervision = pytest.importorskip("supervision")
    mask: Bool = supervision.polygon_to_mask(ring + IN_PIXEL_PX, image_hw[::-1]) > 0
    return mask


def pieces(mask: Bool) -> int:
    """The number of 8-connected parts."""
    unvisited, count = {(y, x) for y, x in np.argwhere(mask).tolist()}, 0
    while unvisited:
        count += 1
        stack = [unvisited.pop()]
        while stack:
            y, x = stack.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & unvisited
            unvisited -= near
            stack += near
    return count


def all_masks(height: int, width: int) -> list[Bool]:
    count = height * width
    numbers = np.arange(1 << count)[:, None] >> np.arange(count) & 1
    return list(numbers.astype(np.bool_).reshape(-1, height, width))


def assert_painted(masks: Sequence[Bool]) -> None:
    crops = [crop(mask) for mask in masks]
    for mask, of_mask, of_parts in zip(masks, mask_rings(crops), part_rings(crops), strict=True):
        ring = of_mask.pixels
        assert len(of_parts) == len(parts(mask))
        assert all(len(of_part) >= 3 for of_part in of_parts)
        np.testing.assert_array_equal(painted_parts(of_parts, mask.shape), mask)
        if not mask.any():
            assert ring.shape == (0, 2)
        else:
            assert len(ring) >= 3
            result = painted(ring, mask.shape)
            assert result[mask].all()
            assert of_mask.has_bridges == result[~mask].any() == (pieces(mask) > 1)


def test_every_mask_of_nine_pixels() -> None:
    assert_painted(all_masks(3, 3))


def test_named_and_random_masks(subtests: pytest.Subtests) -> None:
    rng = np.random.default_rng(31)
    for name, mask in NAMED.items():
        with subtests.test(name):
            if mask.size:
                assert_painted([mask])
            else:
                assert mask_rings([crop(mask)])[0].pixels.shape == (0, 2)
                assert part_rings([crop(mask)]) == [[]]
    with subtests.test("random"):
        assert_painted([random_mask(rng, 15) for _ in range(200)])
    assert mask_rings([]) == part_rings([]) == []


def test_only_corners_need_a_diagonal() -> None:
    # Added points that are rounded stay on the pixels of a straight step.
    rng = np.random.default_rng(32)
    masks = [random_mask(rng, 20) for _ in range(200)]
    for of_parts in part_rings([crop(mask) for mask in masks]):
        assert not any(MaskRing(part, has_bridges=False).has_diagonal for part in of_parts)
    (thin,) = mask_rings([crop(NAMED["thin-diagonal"])])
    # Added points may pass beside a pixel of a diagonal that is no vertex.
    assert {x for x, _ in thin.pixels.tolist()} == {*range(len(NAMED["thin-diagonal"]))}
    assert thin.has_diagonal
    # Also from the last vertex to the first.
    assert MaskRing(np.array([[0, 0], [2, 0], [2, 2]]), has_bridges=False).has_diagonal


def bridge_pixels(mask: Bool) -> int:
    (ring,) = mask_rings([crop(mask)])
    return int(painted(ring.pixels, mask.shape)[~mask].sum())


@pytest.mark.parametrize(
    ("mask", "pixels"),
    [
        (drawn("#.#"), 1),
        (drawn("##....#"), 4),
        (drawn("#....", "....."), 0),
        (drawn("#....", ".....", ".....", "....#"), 3),
        # From the hole's edge, not from the corners.
        (drawn("#######", "#.....#", "#.....#", "#..#..#", "#.....#", "#######"), 1),
        # The third piece is nearer to the second than to the first.
        (drawn("####..#..#"), 4),
        # A long edge is joined in its middle.
        (drawn("#########", ".........", "....#...."), 1),
        (drawn("#.#.#", ".....", "#.#.#"), 5),
    ],
)  # fmt: skip
def test_pieces_are_joined_by_the_fewest_pixels(mask: Bool, pixels: int) -> None:
    assert bridge_pixels(mask) == pixels


def fewest(mask: Bool, most: int) -> int:
    """The fewest background pixels that connect all pieces, up to `most`, by trying all."""
    background = np.argwhere(~mask)
    for count in range(most):
        for some in combinations(background, count):
            whole = mask.copy()
            whole[tuple(np.array(some, np.int64).reshape(-1, 2).T)] = True
            if pieces(whole) == 1:
                return count
    return most


def test_two_pieces_have_the_shortest_bridge() -> None:
    rng = np.random.default_rng(33)
    tried = 0
    while tried < 40:
        mask = rng.random((4, 5)) < 0.3
        if pieces(mask) == 2:
            tried += 1
            assert bridge_pixels(mask) == fewest(mask, 3)


def test_masks_do_not_depend_on_their_company() -> None:
    rng = np.random.default_rng(34)
    crops = [crop(random_mask(rng)) for _ in range(60)]
    for one, among in zip(crops, mask_rings(crops), strict=True):
        np.testing.assert_array_equal(mask_rings([one])[0].pixels, among.pixels)


def test_a_crop_has_its_place_in_the_image() -> None:
    (ring,) = mask_rings([MaskCrop(7, 5, np.ones((2, 3), np.bool_))])
    corners: NDArray[np.int64] = np.array([[7, 5], [8, 5], [8, 7], [7, 7]])
    assert sorted(ring.pixels.tolist()) == sorted(corners.tolist())
