"""docs/models.md says what the table says, and every proof in it is a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.models_table import DOCUMENT, merged, proofs

ROOT = Path(__file__).resolve().parents[1]


def test_the_document_is_the_table() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert text == merged(text), "run python -m tests.models_table"


def test_every_proof_is_a_test() -> None:
    files = sorted({proof.partition("::")[0] for proof in proofs()})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", *files],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    collected = set(done.stdout.split("\n"))
    functions = {test.partition("[")[0] for test in collected}
    missing = [p for p in proofs() if p not in collected and p not in functions]
    assert not missing, f"{missing[:3]}\n{done.stderr[-500:]}"
