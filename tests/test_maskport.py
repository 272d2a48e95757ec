"""The Python API: `import maskport` gives each name lazily, and README's program runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import maskport

ROOT = Path(__file__).resolve().parents[1]


def test_every_name_is_the_function_or_class_of_its_module() -> None:
    from calib.quantize import quantize
    from export.engine import build_engine
    from export.onnx import export_onnx
    from model.checkpoint import load
    from runtime.detections import Detections
    from runtime.evaluate import evaluate
    from runtime.predictor import Predictor

    assert {name: getattr(maskport, name) for name in maskport.__all__} == {
        "Detections": Detections,
        "Predictor": Predictor,
        "build_engine": build_engine,
        "evaluate": evaluate,
        "export_onnx": export_onnx,
        "load_checkpoint": load,
        "quantize": quantize,
    }
    assert set(maskport.__all__) <= set(dir(maskport))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'predictor'"):
        maskport.predictor  # noqa: B018


def test_import_loads_no_third_party_module() -> None:
    code = (
        "import sys; before = set(sys.modules); import maskport; "
        "heads = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(*sorted(heads - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["maskport"]


def test_the_readme_program_runs(
    tmp_path: Path, demo_onnx: Path, demo_photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but the export, which `demo_onnx` stands for: it takes the longest."""
    text = (ROOT / "README.md").read_text("utf-8")
    program = next(b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "maskport" in b)
    export = 'maskport.export_onnx("weights.pth", "model.onnx")'
    assert export in program
    monkeypatch.chdir(tmp_path)
    shutil.copy(demo_onnx, "model.onnx")
    shutil.copy(demo_photo, "photo.jpg")
    namespace: dict[str, object] = {"photos": ["photo.jpg"]}
    exec(compile(program.replace(export, "pass"), "README.md", "exec"), namespace)
    assert Path("overlay.png").stat().st_size > 10_000
    assert len(namespace["detections"]) > 0  # type: ignore[arg-type]
