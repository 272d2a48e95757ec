"""Files of live models against the module itself, and the commands' `--model`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import nn

import maskport
from export.convert import convert
from export.engine import build_engine
from export.inspect import main as inspect_main
from export.onnx import export_onnx
from export.onnx import main as export_main
from export.tracing import GraphShape
from model.errors import ModelError, UsageError
from model.live.builder import Builder
from model.live.read import read_live
from runtime.cli.console import DONE
from runtime.predictor import Predictor
from tests.live_models import photos_of, verdict_of
from tests.live_variants import VARIANTS, built

CODE = """
from tests.live_variants import built

def make(name="defaults", fail=False):
    if fail:
        raise ValueError("no such data")
    return built(name)

def nothing():
    return None

def leave():
    raise SystemExit(0)

number = 3
"""
# The canvases of `native`, where it is not 128x160.
CANVASES: dict[str, tuple[int, int] | None] = {"fixed size": None, "size divisor": (128, 192)}


def _check(model: nn.Module, path: Path, batches: Iterable[int]) -> None:
    with Predictor.open(path, on_uncertified="ignore") as predictor:
        photos = photos_of(predictor.spec.preprocess.channels)
        canvas_hw = predictor.artifact.manifest.canvas_hw
        for batch in batches:
            for start in range(0, len(photos), batch):
                part = photos[start : start + batch]
                results = predictor.predict(part, batch_size=batch)
                verdict = verdict_of(model, part, results, canvas_hw)
                assert verdict.passed, "\n".join(map(str, [verdict, *verdict.excesses]))


def test_a_file_of_kept_parts(tmp_path: Path) -> None:
    model = built("one map")
    report = maskport.export_onnx(model, tmp_path / "model.onnx")
    assert report.checkpoint.assumptions == ()
    assert report.check is not None  # the module itself against the file


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    model = built(name)
    export_onnx(model, tmp_path / "model.onnx", check_photo=None)
    _check(model, tmp_path / "model.onnx", (1, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_in_the_native_lowering(name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    model = built(name)
    height, width = CANVASES.get(name, (128, 160)) or (None, None)
    shape = GraphShape(batch=1, height=height, width=width)
    path = tmp_path / "model.rtx.onnx"
    export_onnx(model, path, shape=shape, target="tensorrt-rtx", check_photo=None)
    _check(model, path, (1,))
    assert build_engine(path, tmp_path, ["sm89"])[0].path.is_file()


def _code(folder: Path, weights: nn.Module | None = None) -> tuple[str, Path]:
    code = folder / "user_code.py"
    code.write_text(CODE, "utf-8")
    path = folder / "weights.pth"
    torch.save((weights or built("defaults")).state_dict(), path)
    return f"{code}:make", path


def test_the_code_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, weights = _code(tmp_path)
    assert inspect_main([str(weights), "--model", code]) == DONE
    text = capsys.readouterr().out
    assert "maskrcnn_resnet_10_narrow_fpn · 2 classes" in text
    assert "assumed" not in text
    assert f"export {weights} --model {code}" in text.replace("-m export.onnx", "export")
    # Another spec than the weights alone would give.
    arguments = '{"name": "dilated"}'
    assert inspect_main([str(weights), "--model", code, "--model-args", arguments]) == DONE
    assert "dilations 1/1/1/2" in capsys.readouterr().out


def test_torchvisions_builder_downloads_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code = "torchvision.models.detection:fasterrcnn_mobilenet_v3_large_320_fpn"
    assert inspect_main(["--model", code, "--model-args", '{"num_classes": 3}']) == DONE
    text = capsys.readouterr().out
    assert "short_side 320" in text
    assert "score_threshold 0.05" in text


def test_code_that_gives_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    code, weights = _code(tmp_path)
    file = code.removesuffix(":make")
    rows = (
        ("make", [], 2, "--model make: expected package.module:name"),
        (code, ["--model-args", "[1]"], 2, "--model-args: expected a JSON object"),
        (code, ["--model-args", "{"], 2, "--model-args: not valid JSON"),
        (code, ["--config", str(weights)], 2, "a live model has its own values"),
        (f"{file}:mkae", [], 1, "has no function 'mkae' (closest name: 'make')"),
        (f"{file}:number", [], 1, "has no function 'number'"),
        (f"{file}:nothing", [], 1, "returns NoneType; expected a torch.nn.Module"),
        (f"{file}:leave", [], 1, "SystemExit: 0"),
        (code, ["--model-args", '{"fail": true}'], 1, "ValueError: no such data"),
        (code, ["--model-args", '{"size": 1}'], 1, "unexpected keyword argument 'size'"),
        (f"{tmp_path / 'no.py'}:make", [], 1, "no such file; expected the code"),
        ("no_such_package:make", [], 1, "importing 'no_such_package' fails"),
        ("model.mask_rcnn:MaskRCNN", [], 1, "'model' is a package of maskport; pass the file"),
        (code, ["--model-args", '{"name": "keypoints"}'], 1, "do not fit the model"),
    )
    for reference, more, status, message in rows:
        with subtests.test(message):
            argv = [str(weights), "--model", reference, *more, "-o", str(tmp_path / "a.onnx")]
            assert export_main(argv) == status
            assert message in capsys.readouterr().err
    assert not (tmp_path / "a.onnx").exists()


def test_weights_in_wrappings(tmp_path: Path, subtests: pytest.Subtests) -> None:
    code, path = _code(tmp_path)
    weights = built("defaults").state_dict()
    head = "rpn.head.cls_logits.weight"
    rows: dict[str, dict[str, object]] = {
        "averaged by torch": {"n_averaged": torch.tensor(1)}
        | {f"module.{name}": tensor for name, tensor in weights.items()},
        "a compiled part": {
            name.replace("backbone.", "backbone._orig_mod.", 1): tensor
            for name, tensor in weights.items()
        },
        "a compiled model in a training": {
            "state_dict": {f"detector._orig_mod.{n}": t for n, t in weights.items()}
        },
    }
    for name, content in rows.items():
        with subtests.test(name):
            torch.save(content, path)
            live = Builder.parse(code, None).load(path)
            assert torch.equal(live.reference.state_dict()[head], weights[head])


@pytest.mark.parametrize("prefix", ["model.", "module.detector."])
def test_weights_under_a_prefix(prefix: str, tmp_path: Path) -> None:
    code, weights = _code(tmp_path)
    state = {f"{prefix}{n}": t for n, t in built("defaults").state_dict().items()}
    torch.save({"state_dict": {**state, "metric.total": torch.zeros(1)}}, weights)
    live = Builder.parse(code, None).load(weights)
    assert torch.equal(
        live.reference.state_dict()["rpn.head.cls_logits.weight"],
        state[f"{prefix}rpn.head.cls_logits.weight"],
    )


def test_options_that_a_module_does_not_have(tmp_path: Path) -> None:
    model = built("fixed size")
    with pytest.raises(UsageError, match="resizes every photo to 128x96; use at least 128x96"):
        export_onnx(model, tmp_path / "a.onnx", shape=GraphShape(height=96, width=96))
    with pytest.raises(UsageError, match=r"shape: .* has its own"):
        build_engine(tmp_path / "a.onnx", shape=GraphShape(height=96, width=96))
    with pytest.raises(UsageError, match="backend onnxruntime: a live module runs in 'torch'"):
        Predictor.open(model, backend="onnxruntime")
    with pytest.raises(UsageError, match=r"expected the path of a file or a torch\.nn"):
        Predictor.open({"a": 1})  # type: ignore[arg-type]
    live = read_live(built("RPN head"))
    with pytest.raises(ModelError, match=r"a spec cannot describe its parts rpn\.head"):
        convert(live, tmp_path / "a.safetensors")
