"""Thousands of damaged photos: pixels or one line each, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from tests.hostile.photo_mutations import FINE, mutation, run, watch


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


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param("if n == 3: os.abort()", {"3: died with status -6": 1}, id="abort"),
        pytest.param(
            "if n == 3: os.kill(os.getpid(), 9)", {"3: died with status -9": 1}, id="killed"
        ),
        pytest.param("if n == 3: os._exit(0)", {"3: died with status 0": 1}, id="quiet-exit"),
        pytest.param("if n == 3: raise KeyError", {"3: died with status 1": 1}, id="raised"),
        pytest.param("if n == 3: time.sleep(60)", {"3: hung for 2 s": 1}, id="hung"),
        pytest.param("if n == 3: print('odd'); continue", {"3: odd": 1}, id="other-outcome"),
        pytest.param("pass", {}, id="nothing"),
    ],
)
def test_ends_of_children_are_counted_and_the_rest_is_done(
    body: str, expected: dict[str, int]
) -> None:
    def child(first: int, end: int) -> Sequence[str]:
        loop = f"for n in range({first}, {end}):\n  {body}\n  print('pixels', flush=True)"
        return [sys.executable, "-c", f"import os, time\n{loop}"]

    found = watch(child, 0, 7, seconds_each=2)
    assert dict(found) == {"pixels": 7 - len(expected), **expected}


def test_100_mutated_videos() -> None:
    videos = pytest.importorskip("tests.hostile.video_mutations")
    found = videos.run(0, 100)
    assert {kind: times for kind, times in found.items() if kind not in videos.FINE} == {}
    assert all(found[kind] > 10 for kind in videos.FINE)
