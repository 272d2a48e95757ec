"""The settings of a training's configuration are applied; its source is never executed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint import Checkpoint, load
from model.errors import CheckpointError
from model.families.mmdetection.config import UNREAD, parse_config, shown
from tests.mmdetection_files import Network, state_of

SMALL = Network((1, 1, 1, 1), base=8, fpn=16, fc=24, classes=3)
RCNN = """
    rcnn=dict(score_thr=0.3, nms=dict(type='nms', iou_threshold=0.4), max_per_img=50,
              mask_thr_binary=0.4)"""
# As version 3 dumps it, version 2, and version 1 with its own names of everything.
NEW = (
    """
default_scope = 'mmdet'
model = dict(
    backbone=dict(type='ResNet', style='pytorch'),
    data_preprocessor=dict(pad_size_divisor=64, type='DetDataPreprocessor'),
    rpn_head=dict(
        type='RPNHead',
        anchor_generator=dict(type='AnchorGenerator', scales=[2], ratios=[0.3, 1.0, 3.0],
                              strides=[4, 8, 16, 32, 64]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[.0, .0, .0, .0],
                        target_stds=[0.5, 0.5, 1.0, 1.0])),
    roi_head=dict(
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor', featmap_strides=[4, 8, 16, 32], finest_scale=28,
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=2)),
        bbox_head=dict(bbox_coder=dict(target_stds=[0.05, 0.05, 0.1, 0.1])),
        mask_roi_extractor=dict(
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=2))),
    test_cfg=dict(
        rpn=dict(nms_pre=2000, max_per_img=500, nms=dict(type='nms', iou_threshold=0.8),
                 min_bbox_size=2),"""
    + RCNN
    + """))
test_cfg = dict(type='TestLoop')
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(keep_ratio=True, scale=(800, 512), type='Resize'),
]
"""
)
MIDDLE = (
    NEW.replace(
        "dict(keep_ratio=True, scale=(800, 512), type='Resize'),",
        """dict(type='MultiScaleFlipAug', img_scale=(800, 512), flip=False, transforms=[
            dict(type='Resize', keep_ratio=True), dict(type='Pad', size_divisor=64)]),""",
    )
    .replace("test_pipeline = [", "data = dict(test=dict(type='CocoDataset', pipeline=[")
    .replace("]\n", "]))\n")
    .replace("data_preprocessor=dict(pad_size_divisor=64, type='DetDataPreprocessor'),\n", "\n")
    .replace("test_cfg = dict(type='TestLoop')", "")
)
OLD = (
    """
_scale = 'a name that is not used'
model = dict(
    rpn_head=dict(anchor_scales=[2], anchor_ratios=[0.3, 1.0, 3.0],
                  anchor_strides=[4, 8, 16, 32, 64],
                  target_means=[.0, .0, .0, .0], target_stds=[0.5, 0.5, 1.0, 1.0]),
    bbox_roi_extractor=dict(roi_layer=dict(type='RoIAlign', out_size=7, sample_num=2),
                            finest_scale=28, featmap_strides=[4, 8, 16, 32]),
    bbox_head=dict(target_stds=[0.05, 0.05, 0.1, 0.1], reg_class_agnostic=False),
    mask_roi_extractor=dict(roi_layer=dict(type='RoIAlign', out_size=14, sample_num=2)))
test_cfg = dict(
    rpn=dict(nms_across_levels=False, nms_pre=2000, nms_post=2000, max_num=500, nms_thr=0.8,
             min_bbox_size=2),"""
    + RCNN.replace("iou_threshold", "iou_thr")
    + """)
norm = dict(mean=[1, 2, 3], std=[1, 1, 1], to_rgb=True)
steps = [dict(type='MultiScaleFlipAug', img_scale=(800, 512), flip=False,
              transforms=[dict(type='Normalize', **norm), dict(type='Pad', size_divisor=64)])]
data = dict(imgs_per_gpu=2, test={'type': 'CocoDataset', 'pipeline': steps})
"""
)


def _load(folder: Path, text: str, net: Network = SMALL) -> Checkpoint:
    path = folder / "weights.pth"
    torch.save({"meta": {"config": text}, "state_dict": state_of(net)}, path)
    return load(path)


@pytest.mark.parametrize("text", [NEW, MIDDLE, OLD], ids=["3", "2", "1"])
def test_settings_are_applied_and_not_assumed(text: str, tmp_path: Path) -> None:
    checkpoint = _load(tmp_path, text)
    spec = checkpoint.spec
    pre, rpn, box, mask = spec.preprocess, spec.rpn, spec.box, spec.mask
    assert spec.anchors.sizes == ((8.0,), (16.0,), (32.0,), (64.0,), (128.0,))
    assert spec.anchors.ratios == ((0.3, 1.0, 3.0),) * 5
    assert (pre.short_side, pre.long_side, pre.size_divisor) == (512, 800, 64)
    assert (rpn.pre_nms, rpn.post_nms, rpn.nms_iou, rpn.min_size) == (2000, 500, 0.8, 2.0)
    assert rpn.box_weights == (2.0, 2.0, 1.0, 1.0)
    assert box.box_weights == (20.0, 20.0, 10.0, 10.0)
    assert (box.score_threshold, box.nms_iou, box.detections) == (0.3, 0.4, 50)
    assert mask.threshold == 0.4
    assert (box.pooler.sampling_ratio, mask.pooler.sampling_ratio) == (2, 2)
    assert (box.pooler.canonical_size, mask.pooler.canonical_size) == (28.0, 56.0)
    known = {"classes.names", "body.stride_in_1x1", "preprocess.channel_order"}
    assert {a.field for a in checkpoint.assumptions} <= known | {
        "preprocess.mean",
        "preprocess.std",
    }
    assert not checkpoint.notes


def test_a_missing_value_stays_an_assumption(tmp_path: Path) -> None:
    checkpoint = _load(tmp_path, "model = dict(test_cfg=dict(rpn=dict(nms_pre=500)))")
    assert (checkpoint.spec.rpn.pre_nms, checkpoint.spec.rpn.post_nms) == (500, 1000)
    assumed = {a.field: a.value for a in checkpoint.assumptions}
    assert (assumed["rpn.post_nms"], assumed["box.pooler.sampling_ratio"]) == ("1000", "0")
    assert "rpn.pre_nms" not in assumed


def test_configured_anchors_are_not_required(tmp_path: Path) -> None:
    state = state_of(SMALL)
    for name, per_anchor in (("rpn_cls", 1), ("rpn_reg", 4)):
        state[f"rpn_head.{name}.weight"] = torch.ones(4 * per_anchor, 16, 1, 1)
        state[f"rpn_head.{name}.bias"] = torch.ones(4 * per_anchor)
    text = """model = dict(rpn_head=dict(anchor_generator=dict(
        octave_base_scale=4, scales_per_octave=2, ratios=[1.0, 2.0], strides=[4, 8, 16, 32, 64],
        scale_major=False, center_offset=0.5)))"""
    path = tmp_path / "weights.pth"
    torch.save({"meta": {"cfg": text}, "state_dict": state}, path)
    anchors = load(path).spec.anchors
    assert anchors.sizes[0] == pytest.approx((16.0, 16.0 * 2**0.5))
    assert (anchors.per_cell, anchors.order, anchors.offset) == (4, "size-major", 0.5)


def test_unsupported_settings_are_noted(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for old, new, message in [
        ("max_per_img=50", "max_per_img=-1", "rcnn.max_per_img of its training is -1"),
        ("nms_pre=2000", "nms_pre=4 * 500", "rpn.nms_pre of its training is an expression"),
        ("mask_thr_binary=0.4", "mask_thr_binary=-1", "expected a number between 0 and 1"),
        ("score_thr=0.3", "score_thr='high'", "score_thr of its training is 'high'"),
        ("type='nms', iou_threshold=0.4", "type='soft_nms'", r"is 'soft_nms'.*expected 'nms'"),
        ("(800, 512)", "[(800, 512), (400, 256)]", "test_pipeline: scale of its training"),
        ("keep_ratio=True", "keep_ratio=False", "keep_ratio of its training is False"),
        ("[.0, .0, .0, .0]", "[.1, .0, .0, .0]", r"target_means .*expected \[0, 0, 0, 0\]"),
        ("style='pytorch'", "dilations=(1, 1, 1, 2)", "backbone.dilations of its training"),
        ("sampling_ratio=2", "sampling_ratio=99", "sampling_ratio of its training is 99"),
        ("max_per_img=500", "max_per_img=500, nms_post=9", "nms_post of its training is 9"),
        ("'AnchorGenerator'", "'LegacyAnchorGenerator'", "expected 'AnchorGenerator'"),
    ]:
        with subtests.test(message):
            assert old in NEW
            checkpoint = _load(tmp_path, NEW.replace(old, new))

            assert any(re.search(message, note) for note in checkpoint.notes), checkpoint.notes


def test_what_contradicts_the_weights_is_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for old, new, message in [
        ("scales=[2]", "scales=[2, 3]", "2 scales and 3 ratios .*expected 3 anchors per cell"),
        ("32, 64]", "32, 128]", r"anchor_generator.strides .*expected \[4.0, 8.0, 16.0, 32.0, 64"),
        ("output_size=7", "output_size=14", r"roi_layer.output_size .* is 14, .*expected \[7.0\]"),
        ("[4, 8, 16, 32]", "[8, 16, 32, 64]", "featmap_strides of its training"),
        ("rpn=dict(nms_pre=2000, max_per_img=500", "rpn=dict(max_per_img=5", "no valid network"),
    ]:
        with subtests.test(message):
            assert old in NEW
            with pytest.raises(CheckpointError, match=f"weights.pth: .*{message}"):
                _load(tmp_path, NEW.replace(old, new, 1))


def test_literals_dicts_and_names_are_read() -> None:
    text = """a = dict(x=1, y=[-2.5, None], z={'k': (True, 'é')})
b = dict(**a, x=2, n=len('abc'))
c = {**b, 'x': 3, 4: 5}"""
    tree = parse_config(text).tree
    assert tree["a"] == {"x": 1, "y": [-2.5, None], "z": {"k": [True, "é"]}}
    assert tree["c"] == {**parse_config(text).tree["a"], "x": 3, "n": UNREAD}  # type: ignore[dict-item]


def test_the_text_is_limited() -> None:
    """Entries count each time they are copied."""
    text = "a = dict(x=1, y=2)\nb = dict(**a, **a)"
    assert parse_config(text, max_steps=10).tree["b"] == {"x": 1, "y": 2}
    assert parse_config(text, max_steps=9).problem == "it is not valid Python"
    assert parse_config("a = 1", max_characters=5).tree == {"a": 1}
    assert parse_config("a = 12", max_characters=5).problem == "it has more than 5 characters"
    assert len(shown([[0] * 9] * 9)) <= 60


@pytest.mark.parametrize("error", [SyntaxError, ValueError, MemoryError, RecursionError])
def test_a_text_that_python_cannot_parse(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise error

    monkeypatch.setattr("model.families.mmdetection.config.ast.parse", fail)
    assert parse_config("a = 1").problem == "it is not valid Python"


@pytest.mark.parametrize("text", ["a = 1\0", "\ud800 = 1", "a = '\\d'", "a = 1 + 2", "a = b.c"])
def test_odd_texts_raise_nothing(text: str) -> None:
    parse_config(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = dict(", "not valid Python"),
        ("import datetime\ndatetime.date(2000, 1, 1)", "does more than assign"),
        ("model = dict()\nmodel['a'] = 3", "does more than assign"),
    ],
)
def test_a_configuration_that_is_not_read_is_noted(text: str, problem: str, tmp_path: Path) -> None:
    notes: tuple[Any, ...] = _load(tmp_path, text).notes
    assert any(problem in note and "configuration was not read" in note for note in notes)
