"""Try a library in its own process: a broken one may crash, hang, or corrupt this one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

TIME_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Whether the code succeeded, and its last line of output or error."""

    succeeded: bool
    text: str


def probe(code: str, time_limit_s: float = TIME_LIMIT_S) -> ProbeResult:
    """Run a few lines of Python in a new process of this interpreter."""
    # Without -P, a file in the working directory could shadow the library.
    command = [sys.executable, "-P", "-c", code]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    try:
        process = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=time_limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ProbeResult(False, f"no result within {time_limit_s:.0f} s")
    if process.returncode < 0:
        return ProbeResult(False, f"crashed (signal {-process.returncode})")
    lines = (process.stdout if process.returncode == 0 else process.stderr).strip().splitlines()
    return ProbeResult(process.returncode == 0, lines[-1][:300] if lines else "no output")
