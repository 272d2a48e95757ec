"""Thousands of damaged photos: pixels or one line each, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.errors import ImageError
from tests.hostile import photo_mutations
from tests.hostile.photo_mutations import FINE, counted, mutation, run


def _check(first: int, count: int) -> None:
    found = run(first, count)
    assert found.total() == count
    assert {kind: times for kind, times in found.items() if kind not in FINE} == {}
    # Both happen, or the damage would be too little, or too much.
    assert all(found[kind] > count // 10 for kind in FINE)


def test_300_mutations() -> None:
    _check(0, 300)


@pytest.mark.slow
def test_5000_mutations() -> None:
    _check(0, 5000)


def test_a_mutation_is_known_by_its_number() -> None:
    assert mutation(17) == mutation(17)
    assert len({mutation(n) for n in range(50)}) == 50


def test_what_may_not_come_out_is_counted_by_its_number() -> None:
    found = counted([(4, "pixels"), (5, "refused"), (6, "pixels"), (7, "child died (SIGSEGV)")])
    assert found == {"pixels": 2, "refused": 1, "child died (SIGSEGV) (mutation 7)": 1}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ImageError("{path}: broken"), "refused"),
        (ImageError("broken"), "wrong: no name in the message: broken"),
        (KeyError("tile"), "escaped: KeyError: 'tile'"),
        (MemoryError(), "escaped: MemoryError: "),
        (SystemExit(0), "escaped: SystemExit: 0"),
    ],
)
def test_the_judge_tells_errors_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, expected: str
) -> None:
    path = tmp_path / "a.jpg"
    error.args = tuple(
        a.replace("{path}", str(path)) if isinstance(a, str) else a for a in error.args
    )

    def decode(_: Path) -> None:
        raise error

    monkeypatch.setattr(photo_mutations, "decode", decode)
    assert photo_mutations.outcome(path, 0) == expected


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.zeros((2, 3, 3), np.uint8), "pixels"),
        (np.zeros((2, 3), np.uint8), "wrong: uint8 (2, 3)"),
        (np.zeros((2, 3, 4), np.uint8), "wrong: uint8 (2, 3, 4)"),
        (np.zeros((2, 3, 3), np.float32), "wrong: float32 (2, 3, 3)"),
        (np.zeros((0, 3, 3), np.uint8), "wrong: size (0, 3, 3)"),
        (
            np.broadcast_to(np.uint8(0), (20_000, 20_000, 3)),
            "wrong: size (20000, 20000, 3)",
        ),
    ],
)
def test_the_judge_looks_at_the_pixels(
    monkeypatch: pytest.MonkeyPatch, pixels: NDArray[Any], expected: str
) -> None:
    monkeypatch.setattr(photo_mutations, "decode", lambda _: pixels)
    assert photo_mutations.outcome(Path("a.jpg"), 0) == expected


def test_100_mutated_videos() -> None:
    videos = pytest.importorskip("tests.hostile.video_mutations")
    found = videos.run(0, 100)
    assert {kind: times for kind, times in found.items() if kind not in videos.FINE} == {}
    assert all(found[kind] > 10 for kind in videos.FINE)
