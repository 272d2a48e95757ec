"""Damaged files in child processes, the short version; `make soak` tries 10,000 and 2,000."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from runtime.predictor import Predictor
from tests.hostile.children import run_cases
from tests.hostile.onnx_mutations import (
    BYTES,
    METADATA,
    OTHER,
    SAME,
    WRONG,
    ByteMutations,
    MetadataMutations,
    failures,
    run,
    verdict,
)
from tests.reliability import tiny

SHORT = {BYTES: 100, METADATA: 40}


@pytest.mark.parametrize("kind", SHORT)
def test_damage_is_refused_and_never_surprises(kind: str, tiny_onnx: Path) -> None:
    outcomes = Counter(outcome for _, outcome in run(kind, tiny_onnx, range(SHORT[kind])))
    assert sum(outcomes.values()) == SHORT[kind]
    assert not failures(outcomes), outcomes
    assert all(o.startswith("seal: refused · ") for o in outcomes)
    assert len(outcomes) >= 2, "all alike: the forged files do not reach the library"


@pytest.mark.parametrize("mutations", [ByteMutations, MetadataMutations])
def test_every_number_is_another_file_and_always_the_same(
    mutations: type[ByteMutations | MetadataMutations], tiny_onnx: Path
) -> None:
    sound = tiny_onnx.read_bytes()
    first, again = mutations(sound), mutations(sound)
    made = [first.mutated(case) for case in range(60)]
    assert sound not in made
    assert len(set(made)) > 55
    assert made[7] == again.mutated(7)


@pytest.mark.parametrize(
    ("outcome", "is_failure"),
    [
        ("seal: refused · refused", False),
        ("seal: refused · ran, another answer", False),
        ("seal: refused · escaped: KeyError: 'boxes'", True),
        ("seal: refused · wrong: boxes that are not finite", True),
        ("wrong: the damage went through: ran, another answer · refused", True),
        ("timed out", True),
        ("child died (SIGSEGV)", True),
    ],
)
def test_what_counts_as_a_failure(outcome: str, is_failure: bool) -> None:
    assert bool(failures(Counter([outcome]))) == is_failure


def test_the_parent_outlives_its_children() -> None:
    found = run_cases("tests.hostile.misbehaviour", [], range(11), seconds=0.5)
    outcomes = [outcome for _, outcome in found]
    each = [
        "answer 0",
        "child died (SIGSEGV)",
        "timed out",
        "out of memory",
        "child died (status 7)",
    ]
    assert outcomes == [*each, "answer 5", *each[1:], "answer 10"]


def test_the_judge_tells_answers_apart(tiny_onnx: Path) -> None:
    with Predictor.open(tiny_onnx, threads=1) as predictor:
        one, other = predictor.predict(tiny.photo()), predictor.predict(tiny.photo(seed=2))
    assert verdict(one, one) == SAME
    assert verdict(one, other) == OTHER
    one.boxes[0, 0] = np.nan
    assert verdict(one, one).startswith(WRONG)
