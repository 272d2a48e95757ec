"""The files of a revision, for benchmarks that compare with it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """The files of a revision in a temporary folder."""
    with tempfile.TemporaryDirectory() as parent:
        tree = Path(parent) / "tree"
        git = ("git", "-C", str(ROOT), "worktree")
        added = subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision])
        if added.returncode != 0:
            raise SystemExit(f"error: --against {revision}: git cannot make a worktree of it")
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
