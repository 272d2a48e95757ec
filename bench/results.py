"""Writes the results of a benchmark: a JSON file and a Markdown table.

Each begins with the command, the commit, the date and the machine's class.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def machine_class() -> str:
    """Processor family, cores and memory, without the name of the machine."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{platform.machine()}{_vector_units()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB"


def _vector_units() -> str:
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return ""
    known = ("avx512f", "avx512_vnni", "avx_vnni", "avx2", "amx_int8")
    present = [name for name in known if f" {name} " in flags]
    return f" ({' '.join(present)})" if present else ""


def commit() -> str:
    """The short hash of the commit, and whether files differ from it."""

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + changed


def header() -> dict[str, str]:
    """The header of every result."""
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT) if script.is_relative_to(ROOT) else Path(script.name)
    arguments = [_without_home(a) for a in sys.argv[1:]]
    return {
        "command": shlex.join(["python", str(name), *arguments]),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "machine": machine_class(),
    }


def _without_home(argument: str) -> str:
    """A path relative to the project, or only the name of a path outside it."""
    path = Path(argument)
    if not path.is_absolute():
        return argument
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table, also readable as plain text."""
    cells = [[str(c) for c in columns], *[[str(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + " |" for r in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def write(
    title: str,
    body: str,
    data: Mapping[str, Any],
    json_path: Path | None,
    markdown_path: Path | None,
) -> None:
    """Print the result, and write it to the files that are given."""
    head = header()
    lines = [f"- {key}: {value}" for key, value in head.items()]
    lines[0] = f"- command: `{head['command']}`"
    text = "\n".join([f"# {title}", "", *lines, "", body, ""])
    print(text)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps({**head, **data}, indent=1) + "\n", "utf-8")
    if markdown_path is not None:
        markdown_path.parent.mkdir(parents=True, exist_ok=True)
        markdown_path.write_text(text, "utf-8")
