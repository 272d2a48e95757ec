"""The layout of all pyramid levels on one canvas, and the map from a level's cells to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Packing:
    """Levels in adjacent columns, or in adjacent rows.

    A sampling grid has positions from -1 to 1. If a canvas side is 2^k cells, every cell center is
    an exact float32 position, so that a sample on a tile's last cell stays there; otherwise it may
    be 6e-5 cells outside and read the adjacent tile. So `canvas_hw` are powers of two, except for
    a single level, which has no neighbor.

    Attributes:
        sides_hw: rows and columns of each level, in cells.
        groups: the level indices of each row or column, in their order on the canvas.
        in_rows: whether a group is a row (levels from left to right) or a column.
    """

    sides_hw: tuple[tuple[int, int], ...]
    groups: tuple[tuple[int, ...], ...]
    in_rows: bool

    @property
    def canvas_hw(self) -> tuple[int, int]:
        """Rows and columns of the canvas, in cells."""
        along = max(self.length(group) for group in self.groups)
        across = sum(self.breadth(group) for group in self.groups)
        if len(self.sides_hw) > 1:
            along, across = _power_of_two(along), _power_of_two(across)
        return (across, along) if self.in_rows else (along, across)

    @property
    def origins_yx(self) -> tuple[tuple[int, int], ...]:
        """First row and column of each level."""
        origins: dict[int, tuple[int, int]] = {}
        across = 0
        for group in self.groups:
            along = 0
            for level in group:
                origins[level] = (across, along) if self.in_rows else (along, across)
                along += self._side(level, along=True)
            across += self.breadth(group)
        return tuple(origins[level] for level in range(len(self.sides_hw)))

    def length(self, group: Sequence[int]) -> int:
        """Cells of a group along its levels."""
        return sum(self._side(level, along=True) for level in group)

    def breadth(self, group: Sequence[int]) -> int:
        """Cells of a group's widest level across."""
        return max(self._side(level, along=False) for level in group)

    def level_table(
        self, cells_per_pixel: Sequence[tuple[float, float]]
    ) -> npt.NDArray[np.float32]:
        """The constants of each level for sampling, x before y.

        Args:
            cells_per_pixel: of each level along y and x, see `model.pooling.frame`.

        Returns:
            float32 [L, 8]: cells per pixel, sides, and the slope and shift from a cell of the
            level to a position from -1 to 1 on the canvas.
        """
        canvas = np.array(self.canvas_hw[::-1], np.float64)
        rows = []
        for scale_yx, (height, width), (top, left) in zip(
            cells_per_pixel, self.sides_hw, self.origins_yx, strict=True
        ):
            shift = (2.0 * np.array([left, top]) + 1.0) / canvas - 1.0
            rows.append([scale_yx[::-1], [width, height], 2.0 / canvas, shift])
        return np.array(rows, np.float64).reshape(-1, 8).astype(np.float32)

    def _side(self, level: int, along: bool) -> int:
        return self.sides_hw[level][along == self.in_rows]


def pack(sides_hw: Sequence[tuple[int, int]]) -> Packing:
    """Fill columns or rows, whichever gives the smaller canvas.

    The coarsest level comes first: float32 is most precise near the canvas's left and top, and
    the positions in a coarse level lose most by rounding.
    """
    packings = [_fill(tuple(sides_hw), in_rows) for in_rows in (False, True)]
    return min(packings, key=lambda packing: packing.canvas_hw[0] * packing.canvas_hw[1])


def _fill(sides_hw: tuple[tuple[int, int], ...], in_rows: bool) -> Packing:
    """Groups as long as the longest level; equal levels are adjacent."""
    longest = max(sides[in_rows] for sides in sides_hw)
    groups: list[list[int]] = []
    used = longest
    for level, sides in enumerate(sides_hw):
        if used + sides[in_rows] > longest:
            groups.append([])
            used = 0
        groups[-1].append(level)
        used += sides[in_rows]
    ordered = tuple(tuple(reversed(group)) for group in reversed(groups))
    return Packing(sides_hw, ordered, in_rows)


def _power_of_two(side: int) -> int:
    return 1 << (side - 1).bit_length()
