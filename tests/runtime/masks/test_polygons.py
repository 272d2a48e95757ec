"""Outlines against flood filling and slow rasterising."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from model.arrays import Bool
from model.errors import UsageError
from runtime.masks.paste import MaskCrop
from runtime.masks.polygons import SAME_PIXELS_PX, Polygon, outlines, signed_area
from runtime.masks.simplify import douglas_peucker
from tests.oracles.polygons import parts, rasterize

X0, Y0 = 3, 2
TOLERANCES = (0.0, 0.1, SAME_PIXELS_PX)


def crop(mask: Bool) -> MaskCrop:
    return MaskCrop(X0, Y0, np.ascontiguousarray(mask.T))


def placed(mask: Bool) -> Bool:
    """The mask in its image."""
    return np.pad(mask, ((Y0, 4), (X0, 5)))


def drawn(*rows: str) -> Bool:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def rings(polygons: Sequence[Polygon]) -> list[NDArray[np.float64]]:
    return [ring for part in polygons for ring in (part.exterior, *part.holes)]


def random_mask(rng: np.random.Generator, most: int = 12) -> Bool:
    height, width = map(int, rng.integers(1, most, 2))
    return rng.random((height, width)) < rng.random()


NAMED = {
    "empty": drawn("..", ".."),
    "one-pixel": drawn("#"),
    "pixel-in-the-middle": drawn("...", ".#.", "..."),
    "full": drawn("####", "####", "####"),
    "touches-every-border": drawn(".#.", "###", ".#."),
    "diagonal-contact": drawn("#.", ".#"),
    "other-diagonal": drawn(".#", "#."),
    "ring-that-meets-itself-at-a-corner": drawn("###", "#.#", "##.", "###"),
    "hole": drawn("####", "#..#", "####"),
    "holes-that-meet-at-a-corner": drawn("####", "#.##", "##.#", "####"),
    "hole-open-at-a-corner": drawn("##.", "#.#", "###"),
    "island-in-a-hole": drawn("#####", "#...#", "#.#.#", "#...#", "#####"),
    "two-holes-in-a-row": drawn("#######", "#.##..#", "#######"),
    "hole-left-of-which-is-a-hole": drawn("######", "#.##.#", "#.#..#", "######"),
    "checkerboard": np.indices((5, 6)).sum(axis=0) % 2 == 0,
    "line": drawn("########"),
    "stairs": np.tri(9, 9, dtype=np.bool_),
    "thin-diagonal": np.eye(7, dtype=np.bool_),
    "no-rows": np.zeros((0, 4), np.bool_),
    "no-columns": np.zeros((4, 0), np.bool_),
}


def assert_parts(mask: Bool, polygons: Sequence[Polygon]) -> None:
    """Each polygon holds the pixels of one 4-connected part, each part has one."""
    image = placed(mask)
    held = [rasterize(rings([part]), image.shape) for part in polygons]
    expected = parts(image)
    assert sorted(p.tobytes() for p in held) == sorted(p.tobytes() for p in expected)


def test_each_part_has_a_polygon_with_its_pixels(subtests: pytest.Subtests) -> None:
    for tolerance, name in product(TOLERANCES, NAMED):
        with subtests.test(tolerance=tolerance, name=name):
            (result,) = outlines([crop(NAMED[name])], tolerance)
            assert_parts(NAMED[name], result)


def test_thousands_of_random_masks_at_once() -> None:
    rng = np.random.default_rng(12)
    masks = [random_mask(rng) for _ in range(1500)]
    for tolerance in TOLERANCES:
        result = outlines([crop(mask) for mask in masks], tolerance)
        assert len(result) == len(masks)
        for mask, polygons in zip(masks, result, strict=True):
            assert_parts(mask, polygons)


def test_masks_do_not_depend_on_their_company() -> None:
    rng = np.random.default_rng(13)
    crops = [crop(random_mask(rng)) for _ in range(40)]
    for tolerance in (0.0, SAME_PIXELS_PX, 1.5):
        together = outlines(crops, tolerance)
        for one, among in zip(crops, together, strict=True):
            (alone,) = outlines([one], tolerance)
            assert len(alone) == len(among)
            for a, b in zip(rings(alone), rings(among), strict=True):
                np.testing.assert_array_equal(a, b)


def test_exact_outlines_run_along_the_edges_between_pixels() -> None:
    rng = np.random.default_rng(14)
    for _ in range(100):
        mask = random_mask(rng)
        (result,) = outlines([crop(mask)])
        assert sum(part.area_px for part in result) == mask.sum()
        for ring in rings(result):
            steps = np.roll(ring, -1, axis=0) - ring
            np.testing.assert_array_equal(ring, np.rint(ring))
            assert ((steps != 0).sum(axis=1) == 1).all()
            # Corners only: it goes along x and along y in turn.
            assert (np.diff(steps[:, 0] != 0) != 0).all()


def test_polygons_of_small_masks() -> None:
    (((square),),) = outlines([crop(drawn("##", "##"))])
    corners = {(X0, Y0), (X0 + 2, Y0), (X0 + 2, Y0 + 2), (X0, Y0 + 2)}
    assert {tuple(point) for point in square.exterior.tolist()} == corners
    assert len(square.exterior) == 4
    assert signed_area(square.exterior) == 4
    assert square.holes == ()
    mask = drawn("####.###", "#..#.#.#", "####.###")
    (result,) = outlines([crop(mask)])
    assert [len(part.holes) for part in result] == [1, 1]
    assert [signed_area(part.exterior) for part in result] == [12, 9]
    assert [signed_area(part.holes[0]) for part in result] == [-2, -1]
    (result,) = outlines([crop(drawn("#.##.###"))])
    assert [part.area_px for part in result] == [3, 2, 1]
    (parts,), (holed,) = (
        outlines([crop(NAMED["diagonal-contact"])]),
        outlines([crop(NAMED["holes-that-meet-at-a-corner"])]),
    )
    assert len(parts) == 2
    assert len(holed) == 1
    assert [signed_area(hole) for hole in holed[0].holes] == [-2]
    assert outlines([]) == []
    assert outlines([crop(NAMED["empty"])] * 2) == [[], []]


def disc(side: int) -> Bool:
    y, x = np.indices((side, side)) / side * 2 - 1
    result: Bool = np.hypot(x, y) < 0.8 + 0.1 * np.sin(5 * np.arctan2(y, x))
    return result


def test_simplified_outlines_have_fewer_vertices_and_stay_near() -> None:
    (exact,), (same,), (coarse,) = (
        outlines([crop(disc(160))], tolerance) for tolerance in (0.0, SAME_PIXELS_PX, 2.0)
    )
    sizes = [len(p[0].exterior) for p in (exact, same, coarse)]
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[2] < 0.15 * sizes[0]
    mask = placed(disc(160))
    again = rasterize(rings(coarse), mask.shape)
    wrong = np.argwhere(again != mask)
    # No pixel changes sides that is further from the outline than the tolerance.
    edge = exact[0].exterior
    for y, x in wrong.tolist():
        assert _distance_to_ring((x + 0.5, y + 0.5), edge) <= 2.0
    assert np.count_nonzero(again & mask) / np.count_nonzero(again | mask) > 0.98


def _distance_to_ring(point: tuple[float, float], ring: NDArray[np.float64]) -> float:
    start, along = ring, np.roll(ring, -1, axis=0) - ring
    share = ((np.array(point) - start) * along).sum(axis=1) / (along**2).sum(axis=1)
    nearest = start + share.clip(0, 1)[:, None] * along
    return float(np.hypot(*(np.array(point) - nearest).T).min())


@pytest.mark.parametrize("tolerance", [0.5, 3.0, 1e6])
def test_a_ring_never_collapses(tolerance: float) -> None:
    masks = [NAMED[name] for name in NAMED if name not in ("empty", "no-rows", "no-columns")]
    for polygons in outlines([crop(mask) for mask in masks], tolerance):
        assert polygons
        assert all(len(ring) >= 3 for ring in rings(polygons))


@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
def test_impossible_tolerance_is_refused(tolerance: float) -> None:
    with pytest.raises(UsageError, match="tolerance of 0 pixels or more"):
        outlines([crop(NAMED["full"])], tolerance)


def simplified_slowly(points: NDArray[np.float64], tolerance: float) -> list[int]:
    """Douglas-Peucker by recursion on an open line; indices kept."""
    start, end = points[0], points[-1]
    along = end - start
    distances = []
    for point in points[1:-1]:
        length2 = along @ along
        share = min(max((point - start) @ along / length2, 0.0), 1.0) if length2 else 0.0
        distances.append(float(np.hypot(*(point - start - share * along))))
    if not distances or max(distances) <= tolerance:
        return [0, len(points) - 1]
    split = 1 + int(np.argmax(distances))
    left = simplified_slowly(points[: split + 1], tolerance)
    right = simplified_slowly(points[split:], tolerance)
    return left + [split + index for index in right[1:]]


def test_douglas_peucker_is_the_recursion() -> None:
    rng = np.random.default_rng(15)
    for _ in range(100):
        sizes = rng.integers(1, 40, rng.integers(1, 4))
        lines = [rng.normal(size=(size, 2)).cumsum(axis=0) for size in sizes]
        expected = []
        for line in lines:
            closed = np.concatenate((line, line[:1]))
            furthest = int(((line - line[0]) ** 2).sum(axis=1).argmax())
            kept = {0}
            if len(line) > 1:
                kept |= set(simplified_slowly(closed[: furthest + 1], 0.7))
                kept |= {furthest + i for i in simplified_slowly(closed[furthest:], 0.7)}
            expected.append([i in kept for i in range(len(line))])
        first = np.cumsum(sizes) - sizes
        x, y = np.concatenate(lines).T
        result = douglas_peucker(x.copy(), y.copy(), first, 0.7)
        np.testing.assert_array_equal(result, np.concatenate(expected))
