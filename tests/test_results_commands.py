"""`make results`: each of its lines is a program that knows the options it is given."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RULE = re.search(
    r"^results:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE
)
assert RULE is not None
COMMANDS = [shlex.split(line.strip())[1:] for line in RULE[1].splitlines()]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: Path(c[0]).stem)
def test_the_program_takes_its_options(command: list[str]) -> None:
    source = (ROOT / command[0]).read_text("utf-8")
    options = [word for word in command[1:] if word.startswith("--")]
    assert {"--json", "--markdown"} <= set(options)
    for option in options:
        assert f'add_argument("{option}"' in source, option


def test_no_two_write_the_same_file() -> None:
    written = [word for command in COMMANDS for word in command if word.startswith("docs/")]
    assert len(set(written)) == len(written) >= 2 * len(COMMANDS)
