"""detectron2's checkpoints: what weights and configuration decide, and what they cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from model.checkpoint import Checkpoint, load
from model.errors import CheckpointError, UsageError
from model.families.detectron2.names import original_name
from model.families.detectron2.settings import DEFAULTS, Settings, read_settings
from model.families.detectron2.spec import build_spec
from model.families.shapes import Shapes
from model.spec import ResNetSpec
from tests.detectron2_models import (
    BODY,
    CASES,
    DC5,
    FPN,
    configuration,
    saved,
    state,
    state_of,
    tree_of,
)


def _opened(folder: Path, case: str) -> Checkpoint:
    path = saved(folder, CASES[case][0])
    (folder / "config.yaml").write_text(yaml.safe_dump(tree_of(configuration(case))))
    return load(path)


@pytest.mark.parametrize("case", CASES)
def test_weights_and_configuration_give_the_spec(case: str, tmp_path: Path) -> None:
    checkpoint = _opened(tmp_path, case)
    assert checkpoint.spec == CASES[case][0]
    names = {"classes.names"} | ({"keypoint.names"} if checkpoint.spec.keypoint else set())
    assert {a.field for a in checkpoint.assumptions} == names
    assert checkpoint.notes[0] == f"configuration: {tmp_path / 'config.yaml'}"
    network = checkpoint.build()
    given = state(CASES[case][0])
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, given[original_name(name, checkpoint.spec)]), name


@pytest.mark.parametrize("case", ["fpn", "c4", "dc5", "keypoints", "boxes"])
def test_without_a_configuration_the_base_file_is_assumed(case: str, tmp_path: Path) -> None:
    checkpoint = load(saved(tmp_path, CASES[case][0]))
    assert checkpoint.spec == CASES[case][0]
    assert "Base-" in checkpoint.notes[0]
    assert "--config" in checkpoint.notes[0]
    lines = [str(assumption) for assumption in checkpoint.assumptions]
    for start in (
        "preprocess.channel_order bgr",
        "preprocess.mean",
        "anchors.sizes",
        "box.scoring",
    ):
        assert any(line.startswith(start) for line in lines), start


def test_a_resnext_without_a_configuration(tmp_path: Path) -> None:
    """The zoo's ResNeXts stride the 3x3 and divide by a deviation."""
    spec = replace(FPN, body=replace(BODY, blocks=(3, 4, 23, 3), groups=4))
    read = load(saved(tmp_path, spec)).spec
    assert isinstance(read.body, ResNetSpec)
    assert not read.body.stride_in_1x1
    assert read.preprocess.std == (57.375, 57.12, 58.395)


def test_buffers_of_old_files_are_read_or_left_out(tmp_path: Path) -> None:
    tensors = state(FPN)
    tensors["pixel_mean"] = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    tensors["pixel_std"] = torch.tensor([4.0, 5.0, 6.0]).reshape(3, 1, 1)
    tensors["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    torch.save({"model": tensors}, tmp_path / "old.pth")
    checkpoint = load(tmp_path / "old.pth")
    assert checkpoint.spec.preprocess.mean == (1.0, 2.0, 3.0)
    assert checkpoint.spec.preprocess.std == (4.0, 5.0, 6.0)
    assert not {"preprocess.mean", "preprocess.std"} & {a.field for a in checkpoint.assumptions}


def test_an_existing_base_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, FPN)
    whole = tree_of(configuration("fpn"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(whole))
    text = '_BASE_: "mine.yaml"\nTEST: {DETECTIONS_PER_IMAGE: 7}\nMODEL: {RPN: {NMS_THRESH: 0.6}}'
    config = tmp_path / "other.yaml"
    config.write_text(text)
    spec = load(path, config=config).spec
    assert (spec.box.detections, spec.rpn.nms_iou) == (7, 0.6)
    path = saved(tmp_path, DC5)
    text = (
        "_BASE_: ../Base-RCNN-DilatedC5.yaml\nMODEL: {MASK_ON: true, ROI_HEADS: {NUM_CLASSES: 3}}"
    )
    (tmp_path / "config.yaml").write_text(text)
    assert load(path).spec == DC5


def test_keys_that_are_not_known(tmp_path: Path) -> None:
    _opened(tmp_path, "fpn")
    content = configuration("fpn") | {"MODEL.ROI_HEADS.NMS_THRESHOLD": 0.9, "EXTRA.KEY": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree_of(content)))
    notes = load(tmp_path / "model_final.pth").notes
    assert "EXTRA.KEY, MODEL.ROI_HEADS.NMS_THRESHOLD" in notes[1]
    odd = ["MODEL.RESNETS.DEPTHWISE", "MODEL.ROI_BOX_HEAD.NUM_CONV_LAYERS", "MODEL.WEIGHTS_ONLY"]
    known = ["SOLVER.ANYTHING", "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES", "MODEL.WEIGHTS"]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree_of(dict.fromkeys([*odd, "SEEDLING", *known], 1))))
    assert read_settings(path).unknown == (*odd, "SEEDLING")


def test_values_written_as_texts(tmp_path: Path) -> None:
    """YAML has none, so that a person writes them as texts; yacs makes lists of them."""
    path = saved(tmp_path, FPN)
    content = configuration("fpn") | {
        "MODEL.FPN.IN_FEATURES": '("res2", "res3", "res4", "res5")',
        "MODEL.ANCHOR_GENERATOR.SIZES": "((32,), (64,), (128,), (256,), (512,))",
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree_of(content)))
    assert load(path).spec == FPN
    content = configuration("fpn") | {"MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": "(1.0, 2.0, 3, 4)"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree_of(content)))
    assert load(path).spec.box.box_weights == (1.0, 2.0, 3.0, 4.0)


REFUSED = {
    "MODEL.META_ARCHITECTURE": "RetinaNet",
    "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
    "MODEL.ANCHOR_GENERATOR.NAME": "RotatedAnchorGenerator",
    "MODEL.ROI_HEADS.NUM_CLASSES": 4,
    "MODEL.MASK_ON": False,
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3"],
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, True, True, True],
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignRotated",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [1, 2],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[1], [2]],
    "MODEL.RPN.NMS_THRESH": "high",
    "MODEL.BACKBONE.NAME": "build_regnet_fpn_backbone",
    "INPUT.FORMAT": "L",
    "MODEL.RESNETS.NORM": "LN",
    "MODEL.FPN.NORM": "LN",
    "TEST.AUG.ENABLED": True,
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.MIN_SIZE_TEST", float("inf")),
        ("TEST.DETECTIONS_PER_IMAGE", float("nan")),
        ("INPUT.MAX_SIZE_TEST", 800.7),
        ("MODEL.RESNETS.STRIDE_IN_1X1", "no"),
        ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", 2),
        pytest.param("INPUT.MIN_SIZE_TEST", 10**400, id="huge"),
        ("INPUT.MIN_SIZE_TEST", 1e300),
        ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", [10**400, 1, 1, 1]),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[10**400]]),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[True]]),
        ("MODEL.ANCHOR_GENERATOR.SIZES", ["12"]),
    ],
)
def test_values_of_another_kind_are_refused(key: str, value: object, tmp_path: Path) -> None:
    path = saved(tmp_path, FPN)
    content = configuration("fpn") | {key: value}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree_of(content)))
    with pytest.raises(CheckpointError, match=f"{key}: expected"):
        load(path)


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_followed_is_refused(key: str, tmp_path: Path) -> None:
    path = saved(tmp_path, FPN)
    content = configuration("fpn") | {key: REFUSED[key]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree_of(content)))
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


def _other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value / 2 if 0 < value < 1 else value + 1
    if isinstance(value, list):
        return [_other(v) for v in value] or ["other"]
    return "RGB" if value == "BGR" else "other"


def test_every_key_changes_the_spec_or_is_refused(subtests: pytest.Subtests) -> None:
    """A key that nothing reads would be ignored in silence."""
    for key in DEFAULTS:
        with subtests.test(key=key):
            reacted = []
            for case in ("fpn", "keypoints"):
                shapes = Shapes(
                    Path("m.pth"), {n: tuple(t.shape) for n, t in state_of(case).items()}
                )
                values = {**DEFAULTS, **configuration(case)}
                settings = Settings(values, "config.yaml", frozenset(DEFAULTS))
                spec = build_spec(shapes, settings)
                try:
                    changed = replace(settings, values={**values, key: _other(values[key])})
                    reacted.append(build_spec(shapes, changed) != spec)
                except CheckpointError:
                    reacted.append(True)
            assert any(reacted)


def test_other_networks_are_named(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for change, message in [
        ({"roi_heads.box_head.0.fc1.weight": torch.zeros(2, 2)}, "Cascade"),
        ({"backbone.bottom_up.res3.0.conv2_offset.weight": torch.zeros(18, 8, 3, 3)}, "deformable"),
    ]:
        with subtests.test(message):
            torch.save({"model": state(FPN) | change}, tmp_path / "odd.pth")
            with pytest.raises(CheckpointError, match=message):
                load(tmp_path / "odd.pth")


def test_odd_tensors_are_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name, shape, message in [
        ("backbone.fpn_lateral.weight", (8, 16, 1, 1), "unexpected tensors: 1"),
        ("backbone.fpn_lateral12.weight", (8, 16, 1, 1), "unexpected tensors: 1"),
        ("backbone.bottom_up.res2.0.conv2.weight", (8, 0, 3, 3), "shape"),
        ("backbone.bottom_up.res2.0.conv2.weight", (), "shape"),
    ]:
        with subtests.test(message):
            torch.save({"model": state(FPN) | {name: torch.zeros(shape)}}, tmp_path / "odd.pth")
            with pytest.raises(CheckpointError, match=message):
                load(tmp_path / "odd.pth")


def test_a_bottom_up_without_a_pyramid(tmp_path: Path) -> None:
    tensors = {n: t for n, t in state(FPN).items() if not n.startswith("backbone.fpn_")}
    torch.save({"model": tensors}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"expected tensors such as 'backbone\.fpn_lateral2"):
        load(tmp_path / "odd.pth")


def test_configurations_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load(saved(tmp_path, FPN), config=tmp_path / "absent.yaml")
    path = saved(tmp_path, FPN)
    (tmp_path / "config.yaml").write_text("_BASE_: ../mine.yaml\n")
    with pytest.raises(CheckpointError, match=r"_BASE_ '../mine.yaml' does not exist"):
        load(path)
