"""Where the levels of a pyramid stand on one canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from export.lowering.values import Value, ints, op


@dataclass(frozen=True, slots=True)
class Packing:
    """Columns of level indices, top to bottom and left to right; sides are cells.

    `origins_yx` is the first cell of each level on the canvas.
    """

    sides_hw: tuple[tuple[int, int], ...]
    columns: tuple[tuple[int, ...], ...]

    @property
    def height(self) -> int:
        """Rows of the canvas."""
        return max(self._column_height(column) for column in self.columns)

    @property
    def width(self) -> int:
        """Columns of the canvas."""
        return sum(self._column_width(column) for column in self.columns)

    @property
    def origins_yx(self) -> tuple[tuple[int, int], ...]:
        """First row and column of each level."""
        origins: dict[int, tuple[int, int]] = {}
        left = 0
        for column in self.columns:
            top = 0
            for level in column:
                origins[level] = (top, left)
                top += self.sides_hw[level][0]
            left += self._column_width(column)
        return tuple(origins[level] for level in range(len(self.sides_hw)))

    def _column_height(self, column: Sequence[int]) -> int:
        return sum(self.sides_hw[level][0] for level in column)

    def _column_width(self, column: Sequence[int]) -> int:
        return max(self.sides_hw[level][1] for level in column)

    def assemble(self, features: Sequence[Value]) -> Value:
        """Lay float32 [N, C, H_l, W_l] maps out on one [N, C, height, width], zero between."""
        laid = [self._lay_column(features, column) for column in self.columns]
        return op.Concat(*laid, axis=3) if len(laid) > 1 else laid[0]

    def _lay_column(self, features: Sequence[Value], column: Sequence[int]) -> Value:
        width, missing = self._column_width(column), self.height - self._column_height(column)
        tiles = []
        for level in column:
            below = missing if level == column[-1] else 0
            right = width - self.sides_hw[level][1]
            tile = features[level]
            if below or right:
                tile = op.Pad(tile, ints(0, 0, 0, 0, 0, 0, below, right))
            tiles.append(tile)
        return op.Concat(*tiles, axis=2) if len(tiles) > 1 else tiles[0]


def pack(sides_hw: Sequence[tuple[int, int]]) -> Packing:
    """Fill columns from the top; a level that does not fit under the last one opens the next.

    The tallest level sets the height. A pyramid of halves takes 1.5 times the area of its
    finest level, equal levels stand side by side without a gap.
    """
    tallest = max(height for height, _ in sides_hw)
    columns: list[list[int]] = []
    used = tallest
    for level, (height, _) in enumerate(sides_hw):
        if used + height > tallest:
            columns.append([])
            used = 0
        columns[-1].append(level)
        used += height
    return Packing(tuple(sides_hw), tuple(tuple(column) for column in columns))
