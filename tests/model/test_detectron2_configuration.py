"""A detectron2 configuration against its weights, the user's options and files of its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from model.checkpoint import SpecOptions, load
from model.errors import CheckpointError, UsageError
from model.spec import ModelSpec
from tests.detectron2_models import CASES, FPN, configuration, saved, state, tree_of


def _configured(folder: Path, settings: dict[str, Any]) -> Path:
    path = saved(folder, FPN)
    content = yaml.safe_dump(tree_of(configuration("fpn") | settings))
    (folder / "config.yaml").write_text(content)
    return path


def test_values_that_limit_others(tmp_path: Path) -> None:
    settings = {"INPUT.MIN_SIZE_TEST": 800, "INPUT.MAX_SIZE_TEST": 500}
    preprocess = load(_configured(tmp_path, settings)).spec.preprocess
    assert (preprocess.short_side, preprocess.long_side) == (500, 500)
    settings = {"MODEL.RPN.POST_NMS_TOPK_TEST": 20}
    assert load(_configured(tmp_path, settings)).spec.box.detections == 20 * 3
    settings = {"MODEL.ROI_BOX_HEAD.NORM": "GN"}
    assert load(_with_norms(FPN, tmp_path, settings)).spec == FPN


def test_the_option_in_the_message_is_a_remedy(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for settings, option, message in [
        (
            {"INPUT.MIN_SIZE_TEST": 0},
            SpecOptions(short_side=600),
            "INPUT.MIN_SIZE_TEST: expected 1 or more, got 0; set --short-side",
        ),
        (
            {"INPUT.MAX_SIZE_TEST": 0},
            SpecOptions(overrides={"preprocess": {"long_side": 900}}),
            "INPUT.MAX_SIZE_TEST: expected 1 or more, got 0; set --long-side",
        ),
        (
            {"TEST.DETECTIONS_PER_IMAGE": -1},
            SpecOptions(detections=50),
            "TEST.DETECTIONS_PER_IMAGE: expected 1 or more, got -1; set --detections",
        ),
        (
            {"INPUT.MIN_SIZE_TEST": 20_000, "INPUT.MAX_SIZE_TEST": 30_000},
            SpecOptions(short_side=600, long_side=900),
            "set --short-side and --long-side",
        ),
    ]:
        with subtests.test(message):
            path = _configured(tmp_path, settings)
            with pytest.raises(CheckpointError, match=message):
                load(path)
            spec = load(path, option).spec
            if option.short_side is not None:
                assert spec.preprocess.short_side == option.short_side
            if option.detections is not None:
                assert spec.box.detections == option.detections


def test_errors_of_options_and_statistics(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="set --short-side"):
        load(_configured(tmp_path, {"INPUT.MIN_SIZE_TEST": 0}), SpecOptions(short_side=-5))
    with pytest.raises(CheckpointError, match=r"missing tensors: .*res3\.0\.conv1\.norm\.running"):
        load(_with_norms(FPN, tmp_path, {}, "backbone.bottom_up.res3."))


STRAY = ["{}", "MODEL: null", "wandb_version: 1\nlr:\n  desc: null\n  value: 0.1\n", "SEEDLING: 1"]


@pytest.mark.parametrize("text", STRAY, ids=["empty", "null", "other", "alike"])
def test_a_config_yaml_of_another_program(text: str, tmp_path: Path) -> None:
    path, config = saved(tmp_path, FPN), tmp_path / "config.yaml"
    config.write_text(text)
    with pytest.raises(CheckpointError, match=r"in the folder .* not a detectron2 .* move it"):
        load(path)
    with pytest.raises(CheckpointError, match=r"is not a detectron2 .* of a training"):
        load(path, config=config)


def test_a_message_distinguishes_defaults_from_explicit_values(tmp_path: Path) -> None:
    path, config = saved(tmp_path, FPN), tmp_path / "config.yaml"
    config.write_text("MODEL: {MASK_ON: true}")
    with pytest.raises(CheckpointError, match=r"IN_FEATURES is \[\] by default \(not set"):
        load(path)
    config.write_text("MODEL: {MASK_ON: true, FPN: {IN_FEATURES: []}}")
    with pytest.raises(CheckpointError, match=r"IN_FEATURES is \[\], which"):
        load(path)
    config.write_text("_BASE_: Base-RCNN-FPN.yaml")
    with pytest.raises(CheckpointError, match=r"MASK_ON is False by default"):
        load(path)


def _with_norms(spec: ModelSpec, folder: Path, settings: dict[str, Any], without: str = "") -> Path:
    """Save `spec` with these settings, without the statistics of `without`."""
    tensors = state(spec)
    if without:
        tensors = {n: t for n, t in tensors.items() if not (without in n and "running_" in n)}
    torch.save({"model": tensors}, folder / "model.pth")
    text = yaml.safe_dump(tree_of(configuration("fpn") | settings))
    (folder / "config.yaml").write_text(text)
    return folder / "model.pth"


GN = CASES["group-norm"][0]
NO_NORM = CASES["no-norm-r18"][0]
GN_SETTINGS = {"MODEL.RESNETS.NORM": "GN", "MODEL.FPN.FUSE_TYPE": "avg"}


def test_a_norm_that_contradicts_the_tensors(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for spec, settings, message in [
        (FPN, {"MODEL.RESNETS.NORM": "GN"}, r"BatchNorm, with .*RESNETS\.NORM is 'GN'"),
        (FPN, {"MODEL.RESNETS.NORM": ""}, r"BatchNorm, with .*RESNETS\.NORM is ''"),
        (NO_NORM, {"MODEL.RESNETS.NORM": "FrozenBN"}, r"no normalization .* is 'FrozenBN'"),
        (FPN, {"MODEL.FPN.NORM": "GN"}, r"no normalization after 'backbone\.fpn_lateral2'"),
        (GN, GN_SETTINGS | {"MODEL.FPN.NORM": ""}, r"GroupNorm, .* MODEL\.FPN\.NORM is ''"),
        (FPN, {"MODEL.ROI_MASK_HEAD.NORM": "BN"}, r"ROI_MASK_HEAD\.NORM is 'BN'"),
        (GN, GN_SETTINGS | {"MODEL.ROI_BOX_HEAD.NORM": ""}, r"ROI_BOX_HEAD\.NORM is ''"),
    ]:
        with subtests.test(message), pytest.raises(CheckpointError, match=message):
            load(_with_norms(spec, tmp_path, settings))


@pytest.mark.parametrize(
    "settings", [{}, {"MODEL.RESNETS.NORM": "FrozenBN"}], ids=["default", "explicit"]
)
def test_old_files_without_statistics(settings: dict[str, Any], tmp_path: Path) -> None:
    """`FrozenBatchNorm2d` takes mean 0 and variance 1."""
    checkpoint = load(_with_norms(FPN, tmp_path, settings, "backbone."))
    assert checkpoint.spec == FPN
    assert "53 BatchNorms without running statistics" in checkpoint.notes[1]
    tensors = checkpoint.build().state_dict()
    assert all(not t.any() for n, t in tensors.items() if n.endswith("running_mean"))
    assert all((t == 1).all() for n, t in tensors.items() if n.endswith("running_var"))


DUMPED = {
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": 17,
}


@pytest.mark.parametrize("key", DUMPED)
def test_a_size_that_differs_from_the_weights_is_noted(key: str, tmp_path: Path) -> None:
    case = "keypoints" if "KEYPOINT" in key else "fpn"
    path = saved(tmp_path, CASES[case][0])
    for value in (DUMPED[key], 101):
        text = yaml.safe_dump(tree_of(configuration(case) | DUMPED | {key: value}))
        (tmp_path / "config.yaml").write_text(text)
        checkpoint = load(path)
        assert checkpoint.spec == CASES[case][0]
        expected = f"{key} is 101 in config.yaml, but {DUMPED[key]} in the weights, which are used"
        assert checkpoint.notes[1:] == (() if value == DUMPED[key] else (expected,))


def test_pixel_values_that_differ_in_the_weights_are_noted(tmp_path: Path) -> None:
    buffers = {"pixel_mean": torch.full((3, 1, 1), 7.0), "pixel_std": torch.ones(3, 1, 1)}
    torch.save({"model": state(FPN) | buffers}, tmp_path / "old.pth")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree_of(configuration("fpn"))))
    checkpoint = load(tmp_path / "old.pth")
    assert checkpoint.spec == FPN
    assert checkpoint.notes[1:] == (
        "MODEL.PIXEL_MEAN is [103.53, 116.28, 123.675] by default (not set in the file) in "
        "config.yaml, but 'pixel_mean' in the weights is [7.0, 7.0, 7.0]; the configuration is "
        "used",
    )
    options = SpecOptions(overrides={"preprocess": {"mean": [1.0, 2.0, 3.0]}})
    assert len(load(tmp_path / "old.pth", options).notes) == 1


def test_settings_without_an_effect(tmp_path: Path) -> None:
    odd = {f"ODD_{i:03}\x1b\n": 1 for i in range(99)}
    note = load(_configured(tmp_path, odd)).notes[1]
    assert note.endswith(r"ODD_019\x1b\n and 79 more")
    assert note.isprintable()
    path = _with_norms(GN, tmp_path, {})
    (tmp_path / "config.yaml").unlink()
    lines = [str(a) for a in load(path).assumptions]
    assert "body.norm group_norm of 32 groups (--spec)" in lines
