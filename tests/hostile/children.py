"""Cases run in child processes: many to a child, each with limits, a new child after a death.

The parent sends a number and waits for a line. A child that dies, or that is silent for too long
and is ended, costs its case an outcome, and the parent nothing.
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
    """Answer every case's outcome, in order.

    Args:
        module: its main calls `serve`.
        arguments: of the module.
        cases: numbers that the child understands.
        seconds: for one case; one that takes longer is tried again before it counts as timed out.
        memory_bytes: address space of the child.
    """
    children = _Children(module, [str(memory_bytes), *arguments])
    try:
        for case in cases:
            outcome = children.ask(case, seconds)
            # A machine that is busy with other things makes a child slow, but not twice.
            yield case, children.ask(case, seconds) if outcome == TIMED_OUT else outcome
    finally:
        children.end()


def serve(
    argv: Sequence[str],
    judge: Callable[[Sequence[str]], Callable[[int], str]],
    beyond_libraries: bool = False,
) -> None:
    """The child's side: set up with the arguments, limit the memory, answer until the pipe ends.

    Some libraries reserve more address space than any limit that would mean something; with
    `beyond_libraries` what is taken when the set-up is done does not count.
    """
    memory, *arguments = argv
    case = judge(arguments)
    limit = int(memory) + (_reserved_bytes() if beyond_libraries else 0)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Libraries print what they like; answers have a pipe of their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    print(READY, file=answers)
    for line in sys.stdin:
        outcome = case(int(line))
        print(" ".join(outcome.split()), file=answers)


def _reserved_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    return pages * resource.getpagesize()


class _Children:
    """One child at a time; another when that one died or was ended."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        self._module, self._arguments = module, arguments
        self._child: _Child | None = None

    def ask(self, case: int, seconds: float) -> str:
        if self._child is None:
            self._child = _Child(self._module, self._arguments)
        outcome = self._child.ask(case, seconds)
        if outcome.startswith((DIED, TIMED_OUT)):
            self.end()
        return outcome

    def end(self) -> None:
        if self._child is not None:
            self._child.end()
        self._child = None


class _Child:
    """One process; `ask` never raises for what happens inside it."""

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

    def ask(self, case: int, seconds: float) -> str:
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
