"""Threads, cycles and many calls, the short versions; `make soak` runs the full ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.reliability import endurance

# Of short runs, whose warm-up is no tenth of them.
SHORT_GROWTH_MB = 25.0


def test_eight_threads_give_the_results_of_one(tiny_onnx: Path) -> None:
    figures = endurance.threads(tiny_onnx, 10)
    assert figures["calls"] == 80
    assert figures["different"] == 0
    assert figures["distinct results"] >= 10


def _run(job: str, model: Path, count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.reliability.endurance", job, str(model), str(count)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    assert "progress" in done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_opening_and_closing_leaves_nothing(tiny_onnx: Path) -> None:
    figures = _run("cycles", tiny_onnx, 10)
    assert len(figures["threads"]) == len(figures["files"]) == 1
    assert figures["rss_growth_mb"] < SHORT_GROWTH_MB


@pytest.mark.slow
def test_many_calls_do_not_grow(tiny_onnx: Path) -> None:
    figures = _run("soak", tiny_onnx, 300)
    assert figures["detections"] > 300
    assert figures["spread_mb"] < SHORT_GROWTH_MB
