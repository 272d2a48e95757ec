"""The parts of a build that need no library: progress, messages, precision."""

from __future__ import annotations

import io

import pytest

from export.builders.builder import check_precision
from export.builders.inspection import check_engine_precision, datatypes
from export.builders.messages import Messages
from export.builders.progress import BuildProgress
from model.errors import EngineBuildError


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _run_phases(progress: BuildProgress) -> list[float]:
    """Two steps, the first of which has four of its own."""
    fractions = []
    progress.phase_start("all", None, 2)
    progress.phase_start("part", "all", 4)
    for step in range(4):
        assert progress.step_complete("part", step)
        fractions.append(progress.fraction())
    progress.phase_finish("part")
    for step in range(2):
        progress.step_complete("all", step)
        fractions.append(progress.fraction())
    progress.phase_finish("all")
    return fractions


def test_nested_phases_make_one_fraction() -> None:
    fractions = _run_phases(BuildProgress("sm89", io.StringIO()))
    assert fractions == [0.125, 0.25, 0.375, 0.5, 0.5, 1.0]


def test_plain_lines_and_a_bar() -> None:
    plain, terminal = io.StringIO(), _Terminal()
    for stream in (plain, terminal):
        progress = BuildProgress("sm89", stream)
        _run_phases(progress)
        progress.end(done=True)
    lines = plain.getvalue().splitlines()
    assert lines[:2] == ["sm89 25 %", "sm89 50 %"]
    assert lines[-1].endswith(" s")
    assert "\r" not in plain.getvalue()
    assert "█" in terminal.getvalue()


def test_a_cancelled_build_stops_the_library() -> None:
    progress = BuildProgress("sm89", io.StringIO())
    progress.phase_start("all", None, 2)
    assert progress.step_complete("all", 0)
    progress.cancelled = True
    assert not progress.step_complete("all", 1)


def test_a_step_of_an_unknown_phase() -> None:
    progress = BuildProgress("sm89", io.StringIO())
    assert progress.step_complete("unheard of", 3)
    assert progress.fraction() == 0


@pytest.mark.parametrize(
    ("precision", "layers", "quantize", "message"),
    [
        ("fp32", {"float32": 80}, 0, None),
        ("fp32", {"float32": 80, "float16": 1}, 0, "expected every convolution in float32"),
        ("fp32", {"float32": 80}, 4, "and 4 Q nodes"),
        ("fp16", {"float16": 70, "float32": 10}, 0, None),
        ("fp16", {"float32": 80}, 0, "expected most convolutions in float16, got 80 float32"),
        ("bf16", {"float16": 80}, 0, "expected most convolutions in bfloat16"),
        ("int8+fp16", {"float16": 80}, 90, None),
        ("int8", {"float32": 80}, 0, "has no Q nodes"),
    ],
)
def test_precision_of_a_parsed_network(
    precision: str, layers: dict[str, int], quantize: int, message: str | None
) -> None:
    if message is None:
        check_precision(precision, layers, quantize)
        return
    with pytest.raises(EngineBuildError, match=message):
        check_precision(precision, layers, quantize)


_INSPECTED = (
    '{"Layers": [{"Outputs": [{"Format/Datatype": "Channel major FP16 format where channel % 4"}]},'
    ' {"Outputs": [{"Format/Datatype": "Row major linear FP32"}, {"Format/Datatype": "Float"}]},'
    ' {"Outputs": [{"Format/Datatype": "Int8 NC/32HW32 format"}]}, {"Name": "FP16 in a name"}]}'
)


def test_types_from_the_inspector() -> None:
    assert datatypes(_INSPECTED) == {"float16": 1, "float32": 2, "int8": 1}
    assert datatypes("{}") == {}


@pytest.mark.parametrize(
    ("precision", "types", "matches"),
    [
        ("fp32", {"float32": 300, "float16": 60}, True),
        ("fp32", {"float32": 100, "float16": 260}, False),
        ("fp16", {"float32": 300}, False),
        ("fp16", {"float32": 100, "float16": 200}, True),
        ("int8+fp16", {"int8": 100, "float16": 200}, True),
        ("int8", {"float16": 200}, False),
        ("int8", {}, True),
    ],
)
def test_precision_of_a_built_engine(precision: str, types: dict[str, int], matches: bool) -> None:
    if matches:
        check_engine_precision(precision, types)
        return
    with pytest.raises(EngineBuildError, match="the built engine computes in"):
        check_engine_precision(precision, types)


def test_messages_are_recorded_once() -> None:
    messages = Messages()
    for _ in range(3):
        messages.add("a  warning", is_error=False)
        messages.add("an error", is_error=True)
    assert messages.warnings == ["a warning"]
    assert str(messages.failure("where")) == "where: an error"
    assert "gave no reason" in str(Messages().failure("where"))
