"""The parts of the soak: what each runs, how often, and which outcomes fail it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.results import ROOT
from model.errors import UsageError
from tests.hostile import mutations
from tests.reliability.endurance import THREADS

Outcomes = Mapping[str, Any]
Advance = Callable[[int], None]

MAX_GROWTH_MB = 10.0


@dataclass(frozen=True, slots=True)
class Cases:
    """Some cases of a part.

    Attributes:
        model: the exported file.
        base: the seed of this soak, drawn when it began.
        first: number of the first case.
        count: of the cases.
        advance: is called with the number of cases that were completed since.
    """

    model: Path
    base: int
    first: int
    count: int
    advance: Advance


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of load.

    Attributes:
        name: on the command line and in the results.
        what: one line about it.
        total: number of cases.
        unit: of the total.
        run: from cases to outcomes.
        failures: the outcomes that fail the part.
        chunk: cases between two writes of the state; 0: all at once.
    """

    name: str
    what: str
    total: int
    unit: str
    run: Callable[[Cases], Outcomes]
    failures: Callable[[Outcomes], list[str]]
    chunk: int = 0


def _mutations(kind: str) -> Callable[[Cases], Outcomes]:
    def run(cases: Cases) -> Outcomes:
        outcomes: Counter[str] = Counter()
        numbers = range(cases.first, cases.first + cases.count)
        for _, outcome in mutations.run(kind, cases.base, numbers, cases.model):
            outcomes[outcome] += 1
            cases.advance(1)
        return outcomes

    return run


def _endurance(job: str) -> Callable[[Cases], Outcomes]:
    def run(cases: Cases) -> Outcomes:
        module = "tests.reliability.endurance"
        command = [sys.executable, "-m", module, job, str(cases.model), str(cases.count)]
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stderr is not None
        assert child.stdout is not None
        done, last_line = 0, ""
        for line in child.stderr:
            word, _, number = line.partition(" ")
            if word != "progress":
                last_line = line.strip()
                continue
            cases.advance(int(number) - done)
            done = int(number)
        result = child.stdout.read()
        if child.wait() != 0:
            return {"failed": f"status {child.returncode}: {last_line}"}
        outcomes: dict[str, Any] = json.loads(result)
        return outcomes

    return run


def _bad_threads(outcomes: Outcomes) -> list[str]:
    if "failed" in outcomes:
        return [str(outcomes["failed"])]
    different = outcomes["different"]
    return [f"{different} results differ from one thread's"] if different else []


def _bad_cycles(outcomes: Outcomes) -> list[str]:
    if "failed" in outcomes:
        return [str(outcomes["failed"])]
    problems = [
        f"{what} change: {outcomes[what]}"
        for what in ("threads", "files")
        if len(outcomes[what]) > 1
    ]
    grown = outcomes["rss_growth_mb"]
    return problems if grown <= MAX_GROWTH_MB else [*problems, f"memory grew by {grown:.1f} MB"]


def _bad_soak(outcomes: Outcomes) -> list[str]:
    if "failed" in outcomes:
        return [str(outcomes["failed"])]
    problems = [
        f"{name} {outcomes[name]:.1f} MB"
        for name in ("slope_mb", "spread_mb")
        if outcomes[name] > MAX_GROWTH_MB
    ]
    return problems if outcomes["detections"] else [*problems, "nothing was detected"]


def _damaged(name: str, what: str, total: int, chunk: int) -> Part:
    what = f"damaged {what}, read in children with limits"
    return Part(name, what, total, "files", _mutations(name), mutations.failures, chunk)


def parts() -> list[Part]:
    """All of them, the short ones first."""
    twice = "of an exported file, as it is and with a new checksum"
    return [
        _damaged(mutations.WEIGHTS, "weights", 1000, 100),
        _damaged(mutations.PHOTOS, "photos", 5000, 500),
        _damaged(mutations.VIDEOS, "videos", 1000, 100),
        Part(
            "cycles",
            "open, predict, close: memory, threads and files stay",
            100,
            "cycles",
            _endurance("cycles"),
            _bad_cycles,
        ),
        Part(
            "threads",
            f"{THREADS} threads on one predictor, bit-equal to one thread",
            1000,
            "calls a thread",
            _endurance("threads"),
            _bad_threads,
        ),
        _damaged(mutations.ONNX_METADATA, f"metadata {twice}", 2000, 250),
        _damaged(mutations.ONNX_BYTES, f"bytes {twice}", 10_000, 500),
        Part(
            "soak",
            "calls on small photos, results and run lengths; memory after the first tenth",
            100_000,
            "calls",
            _endurance("soak"),
            _bad_soak,
        ),
    ]


def chosen(names: list[str] | None, fraction: float) -> list[Part]:
    """The parts of these names, or all; of each, this fraction of its cases.

    Raises:
        UsageError: no part of such a name.
    """
    known = {part.name: part for part in parts()}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise UsageError(f"--only {unknown[0]}: expected one of {', '.join(known)}")
    picked = [part for name, part in known.items() if not names or name in names]
    return [replace(part, total=max(int(part.total * fraction), 2)) for part in picked]
