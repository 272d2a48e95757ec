"""Exit statuses, one-line errors, progress that fits where it is shown."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest

from model.errors import (
    ArtifactError,
    CheckpointError,
    ExportError,
    ImageError,
    MissingDependencyError,
    SpecError,
    UsageError,
)
from runtime.cli.console import Bar, Parser, Steps, fraction, run, thread_count, whole_number

ROOT = Path(__file__).resolve().parents[3]


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("status", [0, 1, 2])
def test_status_and_arguments_pass_through(status: int) -> None:
    received: list[str] = []

    def command(argv: Sequence[str]) -> int:
        received.extend(argv)
        return status

    assert run(command, ["a", "b"]) == status
    assert received == ["a", "b"]


def test_arguments_default_to_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["maskport", "x"])
    assert run(lambda argv: len(argv), None) == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("wrong"), 2),
        (ArtifactError("wrong"), 1),
        (CheckpointError("wrong"), 1),
        (ExportError("wrong"), 1),
        (ImageError("wrong"), 1),
        (MissingDependencyError("wrong"), 1),
        (SpecError("wrong"), 1),
        (PermissionError(13, "Permission denied", "wrong"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_become_one_line(
    error: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(argv: Sequence[str]) -> int:
        raise error

    assert run(command, []) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "wrong" in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [(MemoryError(), 1, "error: out of memory"), (KeyboardInterrupt(), 130, "interrupted")],
    ids=["memory", "interrupt"],
)
def test_interrupts_and_memory(
    error: BaseException, status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(argv: Sequence[str]) -> int:
        raise error

    assert run(command, []) == status
    assert capsys.readouterr().err.startswith(says)


def test_hostile_names_stay_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def command(argv: Sequence[str]) -> int:
        raise ImageError("a\nb\x1b[31m" + "c" * 5000)

    assert run(command, []) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: a\\nb\\x1b[31mccc")
    assert text.count("\n") == 1
    assert len(text) < 1200


def test_our_own_mistakes_keep_their_traceback() -> None:
    def command(argv: Sequence[str]) -> int:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        run(command, [])


@pytest.mark.parametrize("lines", [1, 100_000], ids=["at-exit", "while-running"])
def test_reader_that_went_away_is_no_traceback(lines: int) -> None:
    code = (
        "import sys; from runtime.cli.console import run\n"
        f"def command(argv):\n    for i in range({lines}): print('line', i)\n    return 0\n"
        "sys.stdin.read()\n"
        "sys.exit(run(command, []))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout
    child.stdout.close()
    child.stdout = None
    _, complaint = child.communicate("")
    assert child.returncode == 1
    assert complaint == ""


_SPEAKS = (
    "import os, sys; from runtime.cli.console import print_error, run\n"
    "def command(argv):\n"
    "    print('1 · \\udce9'); print_error('no · good')\n"
    "    with open(argv[0], 'w') as file: print(file.fileno(), file=file)\n"
    "    os.write(2, b'a library')\n"
    "    return 0\n"
    "sys.exit(run(command, sys.argv[1:]))"
)


@pytest.mark.parametrize("closed", ["", "<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lose_what_is_printed_and_no_more(closed: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" {closed}', "bash", sys.executable, "-c", _SPEAKS, "file"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("" if " >&-" in f" {closed}" else "1 · \\udce9\n")
    assert done.stderr == ("" if "2>&-" in closed else "error: no · good\na library")
    # And what libraries print does not end up in a file of ours.
    assert int((tmp_path / "file").read_text()) > 2


def test_an_encoding_without_our_characters_is_no_failure(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SPEAKS, str(tmp_path / "file")],
        cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "1 \\xb7 \\udce9\n")


def test_warnings_of_pillow_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    def command(argv: Sequence[str]) -> int:
        for module in ("PIL.Image", "mine"):
            warnings.warn_explicit(f"from {module}", RuntimeWarning, "file.py", 1, module)
        return 0

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert run(command, []) == 0
        assert [str(w.message) for w in shown] == ["from mine"]
        warnings.warn_explicit("from PIL again", RuntimeWarning, "file.py", 1, "PIL.Image")
        assert len(shown) == 2


def test_parser_complains_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="maskport test")
    parser.add_argument("--count", type=whole_number)
    with pytest.raises(SystemExit) as left:
        parser.parse_args(["--count", "many"])
    assert left.value.code == 2
    text = capsys.readouterr().err
    assert text == (
        "error: argument --count: expected a whole number from 1, got 'many' "
        "(--help shows the options)\n"
    )


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "many"])
def test_not_a_whole_number(text: str) -> None:
    with pytest.raises(Exception, match="expected a whole number from 1"):
        whole_number(text)
    assert whole_number("12") == 12


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "1025", "99999999999"])
def test_not_a_number_of_threads(text: str) -> None:
    with pytest.raises(Exception, match=f"from 1 to 1024, got '{text}'"):
        thread_count(text)
    assert thread_count("1024") == 1024


@pytest.mark.parametrize("text", ["-0.1", "1.01", "nan", "", "half"])
def test_not_a_fraction(text: str) -> None:
    with pytest.raises(Exception, match="expected a number from 0 to 1"):
        fraction(text)
    assert fraction("0.25") == 0.25


def test_steps_in_a_file_and_on_a_terminal() -> None:
    stream = io.StringIO()
    steps = Steps(2, stream)
    steps.begin("reading")
    assert stream.getvalue() == ""
    steps.begin("writing")
    steps.end()
    steps.end()
    first, second = stream.getvalue().splitlines()
    assert first.startswith("[1/2] reading 0.")
    assert second.startswith("[2/2] writing 0.")
    stream = Terminal()
    steps = Steps(2, stream)
    steps.begin("reading")
    assert stream.getvalue() == "\r\x1b[K[1/2] reading …"
    steps.end()
    assert stream.getvalue().startswith("\r\x1b[K[1/2] reading …\r\x1b[K[1/2] reading 0.")
    assert stream.getvalue().endswith(" s\n")


@pytest.mark.parametrize(
    ("total", "lines"), [(1, 1), (3, 3), (10, 10), (25, 10), (1000, 10)], ids=str
)
def test_bar_in_a_file_is_at_most_ten_lines(total: int, lines: int) -> None:
    stream = io.StringIO()
    bar = Bar(total, "photos", stream)
    for _ in range(total):
        bar.advance()
    shown = stream.getvalue().splitlines()
    assert len(shown) == lines
    assert shown[-1].startswith(f"{total}/{total} ")
    assert shown[-1].endswith(" photos/s")


def test_bar_on_a_terminal_fills_one_line() -> None:
    stream = Terminal()
    bar = Bar(4, "photos", stream)
    bar.advance(2)
    assert "\n" not in stream.getvalue()
    assert stream.getvalue().startswith("\r\x1b[K" + "█" * 12 + " " * 12 + " 2/4 ")
    bar.advance(2)
    assert stream.getvalue().endswith(" photos/s\n")
    assert "█" * 24 + " 4/4 " in stream.getvalue()
