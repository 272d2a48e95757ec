"""The README's claims that can be checked without a long run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _links(path: Path) -> list[str]:
    text = path.read_text("utf-8")
    return [t for t in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in t]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    missing = [link for link in _links(path) if not (path.parent / link).exists()]
    assert not missing


def test_every_command_of_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    modules = set(re.findall(r"python -m ([a-z.]+)", text))
    scripts = set(re.findall(r"python (bench/\w+\.py)", text))
    targets = set(re.findall(r"^ +make (\w+)", text, re.MULTILINE))
    assert modules >= {"export.onnx", "runtime.predict", "runtime.evaluate"}
    for module in modules:
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, check=False
        )
        assert done.returncode == 0, module
    assert all((ROOT / script).is_file() for script in scripts)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert targets == {"demo", "test"}
    assert all(f"\n{target}:" in makefile for target in targets)


def test_results_begin_with_command_commit_date_and_machine() -> None:
    results = sorted((ROOT / "docs" / "results").glob("*.md"))
    assert {p.stem for p in results} >= {"parity", "end_to_end", "paste", "export"}
    for path in results:
        head = path.read_text("utf-8").splitlines()[2:6]
        if head[0].startswith("No GPU measurements are recorded yet."):  # names the command
            assert re.search(r"^    bench/\S+$", path.read_text("utf-8"), re.MULTILINE)
            continue
        starts = [line.split(":")[0] for line in head]
        assert starts == ["- command", "- commit", "- date", "- machine"], path.name
