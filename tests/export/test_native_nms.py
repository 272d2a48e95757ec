"""NMS of the `native` lowering in ONNX Runtime against torchvision's greedy NMS.

A set is one NMS problem. Where its output `open` is 0, the result is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch

from export.lowering.native import translations
from model.native.options import NativeOptions
from tests.exported_operators import Nms, exported, run


@dataclass(frozen=True, slots=True)
class _Sets:
    """Boxes float32 [B, K, 4], valid bool [B, K], groups int64 [B, K]."""

    boxes: np.ndarray
    valid: np.ndarray
    groups: np.ndarray

    def feed(self) -> dict[str, np.ndarray]:
        return {"boxes": self.boxes, "valid": self.valid, "groups": self.groups}


def _export(module: Nms, problems: int, boxes: int, options: NativeOptions) -> onnx.ModelProto:
    example = (
        torch.zeros(problems, boxes, 4),
        torch.ones(problems, boxes, dtype=torch.bool),
        torch.zeros(problems, boxes, dtype=torch.int64),
    )
    return exported(module, example, translations(options, problems))


def _run(model: onnx.ModelProto, *sets: _Sets) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for keep, undecided in run(model, *(each.feed() for each in sets)):
        assert keep.dtype == bool
        assert undecided.dtype == np.int32
        yield keep, undecided


def _greedy(module: Nms, sets: _Sets) -> np.ndarray:
    return module(*map(torch.tensor, (sets.boxes, sets.valid, sets.groups)))[0].numpy()


# Layouts of a set: float64 [K, 4] xyxy.


def _clusters(rng: np.random.Generator, count: int, limit: float) -> np.ndarray:
    """Dense clusters, with duplicates and boxes of no area."""
    centers = rng.uniform(0, 60, (max(count // int(rng.integers(4, 20)), 1), 2))
    spread = rng.uniform(0.5, 6)
    corner = centers[rng.integers(0, len(centers), count)] + rng.normal(0, spread, (count, 2))
    sides = rng.uniform(5, 30, (count, 2)) * (rng.random((count, 1)) > 0.05)
    boxes = np.concatenate([corner, corner + sides], axis=1)
    copies = rng.integers(0, count, (2, count // 10))
    boxes[copies[0]] = boxes[copies[1]]
    return boxes


def _chains(rng: np.random.Generator, count: int, limit: float) -> np.ndarray:
    """Rows of shifted boxes, each of which suppresses only the next; ranks are interleaved.

    A shift by a fraction f of the width gives an IoU of (1 - f) / (1 + f): above the limit for one
    shift and below for two.
    """
    most = (1 - limit) / (1 + limit)
    longest = int(rng.integers(2, 24))
    row, link = np.divmod(np.arange(count), longest)
    shift = 10 * most * rng.uniform(0.55, 0.95, (count // longest + 1,))
    x0, y0 = link * shift[row], 20.0 * row
    boxes = np.stack([x0, y0, x0 + 10, y0 + 10], axis=1)
    chain = rng.permutation(row)
    # The order within a chain stays; the chains are interleaved at random.
    return boxes[np.argsort(chain.argsort(kind="stable").argsort(), kind="stable")]


def _grid(rng: np.random.Generator, count: int, limit: float) -> np.ndarray:
    """Small integers: IoUs like 1/2, 3/10 and 7/10 occur exactly."""
    corner = rng.integers(0, 8, (count, 2)).astype(np.float64)
    return np.concatenate([corner, corner + rng.integers(0, 11, (count, 2))], axis=1)


def _slides(rng: np.random.Generator, count: int, limit: float) -> np.ndarray:
    """Boxes along a line, almost sorted: long dependencies with branches."""
    x0 = np.sort(rng.uniform(0, count * rng.uniform(0.5, 3), count))
    x0 += rng.normal(0, 1, count)
    y0 = rng.normal(0, 0.5, count)
    return np.stack([x0, y0, x0 + 10, y0 + 10], axis=1)


_LAYOUTS: tuple[Callable[[np.random.Generator, int, float], np.ndarray], ...] = (
    _clusters,
    _chains,
    _grid,
    _slides,
)


def _random_sets(
    rng: np.random.Generator, problems: int, count: int, num_groups: int, limit: float
) -> _Sets:
    """All layouts in turn; invalid rows contain anything, including NaN and infinity."""
    boxes = np.stack([_LAYOUTS[b % 4](rng, count, limit) for b in range(problems)])
    valid = rng.random((problems, count)) > rng.choice([0.0, 0.1, 0.5], (problems, 1))
    valid[0] = False
    groups = rng.integers(0, num_groups, (problems, count))
    boxes[~valid & (rng.random(valid.shape) < 0.3)] = np.nan
    boxes[~valid & (rng.random(valid.shape) < 0.3)] = [-np.inf, 0, np.inf, 9]
    return _Sets(boxes.astype(np.float32), valid, groups)


# The iteration in NumPy.


def _suppresses(sets: _Sets, num_groups: int, limit: float) -> np.ndarray:
    """Bool [B, K, K]: S[j, i], box i precedes j and would remove it."""
    overlaps = np.tril(_iou(sets.boxes).astype(np.float64) > limit, -1)
    same = sets.groups[:, None, :] == sets.groups[:, :, None]
    return overlaps & same if num_groups > 1 else overlaps


def _iou(boxes: np.ndarray) -> np.ndarray:
    """Float32 [B, K, K], in torchvision's order of operations."""
    x0, y0, x1, y1 = np.moveaxis(boxes, 2, 0)
    area = (x1 - x0) * (y1 - y0)

    def pairs(values: np.ndarray, combine: np.ufunc) -> np.ndarray:
        return combine(values[:, None, :], values[:, :, None])

    with np.errstate(all="ignore"):
        width = np.maximum(pairs(x1, np.minimum) - pairs(x0, np.maximum), np.float32(0))
        height = np.maximum(pairs(y1, np.minimum) - pairs(y0, np.maximum), np.float32(0))
        intersection = width * height
        iou = intersection / (pairs(area, np.add) - intersection)
    assert iou.dtype == np.float32
    return iou


def _next(candidates: np.ndarray, removes: np.ndarray, keep: np.ndarray) -> np.ndarray:
    removers = removes.astype(np.float32) @ keep[..., None].astype(np.float32)
    return candidates & (removers[..., 0] == 0)


def _iterate_blocks(
    removes: np.ndarray, valid: np.ndarray, block: int, rounds: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The last round and its final entries, both bool [B, K], and the number of open ones, [B].

    Blocks after an open one are open as a whole.
    """
    keep, before = valid.copy(), valid.copy()
    decided, is_closed = np.zeros_like(valid), np.ones(len(valid), bool)
    pieces = -(-valid.shape[1] // block)
    size = -(-valid.shape[1] // pieces)
    for start in range(0, valid.shape[1], size):
        part = slice(start, start + size)
        candidates = _next(valid[:, part], removes[:, part, :start], keep[:, :start])
        keep[:, part] = before[:, part] = candidates
        for _ in range(rounds):
            before[:, part] = keep[:, part]
            keep[:, part] = _next(candidates, removes[:, part, part], keep[:, part])
        decided[:, part] = (keep[:, part] == before[:, part]) & is_closed[:, None]
        is_closed &= decided[:, part].all(axis=1)
    return keep, decided, (~decided).sum(axis=1)


@dataclass(frozen=True, slots=True)
class _Case:
    """`runs` times `problems` sets of `count` boxes."""

    runs: int
    problems: int
    count: int
    num_groups: int
    limit: float
    block: int
    rounds: int
    stage: str

    def sets(self) -> Iterator[_Sets]:
        rng = np.random.default_rng([self.count, self.num_groups, round(10 * self.limit)])
        for _ in range(self.runs):
            yield _random_sets(rng, self.problems, self.count, self.num_groups, self.limit)


# Blocks have even sizes: 50 boxes in blocks of at most 17 are 17, 17 and 16.
_CASES = {
    "1-box": _Case(2, 100, 1, 1, 0.5, 512, 2, "detections"),
    "30-boxes-3-groups": _Case(14, 200, 30, 3, 0.3, 512, 31, "detections"),
    "64-boxes-one-full-block": _Case(10, 200, 64, 1, 0.7, 64, 65, "proposals"),
    "61-boxes-7-blocks-last-7": _Case(5, 200, 61, 5, 0.5, 10, 11, "detections"),
    "513-boxes-257-and-256": _Case(1, 8, 513, 1, 0.3, 512, 60, "proposals"),
}
_SLOW_CASES = {
    "2-boxes": _Case(4, 100, 2, 1, 0.5, 512, 3, "proposals"),
    "48-boxes": _Case(14, 200, 48, 1, 0.5, 512, 49, "proposals"),
    "50-boxes-3-blocks-last-16": _Case(10, 200, 50, 1, 0.3, 17, 18, "proposals"),
    "511-boxes": _Case(1, 8, 511, 1, 0.7, 512, 60, "proposals"),
    "512-boxes-4-groups": _Case(1, 8, 512, 4, 0.5, 512, 60, "detections"),
    "1000-boxes": _Case(1, 8, 1000, 1, 0.7, 512, 60, "proposals"),
    "1000-boxes-90-groups": _Case(1, 8, 1000, 90, 0.5, 512, 60, "detections"),
    "1024-boxes-4-blocks": _Case(1, 8, 1024, 1, 0.5, 300, 60, "proposals"),
    "2000-boxes-4-blocks": _Case(1, 8, 2000, 1, 0.7, 512, 60, "proposals"),
}


@pytest.mark.parametrize(
    "case",
    [
        *(pytest.param(case, id=name) for name, case in _CASES.items()),
        *(pytest.param(c, id=name, marks=pytest.mark.slow) for name, c in _SLOW_CASES.items()),
    ],
)
def test_enough_rounds_are_greedy(case: _Case) -> None:
    module = Nms(case.num_groups, case.limit, case.stage)
    # The other stage gets no rounds, so mixing them up would fail.
    rounds = {"proposal_rounds": 0, "detection_rounds": 0}
    rounds[case.stage.removesuffix("s") + "_rounds"] = case.rounds
    options = NativeOptions(nms_block=case.block, **rounds)
    model, sets = _export(module, case.problems, case.count, options), list(case.sets())
    for each, (keep, undecided) in zip(sets, _run(model, *sets), strict=True):
        np.testing.assert_array_equal(keep, _greedy(module, each))
        assert not undecided.any()


@pytest.mark.parametrize(
    ("rounds", "num_groups", "block"),
    [
        (1, 3, 40),
        (2, 1, 12),
        (3, 1, 40),
        (4, 3, 12),
        *(
            pytest.param(rounds, num_groups, block, marks=pytest.mark.slow)
            for rounds, num_groups, block in [
                *((1, 1, 40), (1, 1, 12), (1, 3, 12), (2, 1, 40), (2, 3, 40), (2, 3, 12)),
                *((3, 1, 12), (3, 3, 40), (3, 3, 12), (4, 1, 40), (4, 1, 12), (4, 3, 40)),
            ]
        ),
    ],
)
def test_open_reveals_too_few_rounds(rounds: int, num_groups: int, block: int) -> None:
    limit, count, problems = 0.5, 40, 200
    rng = np.random.default_rng([rounds, num_groups, block])
    module = Nms(num_groups, limit)
    options = NativeOptions(detection_rounds=rounds, nms_block=block)
    sets = _random_sets(rng, problems, count, num_groups, limit)
    ((keep, undecided),) = _run(_export(module, problems, count, options), sets)
    removes = _suppresses(sets, num_groups, limit)
    last, decided, changed = _iterate_blocks(removes, sets.valid, block, rounds)
    np.testing.assert_array_equal(keep, last)
    np.testing.assert_array_equal(undecided, changed)
    greedy = _greedy(module, sets)
    wrong = (keep != greedy).any(axis=1)
    assert (undecided[wrong] > 0).all()
    assert rounds > 2 or wrong.sum() > 5
    np.testing.assert_array_equal(keep[decided], greedy[decided])


@pytest.mark.parametrize(
    "links", [7, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 18))]
)
def test_a_chain_of_l_links_is_certified_by_l_plus_1_rounds(links: int) -> None:
    x0 = 2.5 * np.arange(links + 1)  # IoU 0.6 with the next box, 1/3 with the one after it
    boxes = np.stack([x0, 0 * x0, x0 + 10, 0 * x0 + 10], axis=1).astype(np.float32)[None]
    ones = np.ones((1, links + 1), bool)
    sets, module = _Sets(boxes, ones, ones.astype(np.int64)), Nms(1, 0.5, "proposals")
    alternating = np.arange(links + 1) % 2 == 0
    for rounds, certified in ((links, False), (links + 1, True)):
        options = NativeOptions(proposal_rounds=rounds)
        ((keep, undecided),) = _run(_export(module, 1, links + 1, options), sets)
        assert keep[0].tolist() == alternating.tolist()
        assert undecided.tolist() == [0 if certified else 1]
