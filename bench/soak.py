"""Reliability over many cases: damaged files, threads, cycles, 100,000 calls.

python bench/soak.py --json docs/results/soak.json --markdown docs/results/soak.md
python bench/soak.py --only threads,soak
python bench/soak.py --resume

Damaged files are drawn at run time. Exit status 1 when a part fails; where a damaged file ends the
library that reads it, the results have the library and its version. `bench/soak_parts.py` describes
the parts.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import results
from bench.soak_parts import Cases, Part, chosen
from bench.soak_state import Progress, State
from runtime.cli.console import DONE, FAILED, Bar, Parser, run
from runtime.files import make_folder

STATE = results.ROOT / "soak-out" / "state.json"
_SHOWN = 12


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run(_soak, argv)


def _parser() -> Parser:
    parser = Parser(prog="bench/soak.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", metavar="NAME,…", help="these parts only")
    parser.add_argument(
        "--fraction", type=_fraction, default=1.0, help="fraction of every part's cases, up to 1"
    )
    parser.add_argument("--share", type=_fraction, dest="fraction", help=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help="continue an interrupted soak")
    parser.add_argument("--state", type=Path, default=STATE, help="default soak-out/state.json")
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--markdown", type=Path, help="where the table goes")
    return parser


def _fraction(text: str) -> float:
    value = float(text)
    if not 0.0 < value <= 1.0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, up to 1, got '{text}'")
    return value


def _soak(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    parts = chosen(args.only.split(",") if args.only else None, args.fraction)
    make_folder(args.state.parent)
    commit = results.header()["commit"]
    state = State.load(args.state, commit) if args.resume else State(args.state, commit)
    model = _model(args.state.parent, args.resume)
    for part in parts:
        _run_part(part, state, model)
    failures = {part.name: part.failures(state.parts[part.name].outcomes) for part in parts}
    _write(parts, state, failures, args)
    return FAILED if any(failures.values()) else DONE


def _model(folder: Path, is_kept: bool) -> Path:
    """The tiny model that all parts run; a resumed soak keeps the file."""
    path = folder / "tiny.onnx"
    if not (is_kept and path.exists()):
        from tests.reliability import tiny

        tiny.exported(tiny.weights(folder))
    return path


def _run_part(part: Part, state: State, model: Path) -> None:
    progress = state.progress(part.name, part.total)
    if progress.is_complete:
        return
    print(f"{part.name}: {part.what}", file=sys.stderr, flush=True)
    bar = Bar(part.total, part.unit)
    bar.advance(progress.done)
    while not progress.is_complete:
        count = min(part.chunk or part.total, part.total - progress.done)
        started = time.perf_counter()
        outcomes = part.run(Cases(model, state.base, progress.done, count, bar.advance))
        progress.add(count, time.perf_counter() - started, outcomes)
        state.save()


def _write(
    parts: Sequence[Part], state: State, failures: dict[str, list[str]], args: argparse.Namespace
) -> None:
    rows = [_row(part, state.parts[part.name], failures[part.name]) for part in parts]
    body = [results.table(("part", "cases", "seconds", "verdict"), rows)]
    for part in parts:
        body += ["", f"## {part.name}", "", f"{part.what[0].upper()}{part.what[1:]}.", ""]
        body += _outcomes(state.parts[part.name])
    passed = "passed" if not any(failures.values()) else "failed"
    body = [f"Verdict: {passed}.", "", *body]
    data = {
        part.name: {
            "cases": state.parts[part.name].done,
            "seconds": round(state.parts[part.name].seconds, 1),
            "outcomes": state.parts[part.name].outcomes,
            "failures": failures[part.name],
        }
        for part in parts
    }
    results.write("Soak", "\n".join(body), {"parts": data}, args.json, args.markdown)


def _row(part: Part, progress: Progress, failures: Sequence[str]) -> tuple[object, ...]:
    verdict = "passed" if not failures else f"failed: {'; '.join(failures)[:200]}"
    return part.name, f"{progress.done} {part.unit}", f"{progress.seconds:.0f}", verdict


def _outcomes(progress: Progress) -> list[str]:
    """One line for each outcome, the frequent ones first."""
    counts = progress.outcomes
    names = sorted(
        counts, key=lambda n: counts[n] if isinstance(counts[n], int) else 0, reverse=True
    )
    shown = names if len(names) <= 4 * _SHOWN else names[: 4 * _SHOWN]
    lines = [f"- {name}: {_number(counts[name])}" for name in shown]
    return lines if len(shown) == len(names) else [*lines, f"- and {len(names) - len(shown)} more"]


def _number(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
