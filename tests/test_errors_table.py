"""docs/errors.md has every error of the runtime, and a test that provokes it.

That each named test really does is held in `tests.provoked`, while that test runs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator, Set
from types import SimpleNamespace

import pytest

from model import errors
from runtime.cli.console import run
from runtime.preprocessing.canvas_selection import require_one_model
from tests.error_sites import KINDS, ROOT, remedy, sites, sites_in
from tests.errors_table import DOCUMENT, STATUS, UNPROVOKED, merged, named, rows, what_to_do
from tests.provoked import pytest_runtest_call, set_off


def test_the_document_is_the_table() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert text == merged(text), "run python -m tests.errors_table"


def test_every_error_says_what_to_do() -> None:
    assert not [site.key for site in rows() if not what_to_do(site)]


def test_every_error_has_a_test_or_a_reason() -> None:
    proven = {key for keys in named().values() for key in keys}
    without = {site.key for site in rows()} - proven
    lacking = sorted(key for key in without if key[2] not in UNPROVOKED)
    assert not lacking, f"record them as tests/provoked.py says: {lacking}"
    stale = set(UNPROVOKED) - {message for _, _, message in without}
    assert not stale


def test_every_named_test_exists() -> None:
    files = sorted({test.partition("::")[0] for test in named()})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", *files],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
    collected = set(done.stdout.split("\n"))
    seen = {test.partition("::")[0] for test in collected}
    # A file that lacks a package is skipped as a whole: of its tests only the names are known.
    missing = [test for test in sorted(set(named()) - collected) if not _is_skipped(test, seen)]
    assert not missing, missing[:3]


def _is_skipped(test: str, seen: Set[str]) -> bool:
    file, _, name = test.partition("::")
    return file not in seen and f"def {name.partition('[')[0]}(" in (ROOT / file).read_text("utf-8")


def test_sites_are_read_off_the_code() -> None:
    source = """
def fail(path):
    raise ArtifactError(f"{path}: no good; " "do better")

def other(name):
    raise _explained(name) if name else UsageError(_text(name))

def _explained(name):
    return errors.ImageError(f"{name}: expected {1 + 1} sides, got none")

def _text(name):
    if name:
        return "first reason"
    return f"second {name}{name} reason"

def again(error):
    raise ImageError(f"{error}") from error

def not_ours():
    raise ValueError("no user sees it")
"""
    found = [(s.kind, s.message) for s in sites_in("a.py", source)]
    assert found == [
        ("ArtifactError", "…: no good; do better"),
        ("UsageError", "first reason"),
        ("UsageError", "second … reason"),
        ("ImageError", "…: expected … sides, got none"),
    ]
    assert [remedy(message) for _, message in found] == ["do better", "", "", "give … sides"]


def test_a_known_site_of_every_kind_of_file_is_among_them() -> None:
    keys = {site.key for site in sites()}
    assert len(keys) > 150
    written = "cannot write …: expected a file, got …; name another"
    assert ("runtime/files.py", "ArtifactError", written) in keys
    assert {kind for _, kind, _ in keys} <= KINDS


def test_only_what_was_set_off_counts() -> None:
    message = "expected an artifact to open, got none"
    with set_off() as found, pytest.raises(errors.UsageError, match=message):
        require_one_model([])
    assert found == {("runtime/preprocessing/canvas_selection.py", "UsageError", message)}
    with set_off() as found, pytest.raises(errors.UsageError):
        raise errors.UsageError(message)
    assert not found


def test_listening_ends_with_its_block() -> None:
    before = vars(errors.MaskportError).get("__init__")
    with set_off() as outer:
        with set_off() as inner, pytest.raises(errors.UsageError):
            require_one_model([])
        assert (len(inner), len(outer)) == (1, 0)
        with pytest.raises(errors.UsageError):
            require_one_model([])
    assert (len(inner), len(outer)) == (1, 1)
    assert vars(errors.MaskportError).get("__init__") is before


def test_a_named_test_is_held_to_its_errors_unless_it_is_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MASKPORT_RECORD_ERRORS", raising=False)
    test = SimpleNamespace(nodeid=min(named()))

    def call(ends: Callable[[Generator[None, object, object]], object]) -> None:
        running = pytest_runtest_call(test)  # type: ignore[arg-type]
        next(running)
        ends(running)

    with pytest.raises(AssertionError, match="names this test for"):
        call(lambda running: running.send(None))
    with pytest.raises(pytest.skip.Exception, match="no GPU"):
        call(lambda running: running.throw(pytest.skip.Exception("no GPU")))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_exit_statuses_are_those_of_the_document(kind: str) -> None:
    def fail(argv: object) -> int:
        raise getattr(errors, kind)("wrong")

    assert run(fail, []) == STATUS.get(kind, 1)
