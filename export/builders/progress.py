"""Progress of a build: the library's nested phases as one fraction, on a terminal or in lines."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TextIO

from runtime.cli.console import StatusLine, filled_bar


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
        self._line = StatusLine(stream)
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
        percent = f"{100 * self._shown:3.0f} %"
        if self._line.is_terminal:
            self._line.rewrite(f"{self._title} {filled_bar(self._shown)} {percent} {name[:40]}")
        elif int(4 * before) != int(4 * self._shown) and self._shown < 1:
            self._line.finish(f"{self._title} {percent.lstrip()}")

    def end(self, done: bool) -> None:
        """Replace the bar with one line that gives the time."""
        seconds = time.perf_counter() - self._started
        outcome = f"{seconds:.1f} s" if done else "stopped"
        with suppress(OSError, ValueError, AttributeError):
            self._line.finish(f"{self._title} {outcome}")
