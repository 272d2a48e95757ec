"""Progress of a stream of photos: a bar on a terminal, JSON lines in a pipe.

A line in a pipe is an object with `event` ("progress", at last "done"), `photos`, `failed`, `total`
(null where the source does not know), `images_per_s` and `stage_ms`, the mean time per photo.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TextIO

_BAR = 24
# A terminal shows steady numbers, a log stays short.
_TERMINAL_S, _PIPE_S = 0.1, 1.0


class PhotoProgress:
    """Counts photos and shows how it goes.

    Args:
        total: photos to come; None where nobody knows.
        stream: None takes stderr.
        clock: seconds; another one in tests.
    """

    def __init__(
        self,
        total: int | None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream.isatty()
        self._clock = clock
        self._started = self._shown = clock()
        self._seconds: Counter[str] = Counter()
        self.photos = 0
        self.failed = 0

    def advance(self, seconds: Mapping[str, float], failed: bool = False) -> None:
        """Count one photo and the time that its stages took."""
        self.photos += 1
        self.failed += failed
        if not failed:
            self._seconds.update(seconds)
        now = self._clock()
        if now - self._shown >= (_TERMINAL_S if self._is_terminal else _PIPE_S):
            self._shown = now
            self._show("progress")

    def close(self) -> None:
        """Show the last state and leave the line."""
        self._show("done")
        if self._is_terminal:
            self._stream.write("\n")
            self._stream.flush()

    def _show(self, event: str) -> None:
        rate = self.photos / max(self._clock() - self._started, 1e-9)
        good = max(self.photos - self.failed, 1)
        stages = {stage: 1e3 * spent / good for stage, spent in self._seconds.items()}
        if self._is_terminal:
            self._stream.write(f"\r\x1b[K{self._text(rate, stages)}")
        else:
            line = {
                "event": event,
                "photos": self.photos,
                "failed": self.failed,
                "total": self._total,
                "images_per_s": round(rate, 3),
                "stage_ms": {stage: round(ms, 3) for stage, ms in stages.items()},
            }
            self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()

    def _text(self, rate: float, stages: Mapping[str, float]) -> str:
        """One line that fits: stage times are left out first."""
        if self._total is None:
            text = f"{self.photos} images"
        else:
            filled = "█" * (_BAR * self.photos // max(self._total, 1))
            text = f"{filled:<{_BAR}} {self.photos}/{self._total}"
        text += f" {rate:.1f} images/s"
        if self.failed:
            text += f" · {self.failed} failed"
        width = shutil.get_terminal_size().columns - 1
        for stage, ms in stages.items():
            part = f" · {stage} {ms:.1f} ms"
            if len(text) + len(part) <= width:
                text += part
        return text[:width]
