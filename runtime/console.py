"""What every command shares: exit statuses, error lines, progress."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

from model.errors import MaskportError, UsageError

DONE, FAILED, USAGE = 0, 1, 2


class Parser(argparse.ArgumentParser):
    """argparse whose complaint is one line that starts with `error:`."""

    def error(self, message: str) -> NoReturn:
        """Print the complaint and leave with status 2."""
        print(f"error: {message} (--help shows the options)", file=sys.stderr)
        raise SystemExit(USAGE)


def run(command: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Run a command's body; errors that a user can act on become one line, never a traceback.

    Returns:
        0 done, 1 failed, 2 usage, 130 interrupted.
    """
    try:
        return command(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except MaskportError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except MemoryError:
        print("error: out of memory; try a smaller --size or fewer images at once", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # The reader went away (`| head`); Python would complain again while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


class Steps:
    """Named steps of one long job: a line that is rewritten on a terminal, plain lines elsewhere."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._total = total
        self._done = 0
        self._stream = sys.stderr if stream is None else stream
        self._started = time.perf_counter()
        self._current = ""

    def begin(self, what: str) -> None:
        """Close the running step and name the next."""
        self.end()
        self._current, self._started = what, time.perf_counter()
        if self._stream.isatty():
            self._stream.write(f"[{self._done + 1}/{self._total}] {what} …")
            self._stream.flush()

    def end(self) -> None:
        """Close the running step with its time."""
        if not self._current:
            return
        self._done += 1
        seconds = time.perf_counter() - self._started
        lead = "\r\x1b[K" if self._stream.isatty() else ""
        line = f"[{self._done}/{self._total}] {self._current} {seconds:.1f} s"
        self._stream.write(f"{lead}{line}\n")
        self._stream.flush()
        self._current = ""


class Bar:
    """Progress over items: a bar with a rate on a terminal, a line every tenth elsewhere."""

    def __init__(self, total: int, unit: str, stream: TextIO | None = None) -> None:
        self._total = total
        self._unit = unit
        self._stream = sys.stderr if stream is None else stream
        self._count = 0
        self._started = time.perf_counter()

    def advance(self, count: int = 1) -> None:
        """Count items as done."""
        before, self._count = self._count, self._count + count
        rate = self._count / max(time.perf_counter() - self._started, 1e-9)
        if self._stream.isatty():
            filled = "█" * (24 * self._count // max(self._total, 1))
            tail = "\n" if self._count >= self._total else ""
            self._stream.write(
                f"\r\x1b[K{filled:<24} {self._count}/{self._total} {rate:.1f} {self._unit}/s{tail}"
            )
        elif self._crossed_tenth(before):
            self._stream.write(f"{self._count}/{self._total} {rate:.1f} {self._unit}/s\n")
        self._stream.flush()

    def _crossed_tenth(self, before: int) -> bool:
        step = max(self._total / 10, 1)
        return int(before / step) != int(self._count / step) or self._count >= self._total
