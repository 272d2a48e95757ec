"""What a person sees on a terminal, and a program in a pipe."""

from __future__ import annotations

import io
import json
import re

import pytest

from runtime.cli.photo_progress import PhotoProgress


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _run(stream: io.StringIO, total: int | None, photos: int = 10, step: float = 0.25) -> list[str]:
    clock = _Clock()
    progress = PhotoProgress(total, stream, clock)
    for index in range(photos):
        clock.now += step
        progress.advance({"decode": 0.004, "network": 0.2}, failed=index == 4)
    progress.close()
    return re.split(r"\r\x1b\[K|\n", stream.getvalue())


def test_json_lines_for_a_pipe() -> None:
    lines = [json.loads(line) for line in _run(io.StringIO(), 10) if line]
    assert [line["event"] for line in lines] == ["progress", "progress", "done"]
    assert [line["photos"] for line in lines] == [4, 8, 10]
    assert [line["failed"] for line in lines] == [0, 1, 1]
    assert lines[-1]["total"] == 10
    assert lines[-1]["images_per_s"] == 4.0
    # Photos that failed do not make the others look faster.
    assert lines[-1]["stage_ms"] == pytest.approx({"decode": 4, "network": 200})
    lines = [json.loads(line) for line in _run(io.StringIO(), None, 1) if line]
    assert [line["total"] for line in lines] == [None]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = _run(_Terminal(), 10)
    assert shown[-1] == ""
    assert shown[-2].startswith("█" * 24 + " 10/10 4.0 images/s · 1 failed · decode 4.0 ms")
    assert shown[2].startswith("████")
    assert " 2/10 4.0 images/s" in shown[2]


def test_a_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    shown = _run(_Terminal(), 10)
    assert max(map(len, shown)) <= 49
    assert "10/10" in shown[-2]
    monkeypatch.setenv("COLUMNS", "60")
    assert _run(_Terminal(), None)[-2] == "10 images 4.0 images/s · 1 failed · decode 4.0 ms"


def test_fast_photos_are_not_all_shown() -> None:
    assert len([s for s in _run(_Terminal(), 1000, 1000, 0.001) if s]) <= 12


def test_nothing_to_do() -> None:
    (line,) = [json.loads(text) for text in _run(io.StringIO(), 0, 0) if text]
    assert line["photos"] == 0
    assert line["stage_ms"] == {}
