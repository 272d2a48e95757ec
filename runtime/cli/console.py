"""What all commands share: exit statuses, error lines, argument types, progress."""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn, TextIO

from model.errors import AssumptionWarning, MaskportError, MissingDependencyError, UsageError
from runtime.whole_numbers import MAX_THREADS

DONE, FAILED, USAGE = 0, 1, 2
BAR_CHARS = 24
_MAX_MESSAGE_CHARS = 1000
_CLEAR_LINE = "\r\x1b[K"


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line that starts with `error:`."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with status 2."""
        print_error(f"{message} (--help shows the options)")
        raise SystemExit(USAGE)


def add_alias(group: argparse._ActionsContainer, old: str, dest: str, **options: Any) -> None:
    """Accept the former name of an option; --help does not show it."""
    group.add_argument(old, dest=dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **options)


def plural(count: int, noun: str, ending: str = "s") -> str:
    """`1 photo`, `2 photos`."""
    return f"{count} {noun}{'' if count == 1 else ending}"


def printable(text: str) -> str:
    """One line: names from untrusted files may hold newlines or terminal codes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row of cells, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def print_error(error: object) -> None:
    """Print one line that starts with `error:` to stderr."""
    _print("error", str(error))


def print_note(text: str) -> None:
    """Print one line that starts with `note:` to stderr."""
    _print("note", text)


def _print(label: str, text: str) -> None:
    # Replaces an open progress line.
    StatusLine().finish(f"{label}: {printable(text[:_MAX_MESSAGE_CHARS])}")


def whole_number(text: str) -> int:
    """An argparse type: 1, 2, 3 and so on."""
    with suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 1, got '{text}'")


def thread_count(text: str) -> int:
    """An argparse type: threads of a network, 1 to `MAX_THREADS`."""
    with suppress(argparse.ArgumentTypeError):
        if whole_number(text) <= MAX_THREADS:
            return whole_number(text)
    raise argparse.ArgumentTypeError(
        f"expected a whole number from 1 to {MAX_THREADS}, got '{text}'"
    )


def fraction(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    with suppress(ValueError):
        if 0.0 <= float(text) <= 1.0:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got '{text}'")


def require_packages(command: str, *names: str) -> None:
    """Check that packages of the `export` extra are installed, without importing them.

    Raises:
        MissingDependencyError: names the first that is not.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(
                f"{command} needs {name}, which is not installed; pip install 'maskport[export]'"
            )


def run(command: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Run a command; errors that a user can act on become one line, never a traceback.

    Returns:
        0 done, 1 failed, 2 usage, 130 interrupted.
    """
    accept_any_output()
    try:
        with warnings.catch_warnings():
            # The runtime reports large or damaged photos itself, in one line each.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _print_assumptions()
            status = command(sys.argv[1:] if argv is None else argv)
            # A closed pipe is noticed here rather than while Python exits.
            sys.stdout.flush()
            return status
    except UsageError as error:
        print_error(error)
        return USAGE
    except MaskportError as error:
        print_error(error)
        return FAILED
    except MemoryError:
        print_error("out of memory; try a smaller --size or fewer images at once")
        return FAILED
    except BrokenPipeError:
        # The reader closed the pipe (`| head`); Python would print an error while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        print_error(error)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _print_assumptions() -> None:
    """Until `warnings.catch_warnings` ends: print assumptions as plain lines, each file's once."""
    show_other = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
        if issubclass(category, AssumptionWarning):
            print("\n".join(map(printable, str(message).splitlines()[1:])))
        else:
            show_other(message, category, *where, **options)

    warnings.simplefilter("always", AssumptionWarning)
    warnings.showwarning = show


def accept_any_output() -> None:
    """Make standard output and error accept any text.

    Closed streams (`>&-`) drop it; characters that the encoding lacks are printed as escapes.
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
    """Keep our files from getting the descriptors 0, 1 or 2, to which libraries print."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # open() takes the lowest free descriptor, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


class StatusLine:
    """A line of progress on stderr: rewritten on a terminal, plain lines elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream

    @property
    def is_terminal(self) -> bool:
        """Whether lines can be rewritten."""
        return self._stream.isatty()

    def rewrite(self, text: str) -> None:
        """Show a text that the next one replaces; for terminals only."""
        self._stream.write(f"{_CLEAR_LINE}{text}")
        self._stream.flush()

    def finish(self, text: str) -> None:
        """Write a text that stays, and start a new line."""
        self._stream.write(f"{_CLEAR_LINE if self.is_terminal else ''}{text}\n")
        self._stream.flush()


def filled_bar(fraction: float) -> str:
    """A bar of `BAR_CHARS` characters, filled from the left."""
    return f"{'█' * int(BAR_CHARS * fraction):<{BAR_CHARS}}"


class Steps:
    """Progress over the named steps of a long job, with the time of each."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._total = total
        self._done = 0
        self._line = StatusLine(stream)
        self._started = time.perf_counter()
        self._current = ""

    def begin(self, name: str) -> None:
        """End the running step and start the next."""
        self.end()
        self._current, self._started = name, time.perf_counter()
        if self._line.is_terminal:
            self._line.rewrite(f"[{self._done + 1}/{self._total}] {name} …")

    def end(self) -> None:
        """End the running step and show its time."""
        if not self._current:
            return
        self._done += 1
        seconds = time.perf_counter() - self._started
        self._line.finish(f"[{self._done}/{self._total}] {self._current} {seconds:.1f} s")
        self._current = ""


class Bar:
    """Progress over items: a bar with a rate on a terminal, a line every tenth elsewhere."""

    def __init__(self, total: int, unit: str, stream: TextIO | None = None) -> None:
        self._total = total
        self._unit = unit
        self._line = StatusLine(stream)
        self._count = 0
        self._started = time.perf_counter()

    def advance(self, count: int = 1) -> None:
        """Count items as done."""
        before, self._count = self._count, self._count + count
        rate = self._count / max(time.perf_counter() - self._started, 1e-9)
        text = f"{self._count}/{self._total} {rate:.1f} {self._unit}/s"
        is_done = self._count >= self._total
        if self._line.is_terminal:
            bar = filled_bar(self._count / max(self._total, 1))
            (self._line.finish if is_done else self._line.rewrite)(f"{bar} {text}")
        elif is_done or self._crossed_tenth(before):
            self._line.finish(text)

    def _crossed_tenth(self, before: int) -> bool:
        step = max(self._total / 10, 1)
        return int(before / step) != int(self._count / step)
