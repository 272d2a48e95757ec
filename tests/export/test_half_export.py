"""`--precision`: the written file, its checks, refusals, and engines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from export import tracing
from export.cli_graph_options import checked_opset
from export.onnx import export_onnx, main
from export.onnx_file import remove_checksum
from export.onnx_report import ExportReport
from export.precision.session import EmulatedSession
from export.tracing import GraphShape
from model.checkpoint import SpecOptions
from model.errors import ArtifactError, EngineBuildError, ExportError, UsageError
from runtime.predictor import Predictor
from tests.conftest import DEMO
from tests.planted_overflow import scaled

WEIGHTS = DEMO / "shapes.pth"
NAMES = tuple((DEMO / "shapes.names").read_text("utf-8").split())
OPTIONS = SpecOptions(short_side=320, long_side=533, names=NAMES)
Export = Callable[..., ExportReport]


@pytest.fixture
def export(demo_onnx: Path, demo_rtx_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """`export_onnx` of the demo, with the session's float32 files in place of a trace."""

    def run(
        output: Path,
        precision: str,
        lowering: str = "standard",
        change: Callable[[ir.Model], object] | None = None,
        check: bool = True,
    ) -> ExportReport:
        is_native = lowering == "native"

        def trace(*_: object) -> ir.Model:
            model = ir.load(demo_rtx_onnx if is_native else demo_onnx)
            if change is not None:
                change(model)
            return model

        monkeypatch.setattr(tracing, "trace", trace)
        shape = GraphShape(height=320, width=448, batch_range=(1, 2, 3)) if is_native else None
        more = {} if check else {"check_photo": None}
        target = "tensorrt-rtx" if is_native else "onnxruntime"
        return export_onnx(
            WEIGHTS, output, OPTIONS, shape, target=target, precision=precision, **more
        )

    return run


@pytest.mark.parametrize(
    ("precision", "lowering"),
    [
        ("fp16", "native"),
        ("bf16", "standard"),
        pytest.param("fp16", "standard", marks=pytest.mark.slow),
        pytest.param("bf16", "native", marks=pytest.mark.slow),
    ],
)
def test_a_file_in_half_precision(
    export: Export,
    precision: str,
    lowering: str,
    tmp_path: Path,
    demo_onnx: Path,
    demo_rtx_onnx: Path,
) -> None:
    path = tmp_path / "half.onnx"
    report = export(path, precision, lowering)
    assert report.check is not None
    assert report.half is not None
    assert report.half_check is not None
    assert report.check.verdict.passed
    verdict = report.half_check.verdict
    assert (verdict.rows, verdict.limits.name) == (20, precision)
    assert verdict.reproduced >= (20 if precision == "fp16" else 17)
    assert report.half_check.ranges.overflowed == ()
    assert len(report.half_check.ranges.tensors) > 50
    before = (demo_onnx if lowering == "standard" else demo_rtx_onnx).stat().st_size
    assert path.stat().st_size < 0.7 * before
    session = EmulatedSession(path)
    assert session.artifact.manifest.precision == precision
    types = {v.type.tensor_type.elem_type for v in onnx.load(path).graph.output}
    assert types == {onnx.TensorProto.FLOAT, onnx.TensorProto.INT32}
    if precision == "bf16":
        with pytest.raises(ArtifactError, match=r"cannot open it .*NOT_IMPLEMENTED"):
            Predictor.open(path)


def test_a_planted_overflow_is_reported_with_its_tensor(export: Export, tmp_path: Path) -> None:
    path, names = tmp_path / "half.onnx", []
    with pytest.raises(
        ExportError,
        match=r"FP16 overflows on shapes.jpg: '\w+' \(body, Conv\) reaches .* and \d+ tensors "
        "after it, the limit is 65504; export with --precision fp32 or bf16",
    ) as caught:
        export(path, "fp16", change=scaled(2.0**15, names))
    assert f"'{names[0]}'" in str(caught.value)
    assert not list(tmp_path.iterdir())
    report = export(path, "bf16", change=scaled(2.0**15, names))
    assert report.half_check is not None
    assert report.half_check.verdict.passed


def test_a_broken_half_file_is_not_left_behind(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export.precision import formats

    exact = formats.round_weight

    def wrong(name: str, values: np.ndarray, half: formats.HalfFormat) -> object:
        return exact(name, values[::-1] if "fc7" in name else values, half)

    monkeypatch.setattr("export.passes.half_precision.round_weight", wrong)
    with pytest.raises(ExportError, match="in FP16 differs from the eager model beyond the limits"):
        export(tmp_path / "half.onnx", "fp16")
    assert not list(tmp_path.iterdir())


def test_without_a_check_nothing_is_run(export: Export, tmp_path: Path) -> None:
    report = export(tmp_path / "half.onnx", "fp16", check=False)
    assert (report.check, report.half_check) == (None, None)
    assert report.half is not None
    assert "FP16: 97 layers in half precision, 20 casts" in str(report.half)


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main([str(WEIGHTS), "-o", str(tmp_path / "a.onnx"), "--precision", "int4"])
    assert status == 2
    assert "--precision: expected one of fp32, fp16, bf16, got 'int4'" in capsys.readouterr().err


def test_bfloat16_needs_opset_22(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [str(WEIGHTS), "-o", str(tmp_path / "a.onnx"), "--precision", "bf16"]
    assert main([*argv, "--opset", "18"]) == 2
    assert "--precision bf16 needs opset 22" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert checked_opset(22, "bf16") == checked_opset(None, "bf16") == checked_opset(None) == 18
    with pytest.raises(UsageError, match="--opset: expected one of 18"):
        checked_opset(22, "fp16")


@pytest.fixture
def half_rtx(export: Export, tmp_path: Path) -> Callable[[str], Path]:
    def make(precision: str) -> Path:
        path = tmp_path / f"shapes.{precision}.rtx.onnx"
        export(path, precision, "native", check=False)
        return path

    return make


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_tensorrt_rtx_compiles_it(
    half_rtx: Callable[[str], Path], precision: str, dtype: str
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    from export.engine import build_engine

    architectures = ["sm86", "sm120"] if precision == "fp16" else ["sm89"]
    reports = build_engine(half_rtx(precision), gpu=architectures)
    assert [report.info.architecture for report in reports] == architectures
    for report in reports:
        assert report.info.layer_types[dtype] > 40
        assert {tensor.dtype for tensor in report.info.tensors} == {"float32", "int32"}


def test_a_precision_that_the_graph_does_not_have(half_rtx: Callable[[str], Path]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    from export.engine import build_engine

    path = half_rtx("fp16")
    for precision, message in (
        ("fp32", r"fp32: expected every convolution in float32, got \d+ float16"),
        ("bf16", r"bf16: expected most convolutions in bfloat16, got \d+ float16"),
    ):
        model = remove_checksum(onnx.load(path))
        for entry in model.metadata_props:
            if entry.key == "maskport.manifest":
                entry.value = json.dumps({**json.loads(entry.value), "precision": precision})
        wrong = path.with_name(f"{precision}.rtx.onnx")
        onnx.save(model, wrong)
        with pytest.raises(EngineBuildError, match=message):
            build_engine(wrong, gpu=["sm89"])
