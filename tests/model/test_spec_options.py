"""Options and spec files, and the assumptions that they replace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import model.checkpoint
from model.checkpoint import Checkpoint, SpecOptions, load, read_spec_file
from model.errors import CheckpointError, MaskportError, SpecError, UsageError
from model.families.assumptions import listing
from model.files.weights_file import Weights, read_weights
from model.files.wrappings import Recognizer
from tests.small_checkpoint import SPEC, saved, sound_state


def opened(folder: Path, **options: Any) -> Checkpoint:
    return load(saved(folder), SpecOptions(**options))


def assumed(checkpoint: Checkpoint) -> set[str]:
    return {a.field for a in checkpoint.assumptions}


def test_an_option_sets_its_field_and_ends_its_assumption(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for option, value, field in [
        ("short_side", 320, "preprocess.short_side"),
        ("long_side", 2000, "preprocess.long_side"),
        ("score_threshold", 0.5, "box.score_threshold"),
        ("score_threshold", 0.0, "box.score_threshold"),
        ("nms_iou", 0.3, "box.nms_iou"),
        ("detections", 7, "box.detections"),
        ("candidates", 300, "box.candidates"),
        ("norm_eps", 1e-3, "body.norm_eps"),
        ("norm_eps", 0.0, "body.norm_eps"),
        ("names", ("cat", "dog"), "classes.names"),
    ]:
        with subtests.test(option=option):
            before, after = opened(tmp_path), opened(tmp_path, **{option: value})
            part, name = field.split(".")
            actual = getattr(getattr(after.spec, part), name)
            assert actual == (("__background__", "cat", "dog") if option == "names" else value)
            assert assumed(before) - assumed(after) == {field} - {"box.candidates"}
            assert assumed(after) <= assumed(before)


def test_assumptions_are_listed_by_part_with_their_options(tmp_path: Path) -> None:
    lines = list(listing(opened(tmp_path, nms_iou=0.25).assumptions))
    assert [line.partition(":")[0] for line in lines] == [
        "body", "classes", "fpn", "preprocess", "anchors", "rpn", "box", "mask"
    ]  # fmt: skip
    assert lines[0].startswith("body: norm_eps 1e-05 (--norm-eps), dilations 4x 1, ")
    assert lines[2] == "fpn: extra_level pool (--spec)"
    assert "nms_iou" not in lines[6]


def test_values_are_those_after_all_options(tmp_path: Path) -> None:
    """One option may change another field, or make it useless."""
    overrides = {"preprocess": {"fixed_hw": [160, 224]}}
    checkpoint = opened(tmp_path, overrides=overrides)
    assert not {"preprocess.short_side", "preprocess.fixed_hw"} & assumed(checkpoint)
    levels = {"box": {"pooler": {"levels": [0], "strides": [4]}}}
    values = {a.field: a.value for a in opened(tmp_path, overrides=levels).assumptions}
    assert values["mask.pooler.levels"] == "0/1/2/3"
    assert "box.pooler.levels" not in values


def test_epsilon_reaches_every_norm(tmp_path: Path) -> None:
    network = opened(tmp_path, norm_eps=0.25).build()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert {m.eps for m in norms} == {0.25}


@pytest.mark.parametrize(
    ("sha256", "eps"),
    [("bf2d0c1e", 0.0), ("258fb6c6", 0.0), ("bf2d0c1f", 1e-5), ("0bf2d0c1e", 1e-5)],
)
def test_epsilon_of_published_files(
    sha256: str, eps: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_with_hash(path: Path, known: Sequence[Recognizer]) -> Weights:
        return replace(read_weights(path, known), sha256=sha256.ljust(64, "0"))

    monkeypatch.setattr(model.checkpoint, "read_weights", read_with_hash)
    checkpoint = opened(tmp_path)
    assert checkpoint.spec.body.norm_eps == eps
    assert ("body.norm_eps" in assumed(checkpoint)) == (eps > 0)
    assert opened(tmp_path, norm_eps=0.5).spec.body.norm_eps == 0.5


def test_the_numbers_of_detections_and_candidates(tmp_path: Path) -> None:
    assert opened(tmp_path, detections=800).spec.box.candidates == 3200
    assert opened(tmp_path, detections=800, candidates=900).spec.box.candidates == 900
    assert opened(tmp_path, detections=10).spec.box.candidates == SPEC.box.candidates
    assert opened(tmp_path, detections=2000).spec.box.detections == 2000
    assert opened(tmp_path, overrides={"box": {"candidates": 150}}).spec.box.candidates == 150


@pytest.mark.parametrize(
    "names",
    [("cat", "dog"), ("__background__", "cat", "dog"), ("none", "cat", "dog")],
    ids=["without", "with", "with-another"],
)
def test_names_with_or_without_the_background(names: tuple[str, ...], tmp_path: Path) -> None:
    actual = opened(tmp_path, names=names).spec.classes.names
    assert actual == (names if len(names) == 3 else ("__background__", *names))


@pytest.mark.parametrize("count", [0, 1, 4, 91])
def test_names_of_the_wrong_length(count: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"--names: expected 2 class names .* got {count}$"):
        opened(tmp_path, names=tuple(f"n{i}" for i in range(count)))


def test_impossible_options_are_usage_errors(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for options in [
        {"short_side": 0},
        {"short_side": -5},
        {"short_side": 900, "long_side": 800},
        {"long_side": 700},
        {"long_side": 20_000},
        {"score_threshold": 1.5},
        {"score_threshold": float("nan")},
        {"nms_iou": -0.1},
        {"nms_iou": float("nan")},
        {"detections": 0},
        {"detections": 2001},
        {"detections": 100_000},
        {"candidates": 0},
        {"candidates": 99},
        {"norm_eps": -1e-5},
        {"norm_eps": float("inf")},
        {"short_side": "800"},
        {"detections": 1.5},
    ]:
        with subtests.test(options=options):
            with pytest.raises(UsageError) as caught:
                opened(tmp_path, **options)
            assert "\n" not in str(caught.value)


# A spec file


def test_overrides_end_their_assumptions(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for overrides, field, value in [
        ({"preprocess": {"short_side": 600}}, "preprocess.short_side", 600),
        ({"box": {"nms_iou": 1}}, "box.nms_iou", 1.0),
        ({"classes": {"names": ["bg", "cat", "dog"]}}, "classes.names", ("bg", "cat", "dog")),
        ({"anchors": {"ratios": [[1, 2, 3]] * 5}}, "anchors.ratios", ((1.0, 2.0, 3.0),) * 5),
        ({"body": {"norm_eps": 0.5}}, "body.norm_eps", 0.5),
    ]:
        with subtests.test(overrides=overrides):
            checkpoint = opened(tmp_path, overrides=overrides)
            part, name = field.split(".")
            assert getattr(getattr(checkpoint.spec, part), name) == value
            assert assumed(opened(tmp_path)) - assumed(checkpoint) == {field}


def test_options_and_spec_file_are_combined(tmp_path: Path) -> None:
    overrides = {"preprocess": {"short_side": 600, "long_side": 700}}
    spec = opened(tmp_path, short_side=650, overrides=overrides).spec
    assert (spec.preprocess.short_side, spec.preprocess.long_side) == (650, 700)
    assert overrides == {"preprocess": {"short_side": 600, "long_side": 700}}
    # 2000 alone would exceed the long side; with the option it does not.
    overrides = {"preprocess": {"short_side": 2000}}
    assert opened(tmp_path, long_side=3000, overrides=overrides).spec.preprocess.short_side == 2000


def test_impossible_overrides_are_named(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for overrides, message in [
        ({"box": {"nms_iuo": 0.5}}, "spec.box: unknown field 'nms_iuo'; did you mean 'nms_iou'?"),
        ({"ancors": {}}, "spec: unknown field 'ancors'; did you mean 'anchors'?"),
        ({"box": None}, "spec.box: expected an object"),
        ({"box": {"nms_iou": None}}, "spec.box.nms_iou: expected float, got None"),
        ({"box": {"nms_iou": "0.5"}}, "spec.box.nms_iou: expected float, got '0.5'"),
        ({"box": {"nms_iou": True}}, "spec.box.nms_iou: expected float, got True"),
        ({"box": {"detections": 5.0}}, "spec.box.detections: expected int, got 5.0"),
        ({"classes": {"names": ["a", "b"]}}, "expected 3 names"),
        ({"classes": {"names": ["a", 2, "c"]}}, "spec.classes.names[1]: expected str"),
        ({"classes": {"dataset_ids": [1]}}, "one dataset id per name"),
        ({"box": {"fc_widths": []}}, "fc_widths"),
        ({"box": {"fc_widths": [17, 17]}}, "tensor 'roi_heads.box_head.fc6.weight' has shape"),
        ({"body": {"blocks": [1, 1]}}, "one entry per stage"),
        ({"body": {"groups": 3}}, "groups"),
        ({"body": {"blocks": [1, 1, 1, 2]}}, "missing tensors"),
        ({"anchors": {"sizes": [[1.0]]}}, "anchors"),
        ({"anchors": {"ratios": [[1, 2]] * 5}}, "rpn.head.cls_logits.weight"),
        ({"rpn": {"post_nms": 10}}, "100 detections are more than 10 proposals of 2 classes"),
        ({"fpn": {"extra_level": "none"}}, "anchors: expected sizes and ratios for 4 levels"),
        ({"mask": None}, "roi_heads.mask_head"),
        ({"body": {"kind": ["resnet"]}}, "spec.body.kind"),
    ]:
        with subtests.test(message):
            with pytest.raises((SpecError, CheckpointError)) as caught:
                opened(tmp_path, overrides=overrides)
            assert message in str(caught.value)
            assert "\n" not in str(caught.value)


def test_invalid_spec_files(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for content, message in [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[]", "expected a JSON object, got list"),
        (b"null", "expected a JSON object, got NoneType"),
        (b"\xff\xfe{}", "JSON"),
        (b"[" * 1_500, "JSON"),
        (b'{"box": ' + b"9" * 4301 + b"}", "JSON"),
        (b'{"schema_version": 1}', "schema_version 2, got 1"),
    ]:
        with subtests.test(message):
            path = tmp_path / "spec.json"
            path.write_bytes(content)
            with pytest.raises(SpecError) as caught:
                read_spec_file(path)
            assert str(caught.value).startswith(f"{path}: ")
            assert message in str(caught.value)


def test_spec_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_bytes(b'\xef\xbb\xbf{"schema_version": 2, "box": {"detections": 5}}')
    assert read_spec_file(path) == {"box": {"detections": 5}}
    with pytest.raises(SpecError, match="no such file"):
        read_spec_file(tmp_path / "missing.json")


# Anchors that are not torchvision's


def _five_anchors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        **state,
        "rpn.head.cls_logits.weight": torch.zeros(5, 8, 1, 1),
        "rpn.head.cls_logits.bias": torch.zeros(5),
        "rpn.head.bbox_pred.weight": torch.zeros(20, 8, 1, 1),
        "rpn.head.bbox_pred.bias": torch.zeros(20),
    }


SIZES, RATIOS = [[8, 16, 32, 64, 128]] * 5, [[1.0]] * 5


@pytest.mark.parametrize("anchors", [{}, {"sizes": SIZES}, {"ratios": RATIOS}], ids=str)
def test_unknown_anchors_are_required(anchors: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path, _five_anchors(sound_state()))
    missing = "ratios" if "sizes" in anchors else "sizes"
    with pytest.raises(MaskportError) as caught:
        load(path, SpecOptions(overrides={"anchors": anchors}))
    assert "anchors" in str(caught.value)
    if not anchors:
        assert f"'anchors.{missing}'" in str(caught.value)


def test_unknown_anchors_can_be_set(tmp_path: Path) -> None:
    path = saved(tmp_path, _five_anchors(sound_state()))
    overrides = {"anchors": {"sizes": SIZES, "ratios": RATIOS}}
    checkpoint = load(path, SpecOptions(overrides=overrides))
    assert checkpoint.spec.anchors.per_cell == 5
    assert not {"anchors.sizes", "anchors.ratios"} & assumed(checkpoint)
