"""The torchvision dialect: architectures read off names and shapes alone, without a weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large, resnet
from torchvision.models.detection import (
    FasterRCNN,
    FasterRCNN_MobileNet_V3_Large_320_FPN_Weights,
    FasterRCNN_ResNet50_FPN_Weights,
    MaskRCNN,
    MaskRCNN_ResNet50_FPN_V2_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
    fasterrcnn_mobilenet_v3_large_320_fpn,
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import (
    BackboneWithFPN,
    _mobilenet_extractor,
    resnet_fpn_backbone,
)
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from model.errors import CheckpointError, MaskportError
from model.families.dialect import Reading, Source
from model.families.torchvision.dialect import DIALECT
from model.mask_rcnn import MaskRCNN as OurMaskRCNN
from model.spec import ModelSpec, ResNetSpec
from model.spec_json import from_json, to_json

BARE: dict[str, Any] = {"weights": None, "weights_backbone": None}
COUNTER = "num_batches_tracked"


def state_of(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    with torch.device("meta"):
        return build().state_dict()


def read(state: Mapping[str, Tensor], sha256: str = "0" * 64) -> Reading:
    assert DIALECT.recognizes(state)
    path = Path("weights.pth")
    return DIALECT.read(DIALECT.prepare(state, path), Source(path, sha256))


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {n: tuple(t.shape) for n, t in state.items() if not n.endswith(COUNTER)}


def rebuilt(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    ours = state_of(partial(OurMaskRCNN, spec))
    return shapes_of({DIALECT.original(name, spec): tensor for name, tensor in ours.items()})


def _on_resnet(name: str, **options: Any) -> nn.Module:
    classes = options.pop("classes", 91)
    return MaskRCNN(resnet_fpn_backbone(backbone_name=name, weights=None, **options), classes)


def _with_levels(layers: list[int], masks: bool = True) -> nn.Module:
    """Fewer pyramid levels, as `returned_layers` gives them."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, returned_layers=layers, trainable_layers=5
    )
    sizes = tuple((float(2 ** (4 + k)),) for k in (*layers, layers[-1] + 1))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    return (MaskRCNN if masks else FasterRCNN)(backbone, 5, rpn_anchor_generator=anchors)


def _with_widths(fpn: int, box: int, mask: tuple[int, ...], deconv: int) -> nn.Module:
    body = resnet.resnet18(weights=None)
    names = {f"layer{i + 1}": str(i) for i in range(4)}
    backbone = BackboneWithFPN(body, names, [64, 128, 256, 512], fpn, LastLevelMaxPool())
    return MaskRCNN(
        backbone,
        box_head=TwoMLPHead(fpn * 49, box),
        box_predictor=FastRCNNPredictor(box, 7),
        mask_head=MaskRCNNHeads(fpn, mask, 1),
        mask_predictor=MaskRCNNPredictor(mask[-1], deconv, 7),
    )


def _on_mobilenet(
    width: float = 1.0, reduced_tail: bool = False, layers: list[int] | None = None
) -> nn.Module:
    trunk = mobilenet_v3_large(weights=None, width_mult=width, reduced_tail=reduced_tail)
    backbone = _mobilenet_extractor(trunk, True, 6, layers)
    levels = len(layers or (4, 5)) + 1
    anchors = AnchorGenerator(((32, 64, 128, 256, 512),) * levels, ((0.5, 1.0, 2.0),) * levels)
    return MaskRCNN(backbone, 4, rpn_anchor_generator=anchors)


RESNETS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
MODELS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    **{name: (f"maskrcnn_{name}_fpn", partial(_on_resnet, name)) for name in RESNETS},
    "builder": ("maskrcnn_resnet50_fpn", partial(maskrcnn_resnet50_fpn, **BARE)),
    "v2": ("maskrcnn_resnet50_fpn_v2", partial(maskrcnn_resnet50_fpn_v2, **BARE)),
    "boxes": ("fasterrcnn_resnet50_fpn", partial(fasterrcnn_resnet50_fpn, **BARE)),
    "boxes-v2": ("fasterrcnn_resnet50_fpn_v2", partial(fasterrcnn_resnet50_fpn_v2, **BARE)),
    "mobilenet-boxes": (
        "fasterrcnn_mobilenet_v3_large_fpn",
        partial(fasterrcnn_mobilenet_v3_large_fpn, **BARE),
    ),
    "mobilenet-masks": ("maskrcnn_mobilenet_v3_large_fpn", _on_mobilenet),
    "mobilenet-half": ("maskrcnn_mobilenet_v3_large_fpn", partial(_on_mobilenet, 0.5)),
    "mobilenet-tail": ("maskrcnn_mobilenet_v3_large_fpn", partial(_on_mobilenet, 1.0, True)),
    "mobilenet-4-levels": (
        "maskrcnn_mobilenet_v3_large_fpn",
        partial(_on_mobilenet, layers=[2, 3, 4, 5]),
    ),
    "2-classes": ("maskrcnn_resnet18_fpn", partial(_on_resnet, "resnet18", classes=2)),
    "1204-classes": ("maskrcnn_resnet18_fpn", partial(_on_resnet, "resnet18", classes=1204)),
    "levels-2345": ("maskrcnn_resnet18_fpn", partial(_with_levels, [1, 2, 3, 4])),
    "levels-345": ("maskrcnn_resnet18_fpn", partial(_with_levels, [2, 3, 4])),
    "levels-45-boxes": ("fasterrcnn_resnet18_fpn", partial(_with_levels, [3, 4], False)),
    "level-5": ("maskrcnn_resnet18_fpn", partial(_with_levels, [4])),
    "levels-234": ("maskrcnn_resnet_14_narrow_fpn", partial(_with_levels, [1, 2, 3])),
    "levels-3": ("maskrcnn_resnet_10_narrow_fpn", partial(_with_levels, [2])),
    "widths-narrow": ("maskrcnn_resnet18_fpn", partial(_with_widths, 16, 24, (8,), 12)),
    "widths-odd": ("maskrcnn_resnet18_fpn", partial(_with_widths, 40, 17, (9, 11, 13), 5)),
}


def test_spec_rebuilds_exactly_the_original_shapes(subtests: pytest.Subtests) -> None:
    for case in MODELS:
        with subtests.test(case=case):
            architecture, build = MODELS[case]
            state = state_of(build)
            spec = read(state).spec
            assert spec.architecture == architecture
            assert rebuilt(spec) == shapes_of(state)
            assert from_json(to_json(spec)) == spec


def test_names_map_one_to_one(subtests: pytest.Subtests) -> None:
    for case in MODELS:
        with subtests.test(case=case):
            state = state_of(MODELS[case][1])
            spec = read(state).spec
            ours = state_of(partial(OurMaskRCNN, spec))
            theirs = [DIALECT.original(name, spec) for name in ours]
            assert len(set(theirs)) == len(ours)
            assert {n for n in theirs if not n.endswith(COUNTER)} == set(shapes_of(state))


@pytest.mark.parametrize(
    ("layers", "strides"),
    [([1, 2, 3, 4], (4, 8, 16, 32)), ([2, 3, 4], (8, 16, 32)), ([4], (32,)), ([1, 2], (4, 8))],
)
def test_strides_follow_the_levels(layers: list[int], strides: tuple[int, ...]) -> None:
    spec = read(state_of(partial(_with_levels, layers))).spec
    assert spec.box.pooler.strides == strides
    assert spec.mask.pooler.strides == strides
    assert spec.anchors.sizes == tuple((8.0 * s,) for s in (*strides, 2 * strides[-1]))


@pytest.mark.parametrize("classes", [2, 3, 80, 91, 92])
def test_class_names(classes: int) -> None:
    reading = read(state_of(partial(_on_resnet, "resnet18", classes=classes)))
    names = reading.spec.classes.names
    assert len(names) == classes
    assert names[0] == "__background__"
    assert names[-1] == ("toothbrush" if classes == 91 else f"class_{classes - 1}")


def _epsilons(tree: object) -> list[float]:
    assert is_dataclass(tree)
    values = []
    for field in fields(tree):
        value = getattr(tree, field.name)
        if field.name == "norm_eps":
            values.append(value)
        elif is_dataclass(value):
            values += _epsilons(value)
    return values


def _published(weights: Any) -> str:
    """A SHA-256 that begins like the published file's name."""
    return str(weights.url).rpartition("-")[2].removesuffix(".pth").ljust(64, "0")


def test_epsilon_is_zero_for_published_files_only(subtests: pytest.Subtests) -> None:
    for case, build, sha256, eps in [
        ("coco", maskrcnn_resnet50_fpn, _published(MaskRCNN_ResNet50_FPN_Weights.COCO_V1), 0.0),
        (
            "coco-boxes",
            fasterrcnn_resnet50_fpn,
            _published(FasterRCNN_ResNet50_FPN_Weights.COCO_V1),
            0.0,
        ),
        (
            "coco-v2",
            maskrcnn_resnet50_fpn_v2,
            _published(MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1),
            1e-5,
        ),
        ("fine-tuned", maskrcnn_resnet50_fpn, "f" * 64, 1e-5),
    ]:
        with subtests.test(case):
            reading = read(state_of(partial(build, **BARE)), sha256)
            assert set(_epsilons(reading.spec)) == {eps}
            assert ("body.norm_eps" in reading.assumed) == (eps != 0.0)


def test_mobilenets() -> None:
    """Only torchvision's Faster R-CNN builders on a MobileNet raise the RPN's threshold."""
    state = state_of(partial(fasterrcnn_mobilenet_v3_large_fpn, **BARE))
    reading = read(state)
    theirs = fasterrcnn_mobilenet_v3_large_fpn(**BARE).eval().rpn
    assert reading.spec.rpn.score_threshold == theirs.score_thresh == 0.05
    assert reading.spec.rpn.post_nms == theirs.post_nms_top_n()
    assert "rpn.score_threshold" in reading.assumed
    assert read(state_of(_on_mobilenet)).spec.rpn.score_threshold == 0.0
    spec = read(state_of(_on_mobilenet)).spec
    assert spec.box.pooler.strides == (32, 32)
    assert spec.anchors.sizes == ((32.0, 64.0, 128.0, 256.0, 512.0),) * 3
    # `load` can then name the tensor, instead of saying that the widths are unknown.
    state = state_of(_on_mobilenet)
    state["backbone.body.4.block.0.0.weights"] = state.pop("backbone.body.4.block.0.0.weight")
    assert read(state).spec.architecture == "maskrcnn_mobilenet_v3_large_fpn"


def test_small_mobilenet_is_identified_by_its_hash() -> None:
    state = state_of(partial(fasterrcnn_mobilenet_v3_large_320_fpn, **BARE))
    reading = read(state, _published(FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1))
    with torch.device("meta"):
        theirs = fasterrcnn_mobilenet_v3_large_320_fpn(**BARE).eval()
    spec = reading.spec
    assert spec.preprocess.short_side == theirs.transform.min_size[0]
    assert spec.preprocess.long_side == theirs.transform.max_size
    assert spec.rpn.pre_nms == theirs.rpn.pre_nms_top_n()
    assert spec.rpn.post_nms == theirs.rpn.post_nms_top_n()
    assert spec.rpn.score_threshold == theirs.rpn.score_thresh
    assert "preprocess.short_side" not in reading.assumed


@pytest.mark.parametrize("case", ["builder", "v2", "boxes"])
def test_defaults_are_those_of_torchvision(case: str) -> None:
    with torch.device("meta"):
        theirs = MODELS[case][1]().eval()
        spec = read(theirs.state_dict()).spec
    heads, rpn = theirs.roi_heads, theirs.rpn
    assert spec.box.score_threshold == heads.score_thresh
    assert spec.box.nms_iou == heads.nms_thresh
    assert spec.box.detections == heads.detections_per_img
    assert spec.box.box_weights == heads.box_coder.weights
    assert spec.box.pooler.output_size == heads.box_roi_pool.output_size[0]
    assert spec.box.pooler.sampling_ratio == heads.box_roi_pool.sampling_ratio
    assert spec.rpn.pre_nms == rpn.pre_nms_top_n()
    assert spec.rpn.post_nms == rpn.post_nms_top_n()
    assert spec.rpn.nms_iou == rpn.nms_thresh
    assert spec.rpn.score_threshold == rpn.score_thresh
    assert spec.rpn.min_size == rpn.min_size
    assert spec.anchors.sizes == tuple(tuple(map(float, s)) for s in rpn.anchor_generator.sizes)
    assert spec.anchors.ratios == tuple(rpn.anchor_generator.aspect_ratios)
    assert spec.preprocess.mean == tuple(theirs.transform.image_mean)
    assert spec.preprocess.std == tuple(theirs.transform.image_std)
    assert spec.preprocess.short_side == theirs.transform.min_size[0]
    assert spec.preprocess.long_side == theirs.transform.max_size
    assert spec.preprocess.size_divisor == theirs.transform.size_divisible


def old_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of torchvision before 0.13, as in its first published files."""
    renamed = {}
    for name, tensor in state.items():
        old = name
        if "fpn" in name:
            old = old.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        old = old.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        if name.startswith("roi_heads.mask_head."):
            number, _, leaf = name.split(".")[2:]
            old = f"roi_heads.mask_head.mask_fcn{int(number) + 1}.{leaf}"
        renamed[old] = tensor
    return renamed


@pytest.mark.parametrize("case", ["builder", "boxes", "levels-345", "widths-odd"])
def test_old_names_are_the_same_network(case: str) -> None:
    state = state_of(MODELS[case][1])
    old = old_names(state)
    assert "backbone.fpn.inner_blocks.0.weight" in old
    assert "rpn.head.conv.weight" in old
    assert ("roi_heads.mask_head.mask_fcn1.weight" in old) == (case != "boxes")
    assert read(old) == read(state)
    assert list(DIALECT.prepare(old, Path("old.pth"))) == list(state)


def test_unknown_anchor_counts_are_required() -> None:
    state = state_of(partial(_on_resnet, "resnet18"))
    state["rpn.head.cls_logits.weight"] = torch.empty(5, 256, 1, 1, device="meta")
    assert set(read(state).required) == {"anchors.sizes", "anchors.ratios"}


def test_odd_shapes_are_named(subtests: pytest.Subtests) -> None:
    for change, message in [
        ({"backbone.body.layer5.0.conv1.weight": (8, 8, 3, 3)}, "5 stages"),
        ({"roi_heads.box_head.fc6.weight": (1024, 256 * 50)}, "square"),
        ({"rpn.head.cls_logits.weight": (3,)}, "4 dimensions"),
        ({"backbone.fpn.inner_blocks.3.0.weight": (256, 9, 1, 1)}, "[64"),
        ({"roi_heads.box_predictor.cls_score.weight": (1, 1024)}, "at least one"),
    ]:
        with subtests.test(message):
            state = state_of(partial(_on_resnet, "resnet18"))
            state |= {name: torch.empty(shape, device="meta") for name, shape in change.items()}
            with pytest.raises(MaskportError) as caught:
                read(state)
            assert message in str(caught.value)


def test_other_bodies_are_refused() -> None:
    state = state_of(partial(_on_resnet, "resnet18"))
    other = {n.replace("backbone.body.", "backbone.trunk."): t for n, t in state.items()}
    with pytest.raises(CheckpointError, match="the body is unknown"):
        read(other)
    state = state_of(_on_mobilenet)
    for name in [n for n in state if n.startswith("backbone.body.") and n.endswith("0.weight")]:
        state[name] = torch.empty(7, 7, 1, 1, device="meta")
    with pytest.raises(CheckpointError, match="a MobileNetV3 of other sizes"):
        read(state)
    # torchvision's own pooler leaves RoIs of the missing level without features.
    with pytest.raises(CheckpointError, match="consecutive stages"):
        read(state_of(partial(_with_levels, [1, 3])))


def test_groups_and_widths_are_read_off_any_resnet() -> None:
    body = read(state_of(partial(_on_resnet, "resnext50_32x4d"))).spec.body
    assert isinstance(body, ResNetSpec)
    assert (body.groups, body.widths, body.channels) == (
        32,
        (128, 256, 512, 1024),
        (256, 512, 1024, 2048),
    )
