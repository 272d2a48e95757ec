"""Cases run in child processes with limits; a new child starts where one ended.

The parent writes a number and reads a line. A case that ends its child, or takes too long and is
ended, has that as its outcome.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS, MEMORY_BYTES = 10.0, 2 << 30
READY = "ready"
_START_SECONDS = 120.0
DIED, TIMED_OUT = "child died", "timed out"


def run_cases(
    module: str,
    arguments: Sequence[str],
    cases: Iterable[int],
    seconds: float = SECONDS,
    memory_bytes: int = MEMORY_BYTES,
) -> Iterator[tuple[int, str]]:
    """The outcome of every case, in order.

    Args:
        module: its main calls `serve`.
        arguments: of the module.
        cases: numbers that the child understands.
        seconds: for one case; one that takes longer is tried again before it counts as timed out.
        memory_bytes: address space of the child beyond what its libraries reserve.
    """
    children = _Children(module, [str(memory_bytes), *arguments])
    try:
        for case in cases:
            outcome = children.run(case, seconds)
            # A busy machine may delay a child once, not twice.
            yield case, children.run(case, seconds) if outcome == TIMED_OUT else outcome
    finally:
        children.end()


def serve(argv: Sequence[str], setup: Callable[[Sequence[str]], Callable[[int], str]]) -> None:
    """The child's side: set up, limit the memory, run cases until the pipe ends."""
    memory, *arguments = argv
    case = setup(arguments)
    limit = int(memory) + _reserved_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Libraries may print; outcomes have a pipe of their own.
    outcomes = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    print(READY, file=outcomes)
    for line in sys.stdin:
        print(" ".join(case(int(line)).split()), file=outcomes)


def _reserved_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    return pages * resource.getpagesize()


class _Children:
    """One child at a time; another when that one ended."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        self._module, self._arguments = module, arguments
        self._child: _Child | None = None

    def run(self, case: int, seconds: float) -> str:
        if self._child is None:
            self._child = _Child(self._module, self._arguments)
        outcome = self._child.run(case, seconds)
        if outcome.startswith((DIED, TIMED_OUT)):
            self.end()
        return outcome

    def end(self) -> None:
        if self._child is not None:
            self._child.end()
        self._child = None


class _Child:
    """One process; `run` never raises for what happens inside it."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if self._line(_START_SECONDS) != READY:
            self.end()
            raise RuntimeError(f"{module}: the child did not start")

    def run(self, case: int, seconds: float) -> str:
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(BrokenPipeError):
            stdin.write(b"%d\n" % case)
            stdin.flush()
        line = self._line(seconds)
        if line is None:
            return TIMED_OUT
        return line or f"{DIED} ({_cause(self._process.wait())})"

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                assert stream is not None
                stream.close()

    def _line(self, seconds: float) -> str | None:
        """The next line; "" at the end of the pipe, None after so many seconds."""
        stdout = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], seconds)
        return stdout.readline().decode().strip() if ready else None


def _cause(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
