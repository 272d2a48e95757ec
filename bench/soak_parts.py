"""The parts of the soak: what each runs, how often, and what may not come out of it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bench.results import ROOT
from model.errors import UsageError
from tests.hostile import checkpoints, onnx_mutations
from tests.hostile.children import DIED, TIMED_OUT
from tests.reliability.endurance import THREADS

Outcomes = Mapping[str, Any]
Advance = Callable[[int], None]

MAX_GROWTH_MB = 10.0
_TABLES = ("tests/hostile", "tests/reliability")
_BAD = ("failed", "escaped", "wrong", DIED, TIMED_OUT)


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of strain.

    Attributes:
        name: on the command line and in the results.
        what: in a line.
        total: how often.
        unit: of the total.
        run: from the model, the number of the first case and how many, to what came out; it
            reports cases as they are done.
        failures: what of all that came out may not have.
        chunk: cases between two writes of the state; 0: all at once.
    """

    name: str
    what: str
    total: int
    unit: str
    run: Callable[[Path, int, int, Advance], Outcomes]
    failures: Callable[[Outcomes], list[str]]
    chunk: int = 0


def _counted(found: Iterator[tuple[int, str]], advance: Advance) -> Outcomes:
    outcomes: Counter[str] = Counter()
    for _, outcome in found:
        outcomes[outcome] += 1
        advance(1)
    return outcomes


def _mutations(kind: str) -> Callable[[Path, int, int, Advance], Outcomes]:
    def run(model: Path, first: int, count: int, advance: Advance) -> Outcomes:
        return _counted(onnx_mutations.run(kind, model, range(first, first + count)), advance)

    return run


def _photos(_: Path, first: int, count: int, advance: Advance) -> Outcomes:
    try:
        mutations = importlib.import_module("tests.hostile.photo_mutations")
    except ImportError as error:
        return {f"failed: {error}": count}
    outcomes: Outcomes = mutations.run(first, count)  # it has children of its own
    advance(count)
    return outcomes


def _checkpoints(_: Path, first: int, count: int, advance: Advance) -> Outcomes:
    return _counted(checkpoints.run(range(first, first + count)), advance)


def _endurance(job: str) -> Callable[[Path, int, int, Advance], Outcomes]:
    def run(model: Path, _: int, count: int, advance: Advance) -> Outcomes:
        command = [sys.executable, "-m", "tests.reliability.endurance", job, str(model), str(count)]
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
        done, said = 0, ""
        for line in child.stderr:
            word, __, number = line.partition(" ")
            if word != "progress":
                said = line.strip()
                continue
            advance(int(number) - done)
            done = int(number)
        answer = child.stdout.read()
        if child.wait() != 0:
            return {"failed": f"status {child.returncode}: {said}"}
        found: dict[str, Any] = json.loads(answer)
        return found

    return run


def _tables(_: Path, __: int, count: int, advance: Advance) -> Outcomes:
    """The tests that are tables of cases, by file, each in full."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *_TABLES]
        subprocess.run(
            [*command, f"--junitxml={report}"], cwd=ROOT, stdout=subprocess.DEVNULL, check=False
        )
        if not report.exists():
            return {"failed": "pytest wrote no report"}
        outcomes: Counter[str] = Counter()
        for case in ElementTree.parse(report).iter("testcase"):
            file = case.get("classname", "").rpartition(".")[2]
            kind = next((c.tag for c in case if c.tag in ("failure", "error", "skipped")), "passed")
            outcomes[f"{file}: {kind}"] += 1
    advance(count)
    return outcomes


def _bad(outcomes: Outcomes) -> list[str]:
    return [o for o in outcomes if any(part.startswith(_BAD) for part in o.split(" · "))]


def _bad_photos(outcomes: Outcomes) -> list[str]:
    """Whatever is neither pixels nor an error of ours; the module says what those are called."""
    try:
        fine = importlib.import_module("tests.hostile.photo_mutations").FINE
    except ImportError:
        return list(outcomes)
    return [outcome for outcome in outcomes if outcome not in fine]


def _bad_tables(outcomes: Outcomes) -> list[str]:
    broken = [o for o in outcomes if o.endswith((": failure", ": error")) or o == "failed"]
    return broken if any(o.endswith(": passed") for o in outcomes) else [*broken, "no test ran"]


def _bad_threads(outcomes: Outcomes) -> list[str]:
    if "failed" in outcomes:
        return [str(outcomes["failed"])]
    different = outcomes["different"]
    return [f"{different} answers differ from one thread's"] if different else []


def _bad_cycles(outcomes: Outcomes) -> list[str]:
    if "failed" in outcomes:
        return [str(outcomes["failed"])]
    found = [
        f"{what} change: {outcomes[what]}"
        for what in ("threads", "files")
        if len(outcomes[what]) > 1
    ]
    grown = outcomes["rss_growth_mb"]
    return found if grown <= MAX_GROWTH_MB else [*found, f"memory grew by {grown:.1f} MB"]


def _bad_soak(outcomes: Outcomes) -> list[str]:
    if "failed" in outcomes:
        return [str(outcomes["failed"])]
    found = [
        f"{name} {outcomes[name]:.1f} MB"
        for name in ("slope_mb", "spread_mb")
        if outcomes[name] > MAX_GROWTH_MB
    ]
    return found if outcomes["detections"] else [*found, "nothing was detected"]


def parts() -> list[Part]:
    """All of them, the short ones first."""
    bytes_, metadata = onnx_mutations.BYTES, onnx_mutations.METADATA
    return [
        Part(
            "tables",
            "shapes, NaN and infinity, external data, hostile files: the tests that are tables",
            1,
            "runs",
            _tables,
            _bad_tables,
        ),
        Part(
            "checkpoints",
            "hostile checkpoints in children of 10 s and 2 GB, the canary untouched",
            len(checkpoints.kinds()),
            "files",
            _checkpoints,
            _bad,
            60,
        ),
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
        Part(
            "onnx-metadata",
            "mutated metadata of an exported file, as it is and sealed anew, in children",
            2000,
            "files",
            _mutations(metadata),
            _bad,
            250,
        ),
        Part(
            "onnx-bytes",
            "mutated bytes of an exported file, as it is and sealed anew, in children",
            10_000,
            "files",
            _mutations(bytes_),
            _bad,
            500,
        ),
        Part(
            "photos",
            "mutated photos decoded in children",
            5000,
            "files",
            _photos,
            _bad_photos,
            500,
        ),
        Part(
            "soak",
            "calls on small photos, results and run lengths; memory after the first tenth",
            100_000,
            "calls",
            _endurance("soak"),
            _bad_soak,
        ),
    ]


def chosen(names: list[str] | None, share: float) -> list[Part]:
    """The parts of these names, or all; of each, this share of its cases.

    Raises:
        UsageError: no part of such a name.
    """
    known = {part.name: part for part in parts()}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise UsageError(f"--only {unknown[0]}: expected one of {', '.join(known)}")
    picked = [part for name, part in known.items() if not names or name in names]
    return [_scaled(part, share) for part in picked]


def _scaled(part: Part, share: float) -> Part:
    return part if part.total == 1 else replace(part, total=max(int(part.total * share), 2))
