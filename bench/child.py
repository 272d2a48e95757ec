"""Time and peak memory of one Python child process.

On Linux the peak of a child starts at the memory of its parent, so neither this module nor a
program that uses it may import anything large.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Run:
    """One run: wall and CPU seconds, peak resident GB (1e9 bytes), and its output."""

    seconds: float
    cpu_seconds: float
    peak_gb: float
    output: str


def run(
    arguments: Sequence[str], cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> Run:
    """Run Python with these arguments.

    Raises:
        SystemExit: it failed, or its peak is unknown.
    """
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, *arguments], cwd=cwd, env=environment, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if child.returncode != 0:
        last_line = text.strip().splitlines()[-1:]
        raise SystemExit(f"error: {' '.join(arguments[:2])} failed: {last_line}")
    if usage.ru_maxrss <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        raise SystemExit("error: this process is larger than its child, whose peak is unknown")
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Run(seconds, cpu_seconds, usage.ru_maxrss * unit_bytes / 1e9, text)
