"""Try a library in a process of its own: a broken one may crash, hang, or spoil ours."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

TIME_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether the code ran to its end, and its last line: what it printed, or its complaint."""

    worked: bool
    text: str


def probe(code: str, time_limit_s: float = TIME_LIMIT_S) -> Answer:
    """Run a few lines of Python in a fresh interpreter like this one."""
    # Without -P a file of the working directory would be taken for the library.
    command = [sys.executable, "-P", "-c", code]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    try:
        done = subprocess.run(
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
        return Answer(False, f"no answer within {time_limit_s:.0f} s")
    if done.returncode < 0:
        return Answer(False, f"crashed (signal {-done.returncode})")
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return Answer(done.returncode == 0, lines[-1][:300] if lines else "said nothing")
