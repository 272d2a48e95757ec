"""The tables of docs/models.md are those of `model.supported`; `REWRITE=1` writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import get_args

from model.checkpoint import DIALECTS
from model.spec.pooler import PoolerKind
from model.supported import SUPPORTED

TESTS = Path(__file__).resolve().parents[1]
DOCUMENT = TESTS.parent / "docs" / "models.md"
BEGIN, END = "<!-- tables: REWRITE=1 pytest tests/model/test_supported.py -->\n", "<!-- end -->\n"


def _tables() -> Iterator[str]:
    for family, groups in groupby(SUPPORTED, key=lambda group: group.family):
        yield f"### {family}\n\n| model | compared with | tests |\n|---|---|---|\n"
        for group in groups:
            tests = ", ".join(f"`{test}`" for test in group.tests.split())
            yield from (f"| {model} | {group.reference} | {tests} |\n" for model in group.models)
        yield "\n"


def test_the_document_is_complete() -> None:
    text = DOCUMENT.read_text("utf-8")
    head, _, tail = text.partition(BEGIN)
    expected = "".join([head, BEGIN, *_tables(), END, tail.partition(END)[2]])
    if os.environ.get("REWRITE"):
        DOCUMENT.write_text(expected, "utf-8")
    assert text == expected, "REWRITE=1 pytest tests/model/test_supported.py"
    assert {dialect.name for dialect in DIALECTS} <= {group.family.lower() for group in SUPPORTED}
    models = " ".join(model for group in SUPPORTED for model in group.models)
    assert all(f"`{pooler}`" in models for pooler in get_args(PoolerKind))
    files = {path.stem for path in TESTS.rglob("test_*.py")}
    assert not {test for group in SUPPORTED for test in group.tests.split()} - files
