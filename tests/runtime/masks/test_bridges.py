"""Ways between pieces, against a minimum spanning tree of all pairs of pixels."""

from __future__ import annotations

import numpy as np
import pytest

from model.arrays import Int64
from runtime.masks import bridges


def steps_of_tree(x: Int64, y: Int64, piece: Int64, ways: Int64) -> int:
    """The steps of a minimum spanning tree, by Kruskal's algorithm."""
    steps = np.maximum(np.abs(x[ways[:, 0]] - x[ways[:, 1]]), np.abs(y[ways[:, 0]] - y[ways[:, 1]]))
    tree, total = piece.copy(), 0
    for way in np.argsort(steps, kind="stable"):
        one, other = tree[ways[way]]
        if one != other:
            tree[tree == other] = one
            total += int(steps[way])
    assert (tree == tree[0]).all()
    return total


@pytest.mark.parametrize("band_pixels", [1, 1 << 20])
@pytest.mark.parametrize("samples", [1, 256])
def test_a_minimum_spanning_tree_is_among_the_ways(
    band_pixels: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridges, "_BAND_PIXELS", band_pixels)
    monkeypatch.setattr(bridges, "_SAMPLES", samples)
    rng = np.random.default_rng(35)
    for _ in range(60):
        height, width = rng.integers(2, 50, 2)
        pixels = int(min(height * width, rng.integers(3, 40)))
        y, x = np.divmod(70 * width + rng.choice(height * width, pixels, replace=False), width)
        seeds = rng.choice(pixels, int(rng.integers(2, pixels)), replace=False)
        away = np.maximum(np.abs(x[:, None] - x[seeds]), np.abs(y[:, None] - y[seeds]))
        piece = away.argmin(axis=1)
        ways = bridges.shortest_ways(x, y, piece)
        all_pairs = np.stack(np.triu_indices(pixels, 1), axis=1)
        assert steps_of_tree(x, y, piece, ways) == steps_of_tree(x, y, piece, all_pairs)
