"""Keypoint heads of the torchvision dialect, alone and beside masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.detection import (
    KeypointRCNN,
    KeypointRCNN_ResNet50_FPN_Weights,
    keypointrcnn_resnet50_fpn,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from model.errors import MaskportError, SpecError
from model.families.torchvision.dialect import DIALECT
from model.families.torchvision.reference import eager_model
from model.mask_rcnn import MaskRCNN
from model.spec import PreprocessSpec
from model.spec_json import from_json, to_json
from tests.model.test_torchvision_dialect import (
    BARE,
    COUNTER,
    _published,
    read,
    rebuilt,
    shapes_of,
    state_of,
)

COCO = KeypointRCNN_ResNet50_FPN_Weights


def _keypoint_rcnn(keypoints: int = 17, classes: int = 2, masks: bool = False) -> nn.Module:
    model = KeypointRCNN(
        resnet_fpn_backbone(backbone_name="resnet18", weights=None),
        classes,
        min_size=64,
        max_size=96,
        keypoint_head=KeypointRCNNHeads(256, (24, 9, 11)),
        keypoint_predictor=KeypointRCNNPredictor(11, keypoints),
    )
    if masks:
        model.roi_heads.mask_roi_pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 14, 2)
        model.roi_heads.mask_head = MaskRCNNHeads(256, (16,), 1)
        model.roi_heads.mask_predictor = MaskRCNNPredictor(16, 16, classes)
    return model


MODELS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "builder": ("keypointrcnn_resnet50_fpn", partial(keypointrcnn_resnet50_fpn, **BARE)),
    "five": ("keypointrcnn_resnet18_fpn", partial(_keypoint_rcnn, 5, 3)),
    "masks": ("mask_keypointrcnn_resnet18_fpn", partial(_keypoint_rcnn, masks=True)),
}


@pytest.mark.parametrize("case", MODELS)
def test_spec_rebuilds_exactly_the_original_shapes_under_their_names(case: str) -> None:
    architecture, build = MODELS[case]
    state = state_of(build)
    spec = read(state).spec
    assert spec.architecture == architecture
    assert rebuilt(spec) == shapes_of(state)
    assert from_json(to_json(spec)) == spec
    ours = state_of(partial(MaskRCNN, spec))
    theirs = [DIALECT.original(name, spec) for name in ours]
    assert len(set(theirs)) == len(ours)
    assert {n for n in theirs if not n.endswith(COUNTER)} == set(shapes_of(state))


def test_names(subtests: pytest.Subtests) -> None:
    for case, keypoints, classes, names in [
        ("coco", 17, 2, ("no person", "person")),
        ("more-classes", 17, 3, ("__background__", "class_1", "class_2")),
        ("other-keypoints", 5, 2, ("__background__", "class_1")),
    ]:
        with subtests.test(case):
            reading = read(state_of(partial(_keypoint_rcnn, keypoints, classes)))
            assert reading.spec.classes.names == names
            head = reading.spec.keypoint
            assert (head.conv_widths, head.score) == ((24, 9, 11), "logit")
            assert "keypoint.names" in reading.assumed
            if keypoints == 17:
                assert head.names == tuple(COCO.COCO_V1.meta["keypoint_names"])
            else:
                assert head.names == tuple(f"keypoint_{i}" for i in range(keypoints))


@pytest.mark.parametrize(("weights", "eps"), [(COCO.COCO_V1, 0.0), (COCO.COCO_LEGACY, 1e-5)])
def test_epsilon_is_zero_for_one_of_the_two_published_files(weights: Any, eps: float) -> None:
    reading = read(state_of(MODELS["builder"][1]), _published(weights))
    assert reading.spec.body.norm_eps == eps
    assert ("body.norm_eps" in reading.assumed) == (eps != 0.0)


def test_defaults_are_those_of_torchvision() -> None:
    with torch.device("meta"):
        theirs = keypointrcnn_resnet50_fpn(**BARE).eval()
    spec = read(theirs.state_dict()).spec
    pool = theirs.roi_heads.keypoint_roi_pool
    assert spec.keypoint.pooler.output_size == pool.output_size[0]
    assert spec.keypoint.pooler.sampling_ratio == pool.sampling_ratio
    # In eval mode the transform takes the last of its short sides.
    assert spec.preprocess.short_side == theirs.transform.min_size[-1]
    assert spec.preprocess.long_side == theirs.transform.max_size
    assert spec.box.detections == theirs.roi_heads.detections_per_img


def test_half_a_head_is_named(subtests: pytest.Subtests) -> None:
    for name, shape, message in [
        ("keypoint_head.0", (8, 8, 3, 3), "kps_score_lowres"),
        (
            "keypoint_predictor.kps_score_lowres",
            (8, 17, 4, 4),
            "'roi_heads.keypoint_head.0.weight' is missing",
        ),
    ]:
        with subtests.test(message):
            state = state_of(_keypoint_rcnn)
            half = {n: t for n, t in state.items() if not n.startswith("roi_heads.keypoint_")}
            half[f"roi_heads.{name}.weight"] = torch.empty(shape, device="meta")
            with pytest.raises(MaskportError) as caught:
                read(half)
            assert message in str(caught.value)


@pytest.mark.parametrize("case", ["five", "masks"])
def test_the_eager_model_has_the_heads(case: str) -> None:
    torch.manual_seed(0)
    theirs = MODELS[case][1]().eval()
    spec = replace(read(theirs.state_dict()).spec, preprocess=PreprocessSpec(64, 96))
    built = eager_model(spec, theirs.state_dict())
    photo = torch.rand(3, 64, 96)
    theirs.roi_heads.score_thresh = built.roi_heads.score_thresh = 0.0
    with torch.inference_mode():
        (expected,), (actual,) = theirs([photo]), built([photo])
    assert set(actual) == set(expected)
    assert ("masks" in actual) == (case == "masks")
    assert len(actual["keypoints"]) > 0
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=1e-3)


def test_another_score_has_no_eager_model() -> None:
    state = state_of(_keypoint_rcnn)
    spec = read(state).spec
    assert spec.keypoint is not None
    spec = replace(spec, keypoint=replace(spec.keypoint, score="softmax"))
    with pytest.raises(SpecError, match=r"'keypoint\.score' has a value"):
        eager_model(spec, state)
