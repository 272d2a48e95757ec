"""Heads of the outputs that are not those of the spec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.errors import ArtifactError
from model.spec import ClassSpec, KeypointHeadSpec, MaskHeadSpec, ModelSpec, PoolerSpec, ResNetSpec
from runtime.postprocessing.output_checks import check_outputs

NAMES = ("nose", "left_eye", "tail")
SPEC = ModelSpec(
    dialect="torchvision",
    architecture="keypointrcnn_resnet50_fpn",
    body=ResNetSpec((3, 4, 6, 3), "bottleneck", 64, (64, 128, 256, 512), (256, 512, 1024, 2048)),
    classes=ClassSpec(("background", "cat")),
    mask=MaskHeadSpec(),
    keypoint=KeypointHeadSpec(PoolerSpec(2), (8,), NAMES),
)


def outputs() -> dict[str, NDArray[Any]]:
    counters = ("counts", "nms_open", "candidates_cut", "samples_cut")
    return {
        "boxes": np.zeros((2, 6, 4), np.float32),
        "scores": np.zeros((2, 6), np.float32),
        "labels": np.ones((2, 6), np.int32),
        "masks": np.zeros((2, 6, SPEC.mask_side, SPEC.mask_side), np.float32),
        "keypoint_heatmaps": np.zeros((2, 6, 3, 8, 8), np.float32),
        **{name: np.zeros(2, np.int32) for name in counters},
    }


def test_outputs_of_the_spec_pass() -> None:
    check_outputs(outputs(), SPEC, 2, Path("m.onnx"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(SPEC, mask=None), "expected no 'masks'"),
        (replace(SPEC, keypoint=None), "expected no 'keypoint_heatmaps'"),
        (replace(SPEC, keypoint=KeypointHeadSpec(PoolerSpec(2))), r"\[2, 6, 17, "),
        (replace(SPEC, keypoint=KeypointHeadSpec(names=NAMES)), r"\[2, 6, 3, 56, 56\]"),
    ],
    ids=["no-mask-head", "no-keypoint-head", "17-keypoints", "side-of-56"],
)
def test_heads_of_another_spec_are_refused(spec: ModelSpec, message: str) -> None:
    with pytest.raises(ArtifactError, match=f"m.onnx: network output: .*{message}.* export the"):
        check_outputs(outputs(), spec, 2, Path("m.onnx"))


@pytest.mark.parametrize("name", ["masks", "keypoint_heatmaps"])
def test_a_missing_head_is_refused(name: str) -> None:
    with pytest.raises(ArtifactError, match=f"expected '{name}', got boxes, "):
        check_outputs({n: v for n, v in outputs().items() if n != name}, SPEC, 2, Path("m.onnx"))
