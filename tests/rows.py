"""Rows of one rule in one test: every row is checked, and all failures are reported together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import pytest

Row = TypeVar("Row")


def check_rows(rows: Mapping[str, Row], check: Callable[[str, Row], object]) -> None:
    """Call `check(name, row)` for each row; fail once, with the reasons of all that failed."""
    reasons: list[str] = []
    for name, row in rows.items():
        try:
            check(name, row)
        except (Exception, pytest.fail.Exception) as error:
            reasons.append(f"{name}: {type(error).__name__}: {str(error)[:500]}")
    assert not reasons, f"{len(reasons)} of {len(rows)} rows:\n" + "\n".join(reasons)
