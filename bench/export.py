"""Time and peak memory of `python -m export.onnx`, with and without its check.

python bench/export.py [--against REV] [--case demo]

Every export is a process of its own, from the start of Python to the end. With `--against` each
export also runs from a temporary worktree of that revision, in turn with this one and in the same
Python environment, and the graphs are compared. The worktree has no compiled kernels; only the
check uses them, for one photo. Exit status 1 when a limit is exceeded or graphs differ.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import child, results
from bench.worktree import worktree
from runtime.cli.console import Bar

MAX_SECONDS = 60
MAX_GB = 4
CASES = {"r50": "R50-FPN, 91 classes", "demo": "demo, 8 classes"}
VARIANTS: dict[str, list[str]] = {"with the check": [], "without (--no-check)": ["--no-check"]}
DEMO = ROOT / "examples" / "demo" / "shapes.pth"


@dataclass(slots=True)
class Runs:
    """Every run of one export: wall and CPU seconds, and peak resident GB (1e9 bytes)."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_gb: list[float] = field(default_factory=list)

    def add(self, run: child.Run) -> None:
        """Append one run."""
        self.seconds.append(round(run.seconds, 2))
        self.cpu_seconds.append(round(run.cpu_seconds, 2))
        self.peak_gb.append(round(run.peak_gb, 3))


@dataclass(frozen=True, slots=True)
class Row:
    """One variant of one case; `before` and `differences` are of the revision of `--against`."""

    case: str
    variant: str
    size_mb: float
    runs: Runs
    before: Runs | None
    differences: list[str]

    @property
    def passed(self) -> bool:
        """Whether even the worst run kept both limits, and the graphs are the same."""
        is_fast = max(self.runs.seconds) < MAX_SECONDS
        return is_fast and max(self.runs.peak_gb) < MAX_GB and not self.differences


def main() -> int:
    """Measure all cases and variants; status 1 when one exceeds a limit or differs."""
    args = _arguments()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    os.environ["OMP_NUM_THREADS"] = str(args.cores)
    with ExitStack() as stack:
        trees = [ROOT]
        if args.against is not None:
            trees.append(stack.enter_context(worktree(args.against)))
        for tree in trees:
            _compile(tree)
        cases = args.case or list(CASES)
        bar = Bar(args.repeats * len(trees) * len(cases) * len(VARIANTS), "exports")
        weights = {"r50": args.weights.resolve(), "demo": DEMO}
        rows = [
            _measure(case, variant, weights[case], trees, args.repeats, bar)
            for case in cases
            for variant in VARIANTS
        ]
    data = {
        "cores": args.cores,
        "repeats": args.repeats,
        "against": args.against,
        "rows": [{**asdict(row), "passed": row.passed} for row in rows],
    }
    body = _body(rows, args.cores, args.repeats, args.against)
    results.write("Export", body, data, args.json, args.markdown)
    return 0 if all(row.passed for row in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    # `bench.photos` has this path too, but imports PyTorch; see `bench.child`.
    data = Path(os.environ.get("MASKPORT_DATA") or ROOT.parent / "shared" / "data")
    weights = data / "weights" / "r50_fpn_coco24.pth"
    parser.add_argument("--weights", type=Path, default=weights, help="of the case r50")
    parser.add_argument("--case", choices=CASES, action="append", help="default: all; repeatable")
    parser.add_argument("--against", metavar="REV", help="commit to compare with, in turn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2, help="cores that an export may use")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _compile(tree: Path) -> None:
    """Write the bytecode caches, so that no run pays for them; check where modules come from."""
    names = ("model", "runtime", "export", "maskport.py")
    python, environment = [sys.executable], _environment(tree)
    subprocess.run([*python, "-m", "compileall", "-q", *names], cwd=tree, check=True)
    where = [*python, "-c", "import export.onnx; print(export.onnx.__file__)"]
    shown = subprocess.run(where, cwd=tree, env=environment, capture_output=True, text=True)
    if not Path(shown.stdout.strip()).resolve().is_relative_to(tree.resolve()):
        got = (shown.stdout + shown.stderr).strip().splitlines()[-1:]
        raise SystemExit(f"error: {tree}: expected export.onnx of this tree, got {got}")


def _environment(tree: Path) -> Mapping[str, str]:
    """This environment with the tree's modules before installed ones."""
    return {**os.environ, "PYTHONPATH": str(tree)}


def _measure(
    case: str, variant: str, weights: Path, trees: Sequence[Path], repeats: int, bar: Bar
) -> Row:
    runs = [Runs() for _ in trees]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.onnx" for index in range(len(trees))]
        for repeat in range(repeats):
            order = list(range(len(trees)))
            for index in reversed(order) if repeat % 2 else order:
                options = ["--short-side", "320", "--long-side", "533", *VARIANTS[variant]]
                command = [str(weights), "-o", str(paths[index]), *options]
                arguments = ["-m", "export.onnx", *command]
                runs[index].add(child.run(arguments, trees[index], _environment(trees[index])))
                bar.advance()
        size_mb = round(paths[0].stat().st_size / 1e6, 1)
        before, differences = (runs[1], _differences(paths)) if len(trees) > 1 else (None, [])
    return Row(CASES[case], variant, size_mb, runs[0], before, differences)


def _differences(paths: Sequence[Path]) -> list[str]:
    """Of the graphs in two files, by a child, for onnx is large."""
    compare = [sys.executable, str(ROOT / "bench" / "compare_graphs.py")]
    done = subprocess.run([*compare, *map(str, paths)], capture_output=True, text=True)
    if done.returncode and not done.stdout:
        raise SystemExit(f"error: the graphs cannot be compared: {done.stderr.strip()}")
    return done.stdout.splitlines() if done.returncode else []


def _body(rows: Sequence[Row], cores: int, repeats: int, against: str | None) -> str:
    columns = [
        "export.onnx", "variant", "median s", "worst s", f"limit {MAX_SECONDS} s", "peak GB",
        f"limit {MAX_GB} GB", "file MB", "verdict",
    ]  # fmt: skip
    parts = [
        f"{cores} cores, {repeats} runs each.",
        results.table(columns, [_cells(row) for row in rows]),
    ]
    if against is not None:
        columns = ["export.onnx", "variant", "graphs"]
        columns += [f"{unit} {of}" for unit in ("s", "CPU s") for of in (against, "now", "ratio")]
        parts.append("Medians:")
        parts.append(results.table(columns, [_ratio_cells(row) for row in rows]))
        parts += [f"{row.case}, {row.variant}: {d}" for row in rows for d in row.differences]
    return "\n\n".join(parts)


def _cells(row: Row) -> list[str]:
    seconds, peak_gb = row.runs.seconds, row.runs.peak_gb
    return [
        row.case,
        row.variant,
        f"{median(seconds):.1f}",
        f"{max(seconds):.1f}",
        "kept" if max(seconds) < MAX_SECONDS else "EXCEEDED",
        f"{max(peak_gb):.2f}",
        "kept" if max(peak_gb) < MAX_GB else "EXCEEDED",
        f"{row.size_mb:.0f}",
        "met" if row.passed else "MISSED",
    ]


def _ratio_cells(row: Row) -> list[str]:
    cells = [row.case, row.variant, "DIFFERENT" if row.differences else "identical"]
    if row.before is not None:
        for before, now in (
            (median(row.before.seconds), median(row.runs.seconds)),
            (median(row.before.cpu_seconds), median(row.runs.cpu_seconds)),
        ):
            cells += [f"{before:.1f}", f"{now:.1f}", f"{before / now:.2f}"]
    return cells


if __name__ == "__main__":
    sys.exit(main())
