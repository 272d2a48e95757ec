"""Configurations that are more than plain data: one line with a line number, nothing executed."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import CheckpointError, UsageError
from model.families.detectron2.settings import Settings, read_settings
from model.files.yaml_config import YamlLimits, _Size, read_yaml

yaml = pytest.importorskip("yaml", reason="PyYAML is of the extra 'export'")

LIMITS = YamlLimits(file_bytes=100, values=8, levels=4, characters=10)
# One step beyond each limit, and what the error must contain.
BEYOND = {
    "bytes": ("# " + "x" * 99, "over 100 bytes"),
    "values": ("a: [1, 2, 3, 4, 5, 6]", "line 1: more than 8 values"),
    "repeated values": ("a: &a [1, 2]\nb: *a", "line 2: more than 8 values, repeated ones"),
    "merged values": ("a: &a {b: 1}\nc: {<<: *a}", "line 2: more than 8 values, repeated ones"),
    "lists": ("a: [[[[]]]]", "line 1: more than 4 levels"),
    "mappings": ("a:\n- b:\n  - {}", "line 3: more than 4 levels"),
    "characters": ("a: " + "x" * 11, "line 1: a string of over 10 characters"),
}
WITHIN = ("# " + "x" * 98, "a: [1, 2, 3, 4, 5]", "a: &a [1]\nb: *a", "a: [[[]]]", "a: " + "x" * 10)
# Tags would make objects in a loader that is not safe; here of types that do nothing.
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "call": (
        "a: 1\nb: !!python/object/apply:datetime.date [2000, 1, 1]",
        "line 2: the tag 'tag:yaml.org,2002:python/object/apply:datetime.date'",
    ),
    "new object": ("b: !!python/object/new:fractions.Fraction [1]", "line 1: the tag"),
    "name": ("a: !!python/name:datetime.date ''", "line 1: the tag"),
    "key": ("!!python/object/apply:datetime.date [2000, 1, 1]: 1", "line 1: the tag"),
    "module": ("a: !!python/module:datetime ''", "line 1: the tag"),
    "tuple": ("a:\n- !!python/tuple [1, 2]", "line 2: the tag"),
    "own tag": ("a: !mine 1", "line 1: the tag '!mine'"),
    "long tag": ("a: !" + "x" * 100, "line 1: the tag"),
    "plain tag": ("a: !!str 1", "line 1: the tag"),
    "alias of nothing": ("a: 1\nb: *c\n", "line 2: an alias of 'c'"),
    "twice": ("MODEL:\n  A: 1\n  B: 2\n  A: 3\n", "line 4: the key 'A' for the second time"),
    "twice at the top": ("A: 1\nA: 1\n", "line 2: the key 'A'"),
    "twice in a list": ("a:\n- {b: 1, b: 2}", "line 2: the key 'b'"),
    "number as a key": ("a:\n  1: 2\n", "line 2: a key of type int"),
    "list as a key": ("? [1, 2]\n: 3\n", "line 1: a key of type seq"),
    "yes as a key": ("yes: 1", "line 1: a key of type bool"),
    "list": ("- 1\n- 2\n", "expected a mapping of options, got list"),
    "text": ("Mask R-CNN", "expected a mapping of options, got str"),
    "only a comment": ("# nothing\n", "got NoneType"),
    "two documents": ("a: 1\n---\nb: 2\n", "not YAML"),
    "number of many digits": ("a: " + "9" * 4301, "invalid YAML value"),
    "month 13": ("a: 2026-13-01", "invalid YAML value"),
    "not UTF-8": (b"a: 1\nb: \xff\xfe\n", "line 2: bytes that are not UTF-8"),
    "UTF-16": ("a: 1".encode("utf-16"), "line 1: bytes that are not UTF-8"),
    "zero byte": ("a: 1\nb: \x00\n", "not YAML"),
    "tab": ("a:\n\tb: 1\n", "line 2: not YAML"),
    "open quote": ("a: 1\nb: 'x\n", "line 3: not YAML"),
    "unindented": ("a:\n    b: 1\n  c: 2\n", "line 3: not YAML"),
    "undefined version": ("%YAML 9.9\n---\na: 1\n", "line 1: not YAML"),
}


def _refusal(path: Path, content: str | bytes, limits: YamlLimits) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UsageError) as caught:
        read_yaml(path, limits)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert line.isprintable()
    assert len(line) < 300 + len(str(path))
    return line


def test_one_step_beyond_a_limit_is_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    path = tmp_path / "config.yaml"

    for name, (content, message) in BEYOND.items():
        with subtests.test(name):
            assert message in _refusal(path, content, LIMITS)
    for content in WITHIN[1:]:
        path.write_text(content)
        read_yaml(path, LIMITS)
    assert "NoneType" in _refusal(path, WITHIN[0], LIMITS)


def test_what_is_not_plain_data_is_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name, (content, message) in REFUSED.items():
        with subtests.test(name):
            assert message in _refusal(tmp_path / "config.yaml", content, YamlLimits())


def test_an_alias_needs_a_complete_value() -> None:
    size = _Size(LIMITS)
    size.open("a")
    assert not size.repeat("a")
    size.close()
    assert size.repeat("a")


# Values that Python reads and that no setting may have.
ODD_VALUES = {
    "list as a key": '"{[1]: 2}"',
    "list in a set": '"{[]}"',
    "literal of another type": '"{1: 2}"',
    "huge": "1" + "0" * 400,
    "huge in hexadecimal": "0x" + "f" * 400,
    "huge in a list": f"[[{10**400}], 0x{'f' * 400}]",
    "huge float": "1.0e+308",
    "not a number": ".nan",
    "bytes": r'"b\"\\x00\""',
    "control character": r'"a\nb\x01"',
    "date": "2026-01-01",
    "nothing": "~",
}


def _messages(settings: Settings, key: str) -> list[str]:
    """The errors of all methods that read a value."""
    lines = []
    for read in (
        settings.number, settings.count, settings.flag, settings.numbers,
        lambda key: settings.rows(key, 5), lambda key: settings.require(key, "this"),
    ):  # fmt: skip
        try:
            read(key)
        except CheckpointError as error:
            lines.append(str(error))
    return lines


def test_odd_values_are_refused_where_they_are_read(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    path = tmp_path / "config.yaml"

    for name, value in ODD_VALUES.items():
        with subtests.test(name):
            path.write_text(f"INPUT: {{MIN_SIZE_TEST: {value}}}\nODD: {value}\n")
            lines = _messages(read_settings(path), "INPUT.MIN_SIZE_TEST")
            assert len(lines) >= 4
            for line in lines:
                assert line.startswith("config.yaml: INPUT.MIN_SIZE_TEST")
                assert line.isprintable()
                assert len(line) < 200


def test_only_short_literals_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for text, is_read in (("7" + " " * 999, True), ("7" + " " * 1000, False)):
        path.write_text(f'INPUT: {{MIN_SIZE_TEST: "{text}"}}\n')
        assert (read_settings(path)["INPUT.MIN_SIZE_TEST"] == 7) == is_read


@pytest.mark.parametrize("error", [SyntaxError, ValueError, MemoryError, RecursionError, TypeError])
def test_a_text_that_is_no_literal_stays_a_text(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise error

    monkeypatch.setattr("model.families.detectron2.settings.ast.literal_eval", fail)
    path = tmp_path / "config.yaml"
    path.write_text("INPUT: {FORMAT: BGR}\n")
    assert read_settings(path)["INPUT.FORMAT"] == "BGR"


def test_odd_names_of_a_base_are_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    path = tmp_path / "config.yaml"

    names = ("huge", "huge in hexadecimal", "control character", "list as a key")
    for name in names:
        with subtests.test(name):
            path.write_text(f"_BASE_: {ODD_VALUES[name]}\n")
            with pytest.raises(CheckpointError, match="_BASE_") as caught:
                read_settings(path)
            assert str(caught.value).isprintable()


def test_bases_are_limited(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.yaml").write_text(f"_BASE_: {number + 1}.yaml\nSEED: {number}\n")
    (tmp_path / "4.yaml").write_text("INPUT: {MIN_SIZE_TEST: 320}\n")
    assert read_settings(tmp_path / "1.yaml")["INPUT.MIN_SIZE_TEST"] == 320
    with pytest.raises(CheckpointError, match="more than 4 files"):
        read_settings(tmp_path / "0.yaml")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing", Path("/dev/null")):
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
def test_a_byte_order_mark_and_any_line_end(end: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbfA: 1" + end + b"B: [2]" + end)
    assert read_yaml(path) == {"A": 1, "B": [2]}
