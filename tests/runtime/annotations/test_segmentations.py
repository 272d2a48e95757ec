"""Polygons and run lengths become the masks that pycocotools makes of them."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.annotations.segmentations import read_mask
from runtime.masks.rle import decode

mask = pytest.importorskip("pycocotools.mask")
SIZE_HW = (20, 30)
RING, OTHER = [2, 3, 15.5, 4, 12, 16.25], [20, 2, 28, 2, 28, 10, 20, 10]


def _pairs(ring: list[float]) -> list[list[float]]:
    return [list(pair) for pair in zip(ring[::2], ring[1::2], strict=True)]


def _reference(rings: list[list[float]]) -> Any:
    return mask.decode(mask.merge(mask.frPyObjects(rings, *SIZE_HW))).astype(bool)


NESTED: list[tuple[Any, list[list[float]], bool]] = [
    ([RING], [RING], False),
    ([RING, OTHER], [RING, OTHER], False),
    ([[str(n) for n in RING]], [RING], False),
    ([RING, [1, 1, 2, 2], []], [RING], False),
    ([[1, 1, 2, 2], RING], [RING], False),
    (RING, [RING], True),
    (_pairs(RING), [RING], True),
    ([_pairs(RING)], [RING], True),
    ([_pairs(RING), _pairs(OTHER)], [RING, OTHER], True),
]


def test_polygons(subtests: pytest.Subtests) -> None:
    for segmentation, rings, is_nested_otherwise in NESTED:
        with subtests.test(segmentation=segmentation):
            found = read_mask(segmentation, SIZE_HW)
            assert (decode(found.rle) == _reference(rings)).all()
            assert found.polygons == rings
            assert found.is_nested_otherwise == is_nested_otherwise


def test_a_ring_of_less_than_three_corners_has_no_pixel() -> None:
    assert (_reference([RING, [1, 1, 9, 9]]) == _reference([RING])).all()


def test_run_lengths(subtests: pytest.Subtests) -> None:
    compressed = read_mask([RING, OTHER], SIZE_HW).rle
    dense = decode(compressed)
    flat = dense.T.ravel()
    runs = [0]
    for pixel in flat.tolist():
        if pixel == len(runs) % 2:
            runs.append(0)
        runs[-1] += 1
    text = str(compressed["counts"].encode())
    for counts in (compressed["counts"], runs, [float(run) for run in runs], text):
        for size in ([20, 30], [20.0, 30.0], ["20", "30"]):
            with subtests.test(counts=type(counts), size=size):
                found = read_mask({"size": size, "counts": counts}, SIZE_HW)
                assert (decode(found.rle) == dense).all()
                assert found.polygons == ()
