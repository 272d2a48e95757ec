"""NaN and infinity in pixels and in weights: an error that names them, or finite results."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from export.onnx_file import remove_checksum
from model.checkpoint import load
from model.errors import CheckpointError, ImageError
from model.files.stored_spec import header_of
from runtime.predictor import Predictor
from tests.reliability import tiny

NAN, INF = float("nan"), float("inf")
NOT_FINITE = (NAN, INF, -INF)


def test_floating_pixels_are_refused(predictor: Predictor) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        for value in NOT_FINITE:
            pixels = tiny.photo().astype(dtype)
            pixels[3, 4, 1] = value
            with pytest.raises(ImageError, match=r"expected an array as uint8 .* got float"):
                predictor.predict(pixels)
            picture = Image.fromarray(pixels[:, :, 1].astype(np.float32))
            with pytest.raises(ImageError, match="float32 pixels"):
                predictor.predict(picture)


WEIGHTS = (
    "body.conv1.weight",
    "body.bn1.running_var",
    "body.layer1.0.conv2.weight",
    "fpn.inner_blocks.0.0.bias",
    "rpn.head.cls_logits.weight",
    "box_head.trunk.fc6.weight",
    "box_head.cls_score.bias",
    "box_head.bbox_pred.weight",
    "mask_head.predictor.conv5_mask.weight",
)


def test_a_checkpoint_is_refused_by_the_tensors_name(
    tiny_weights: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    path, header = tmp_path / "w.safetensors", header_of(tiny.SPEC)
    for name, value in product(WEIGHTS, NOT_FINITE):
        with subtests.test(name, value=value):
            state = load_file(tiny_weights)
            state[name].view(-1)[0] = value
            save_file(state, path, header)
            with pytest.raises(CheckpointError, match=rf"tensor '{name}' holds NaN or Inf"):
                load(path)


def test_half_precision_that_overflows_is_refused(tiny_weights: Path, tmp_path: Path) -> None:
    state = {
        n: t.half() if t.is_floating_point() else t for n, t in load_file(tiny_weights).items()
    }
    state["box_head.cls_score.weight"] = (torch.ones(3, 8) * 1e6).half()
    path = tmp_path / "w.safetensors"
    save_file(state, path, header_of(tiny.SPEC))
    with pytest.raises(CheckpointError, match=r"'box_head\.cls_score\.weight' holds NaN or Inf"):
        load(path)


BIASES = (
    "body.conv1.weight",
    "rpn.head.cls_logits.bias",
    "rpn.head.bbox_pred.bias",
    "box_head.cls_score.bias",
    "box_head.bbox_pred.bias",
    "mask_head.predictor.conv5_mask.bias",
)


def test_a_graph_with_such_weights_gives_finite_results(
    tiny_onnx: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Only a deliberate edit makes such a file; its checksum would refuse it."""
    path = tmp_path / "edited.onnx"
    for name, value in product(BIASES, (*NOT_FINITE, 3e38)):
        with subtests.test(name, value=value):
            _write_edited(tiny_onnx, path, name, value)
            with Predictor.open(path, threads=1, on_uncertified="ignore") as predictor:
                detections = predictor.predict(tiny.photo())
            assert detections.mask_probs is not None
            for array in (detections.boxes, detections.scores, detections.mask_probs):
                assert np.isfinite(array).all()
            if name.startswith("mask_head") and np.isnan(value):
                assert (len(detections), detections.dropped) == (0, tiny.DETECTIONS)


def _write_edited(model_file: Path, path: Path, name: str, value: float) -> None:
    """The model with one initializer filled with the value."""
    model = remove_checksum(onnx.load(model_file))
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    values = np.full_like(onnx.numpy_helper.to_array(tensor), value)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, path)
