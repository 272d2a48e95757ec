"""docs/errors.md has every error of the runtime, and a test that provokes it.

That each named test really does is held in `tests.provoked`, while that test runs.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from model import errors
from runtime.canvases import require_one_model
from runtime.console import run
from tests.error_sites import KINDS, ROOT, remedy, sites, sites_in
from tests.errors_table import DOCUMENT, STATUS, UNPROVOKED, merged, named, rows, what_to_do
from tests.provoked import set_off


def test_the_document_is_the_table() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert text == merged(text), "run python -m tests.errors_table"


def test_every_error_says_what_to_do() -> None:
    assert not [site.key for site in rows() if not what_to_do(site)]


def test_few_errors_have_neither_a_test_nor_a_reason() -> None:
    proven = {key for keys in named().values() for key in keys}
    without = {site.key for site in rows()} - proven
    lacking = sorted(key for key in without if key[2] not in UNPROVOKED)
    # The document shows them as "none"; this number may only fall.
    assert len(lacking) <= 57, f"record them as tests/provoked.py says: {lacking}"
    stale = set(UNPROVOKED) - {message for _, _, message in without}
    assert not stale


def test_every_named_test_exists() -> None:
    files = sorted({test.partition("::")[0] for test in named()})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", *files],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    collected = set(done.stdout.split("\n"))
    missing = sorted(set(named()) - collected)
    assert not missing, f"{missing[:3]}\n{done.stderr[-500:]}"


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
    assert found == {("runtime/canvases.py", "UsageError", message)}
    with set_off() as found, pytest.raises(errors.UsageError):
        raise errors.UsageError(message)
    assert not found
    assert "__init__" not in vars(errors.MaskportError)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_exit_statuses_are_those_of_the_document(kind: str) -> None:
    def fail(argv: object) -> int:
        raise getattr(errors, kind)("wrong")

    assert run(fail, []) == STATUS.get(kind, 1)
