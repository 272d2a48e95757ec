"""The levels on the canvas: disjoint, inside it, and at `origins_yx`."""

from __future__ import annotations

import numpy as np
import pytest

from export.lowering.packed_pool import assemble
from model.pooling.packing import Packing, pack


def _tiles(packing: Packing) -> list[tuple[slice, slice]]:
    return [
        (slice(top, top + height), slice(left, left + width))
        for (height, width), (top, left) in zip(packing.sides_hw, packing.origins_yx, strict=True)
    ]


def _random_sides(rng: np.random.Generator) -> list[tuple[int, int]]:
    """Pyramids of halves, rounded up or down, and levels in random order."""
    count = int(rng.integers(1, 7))
    if rng.random() < 0.5:
        return [(int(h), int(w)) for h, w in rng.integers(1, 40, (count, 2))]
    side = rng.integers(1, 90, 2)
    sides = [tuple(int(v) for v in side)]
    for _ in range(count - 1):
        side = np.maximum((side + rng.integers(0, 2)) // 2, 1)
        sides.append((int(side[0]), int(side[1])))
    return sides


def test_tiles_are_disjoint_and_inside(subtests: pytest.Subtests) -> None:
    for seed in range(200):
        with subtests.test(seed=seed):
            sides = _random_sides(np.random.default_rng(seed))
            packing = pack(sides)
            assert packing.sides_hw == tuple(sides)
            assert sorted(level for group in packing.groups for level in group) == [
                *range(len(sides))
            ]
            if len(sides) > 1:
                assert all(side & (side - 1) == 0 for side in packing.canvas_hw)
            used = np.zeros(packing.canvas_hw, int)
            for (height, width), tile in zip(sides, _tiles(packing), strict=True):
                assert used[tile].shape == (height, width)
                used[tile] += 1
            assert used.max() == 1


def test_maps_are_placed_at_the_origins(subtests: pytest.Subtests) -> None:
    for seed in range(60):
        with subtests.test(seed=seed):
            rng = np.random.default_rng(seed)
            packing = pack(_random_sides(rng))
            maps = [rng.normal(size=(2, 3, *hw)).astype(np.float32) for hw in packing.sides_hw]
            expected = np.zeros((2, 3, *packing.canvas_hw), np.float32)
            for tile, feature in zip(_tiles(packing), maps, strict=True):
                expected[(..., *tile)] = feature
            canvas = assemble(packing, maps)  # outside of a trace the operators run at once
            np.testing.assert_array_equal(getattr(canvas, "value", canvas), expected)


def test_one_level_is_itself() -> None:
    packing = pack([(7, 9)])
    feature = np.ones((1, 1, 7, 9), np.float32)
    assert (packing.canvas_hw, packing.origins_yx) == ((7, 9), ((0, 0),))
    assert assemble(packing, [feature]) is feature


def test_equal_levels_are_side_by_side() -> None:
    packing = pack([(8, 5)] * 3)
    assert packing.canvas_hw == (8, 16)
    assert packing.origins_yx == ((0, 10), (0, 5), (0, 0))


@pytest.mark.parametrize("turn", [False, True], ids=["landscape", "portrait"])
def test_landscape_and_portrait_pyramids_are_packed_alike(turn: bool) -> None:
    sides = [(200, 336), (100, 168), (50, 84), (25, 42)]
    packing = pack([side[::-1] for side in sides] if turn else sides)
    origins = ((0, 168), (75, 0), (25, 0), (0, 0))
    assert packing.canvas_hw == ((512, 256) if turn else (256, 512))
    assert packing.origins_yx == (tuple(o[::-1] for o in origins) if turn else origins)


def test_a_level_taller_than_the_first_opens_a_column() -> None:
    packing = pack([(3, 2), (8, 4), (5, 1)])
    assert packing.canvas_hw == (8, 8)
    assert packing.origins_yx == ((0, 5), (0, 1), (0, 0))


def test_cell_centers_are_exact_on_the_grid() -> None:
    """GridSample's position from the grid is the cell, bit for bit, also at tile edges."""
    rng = np.random.default_rng(4)
    for _ in range(200):
        packing = pack([*_random_sides(rng), (5, 9)])
        scales = [(0.25 / 2**level,) * 2 for level in range(len(packing.sides_hw))]
        canvas = np.array(packing.canvas_hw[::-1], np.float32)
        origins = np.array(packing.origins_yx, np.float32)[:, ::-1]
        for row, origin in zip(packing.level_table(scales), origins, strict=True):
            side, slope, shift = row[2:4], row[4:6], row[6:8]
            for cell in (np.zeros(2, np.float32), side - 1):
                grid = cell * slope + shift
                back = ((grid + np.float32(1)) * canvas - np.float32(1)) / np.float32(2)
                assert back.tolist() == (origin + cell).tolist()
