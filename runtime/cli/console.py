"""What every command shares: exit statuses, error lines, progress."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn, TextIO

from model.errors import MaskportError, UsageError
from runtime.whole_numbers import MOST_THREADS

DONE, FAILED, USAGE = 0, 1, 2
_LONGEST = 1000


class Parser(argparse.ArgumentParser):
    """argparse whose complaint is one line that starts with `error:`."""

    def error(self, message: str) -> NoReturn:
        """Print the complaint and leave with status 2."""
        complain(f"{message} (--help shows the options)")
        raise SystemExit(USAGE)


def add_alias(group: argparse._ActionsContainer, old: str, dest: str, **options: Any) -> None:
    """Accept the former name of an option; --help does not show it."""
    group.add_argument(old, dest=dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **options)


def printable(text: str) -> str:
    """One line: names in files may hold line breaks or terminal codes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row of cells, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def complain(error: object) -> None:
    """Print one line that starts with `error:` to stderr."""
    _say("error", str(error))


def remark(text: str) -> None:
    """Print one line that starts with `note:` to stderr: nothing is wrong, but worth knowing."""
    _say("note", text)


def _say(what: str, text: str) -> None:
    # Over a progress line that is still open, not behind it.
    lead = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{lead}{what}: {printable(text[:_LONGEST])}", file=sys.stderr)


def whole_number(text: str) -> int:
    """An argparse type: 1, 2, 3 and so on."""
    with suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 1, got '{text}'")


def thread_count(text: str) -> int:
    """An argparse type: threads of a network, 1 to `MOST_THREADS`."""
    with suppress(argparse.ArgumentTypeError):
        if whole_number(text) <= MOST_THREADS:
            return whole_number(text)
    raise argparse.ArgumentTypeError(
        f"expected a whole number from 1 to {MOST_THREADS}, more than any machine has cores, "
        f"got '{text}'"
    )


def fraction(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    with suppress(ValueError):
        if 0.0 <= float(text) <= 1.0:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got '{text}'")


def run(command: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Run a command's body; errors that a user can act on become one line, never a traceback.

    Returns:
        0 done, 1 failed, 2 usage, 130 interrupted.
    """
    steady_streams()
    try:
        with warnings.catch_warnings():
            # Of large or damaged photos the runtime speaks itself, in one line each.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            status = command(sys.argv[1:] if argv is None else argv)
            # A reader that went away is noticed here rather than while Python exits.
            sys.stdout.flush()
            return status
    except UsageError as error:
        complain(error)
        return USAGE
    except MaskportError as error:
        complain(error)
        return FAILED
    except MemoryError:
        complain("out of memory; try a smaller --size or fewer images at once")
        return FAILED
    except BrokenPipeError:
        # The reader went away (`| head`); Python would complain again while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        complain(error)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def steady_streams() -> None:
    """Make standard output and error take whatever is printed.

    Closed ones (`>&-`) lose it; characters that their encoding lacks come out as escapes.
    """
    _occupy_descriptors()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _occupy_descriptors() -> None:
    """Let no file of ours be opened as 0, 1 or 2, where libraries print what they think."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


class Steps:
    """Named steps of one long job: a line rewritten on a terminal, plain lines elsewhere."""

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
