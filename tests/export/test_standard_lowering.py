"""The `standard` lowering in ONNX Runtime against the operators' eager bodies."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from export.lowering.standard import translations
from model.float32 import largest_float32_not_above
from model.ops import RoIPooler
from model.spec import PoolerSpec
from tests.model.test_ops import _random_boxes


class _Pool(nn.Module):
    def __init__(self, spec: PoolerSpec) -> None:
        super().__init__()
        self.pool = RoIPooler(spec)

    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, rois: Tensor, valid: Tensor):
        return self.pool([a, b, c, d], rois, valid)


class _Nms(nn.Module):
    def __init__(self, num_groups: int, limit: float) -> None:
        super().__init__()
        self.num_groups, self.limit = num_groups, limit

    def forward(self, boxes: Tensor, valid: Tensor, groups: Tensor):
        return torch.ops.maskrcnn.nms_keep(
            boxes, valid, groups, self.num_groups, self.limit, "detections"
        )


def _session(module: nn.Module, example: tuple[Tensor, ...], path: Path, names: list[str]):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            dynamic_shapes=tuple({0: batch} for _ in example),
            opset_version=18,
            custom_translation_table=translations(),
            input_names=names,
            verbose=False,
        )
    program.save(path)
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def _rois(rng: np.random.Generator, images: int, count: int) -> Tensor:
    corner = rng.uniform(-40, 220, (images, count, 2))
    sides = np.exp(rng.uniform(-2, 6, (images, count, 2)))
    rois = np.concatenate([corner, corner + sides], axis=2)
    rois[:, 0] = [0, 0, 112, 112]
    rois[:, 1] = [0, 0, 224, 224]
    rois[:, 2] = [8, 8, 8, 8]
    return torch.tensor(rois, dtype=torch.float32)


@pytest.mark.parametrize(
    ("spec", "sides"),
    [
        pytest.param(PoolerSpec(), (4, 8, 16, 32), id="torchvision-box"),
        pytest.param(PoolerSpec(14, 2), (4, 8, 16, 32), id="torchvision-mask"),
        pytest.param(
            PoolerSpec(7, 0, True, inner_eps=1e-8, outer_eps=0.0), (4, 8, 16, 32), id="adaptive"
        ),
        pytest.param(PoolerSpec(3, 1, strides=(32, 32, 32, 32)), (32,) * 4, id="equal-strides"),
    ],
)
def test_pooling(spec: PoolerSpec, sides: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    module = _Pool(spec)

    def inputs(images: int) -> tuple[Tensor, ...]:
        maps = [torch.tensor(rng.normal(size=(images, 3, 224 // s, 288 // s))) for s in sides]
        valid = torch.tensor(rng.random((images, 24)) > 0.2)
        return (*(m.float() for m in maps), _rois(rng, images, 24), valid)

    names = ["a", "b", "c", "d", "rois", "valid"]
    session = _session(module, inputs(2), tmp_path / "pool.onnx", names)
    used = {i.name for i in session.get_inputs()}
    for images in (1, 3):
        given = inputs(images)
        feed = {n: g.numpy() for n, g in zip(names, given, strict=True) if n in used}
        got = session.run(None, feed)[0]
        np.testing.assert_allclose(got, module(*given)[0].numpy(), atol=2e-5)
    nothing = given[-1].zero_()
    assert not session.run(None, {**feed, "valid": nothing.numpy()})[0].any()


@pytest.mark.parametrize("num_groups", [1, 4])
@pytest.mark.parametrize("limit", [0.3, 0.5, 0.7])
def test_nms(num_groups: int, limit: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    module, count = _Nms(num_groups, limit), 200

    def inputs(problems: int) -> tuple[Tensor, ...]:
        boxes = np.stack([_random_boxes(rng, count) for _ in range(problems)])
        valid = rng.random((problems, count)) > 0.1
        groups = rng.integers(0, num_groups, (problems, count))
        return torch.tensor(boxes), torch.tensor(valid), torch.tensor(groups)

    names = ["boxes", "valid", "groups"]
    session = _session(module, inputs(2), tmp_path / "nms.onnx", names)
    used = {i.name for i in session.get_inputs()}
    for problems in (1, 2, 5):
        given = inputs(problems)
        feed = {n: g.numpy() for n, g in zip(names, given, strict=True) if n in used}
        keep, undecided = session.run(None, feed)
        np.testing.assert_array_equal(keep, module(*given)[0].numpy())
        assert undecided.dtype == np.int32
        assert undecided.tolist() == [0] * problems
    nothing = np.zeros_like(feed["valid"])
    assert not session.run(None, {**feed, "valid": nothing})[0].any()


@pytest.mark.parametrize("limit", [0.1, 0.3, 0.5, 0.6, 0.7])
def test_a_float32_limit_compares_as_the_float64_one(limit: float) -> None:
    chosen = np.float32(largest_float32_not_above(limit))
    for step in range(-3, 4):
        iou = np.float32(limit)
        for _ in range(abs(step)):
            iou = np.nextafter(iou, np.float32(np.sign(step)))
        assert (iou > chosen) == (float(iou) > limit)
