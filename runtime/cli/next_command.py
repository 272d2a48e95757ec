"""The last line of every command: the next command to run, ready to be copied."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from maskport import COMMANDS


def next_step(verb: str, *arguments: str | Path) -> str:
    """`next: …` with another command, started the way that this process was started.

    Args:
        verb: a name in `maskport.COMMANDS`.
        arguments: unquoted.
    """
    return f"next: {shlex.join([*_start(verb), *map(str, arguments)])}"


def _start(verb: str) -> list[str]:
    program = Path(sys.argv[0])
    if program.name == "maskport":
        return ["maskport" if shutil.which("maskport") else _short(program), verb]
    python = shutil.which("python")
    is_ours = python is not None and os.path.abspath(python) == os.path.abspath(sys.executable)
    return ["python" if is_ours else _short(Path(sys.executable)), "-m", COMMANDS[verb][0]]


def _short(path: Path) -> str:
    """The path, relative if it is below the working directory."""
    folder = Path.cwd()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
