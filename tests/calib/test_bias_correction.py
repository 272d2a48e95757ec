"""Corrected biases in written graphs; what they restore is in `test_rounding.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from calib import learned_rounding
from calib.job import Job, prepare
from calib.layers import constant
from calib.options import QuantizeOptions
from export.onnx_file import read_onnx
from model.errors import UsageError

OPTIONS = QuantizeOptions(rounding="nearest", preset="fast", correct_bias=True, threads=1)


def _job(file: Path, table: Path, scenes: list[Path], options: QuantizeOptions) -> Job:
    return prepare(read_onnx(file), file, table, scenes, options, lambda _: None)


def _biases(graph: ir.Graph) -> dict[str, np.ndarray]:
    """Of every layer that has one, as floats, by the layer's node."""
    found = {}
    for node in graph:
        bias = node.inputs[2] if node.op_type in ("Conv", "Gemm") and len(node.inputs) > 2 else None
        if bias is None:
            continue
        restore = bias.producer()
        if restore is None:
            found[str(node.name)] = constant(bias)
        else:
            codes, scales = (constant(restore.inputs[i]) for i in (0, 1))  # type: ignore[arg-type]
            found[str(node.name)] = codes * scales
    return found


@pytest.mark.parametrize("writer", ["tensorrt", "onnxruntime"])
def test_biases_of_quantised_layers_alone_are_corrected(
    writer: str, demo_onnx: Path, standard_table: Path, scenes: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(learned_rounding, "PHOTOS", 2)
    job = _job(demo_onnx, standard_table, scenes, replace(OPTIONS, writer=writer))
    levels = [str(one.node.name) for one in job.layers if one.role == "rpn"][:1]
    body = [str(one.node.name) for one in job.layers if one.role == "body"][:3]
    plain = _biases(job.model.graph)
    model, _ = job.quantised({*levels, *body})
    written = _biases(model.graph)
    assert set(written) == set(plain)
    # The RPN's other levels share weights and bias with the first, and stay in floating point.
    changed = {name for name, bias in written.items() if np.abs(bias - plain[name]).max() > 1e-4}
    assert changed == {*levels, *body}
    assert "corrected-bias" in model.metadata_props["maskport.quantisation"]
    uncorrected = replace(job, shift=None).quantised({*levels, *body})[0]
    same = _biases(uncorrected.graph)
    assert all(np.abs(same[name] - plain[name]).max() < 1e-4 for name in plain)


def test_it_is_for_int8_from_photos(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--correct-bias: it is for int8"):
        QuantizeOptions(format="fp8", correct_bias=True)
    with pytest.raises(UsageError, match="--correct-bias needs photos"):
        QuantizeOptions(import_cache=tmp_path / "c.cache", correct_bias=True)
