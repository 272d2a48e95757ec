"""The tables of docs/models.md are those of `model.supported`; `REWRITE=1` writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from model.checkpoint import DIALECTS
from model.spec.pooler import PoolerKind
from model.supported import SUPPORTED

TESTS = Path(__file__).resolve().parents[1]
DOCUMENT = TESTS.parent / "docs" / "models.md"
BEGIN, END = "<!-- tables: REWRITE=1 pytest tests/model/test_supported.py -->\n", "<!-- end -->\n"


def _tables() -> Iterator[str]:
    for title, rows in SUPPORTED.items():
        yield f"### {title}\n\n| model | compared with | tests |\n|---|---|---|\n"
        for row in rows:
            tests = ", ".join(f"`{test}`" for test in row.tests.split())
            yield f"| {row.name} | {row.reference} | {tests} |\n"
        yield "\n"


def test_the_document_has_the_tables() -> None:
    text = DOCUMENT.read_text("utf-8")
    head, _, tail = text.partition(BEGIN)
    expected = "".join([head, BEGIN, *_tables(), END, tail.partition(END)[2]])
    if os.environ.get("REWRITE"):
        DOCUMENT.write_text(expected, "utf-8")
    assert text == expected, "REWRITE=1 pytest tests/model/test_supported.py"


def test_every_dialect_and_pooler_is_in_them() -> None:
    assert {dialect.name for dialect in DIALECTS} <= {title.lower() for title in SUPPORTED}
    poolers = " ".join(row.name for row in SUPPORTED["Pooling"])
    assert all(f"`{kind}`" in poolers for kind in get_args(PoolerKind))


def test_the_tests_exist() -> None:
    files = {path.stem for path in TESTS.rglob("test_*.py")}
    assert (
        not {test for rows in SUPPORTED.values() for row in rows for test in row.tests.split()}
        - files
    )
