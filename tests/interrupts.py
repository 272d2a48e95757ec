"""Children that a test interrupts: Ctrl-C must reach them, and none may outlive its test."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# A child of a shell's background job inherits that SIGINT is ignored; Python leaves it so.
_HEEDING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
_PATIENCE_S = 20.0


@contextmanager
def python(arguments: Sequence[object], **named: Any) -> Iterator[subprocess.Popen[str]]:
    """Run Python in a child that heeds SIGINT; when the block ends it is interrupted, then killed.

    Args:
        arguments: of Python.
        named: of `subprocess.Popen`.
    """
    command = [sys.executable, "-c", _HEEDING, *map(str, arguments)]
    with subprocess.Popen(command, text=True, **named) as child:
        try:
            yield child
        finally:
            _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGINT)
    try:
        child.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        child.kill()
