"""Threads, cycles and many calls, the short versions; `make soak` runs the full ones."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.predictor import Predictor
from runtime.sessions.open import open_session
from tests.reliability import endurance, tiny
from tests.reliability.stand_in import ChangedSession

ROOT = Path(__file__).resolve().parents[2]
# Of short runs, whose warm-up is no tenth of them.
SHORT_GROWTH_MB = 25.0


def _run(job: str, model: Path, count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.reliability.endurance", job, str(model), str(count)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    assert "progress" in done.stderr
    return json.loads(done.stdout)


def test_eight_threads_answer_as_one_does(tiny_onnx: Path) -> None:
    found = _run("threads", tiny_onnx, 10)
    assert found["calls"] == 80
    assert found["different"] == 0
    assert found["distinct answers"] >= 10


def test_threads_that_differ_are_counted(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later call sees other scores: the comparison must notice every one of them."""
    calls = 0

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls > len(endurance.photos()):
            answer["scores"] += 1e-6
        return answer

    def open_changed(path: Path, **_: object) -> Predictor:
        return Predictor(ChangedSession(open_session(path, None, 1), change))

    monkeypatch.setattr(endurance.Predictor, "open", open_changed)
    found = endurance.threads(tiny_onnx, 2)
    assert found["different"] == found["calls"] == 16


def test_opening_and_closing_leaves_nothing(tiny_onnx: Path) -> None:
    found = _run("cycles", tiny_onnx, 10)
    assert len(found["threads"]) == len(found["files"]) == 1
    assert found["rss_growth_mb"] < SHORT_GROWTH_MB


def test_many_calls_do_not_grow(tiny_onnx: Path) -> None:
    found = _run("soak", tiny_onnx, 300)
    assert found["detections"] > 300
    assert found["spread_mb"] < SHORT_GROWTH_MB


def test_a_leak_shows(tiny_onnx: Path) -> None:
    """A control: what keeps every answer grows by what it keeps."""
    kept: list[mmap.mmap] = []
    with Predictor.open(tiny_onnx, threads=1) as predictor:
        before = endurance._state()[0]
        for _ in range(40):
            kept.append(mmap.mmap(-1, 1_000_000))  # pages that no earlier test has left behind
            kept[-1].write(b"\1" * 1_000_000)
            predictor.predict(tiny.photo())
        assert endurance._state()[0] - before > SHORT_GROWTH_MB
    assert len(kept) == 40
