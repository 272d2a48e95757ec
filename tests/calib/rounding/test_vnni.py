"""Saturation of int8 sums on this CPU, and 7-bit weights that avoid it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calib import context
from calib.quantize import main
from calib.rounding.vnni import int8_accumulation_saturates


def _vnni() -> bool | None:
    """Whether an x86 CPU has VNNI, by its flags; None elsewhere."""
    file = Path("/proc/cpuinfo")
    flags = file.read_text("utf-8") if file.is_file() else ""
    if "avx2" not in flags:
        return None
    return any(name in flags for name in ("avx512_vnni", "avx_vnni"))


def test_the_result_matches_the_cpu_flags() -> None:
    known = _vnni()
    if known is None:
        pytest.skip("not an x86 CPU with AVX2")
    assert int8_accumulation_saturates() is not known


def _codes(path: Path) -> list[np.ndarray]:
    """The int8 weights of a file."""
    arrays = [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]
    return [codes for codes in arrays if codes.dtype == np.int8 and codes.ndim >= 2]


@pytest.fixture
def table(standard_table: Path, tmp_path: Path) -> Path:
    """A copy of the scenes' table."""
    return Path(shutil.copy(standard_table, tmp_path / "t.json"))


@pytest.mark.parametrize(
    ("option", "levels", "rounding"),
    [
        ("yes", 64, "nearest"),
        ("no", 127, "nearest"),
        pytest.param("yes", 64, "gptq", marks=pytest.mark.slow),
        pytest.param("no", 127, "gptq", marks=pytest.mark.slow),
    ],
)
def test_codes_of_weights_stay_within_their_bits(
    option: str, levels: int, rounding: str, demo_onnx: Path, table: Path, scenes: list[Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    output = tmp_path / "q.onnx"
    arguments = [str(demo_onnx), *map(str, scenes[:6]), "-o", str(output), "--preset", "fast"]
    run = [
        "--table",
        str(table),
        "--run-dir",
        str(tmp_path / "run"),
        "--reduce-range",
        option,
        "--rounding",
        rounding,
    ]
    assert main([*arguments, *run]) == 0
    codes = _codes(output)
    assert len(codes) > 20
    largest = max(int(np.abs(one.astype(np.int32)).max()) for one in codes)
    assert largest == levels
    document = json.loads((tmp_path / "run" / "quantize.json").read_text("utf-8"))
    assert document["reduced_range"] is (option == "yes")
    assert document["options"]["preset"] == "fast"
    assert document["options"]["rounding"] == rounding
    assert document["options"]["table"] == table.name, "the name, not the path"
    assert document["model_sha256"] == hashlib.sha256(demo_onnx.read_bytes()).hexdigest()
    assert len(document["layers_in_8_bits"]) == document["layers"] >= len(codes) > 0
    # Two products of the largest codes fit 16 bits, or do not.
    assert (2 * 255 * largest <= 2**15 - 1) is (option == "yes")


@pytest.mark.parametrize("saturates", [True, False])
def test_auto_depends_on_this_cpu_and_the_writer(
    saturates: bool, demo_onnx: Path, table: Path, scenes: list[Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(context, "int8_accumulation_saturates", lambda: saturates)
    for writer, reduced in (("onnxruntime", saturates), ("tensorrt", False)):
        output = tmp_path / f"{writer}.onnx"
        photos = [*map(str, scenes[:6])]
        options = ["--qdq-placement", writer, "--rounding", "nearest", "--table", str(table)]
        assert main([str(demo_onnx), *photos, "-o", str(output), *options]) == 0
        largest = max(int(np.abs(one.astype(np.int32)).max()) for one in _codes(output))
        assert largest == (64 if reduced else 127)
        assert ("7 bits" in capsys.readouterr().out) is reduced


def test_fp8_has_no_range_to_reduce(
    demo_onnx: Path, scenes: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [*map(str, scenes[:6])]
    assert main([str(demo_onnx), *photos, "--format", "fp8", "--reduce-range", "yes"]) == 2
    assert "--reduce-range: only int8" in capsys.readouterr().err
