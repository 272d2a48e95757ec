"""NMS of the `native` lowering in ONNX Runtime against torchvision's greedy NMS.

A set is one NMS problem. Its certificate is `open`: where that is 0 the answer is exact.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from export.lowering.native import translations
from model.native.options import NativeOptions


class _Nms(nn.Module):
    def __init__(self, num_groups: int, limit: float, stage: str) -> None:
        super().__init__()
        self.num_groups, self.limit, self.stage = num_groups, limit, stage

    def forward(self, boxes: Tensor, valid: Tensor, groups: Tensor):
        return torch.ops.maskrcnn.nms_keep(
            boxes, valid, groups, self.num_groups, self.limit, self.stage
        )


@dataclass(frozen=True, slots=True)
class _Sets:
    """Boxes float32 [B, K, 4], valid bool [B, K], groups int64 [B, K]."""

    boxes: np.ndarray
    valid: np.ndarray
    groups: np.ndarray


def _session(
    module: _Nms, problems: int, boxes: int, options: NativeOptions
) -> ort.InferenceSession:
    example = (
        torch.zeros(problems, boxes, 4),
        torch.ones(problems, boxes, dtype=torch.bool),
        torch.zeros(problems, boxes, dtype=torch.int64),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=18,
            custom_translation_table=translations(options, problems),
            input_names=["boxes", "valid", "groups"],
            verbose=False,
        )
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    text = program.model_proto.SerializeToString()
    return ort.InferenceSession(text, settings, providers=["CPUExecutionProvider"])


def _run(session: ort.InferenceSession, sets: _Sets) -> tuple[np.ndarray, np.ndarray]:
    used = {i.name for i in session.get_inputs()}
    given = {"boxes": sets.boxes, "valid": sets.valid, "groups": sets.groups}
    keep, undecided = session.run(None, {n: v for n, v in given.items() if n in used})
    assert keep.dtype == bool
    assert undecided.dtype == np.int32
    return keep, undecided


def _greedy(module: _Nms, sets: _Sets) -> np.ndarray:
    given = map(torch.tensor, (sets.boxes, sets.valid, sets.groups))
    return module(*given)[0].numpy()


# How the boxes of a set may lie: float64 [K, 4] xyxy.


def _clusters(rng: np.random.Generator, count: int, limit: float) -> np.ndarray:
    """Dense clusters, with duplicates and boxes of no area."""
    centres = rng.uniform(0, 60, (max(count // int(rng.integers(4, 20)), 1), 2))
    spread = rng.uniform(0.5, 6)
    corner = centres[rng.integers(0, len(centres), count)] + rng.normal(0, spread, (count, 2))
    sides = rng.uniform(5, 30, (count, 2)) * (rng.random((count, 1)) > 0.05)
    boxes = np.concatenate([corner, corner + sides], axis=1)
    copies = rng.integers(0, count, (2, count // 10))
    boxes[copies[0]] = boxes[copies[1]]
    return boxes


def _chains(rng: np.random.Generator, count: int, limit: float) -> np.ndarray:
    """Rows of shifted boxes, each of which suppresses the next one only; ranks are interleaved.

    A shift of a part f of the width has an IoU of (1 - f) / (1 + f): above the limit for one
    shift and below for two.
    """
    most = (1 - limit) / (1 + limit)
    longest = int(rng.integers(2, 24))
    place = np.arange(count) // longest, np.arange(count) % longest
    shift = 10 * most * rng.uniform(0.55, 0.95, (count // longest + 1,))
    x0, y0 = place[1] * shift[place[0]], 20.0 * place[0]
    boxes = np.stack([x0, y0, x0 + 10, y0 + 10], axis=1)
    chain = rng.permutation(place[0])
    # Within a chain the order stays; which chain comes next is random.
    return boxes[np.argsort(chain.argsort(kind="stable").argsort(), kind="stable")]


def _grid(rng: np.random.Generator, count: int, limit: float) -> np.ndarray:
    """Small whole numbers: IoUs like 1/2, 3/10 and 7/10 come up exactly."""
    corner = rng.integers(0, 8, (count, 2)).astype(np.float64)
    return np.concatenate([corner, corner + rng.integers(0, 11, (count, 2))], axis=1)


def _slides(rng: np.random.Generator, count: int, limit: float) -> np.ndarray:
    """A crowd along a line in nearly falling order: long dependencies with side branches."""
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
    """All layouts in turn; rows that are not valid hold anything, NaN and infinity as well."""
    boxes = np.stack([_LAYOUTS[b % 4](rng, count, limit) for b in range(problems)])
    valid = rng.random((problems, count)) > rng.choice([0.0, 0.1, 0.5], (problems, 1))
    valid[0] = False
    groups = rng.integers(0, num_groups, (problems, count))
    boxes[~valid & (rng.random(valid.shape) < 0.3)] = np.nan
    boxes[~valid & (rng.random(valid.shape) < 0.3)] = [-np.inf, 0, np.inf, 9]
    return _Sets(boxes.astype(np.float32), valid, groups)


# The iteration, restated.


def _suppresses(sets: _Sets, num_groups: int, limit: float) -> np.ndarray:
    """Bool [B, K, K]: S[j, i], box i comes before j and would remove it."""
    found = np.tril(_iou(sets.boxes).astype(np.float64) > limit, -1)
    same = sets.groups[:, None, :] == sets.groups[:, :, None]
    return found & same if num_groups > 1 else found


def _iou(boxes: np.ndarray) -> np.ndarray:
    """Float32 [B, K, K], operation by operation as torchvision has it."""
    x0, y0, x1, y1 = np.moveaxis(boxes, 2, 0)
    area = (x1 - x0) * (y1 - y0)

    def pairs(values: np.ndarray, combine: np.ufunc) -> np.ndarray:
        return combine(values[:, None, :], values[:, :, None])

    with np.errstate(all="ignore"):
        width = np.maximum(pairs(x1, np.minimum) - pairs(x0, np.maximum), np.float32(0))
        height = np.maximum(pairs(y1, np.minimum) - pairs(y0, np.maximum), np.float32(0))
        shared = width * height
        iou = shared / (pairs(area, np.add) - shared)
    assert iou.dtype == np.float32
    return iou


def _next(candidates: np.ndarray, removes: np.ndarray, keep: np.ndarray) -> np.ndarray:
    removers = removes.astype(np.float32) @ keep[..., None].astype(np.float32)
    return candidates & (removers[..., 0] == 0)


def _iterate_blocks(
    removes: np.ndarray, valid: np.ndarray, block: int, rounds: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The last round, which entries it decided, both bool [B, K], and how many are open, [B].

    What builds on a block that is open is open as a whole.
    """
    keep, before = valid.copy(), valid.copy()
    decided, is_sound = np.zeros_like(valid), np.ones(len(valid), bool)
    pieces = -(-valid.shape[1] // block)
    size = -(-valid.shape[1] // pieces)
    for start in range(0, valid.shape[1], size):
        here = slice(start, start + size)
        candidates = _next(valid[:, here], removes[:, here, :start], keep[:, :start])
        keep[:, here] = before[:, here] = candidates
        for _ in range(rounds):
            before[:, here] = keep[:, here]
            keep[:, here] = _next(candidates, removes[:, here, here], keep[:, here])
        decided[:, here] = (keep[:, here] == before[:, here]) & is_sound[:, None]
        is_sound &= decided[:, here].all(axis=1)
    return keep, decided, (~decided).sum(axis=1)


def _rounds_needed(removes: np.ndarray, valid: np.ndarray) -> list[int]:
    """For each set, the first round after which the whole answer stands."""
    needed = np.zeros(len(valid), int)
    keep = valid
    for index in range(1, valid.shape[1] + 2):
        before, keep = keep, _next(valid, removes, keep)
        moved = (before != keep).any(axis=1)
        needed[moved] = index
        if not moved.any():
            break
    return needed.tolist()


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


# Sides of blocks are evened out: 50 boxes in blocks of at most 17 are 17, 17 and 16.
_CASES = {
    "1-box": _Case(2, 100, 1, 1, 0.5, 512, 2, "detections"),
    "2-boxes": _Case(4, 100, 2, 1, 0.5, 512, 3, "proposals"),
    "30-boxes-3-groups": _Case(14, 200, 30, 3, 0.3, 512, 31, "detections"),
    "48-boxes": _Case(14, 200, 48, 1, 0.5, 512, 49, "proposals"),
    "64-boxes-one-full-block": _Case(10, 200, 64, 1, 0.7, 64, 65, "proposals"),
    "50-boxes-3-blocks-last-16": _Case(10, 200, 50, 1, 0.3, 17, 18, "proposals"),
    "61-boxes-7-blocks-last-7": _Case(5, 200, 61, 5, 0.5, 10, 11, "detections"),
    "511-boxes": _Case(1, 8, 511, 1, 0.7, 512, 60, "proposals"),
    "512-boxes-4-groups": _Case(1, 8, 512, 4, 0.5, 512, 60, "detections"),
    "513-boxes-257-and-256": _Case(1, 8, 513, 1, 0.3, 512, 60, "proposals"),
    "1000-boxes": _Case(1, 8, 1000, 1, 0.7, 512, 60, "proposals"),
    "1000-boxes-90-groups": _Case(1, 8, 1000, 90, 0.5, 512, 60, "detections"),
    "1024-boxes-4-blocks": _Case(1, 8, 1024, 1, 0.5, 300, 60, "proposals"),
    "2000-boxes-4-blocks": _Case(1, 8, 2000, 1, 0.7, 512, 60, "proposals"),
}


@pytest.mark.parametrize("case", _CASES.values(), ids=_CASES)
def test_enough_rounds_are_greedy(case: _Case) -> None:
    module = _Nms(case.num_groups, case.limit, case.stage)
    # The other stage gets no rounds at all, which would show.
    rounds = {"proposal_rounds": 0, "detection_rounds": 0}
    rounds[case.stage.removesuffix("s") + "_rounds"] = case.rounds
    options = NativeOptions(nms_block=case.block, **rounds)
    session = _session(module, case.problems, case.count, options)
    for sets in case.sets():
        keep, undecided = _run(session, sets)
        np.testing.assert_array_equal(keep, _greedy(module, sets))
        assert not undecided.any()


def test_the_sets_are_many_and_hard() -> None:
    needed: Counter[int] = Counter()
    at_the_limit: Counter[float] = Counter()
    for case in _CASES.values():
        if case.count > 100:
            continue
        for sets in case.sets():
            removes = _suppresses(sets, case.num_groups, case.limit)
            needed.update(_rounds_needed(removes, sets.valid))
            ties = np.tril(_iou(sets.boxes) == np.float32(case.limit), -1)
            at_the_limit[case.limit] += int(ties.sum())
    print("\nrounds: sets", dict(sorted(needed.items())))
    print("limit: pairs exactly at it", dict(sorted(at_the_limit.items())))
    assert needed.total() >= 10_000
    assert sum(sets for rounds, sets in needed.items() if rounds > 3) >= 1_000
    assert min(at_the_limit[limit] for limit in (0.3, 0.5, 0.7)) >= 100


@pytest.mark.parametrize("block", [pytest.param(40, id="1-block"), pytest.param(12, id="4-blocks")])
@pytest.mark.parametrize("num_groups", [1, 3])
@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
def test_open_reveals_too_few_rounds(rounds: int, num_groups: int, block: int) -> None:
    limit, count, problems = 0.5, 40, 200
    rng = np.random.default_rng([rounds, num_groups, block])
    module = _Nms(num_groups, limit, "detections")
    options = NativeOptions(detection_rounds=rounds, nms_block=block)
    session = _session(module, problems, count, options)
    sets = _random_sets(rng, problems, count, num_groups, limit)
    keep, undecided = _run(session, sets)
    removes = _suppresses(sets, num_groups, limit)
    last, decided, changed = _iterate_blocks(removes, sets.valid, block, rounds)
    np.testing.assert_array_equal(keep, last)
    np.testing.assert_array_equal(undecided, changed)
    greedy = _greedy(module, sets)
    wrong = (keep != greedy).any(axis=1)
    assert (undecided[wrong] > 0).all()
    assert rounds > 2 or wrong.sum() > 5
    np.testing.assert_array_equal(keep[decided], greedy[decided])


@pytest.mark.parametrize("links", [1, 2, 7, 18])
def test_a_chain_of_l_links_is_certified_by_l_plus_1_rounds(links: int) -> None:
    x0 = 2.5 * np.arange(links + 1)  # IoU 0.6 with the next box, 1/3 with the one after it
    boxes = np.stack([x0, 0 * x0, x0 + 10, 0 * x0 + 10], axis=1).astype(np.float32)[None]
    ones = np.ones((1, links + 1), bool)
    sets, module = _Sets(boxes, ones, ones.astype(np.int64)), _Nms(1, 0.5, "proposals")
    alternating = np.arange(links + 1) % 2 == 0
    for rounds, certified in ((links, False), (links + 1, True)):
        options = NativeOptions(proposal_rounds=rounds)
        keep, undecided = _run(_session(module, 1, links + 1, options), sets)
        assert keep[0].tolist() == alternating.tolist()
        assert undecided.tolist() == [0 if certified else 1]
