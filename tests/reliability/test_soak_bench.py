"""The soak's bookkeeping: chunks, resuming, verdicts. What the parts run is tested beside them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import soak
from bench.soak_parts import Part, chosen, parts
from bench.soak_state import Progress, State
from model.errors import UsageError


def _fake(calls: list[tuple[int, int]], stop_at: int | None = None, bad: int = -1) -> Part:
    def run(_: Path, first: int, count: int, advance: object) -> dict[str, int]:
        if stop_at is not None and first >= stop_at:
            raise KeyboardInterrupt
        calls.append((first, count))
        advance(count)
        broken = first <= bad < first + count
        return {"fine": count - broken} | ({"wrong: all": 1} if broken else {})

    failures = lambda found: [name for name in found if name != "fine"]  # noqa: E731
    return Part("fake", "a stand-in", 10, "cases", run, failures, 4)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(soak, "_model", lambda *_: tmp_path / "tiny.onnx")
    return tmp_path


def _main(folder: Path, monkeypatch: pytest.MonkeyPatch, part: Part, *options: str) -> int:
    monkeypatch.setattr(soak, "chosen", lambda *_: [part])
    places = ["--state", str(folder / "s.json"), "--json", str(folder / "r.json")]
    return soak.main([*places, "--markdown", str(folder / "r.md"), *options])


def test_an_interrupted_soak_goes_on_where_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    assert _main(folder, monkeypatch, _fake(calls, stop_at=8)) == 130
    assert calls == [(0, 4), (4, 4)]
    assert not (folder / "r.md").exists()
    assert _main(folder, monkeypatch, _fake(calls), "--resume") == 0
    assert calls == [(0, 4), (4, 4), (8, 2)]
    found = json.loads((folder / "r.json").read_text("utf-8"))["parts"]["fake"]
    assert (found["cases"], found["outcomes"], found["failures"]) == (10, {"fine": 10}, [])
    assert "Verdict: passed" in (folder / "r.md").read_text("utf-8")
    assert _main(folder, monkeypatch, _fake(calls), "--resume") == 0
    assert len(calls) == 3, "complete, yet run again"


def test_one_bad_case_fails_the_soak(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _main(folder, monkeypatch, _fake([], bad=6)) == 1
    text = (folder / "r.md").read_text("utf-8")
    assert "Verdict: failed" in text
    assert "wrong: all" in text


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"commit": "x", "parts": {"a": {"b": 1}}}', None]
)
def test_a_state_that_is_none(
    content: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (folder / "s.json").write_text(content, "utf-8")
    assert _main(folder, monkeypatch, _fake([]), "--resume") == 2


def test_a_state_of_another_commit_is_refused(tmp_path: Path) -> None:
    state = State(tmp_path / "s.json", "abc", {"a": Progress(5, 2, 0.5, {"fine": 2})})
    state.save()
    assert State.load(state.path, "abc") == state
    with pytest.raises(UsageError, match="of commit abc, this is def"):
        State.load(state.path, "def")


def test_every_part_fails_on_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    mutations = SimpleNamespace(FINE=("pixels", "refused"))
    monkeypatch.setitem(sys.modules, "tests.hostile.photo_mutations", mutations)
    bad = {
        "tables": {"test_shapes: passed": 3, "test_shapes: failure": 1},
        "checkpoints": {"refused": 3, "wrong: the canary was touched (.pth code)": 1},
        "cycles": {"threads": [1, 2], "files": [6], "rss_growth_mb": 0.0},
        "threads": {"different": 1},
        "onnx-metadata": {"seal: refused · escaped: KeyError": 1},
        "onnx-bytes": {"child died (SIGSEGV)": 1},
        "photos": {"pixels": 2, "17: hung": 1},
        "soak": {"slope_mb": 11.0, "spread_mb": 3.0, "detections": 5},
    }
    good = {
        "tables": {"test_shapes: passed": 3, "test_shapes: skipped": 1},
        "checkpoints": {"refused": 3},
        "cycles": {"threads": [1], "files": [6], "rss_growth_mb": 0.1},
        "threads": {"different": 0},
        "onnx-metadata": {"seal: refused · ran, another answer": 1},
        "onnx-bytes": {"seal: refused · refused": 1},
        "photos": {"pixels": 2, "refused": 1},
        "soak": {"slope_mb": 1.0, "spread_mb": 3.0, "detections": 5},
    }
    for part in parts():
        assert part.failures(bad[part.name]), part.name
        assert not part.failures(good[part.name]), part.name
        if part.name in ("cycles", "threads", "soak"):
            assert part.failures({"failed": "status 1"})


def test_totals_are_those_promised() -> None:
    totals = {part.name: part.total for part in chosen(None, 1.0)}
    assert totals.pop("checkpoints") >= 30
    assert totals == {
        "tables": 1, "cycles": 100, "threads": 1000, "onnx-metadata": 2000,
        "onnx-bytes": 10_000, "photos": 5000, "soak": 100_000,
    }  # fmt: skip
    assert [p.total for p in chosen(["soak"], 0.01)] == [1000]
    with pytest.raises(UsageError, match="expected one of tables"):
        chosen(["soap"], 1.0)
