"""Progress of a stream of photos: a bar on a terminal, JSON lines in a pipe.

A JSON line is an object with `event` ("progress", finally "done"), `photos`, `failed`, `total`
(null if the source has no count), `images_per_s` and `stage_ms`, the mean time per photo.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TextIO

from runtime.cli.console import StatusLine, filled_bar

# Least seconds between two lines: a terminal updates smoothly, a log stays short.
_TERMINAL_S, _PIPE_S = 0.1, 1.0


class PhotoProgress:
    """Counts photos and shows rate and stage times.

    Args:
        total: number of photos; None if it is not known.
        stream: None takes stderr.
        clock: seconds; replaced in tests.
    """

    def __init__(
        self,
        total: int | None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._total = total
        self._line = StatusLine(stream)
        self._clock = clock
        self._started = self._shown = clock()
        self._seconds: Counter[str] = Counter()
        self.photos = 0
        self.failed = 0

    def advance(self, seconds: Mapping[str, float], failed: bool = False) -> None:
        """Count one photo and the time of its stages."""
        self.photos += 1
        self.failed += failed
        if not failed:
            self._seconds.update(seconds)
        now = self._clock()
        if now - self._shown >= (_TERMINAL_S if self._line.is_terminal else _PIPE_S):
            self._shown = now
            self._show("progress")

    def close(self) -> None:
        """Show the final state."""
        self._show("done")

    def _show(self, event: str) -> None:
        rate = self.photos / max(self._clock() - self._started, 1e-9)
        good = max(self.photos - self.failed, 1)
        stages = {stage: 1e3 * spent / good for stage, spent in self._seconds.items()}
        if self._line.is_terminal:
            show = self._line.finish if event == "done" else self._line.rewrite
            show(self._text(rate, stages))
            return
        line = {
            "event": event,
            "photos": self.photos,
            "failed": self.failed,
            "total": self._total,
            "images_per_s": round(rate, 3),
            "stage_ms": {stage: round(ms, 3) for stage, ms in stages.items()},
        }
        self._line.finish(json.dumps(line))

    def _text(self, rate: float, stages: Mapping[str, float]) -> str:
        """One line that fits the terminal; stage times are left out first."""
        if self._total is None:
            text = f"{self.photos} images"
        else:
            text = f"{filled_bar(self.photos / max(self._total, 1))} {self.photos}/{self._total}"
        text += f" {rate:.1f} images/s"
        if self.failed:
            text += f" · {self.failed} failed"
        width = shutil.get_terminal_size().columns - 1
        for stage, ms in stages.items():
            part = f" · {stage} {ms:.1f} ms"
            if len(text) + len(part) <= width:
                text += part
        return text[:width]
