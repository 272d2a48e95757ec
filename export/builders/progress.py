"""Progress of a build: the library's nested phases as one fraction, on a terminal or in lines."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TextIO


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class BuildProgress:
    """Counts nested phases and shows the fraction of the outermost one, which never decreases.

    The library calls from its own thread, hence the lock.
    """

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self._title = title
        self._stream = sys.stderr if stream is None else stream
        self._phases: dict[str, _Phase] = {}
        self._lock = threading.Lock()
        self._started = time.perf_counter()
        self._shown = 0.0
        self.cancelled = False

    def phase_start(self, name: str, parent: str | None, steps: int) -> None:
        """Start a phase of `steps` steps, inside one step of its parent."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(steps, 1))

    def step_complete(self, name: str, step: int) -> bool:
        """Count a step; False stops the build."""
        with self._lock:
            phase = self._phases.get(name)
            if phase is not None:
                phase.done = min(max(phase.done, step + 1), phase.steps)
            # A closed terminal must not stop the build.
            with suppress(OSError, ValueError, AttributeError):
                self._show(name)
        return not self.cancelled

    def phase_finish(self, name: str) -> None:
        """End a phase, whether or not all its steps were counted."""
        with self._lock:
            self._phases.pop(name, None)

    def fraction(self) -> float:
        """The fraction done, 0 to 1."""
        outermost = [name for name, phase in self._phases.items() if not phase.parent]
        return max((self._within(name) for name in outermost), default=self._shown)

    def _within(self, name: str) -> float:
        phase = self._phases[name]
        children = [n for n, p in self._phases.items() if p.parent == name]
        inner = max((self._within(child) for child in children), default=0.0)
        return min((phase.done + inner) / phase.steps, 1.0)

    def _show(self, name: str) -> None:
        before, self._shown = self._shown, max(self._shown, self.fraction())
        if self._stream.isatty():
            filled = "█" * int(24 * self._shown)
            self._stream.write(
                f"\r\x1b[K{self._title} {filled:<24} {100 * self._shown:3.0f} % {name[:40]}"
            )
        elif int(4 * before) != int(4 * self._shown) and self._shown < 1:
            self._stream.write(f"{self._title} {100 * self._shown:.0f} %\n")
        self._stream.flush()

    def end(self, done: bool) -> None:
        """Replace the bar with one line that gives the time."""
        seconds = time.perf_counter() - self._started
        outcome = f"{seconds:.1f} s" if done else "stopped"
        with suppress(OSError, ValueError, AttributeError):
            lead = "\r\x1b[K" if self._stream.isatty() else ""
            self._stream.write(f"{lead}{self._title} {outcome}\n")
            self._stream.flush()
