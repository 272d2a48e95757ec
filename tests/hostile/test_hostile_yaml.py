"""Hostile configurations: one line with a line number, nothing executed, soon."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from model.errors import CheckpointError, UsageError
from model.families.detectron2.settings import Settings, read_settings
from model.files.yaml_config import read_yaml

yaml = pytest.importorskip("yaml", reason="PyYAML is of the extra 'export'")

SECONDS = 5


def _laughs(levels: int) -> str:
    """Each line nine times the one before."""
    lines = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(["l0: &l0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]", *lines])


def _merges(levels: int) -> str:
    nine = [", ".join([f"*l{i}"] * 9) for i in range(levels)]
    lines = [f"l{i}: &l{i} {{<<: [{nine[i - 1]}], k{i}: 1}}" for i in range(1, levels)]
    return "\n".join(["l0: &l0 {a: 1, b: 2}", *lines])


# What the file holds, and what the error says of it.
YAMLS: dict[str, tuple[str | bytes, str]] = {
    "laughs": (_laughs(12), "line 5: more than 20000 values"),
    "laughs-by-merges": (_merges(12), "values, repeated"),
    "cycle": ("a: &a\n  b: *a\n", "line 2: an alias of 'a'"),
    "alias-of-nothing": ("a: 1\nb: *c\n", "line 2: an alias of 'c'"),
    "code-apply": (
        "a: 1\nb: !!python/object/apply:os.system ['touch {canary}']\n",
        "line 2: the tag 'tag:yaml.org,2002:python/object/apply:os.system'",
    ),
    "code-new": (
        "b: !!python/object/new:os.system ['touch {canary}']",
        "line 1: the tag 'tag:yaml.org,2002:python/object/new:os.system'",
    ),
    "code-name": ("a: !!python/name:os.system ''", "line 1: the tag"),
    "code-key": ("!!python/object/apply:os.system ['touch {canary}']: 1", "line 1: the tag"),
    "code-module": ("a: !!python/module:os ''", "line 1: the tag"),
    "tuple": ("a:\n- !!python/tuple [1, 2]", "line 2: the tag"),
    "own-tag": ("a: !include /etc/passwd", "line 1: the tag '!include'"),
    "long-tag": ("a: !" + "x" * 100_000, "line 1: the tag"),
    "plain-tag": ("a: !!str 1", "line 1: the tag"),
    "binary": ("a: !!binary aGE=", "line 1: the tag"),
    "twice": ("MODEL:\n  A: 1\n  B: 2\n  A: 3\n", "line 4: the key 'A' for the second time"),
    "twice-at-the-top": ("A: 1\nA: 1\n", "line 2: the key 'A'"),
    "twice-in-a-list": ("a:\n- {b: 1, b: 2}", "line 2: the key 'b'"),
    "number-as-a-key": ("a:\n  1: 2\n", "line 2: a key of type int"),
    "list-as-a-key": ("? [1, 2]\n: 3\n", "line 1: a key of type seq"),
    "yes-as-a-key": ("yes: 1", "line 1: a key of type bool"),
    "list": ("- 1\n- 2\n", "expected a mapping of options, got list"),
    "text": ("Mask R-CNN", "expected a mapping of options, got str"),
    "empty": ("", "expected a mapping of options, got NoneType"),
    "only-a-comment": ("# nothing\n", "got NoneType"),
    "two-documents": ("a: 1\n---\nb: 2\n", "not YAML"),
    "deep-lists": ("a: " + "[" * 100_000, "line 1: more than 30 levels"),
    "deep-mappings": ("\n".join(" " * i + "a:" for i in range(999)), "line 31: more than 30"),
    "deep-keys": ("? " * 5000, "levels"),
    "many-values": ("a: [" + "1," * 30_000 + "]", "more than 20000 values"),
    "long-text": ("a: " + "x" * 20_000, "line 1: a string of over 10000 characters"),
    "too-large": ("# " + "x" * 1_000_000, "over 1000000 bytes"),
    "number-of-many-digits": ("a: " + "9" * 9_000, "invalid YAML value"),
    "month-13": ("a: 2026-13-01", "invalid YAML value"),
    "not-utf-8": (b"a: 1\nb: \xff\xfe\n", "line 2: bytes that are not UTF-8"),
    "utf-16": ("a: 1".encode("utf-16"), "line 1: bytes that are not UTF-8"),
    "control": ("a: 1\nb: \x00\x1b[2J\n", "not YAML"),
    "tab": ("a:\n\tb: 1\n", "line 2: not YAML"),
    "open-quote": ("a: 1\nb: 'x\n", "line 3: not YAML"),
    "unindented": ("a:\n    b: 1\n  c: 2\n", "line 3: not YAML"),
    "undefined-version": ("%YAML 9.9\n---\na: 1\n", "line 1: not YAML"),
    "pickle": (b"\x80\x04}.", "line 1: bytes that are not UTF-8"),
}


@pytest.mark.parametrize("kind", YAMLS)
def test_hostile_yaml_is_refused(kind: str, tmp_path: Path) -> None:
    path, canary = tmp_path / "config.yaml", tmp_path / "canary"
    content, says = YAMLS[kind]
    if isinstance(content, str):
        content = content.replace("{canary}", str(canary)).encode()
    path.write_bytes(content)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    with pytest.raises(UsageError) as caught:
        read_yaml(path)
    assert time.perf_counter() - started < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024 < 150
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert says in line
    assert line.isprintable()
    assert len(line) < 300 + len(str(path))
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["code-apply", "code-new", "code-key"])
def test_the_traps_work(kind: str, tmp_path: Path) -> None:
    """A canary that nothing can touch would prove nothing."""
    canary = tmp_path / "canary"
    text = str(YAMLS[kind][0]).replace("{canary}", str(canary))
    yaml.load(text, yaml.UnsafeLoader)
    assert canary.exists()


HOSTILE_VALUES = {
    "unhashable-key": '"{[1]: 2}"',
    "unhashable-member": '"{[]}"',
    "deep-literal": f'"{"[" * 400}{"]" * 400}"',
    "deep-signs": f'"{"-" * 900}1"',
    "huge": "1" + "0" * 400,
    "huge-in-hexadecimal": "0x" + "f" * 9_000,
    "huge-in-a-list": f"[[{10**400}], 0x{'f' * 9_000}]",
    "huge-literal": f'"0x{"f" * 900}"',
    "huge-float": "1.0e+308",
    "not-a-number": ".nan",
    "bytes": r'"b\"\\x00\""',
    "control": r'"a\nb\e[2J"',
    "date": "2026-01-01",
    "nothing": "~",
}


def _asked(settings: Settings, key: str) -> list[str]:
    """Every question about a value, and what is refused."""
    lines = []
    for ask in (
        settings.number, settings.count, settings.flag, settings.numbers,
        lambda key: settings.rows(key, 5), lambda key: settings.require(key, "this"),
    ):  # fmt: skip
        try:
            ask(key)
        except CheckpointError as error:
            lines.append(str(error))
    return lines


@pytest.mark.parametrize("kind", HOSTILE_VALUES)
def test_hostile_values_are_refused_when_asked_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        f"INPUT: {{MIN_SIZE_TEST: {HOSTILE_VALUES[kind]}}}\nODD: {HOSTILE_VALUES[kind]}\n"
    )
    lines = _asked(read_settings(path), "INPUT.MIN_SIZE_TEST")
    assert len(lines) >= 4
    for line in lines:
        assert line.startswith("config.yaml: INPUT.MIN_SIZE_TEST")
        assert line.isprintable()
        assert len(line) < 200


@pytest.mark.parametrize("kind", ["huge", "huge-in-hexadecimal", "control", "unhashable-key"])
def test_hostile_names_of_a_base(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"_BASE_: {HOSTILE_VALUES[kind]}\n")
    with pytest.raises(CheckpointError, match="_BASE_") as caught:
        read_settings(path)
    assert str(caught.value).isprintable()


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("create", [_folder, os.mkfifo, lambda _: None], ids=["folder", "pipe", ""])
def test_no_file_at_all(create: object, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    assert callable(create)
    create(path)
    with pytest.raises(UsageError, match="no such file"):
        read_yaml(path)


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(UsageError, match=r"cannot be opened|no such file"):
        read_yaml(Path("a\0b.yaml"))


def test_a_sound_one_is_read(tmp_path: Path) -> None:
    """Anchors, merges and nesting, as detectron2 and people write them."""
    path = tmp_path / "config.yaml"
    path.write_text(
        "MODEL:\n  SIZES: &id001\n  - - 32\n  - - 64\n  AGAIN: *id001\n"
        "  A: &a {X: 1, Y: 2.5}\n  B: {<<: *a, Y: null}\n_BASE_: ''\nTEXT: é\n",
        "utf-8",
    )
    sizes = [[32], [64]]
    model = {"SIZES": sizes, "AGAIN": sizes, "A": {"X": 1, "Y": 2.5}, "B": {"X": 1, "Y": None}}
    assert read_yaml(path) == {"MODEL": model, "_BASE_": "", "TEXT": "é"}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_mark_of_byte_order_and_any_line_end(end: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbfA: 1" + end + b"B: [2]" + end)
    assert read_yaml(path) == {"A": 1, "B": [2]}
