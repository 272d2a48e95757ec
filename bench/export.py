"""Time and peak memory of `python -m export.onnx` for R50-FPN, with and without its check.

Every export is a process of its own, from the start of Python to the end. Exit status 1 when a
limit is exceeded.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import results
from runtime.cli.console import Bar

MAX_SECONDS = 60
MAX_GB = 4
VARIANTS: dict[str, list[str]] = {"with the check": [], "without (--no-check)": ["--no-check"]}


@dataclass(frozen=True, slots=True)
class Row:
    """One variant: every run's seconds and peak resident memory in GB (1e9 bytes)."""

    variant: str
    seconds: list[float]
    peak_gb: list[float]
    size_mb: float

    @property
    def passed(self) -> bool:
        """Whether even the worst run kept both limits."""
        return max(self.seconds) < MAX_SECONDS and max(self.peak_gb) < MAX_GB


def main() -> int:
    """Measure both variants; status 1 when one exceeds a limit."""
    args = _arguments()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    bar = Bar(args.repeats * len(VARIANTS), "exports")
    rows = [_measure(name, args.weights, args.repeats, bar) for name in VARIANTS]
    columns = (
        "export.onnx", "median s", "worst s", f"limit {MAX_SECONDS} s", "peak GB",
        f"limit {MAX_GB} GB", "file MB", "verdict",
    )  # fmt: skip
    head = f"R50-FPN, 91 classes, {args.cores} cores, {args.repeats} runs each."
    body = "\n\n".join([head, results.table(columns, [_cells(row) for row in rows])])
    data = {
        "cores": args.cores,
        "repeats": args.repeats,
        "rows": [{**asdict(row), "passed": row.passed} for row in rows],
    }
    results.write("Export", body, data, args.json, args.markdown)
    return 0 if all(row.passed for row in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    # `bench.photos` knows this path too, but imports PyTorch; see `_run`.
    data = Path(os.environ.get("MASKPORT_DATA") or ROOT.parent / "shared" / "data")
    weights = data / "weights" / "r50_fpn_coco24.pth"
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2, help="cores that an export may use")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _measure(variant: str, weights: Path, repeats: int, bar: Bar) -> Row:
    times: list[float] = []
    peaks: list[float] = []
    size_bytes = 0
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            options = ["--short-side", "320", "--long-side", "533", *VARIANTS[variant]]
            seconds, peak_gb = _run(["-m", "export.onnx", str(weights), "-o", str(path), *options])
            size_bytes = path.stat().st_size
        times.append(round(seconds, 2))
        peaks.append(round(peak_gb, 3))
        bar.advance()
    return Row(variant, times, peaks, round(size_bytes / 1e6, 1))


def _run(arguments: Sequence[str]) -> tuple[float, float]:
    """Wall seconds and peak resident GB of one child of its own.

    Linux counts what this process holds when it makes the child as the child's, too, so this
    file imports nothing large.
    """
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    complaint = child.stderr.read().decode() if child.stderr else ""
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"error: the export failed: {complaint.strip().splitlines()[-1:]}")
    if usage.ru_maxrss <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        raise SystemExit("error: this process is larger than its child, whose peak is unknown")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def _cells(row: Row) -> list[str]:
    return [
        row.variant,
        f"{median(row.seconds):.1f}",
        f"{max(row.seconds):.1f}",
        "kept" if max(row.seconds) < MAX_SECONDS else "EXCEEDED",
        f"{max(row.peak_gb):.2f}",
        "kept" if max(row.peak_gb) < MAX_GB else "EXCEEDED",
        f"{row.size_mb:.0f}",
        "met" if row.passed else "MISSED",
    ]


if __name__ == "__main__":
    sys.exit(main())
