"""`ModelSpec` as JSON: nothing is lost, nothing unknown or impossible gets in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any

import pytest

from model.errors import SpecError
from model.spec import (
    AnchorSpec,
    BoxHeadSpec,
    ClassSpec,
    FpnSpec,
    KeypointHeadSpec,
    MaskHeadSpec,
    MobileNetV3Spec,
    ModelSpec,
    PoolerSpec,
    PreprocessSpec,
    ResNetSpec,
    RoIStageSpec,
    RpnSpec,
)
from model.spec_json import SCHEMA_VERSION, from_json, merge, to_json

BODY = ResNetSpec((3, 4, 6, 3), "bottleneck", 64, (64, 128, 256, 512), (256, 512, 1024, 2048))
SPEC = ModelSpec(
    dialect="torchvision",
    architecture="maskrcnn_resnet50_fpn",
    body=BODY,
    classes=ClassSpec(("background", "cat", "déjà \n \u2603")),
    mask=MaskHeadSpec(),
)
C4_POOLER = PoolerSpec(7, strides=(16,), kind="roi_pool", quantise="floor")
TWO_LEVELS = PoolerSpec(7, 0, True, (32, 32), inner_eps=1e-8, outer_eps=0.0)
SPECS = {
    "masks": SPEC,
    "boxes": replace(SPEC, mask=None),
    "mobilenet": replace(
        SPEC,
        body=MobileNetV3Spec(0.35, True),
        anchors=AnchorSpec(((32.0, 64.0),) * 3, ((0.1, 1 / 3, 2.0),) * 3, offset=0.5),
        box=BoxHeadSpec(TWO_LEVELS, (8,), (9,), "none", 0.0, box_weights=(0.1, 1e-30, 1e30, 3.0)),
        mask=MaskHeadSpec(TWO_LEVELS, (), paste="float", threshold_inclusive=True),
    ),
    "stage": replace(
        SPEC,
        fpn=None,
        body=replace(BODY, outputs=(2,)),
        anchors=AnchorSpec(((32.0, 64.0),), ((0.5, 2.0),), "size-major", end_shift=-1),
        roi_stage=RoIStageSpec(3, 512, 2048, stride=1, norm="group_norm"),
        box=BoxHeadSpec(C4_POOLER, fc_widths=(), scoring="sigmoid", size_clamp="both"),
        mask=MaskHeadSpec(C4_POOLER, ()),
    ),
    "keypoints": replace(
        SPEC,
        preprocess=PreprocessSpec(800, 1024, "matterport", square=True, placement="centred"),
        keypoint=KeypointHeadSpec(PoolerSpec(14), (8,), ("nose", "tail"), "softmax"),
    ),
    "other-order": replace(
        SPEC,
        classes=ClassSpec(("cat", "dog"), (17, 18)),
        preprocess=PreprocessSpec(
            1, 1, "detectron2", "pillow-bilinear", "bgr", 255.0, (-1.0, 0.0, 1.0)
        ),
        rpn=RpnSpec((2, 0), 5, 6, 0.1, 0.0, False, 0.9),
        box=BoxHeadSpec(background="last", detections=1, candidates=1, class_agnostic=True),
        fpn=FpnSpec(7, "batch_norm", 0.0),
    ),
}


@pytest.mark.parametrize("case", SPECS)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_spec_survives_json(case: str, indent: int | None) -> None:
    text = to_json(SPECS[case], indent=indent)
    assert from_json(text) == SPECS[case]
    assert json.loads(text)["schema_version"] == SCHEMA_VERSION
    assert to_json(from_json(text), indent=indent) == text


@pytest.mark.parametrize("case", SPECS)
def test_merging_nothing_changes_nothing(case: str) -> None:
    assert merge(SPECS[case], {}) == SPECS[case]
    assert merge(SPECS[case], json.loads(json.dumps(asdict(SPECS[case])))) == SPECS[case]


def _leaves(tree: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    assert is_dataclass(tree)
    leaves: list[tuple[str, ...]] = []
    for field in fields(tree):
        value = getattr(tree, field.name)
        name = (*path, field.name)
        leaves += _leaves(value, name) if is_dataclass(value) else [name]
    return leaves


def _parent(data: Any, path: tuple[str, ...]) -> Any:
    for name in path[:-1]:
        data = data[name]
    return data


# Earlier files have none of these; to_json writes them only where they differ from their default.
ADDED_LATER = {
    "first_dilations",
    "fixed_hw",
    "cells",
    "max_log_ratio",
    "module",
    "levels",
    "dilation",
    "map_side",
}


def test_later_fields_are_written_where_they_matter() -> None:
    assert not any(f'"{name}"' in to_json(SPEC) for name in ADDED_LATER)
    changed = replace(SPEC, preprocess=replace(SPEC.preprocess, fixed_hw=(64, 96)))
    assert json.loads(to_json(changed))["preprocess"]["fixed_hw"] == [64, 96]
    assert from_json(to_json(changed)) == changed


def test_every_field_is_needed(subtests: pytest.Subtests) -> None:
    for path in _leaves(SPEC):
        with subtests.test(path=path):
            data = json.loads(to_json(SPEC, complete=True))
            del _parent(data, path)[path[-1]]
            if path[-1] in ADDED_LATER:
                assert from_json(json.dumps(data)) == SPEC
                continue
            with pytest.raises(SpecError, match=path[-1]):
                from_json(json.dumps(data))


def test_every_field_has_a_type(subtests: pytest.Subtests) -> None:
    for path in _leaves(SPEC):
        with subtests.test(path=path):
            data = json.loads(to_json(SPEC, complete=True))
            is_part = path[-1] in ("roi_stage", "keypoint")
            _parent(data, path)[path[-1]] = 3 if is_part else {"no": "such"}
            got = "int" if is_part else "dict"
            with pytest.raises(SpecError, match=rf"spec\.{'.'.join(path)}: expected .*, got {got}"):
                from_json(json.dumps(data))


def test_invalid_specs(subtests: pytest.Subtests) -> None:
    for text, message in [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 1_500, "not valid JSON"),
        ('{"a": ' + "1" * 4301 + "}", "not valid JSON"),
        ("[]", "expected a JSON object, got list"),
        ("3", "expected a JSON object, got int"),
        ("{}", "expected schema_version 2, got None"),
        ('{"schema_version": 1}', "expected schema_version 2, got 1"),
        ('{"schema_version": 2}', "spec: missing field 'dialect'"),
    ]:
        with subtests.test(message):
            with pytest.raises(SpecError, match=message) as caught:
                from_json(text)
            assert "\n" not in str(caught.value)


def test_unknown_fields_and_wrong_types_are_named(subtests: pytest.Subtests) -> None:
    for overrides, message in [
        ({"boxx": {}}, r"spec: unknown field 'boxx'; did you mean 'box'\?"),
        ({"zzz": 1}, "spec: unknown field 'zzz'; known: dialect, architecture, body"),
        ({"box": {"pooler": {"stride": 1}}}, r"spec.box.pooler: unknown .* mean 'strides'\?"),
        ({"fpn": {"norm": "layer_norm"}}, "spec.fpn.norm: expected one of .*batch_norm"),
        ({"fpn": {"norm": ["none"]}}, "spec.fpn.norm: expected one of .*, got list"),
        ({"body": {"kind": "vgg"}}, r"spec.body.kind: expected one of \['mobilenet.*'vgg'"),
        ({"body": {"kind": {}}}, "spec.body.kind: expected one of .*, got dict"),
        ({"body": 5}, "spec.body.kind: expected one of .*, got None"),
        ({"body": {"blocks": 3}}, "spec.body.blocks: expected a list, got int"),
        ({"body": {"blocks": [3, "4", 6, 3]}}, r"spec.body.blocks\[1\]: expected int, got '4'"),
        ({"preprocess": {"mean": [1, 2]}}, "expected a mean and a std for every channel, got 2"),
        ({"preprocess": {"mean": [1, 2, None]}}, r"mean\[2\]: expected float, got None"),
        ({"preprocess": {"value_range": 10**400}}, "value_range: expected float, got int"),
        ({"preprocess": {"short_side": True}}, "short_side: expected int, got True"),
        ({"dialect": None}, "spec.dialect: expected str, got None"),
        ({"mask": {"threshold_inclusive": 1}}, "threshold_inclusive: expected bool, got int"),
    ]:
        with subtests.test(message), pytest.raises(SpecError, match=message):
            merge(SPEC, overrides)


def test_merged_values() -> None:
    spec = merge(SPEC, {"box": {"nms_iou": 1}, "anchors": {"sizes": [[8]] * 5}})
    assert spec.box.nms_iou == 1.0
    assert isinstance(spec.anchors.sizes[0][0], float)
    boxes = merge(SPEC, {"mask": None})
    assert boxes.mask is None
    assert merge(boxes, {"mask": asdict(MaskHeadSpec())}) == SPEC
    with pytest.raises(SpecError, match=r"spec.mask: missing field"):
        merge(boxes, {"mask": {"threshold": 0.5}})


NAN, INF = float("nan"), float("inf")
IMPOSSIBLE: list[tuple[Callable[[], object], str]] = [
    (lambda: PreprocessSpec(short_side=0), "short_side"),
    (lambda: PreprocessSpec(900, 800), "short_side"),
    (lambda: PreprocessSpec(long_side=16385), "long_side"),
    (lambda: PreprocessSpec(size_divisor=0), "size_divisor"),
    (lambda: PreprocessSpec(std=(1.0, 0.0, 1.0)), "std"),
    (lambda: PreprocessSpec(std=(1.0, NAN, 1.0)), "std"),
    (lambda: PreprocessSpec(mean=(1.0, INF, 1.0)), "mean"),
    (lambda: PreprocessSpec(value_range=INF), "value_range"),
    (lambda: replace(BODY, blocks=()), "stage"),
    (lambda: replace(BODY, widths=(64,)), "widths"),
    (lambda: replace(BODY, blocks=(3, 4, 0, 3)), "blocks"),
    (lambda: replace(BODY, groups=0), "groups"),
    (lambda: replace(BODY, groups=7), "7 groups"),
    (lambda: replace(BODY, outputs=()), "outputs"),
    (lambda: replace(BODY, outputs=(0, 4)), "outputs"),
    (lambda: replace(BODY, outputs=(2, 1)), "outputs"),
    (lambda: replace(BODY, outputs=(-1, 2)), "outputs"),
    (lambda: replace(BODY, norm_eps=-1e-9), "norm_eps"),
    (lambda: replace(BODY, norm_eps=NAN), "norm_eps"),
    (lambda: MobileNetV3Spec(width_multiplier=0.0), "width_multiplier"),
    (lambda: MobileNetV3Spec(channels=(160,)), "channels"),
    (lambda: MobileNetV3Spec(outputs=(13, 17)), "outputs"),
    (lambda: FpnSpec(0), "channels"),
    (lambda: AnchorSpec(((1.0,),), ((1.0,),) * 2), "levels"),
    (lambda: AnchorSpec(((1.0,), (1.0, 2.0)), ((1.0,),) * 2), "same positive number"),
    (lambda: AnchorSpec(((),), ((1.0,),)), "positive number"),
    (lambda: AnchorSpec(((-1.0,),), ((1.0,),)), "sizes"),
    (lambda: AnchorSpec(((1.0,),), ((NAN,),)), "ratios"),
    (lambda: AnchorSpec(offset=-0.5), "offset"),
    (lambda: RpnSpec(pre_nms=0), "pre_nms"),
    (lambda: RpnSpec(post_nms=2_000_000), "post_nms"),
    (lambda: RpnSpec(nms_iou=1.01), "nms_iou"),
    (lambda: RpnSpec(score_threshold=NAN), "score_threshold"),
    (lambda: RpnSpec(box_weights=(1.0, 1.0, 0.0, 1.0)), "box_weights"),
    (lambda: PoolerSpec(output_size=0), "output_size"),
    (lambda: PoolerSpec(sampling_ratio=-1), "sampling_ratio"),
    (lambda: PoolerSpec(strides=()), "stride"),
    (lambda: PoolerSpec(strides=(4, 0)), "strides"),
    (lambda: PoolerSpec(canonical_size=0.0), "canonical_size"),
    (lambda: BoxHeadSpec(detections=0), "detections"),
    (lambda: BoxHeadSpec(detections=100, candidates=99), "candidates"),
    (lambda: BoxHeadSpec(score_threshold=-0.1), "score_threshold"),
    (lambda: BoxHeadSpec(nms_iou=NAN), "nms_iou"),
    (lambda: replace(SPEC, box=BoxHeadSpec(fc_widths=())), "fc_widths"),
    (lambda: BoxHeadSpec(scoring="sigmoid", choice="best-class"), "best-class"),
    (lambda: replace(BODY, norm="group_norm", stem_channels=48), "48 channels"),
    (lambda: replace(SPEC, roi_stage=RoIStageSpec(3, 512, 2048)), "roi_stage"),
    (lambda: RoIStageSpec(3, 512, 2048, groups=3), "3 groups"),
    (lambda: KeypointHeadSpec(names=()), "keypoint name"),
    (lambda: KeypointHeadSpec(conv_widths=()), "convolution"),
    (lambda: PoolerSpec(sampling_ratio=17), "sampling_ratio"),
    (lambda: PoolerSpec(sampling_ratio=0, reduce="max"), "adaptive sampling"),
    (lambda: PoolerSpec(kind="roi_warp", sampling_ratio=0), "roi_warp"),
    (lambda: PoolerSpec(kind="crop_and_resize", sampling_ratio=3), "crop_and_resize"),
    (lambda: PreprocessSpec(800, 1000, square=True), "square canvas"),
    (lambda: RpnSpec(conv_widths=()), "conv_widths"),
    (lambda: BoxHeadSpec(min_size=INF), "min_size"),
    (lambda: MaskHeadSpec(threshold=1.5), "threshold"),
    (lambda: MaskHeadSpec(deconv_width=0), "deconv_width"),
    (lambda: ClassSpec(("a", "b"), (1,)), "dataset id"),
    (lambda: replace(SPEC, classes=ClassSpec(("background",))), "at least one class"),
    (lambda: replace(SPEC, classes=ClassSpec(())), "at least one class"),
    (lambda: replace(SPEC, rpn=RpnSpec(post_nms=49)), "100 detections are more than 49"),
    (lambda: replace(SPEC, fpn=FpnSpec(extra_level="none")), "4 levels, got 5"),
    (lambda: replace(SPEC, body=replace(BODY, outputs=(2, 3))), "each of 2 levels"),
    (lambda: replace(SPEC, mask=MaskHeadSpec(PoolerSpec(strides=(4,)))), "each of 4 levels"),
]


def test_impossible_values_are_named(subtests: pytest.Subtests) -> None:
    for build, message in IMPOSSIBLE:
        with subtests.test(build=build, message=message):
            with pytest.raises(SpecError) as caught:
                build()
            assert message in str(caught.value)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999"])
def test_json_without_numbers_is_refused(text: str) -> None:
    data = to_json(SPEC).replace('"nms_iou": 0.5', f'"nms_iou": {text}')
    assert text in data
    with pytest.raises(SpecError, match="nms_iou"):
        from_json(data)
