"""Impossible and contradictory options are refused before any file is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calib.calibration.work import count_kernels
from calib.cli import parser
from calib.options import QuantizeOptions
from calib.quantize import main
from model.errors import UsageError

CACHE = Path("c.cache")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "int4"}, "--format: expected one of int8, fp8, got 'int4'"),
        ({"float_type": "bf16"}, "--float-type: expected one of fp32, fp16, got 'bf16'"),
        ({"method": "kl"}, "--method: expected one of min-max.*got 'kl'"),
        ({"rounding": "up"}, "--rounding: expected one of gptq, nearest, got 'up'"),
        ({"preset": "foo"}, "--preset: expected one of accurate, balanced, fast, got 'foo'"),
        ({"method": "moving-average"}, "--method: expected one of min-max, percentile, entropy"),
        ({"budget": True}, "--budget: expected points of AP"),
        ({"budget": float("nan")}, "--budget: expected points of AP from 0 to 100, got nan"),
        ({"budget": -1.0}, "--budget: expected points of AP from 0 to 100, got -1.0"),
        ({"budget": "3"}, "--budget: expected points of AP from 0 to 100, got '3'"),
        ({"threads": 0}, "threads: expected a whole number from 1, got 0"),
        ({"threads": 99_999_999_999}, "threads: expected at most 1024, got 99999999999"),
        ({"reduce_range": True, "format": "fp8"}, "--reduce-range: only int8"),
        ({"import_cache": CACHE, "budget": 3.0}, "--import-cache: --budget needs photos"),
        ({"import_cache": CACHE, "table": CACHE}, "--import-cache: --table needs photos"),
        ({"import_cache": CACHE, "method": "entropy"}, "--import-cache: --method needs photos"),
    ],
)
def test_the_api_refuses_what_the_command_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        QuantizeOptions(**options)


def test_the_limits_are_accepted() -> None:
    QuantizeOptions(budget=100, threads=1024, import_cache=None)
    assert not QuantizeOptions(import_cache=CACHE).uses_gptq


@pytest.mark.parametrize(
    "more",
    [
        ("--method", "entropy"),
        ("--method", "mse"),
        ("--rounding", "gptq"),
        ("--rounding", "learned"),
        ("--budget", "3"),
    ],
)
def test_an_imported_cache_excludes_options_that_need_photos(
    more: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["m.onnx", "--import-cache", "c.cache", *more]) == 2
    assert f"error: --import-cache: {more[0]}" in capsys.readouterr().err


def test_an_imported_cache_allows_rounding_to_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["m.onnx", "--import-cache", "c.cache", "--rounding", "nearest"]) == 1
    assert "m.onnx: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("threads", [0, 1025])
def test_threads_have_a_bound(threads: int) -> None:
    with pytest.raises(UsageError, match="threads: "):
        count_kernels(Path("m.onnx"), threads)


@pytest.mark.parametrize("more", [("--equalise", "0.5"), ("--correct-bias",)])
def test_removed_options_are_named(
    more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["m.onnx", "photos", *more])
    assert stopped.value.code == 2
    assert f"error: {more[0]} was removed" in capsys.readouterr().err


def test_old_option_names_still_work() -> None:
    old = parser().parse_args(["m.onnx", "--rest", "fp16", "--qdq", "tensorrt"])
    new = parser().parse_args(["m.onnx", "--float-type", "fp16", "--qdq-placement", "tensorrt"])
    assert vars(old) == vars(new)
    assert parser().parse_args(["m.onnx", "--rounding", "learned"]).rounding == "gptq"
