"""Which sites of `error_sites` a test sets off: recorded, or held to what docs/errors.md says.

`MASKPORT_RECORD_ERRORS=found.jsonl pytest tests/runtime` writes every pair of a test and a site.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from model.errors import MaskportError
from tests.error_sites import ROOT, Site, sites

_RECORD = "MASKPORT_RECORD_ERRORS"


@contextmanager
def set_off() -> Iterator[set[tuple[str, str, str]]]:
    """Keys of the sites that make an error inside the block, in this process.

    Of blocks inside one another the innermost gets them.
    """
    found: set[tuple[str, str, str]] = set()

    def remember(error: MaskportError, *arguments: object) -> None:
        Exception.__init__(error, *arguments)
        frame = sys._getframe(1)
        for site in _of_file(frame.f_code.co_filename):
            if site.first <= frame.f_lineno <= site.last and site.kind == type(error).__name__:
                found.add(site.key)

    # Inherited as a rule: then there is nothing to put back, and ours must go.
    before = vars(MaskportError).get("__init__")
    MaskportError.__init__ = remember  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        if before is None:
            del MaskportError.__init__
        else:
            MaskportError.__init__ = before  # type: ignore[method-assign]


@cache
def _of_file(name: str) -> list[Site]:
    path = Path(name)
    if not path.is_relative_to(ROOT):
        return []
    module = path.relative_to(ROOT).as_posix()
    return [site for site in sites() if site.module == module]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test that docs/errors.md names must set off the errors that it is named for.

    One that is skipped or fails leaves through the `yield`, and is held to nothing.
    """
    from tests.errors_table import named

    expected, record = named().get(item.nodeid, frozenset()), os.environ.get(_RECORD)
    if not expected and record is None:
        return (yield)
    with set_off() as found:
        answer = yield
    if record is not None:
        with Path(record).open("a", encoding="utf-8") as file:
            for key in sorted(found):
                file.write(json.dumps([*key, item.nodeid]) + "\n")
    else:
        missing = sorted(expected - found)
        assert not missing, f"docs/errors.md names this test for {missing[0]}"
    return answer
