"""Randomly damaged files, read in children: a result or an error of ours; `make soak` has more."""

from __future__ import annotations

import secrets
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.errors import ArtifactError, ImageError
from runtime.predictor import Predictor
from tests.hostile import mutations
from tests.hostile.children import run_cases
from tests.hostile.damaged_files import Files, checked
from tests.hostile.damaged_onnx import OTHER, SAME, compared
from tests.hostile.mutations import (
    ONNX_BYTES,
    ONNX_METADATA,
    PHOTOS,
    READ,
    REFUSED,
    VIDEOS,
    WEIGHTS,
    WRONG,
    ends,
    failures,
    mutated,
)
from tests.reliability import tiny

BASE = 0
COPIES = {ONNX_BYTES: 60, ONNX_METADATA: 30, PHOTOS: 300, VIDEOS: 100, WEIGHTS: 40}


def _run(kind: str, count: int, sound: Path | None = None) -> Counter[str]:
    """Outcomes; none of these copies ends a library."""
    outcomes = Counter(outcome for _, outcome in mutations.run(kind, BASE, range(count), sound))
    assert outcomes.total() == count
    assert not failures(outcomes), outcomes
    assert not ends(outcomes), outcomes
    return outcomes


@pytest.mark.parametrize("kind", [PHOTOS, VIDEOS, WEIGHTS])
def test_damaged_files_are_read_or_refused(kind: str) -> None:
    if kind == VIDEOS:
        pytest.importorskip("av")
    outcomes = _run(kind, COPIES[kind])
    # Both happen, or there would be too little damage, or too much.
    assert all(outcomes[outcome] > COPIES[kind] // 10 for outcome in (READ, REFUSED))


@pytest.mark.slow
def test_many_damaged_photos() -> None:
    """Drawn anew each time; a copy that ends a library is counted, and not kept."""
    outcomes = Counter(
        outcome for _, outcome in mutations.run(PHOTOS, secrets.randbelow(2**31), range(5000))
    )
    assert not failures(outcomes), outcomes
    assert ends(outcomes).total() <= 100, outcomes


@pytest.mark.parametrize("kind", [ONNX_BYTES, ONNX_METADATA])
def test_damaged_exports_are_refused(kind: str, tiny_onnx: Path) -> None:
    outcomes = _run(kind, COPIES[kind], tiny_onnx)
    assert all(o.startswith(REFUSED) for o in outcomes if o not in ends(outcomes))
    assert len(outcomes) >= 2, "all alike: none with a new checksum reached the library"


def test_copies_are_drawn_from_a_base_and_a_number() -> None:
    sound = bytes(range(256))

    def drawn(base: int) -> list[bytes]:
        return [mutated(sound, np.random.default_rng([base, n])) for n in range(50)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert sound not in drawn(1)
    assert len(set(drawn(1))) > 45


def test_the_parent_outlives_its_children() -> None:
    module, memory = "tests.hostile.misbehavior", 1 << 28
    results = run_cases(module, [], range(11), seconds=1.0, memory_bytes=memory)
    each = ["case 0", "child died (SIGSEGV)", "timed out", "out of memory", "child died (status 7)"]
    assert [outcome for _, outcome in results] == [*each, "case 5", *each[1:], "case 10"]


def test_an_outcome_that_ends_a_library_has_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = [(3, "child died (SIGSEGV)"), (4, "timed out"), (5, READ)]
    monkeypatch.setattr(mutations, "run_cases", lambda *_: iter(ended))
    outcomes = Counter(outcome for _, outcome in mutations.run(PHOTOS, BASE, range(3, 6)))
    assert ends(outcomes).total() == 2
    assert all(outcome.startswith("pillow 1") for outcome in ends(outcomes))
    assert not failures(outcomes)
    assert not failures(["refused · the same result"])
    assert len(failures(["wrong: x", "escaped: KeyError", "refused · wrong: x"])) == 3


ERRORS: dict[str, tuple[BaseException, str]] = {
    "named": (ImageError("{path}: broken"), REFUSED),
    "without a name": (ImageError("broken"), "wrong: no name in the message: broken"),
    "of another type": (ArtifactError("{path}: broken"), "wrong: ArtifactError"),
    "escaped": (KeyError("tile"), "escaped: KeyError: 'tile'"),
    "memory": (MemoryError(), "escaped: MemoryError: "),
    "exit": (SystemExit(0), "escaped: SystemExit: 0"),
}


def test_errors_are_distinguished(tmp_path: Path, subtests: pytest.Subtests) -> None:
    class Failing(Files):
        def sound(self, _: Path) -> dict[str, bytes]:
            return {f"{name}.jpg": bytes(99) for name in ERRORS}

        def read(self, path: Path, _: int) -> str:
            error, _ = ERRORS[path.stem]
            error.args = tuple(str(a).replace("{path}", str(path)) for a in error.args)
            raise error

    cases = Failing(BASE, tmp_path)
    for number, (name, (_, expected)) in enumerate(ERRORS.items()):
        with subtests.test(name):
            assert cases(number) == expected


def test_pixels_and_results_are_compared(tiny_onnx: Path) -> None:
    rows: dict[str, NDArray[Any]] = {
        READ: np.zeros((2, 3, 3), np.uint8),
        "wrong: uint8 (2, 3)": np.zeros((2, 3), np.uint8),
        "wrong: uint8 (2, 3, 4)": np.zeros((2, 3, 4), np.uint8),
        "wrong: float32 (2, 3, 3)": np.zeros((2, 3, 3), np.float32),
        "wrong: size (0, 3, 3)": np.zeros((0, 3, 3), np.uint8),
    }
    for expected, pixels in rows.items():
        assert checked(pixels, pixels.shape[:2]) == expected
    assert checked(rows[READ], (1, 3)).startswith(WRONG)
    with Predictor.open(tiny_onnx, threads=1) as predictor:
        one, other = predictor.predict(tiny.photo()), predictor.predict(tiny.photo(seed=2))
    assert compared(one, one) == SAME
    assert compared(one, other) == OTHER
    one.boxes[0, 0] = np.nan
    assert compared(one, one).startswith(WRONG)
