from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.checkpoint import load
from model.errors import CheckpointError
from model.families import coco
from model.families.dialect import Source
from model.families.mmdetection.dialect import DIALECT
from model.mask_rcnn import MaskRCNN
from model.spec import ModelSpec
from model.spec_options import SpecOptions
from tests.mmdetection_files import Network, state_of

SMALL = Network((1, 1, 1, 1), base=8, fpn=16, fc=24, classes=3)
X101 = (3, 4, 23, 3)
CAFFE = """model = dict(backbone=dict(type='ResNet', norm_eval=True, style='caffe'))
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
test = dict(type='Normalize', mean=[103.53, 116.28, 123.675],
            std=[1.0, 1.0, 1.0], to_rgb=False, target_stds=[0.1, 0.1, 0.2, 0.2])"""
NETWORKS = {
    "maskrcnn_resnet50_fpn": Network(),
    "maskrcnn_resnet101_fpn": Network(X101),
    "maskrcnn_resnext101_32x4d_fpn": Network(X101, groups=32, width_per_group=4),
    "maskrcnn_resnext101_64x4d_fpn": Network(X101, groups=64, width_per_group=4),
    "maskrcnn_resnext101_32x8d_fpn": Network(X101, groups=32, width_per_group=8),
    "fasterrcnn_resnet50_fpn": Network(masks=False, classes=7),
}
VARIANTS = {
    "group-norm": Network(body_norm="gn", head_norm="gn", shared_convs=4),
    "batch-norm-everywhere": Network(head_norm="bn", shared_convs=4),
    "class-agnostic": Network(agnostic=True),
    "two-rpn-convolutions": Network(rpn_convs=2),
    "one-class": Network(classes=1),
}


def _read(net: Network, meta: dict[Any, object] | None = None) -> ModelSpec:
    state = state_of(net, "meta")
    source = Source(Path("w.pth"), "", None, meta or {}, tuple(state))
    return DIALECT.read(DIALECT.prepare(state, source.path), source).spec


def _saved(folder: Path, net: Network = SMALL, **meta: object) -> Path:
    path = folder / "weights.pth"
    torch.save({"meta": meta, "state_dict": state_of(net)}, path)
    return path


@pytest.mark.parametrize("case", [*NETWORKS, *VARIANTS])
def test_every_name_of_a_real_network_is_mapped(case: str) -> None:
    net = (NETWORKS | VARIANTS)[case]
    spec = _read(net)
    with torch.device("meta"):
        own = MaskRCNN(spec).state_dict()
    mapped = {DIALECT.original(name, spec): tuple(t.shape) for name, t in own.items()}
    assert len(mapped) == len(own)
    assert mapped == {name: tuple(t.shape) for name, t in state_of(net, "meta").items()}
    if case in NETWORKS:
        assert spec.architecture == case


def test_norms_are_identified_by_their_parameters() -> None:
    spec = _read(VARIANTS["group-norm"])
    kinds = {spec.body.norm, spec.fpn.norm, spec.box.norm, spec.mask.norm}
    assert kinds == {"group_norm"}
    assert _read(Network()).body.norm == "batch_norm"
    assert _read(Network()).mask.norm == "none"


def test_the_rules_of_the_framework() -> None:
    spec = _read(Network())
    pre, box, rpn, mask = spec.preprocess, spec.box, spec.rpn, spec.mask
    assert (pre.resize_rule, pre.interpolation) == ("mmdetection", "opencv-bilinear")
    assert (pre.channel_order, pre.mean) == ("rgb", (123.675, 116.28, 103.53))
    assert spec.anchors.sizes == ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    assert (spec.anchors.rounded, spec.anchors.stride_rule) == (False, "nominal")
    assert (rpn.min_size, rpn.min_size_inclusive, rpn.size_clamp) == (0.0, False, "both")
    assert (box.background, box.size_clamp, box.to_image) == ("last", "both", "scale")
    assert (mask.paste, mask.threshold_inclusive) == ("float", True)
    assert (box.pooler.output_size, mask.pooler.output_size) == (7, 14)
    assert spec.classes == coco.without_gaps()


def test_a_file_is_read_and_its_tensors_are_used(tmp_path: Path) -> None:
    checkpoint = load(_saved(tmp_path))
    state = state_of(SMALL)
    own = checkpoint.build().state_dict()
    for name, tensor in own.items():
        torch.testing.assert_close(
            tensor, state[DIALECT.original(name, checkpoint.spec)].to(tensor)
        )
    assert checkpoint.spec.dialect == "mmdetection"
    shown = " ".join(map(str, checkpoint.assumptions))
    assert "body.stride_in_1x1 False (--spec)" in shown
    assert "classes.names class_0/class_1/class_2 (--names)" in shown


@pytest.mark.parametrize("version", [2, 3])
def test_values_of_the_metadata_are_not_assumed(version: int, tmp_path: Path) -> None:
    names = ("cat", "dog", "cow")
    if version == 2:
        path = _saved(tmp_path, mmdet_version="2.28.2+e9cae2d", CLASSES=names, config=CAFFE)
    else:
        text = CAFFE.replace("to_rgb", "bgr_to_rgb")
        path = _saved(tmp_path, dataset_meta={"classes": names, "palette": [(1, 2, 3)]}, cfg=text)
    checkpoint = load(path)
    pre = checkpoint.spec.preprocess
    assert checkpoint.spec.classes.names == names
    assert checkpoint.spec.body.stride_in_1x1
    assert (pre.channel_order, pre.mean) == ("bgr", (103.53, 116.28, 123.675))
    assert pre.std == (1.0, 1.0, 1.0)
    fields = {"classes.names", "body.stride_in_1x1", "preprocess.mean", "preprocess.channel_order"}
    assert not fields & {a.field for a in checkpoint.assumptions}
    assert ("written by MMDetection 2.28.2+e9cae2d" in checkpoint.notes) == (version == 2)


def test_odd_notes_of_a_training_do_no_harm(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for meta in [
        {"CLASSES": None, "config": 7},
        {"CLASSES": ["a", 1, "b"], "cfg": "mean=[1, 2]\nstd=['"},
        {"CLASSES": ("a",) * 99, "dataset_meta": [1]},
        {"dataset_meta": {"classes": {"a": 1}}, "mmdet_version": 3.1},
        {"config": "mean=[1e999, 1, 1] style='caffe("},
        {7: 8, "config": "mean=["},
    ]:
        with subtests.test(meta=meta):
            path = tmp_path / "weights.pth"
            torch.save({"meta": meta, "state_dict": state_of(SMALL)}, path)
            spec = load(path).spec
            assert spec.classes.names == ("class_0", "class_1", "class_2")
            assert spec.preprocess.mean == (123.675, 116.28, 103.53)


def test_mean_and_std_that_are_stored_are_used(tmp_path: Path) -> None:
    state = state_of(SMALL)
    state["data_preprocessor.mean"] = torch.tensor([103.53, 116.28, 123.675]).reshape(3, 1, 1)
    state["data_preprocessor.std"] = torch.ones(3, 1, 1)
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": state, "meta": {"cfg": "a = dict(mean=[1, 2, 3])"}}, path)
    checkpoint = load(path)
    pre = checkpoint.spec.preprocess
    assert (pre.mean, pre.std) == ((103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
    assert not {"preprocess.mean", "preprocess.std"} & {a.field for a in checkpoint.assumptions}
    state = state_of(SMALL)
    doubles = {f"ema_{n.replace('.', '_')}": torch.full_like(t, 9.0) for n, t in state.items()}
    torch.save({"state_dict": state | doubles}, path)
    checkpoint = load(path)
    assert checkpoint.tensors.keys() == load(_saved(tmp_path)).tensors.keys()
    note = f"{len(doubles)} tensors 'ema_…' are not used"
    assert any(n.startswith(note) for n in checkpoint.notes), checkpoint.notes


def test_options_and_ambiguous_values(tmp_path: Path) -> None:
    options = SpecOptions(overrides={"body": {"stride_in_1x1": True}})
    checkpoint = load(_saved(tmp_path), options)
    assert checkpoint.spec.body.stride_in_1x1
    assert "body.stride_in_1x1" not in {a.field for a in checkpoint.assumptions}
    text = CAFFE + "\nother = dict(style='pytorch', mean=[0, 0, 0])"
    checkpoint = load(_saved(tmp_path, config=text))
    assert not checkpoint.spec.body.stride_in_1x1
    assert {"body.stride_in_1x1", "preprocess.mean"} <= {a.field for a in checkpoint.assumptions}
    assert checkpoint.spec.preprocess.channel_order == "bgr"


def _old(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As version 1 would have trained the same network."""
    old = {}
    for name, tensor in state.items():
        if ".fc_cls." in name:
            tensor = torch.cat([tensor[-1:], tensor[:-1]])
        elif ".fc_reg." in name:
            tensor = torch.cat([torch.full_like(tensor[:4], 9.0), tensor])
        elif ".conv_logits." in name:
            tensor = torch.cat([torch.full_like(tensor[:1], 9.0), tensor])
        old[name.removeprefix("roi_head.")] = tensor
    return old


def test_version_1_has_other_names_and_the_background_first(tmp_path: Path) -> None:
    new = load(_saved(tmp_path))
    path = tmp_path / "old.pth"
    torch.save({"meta": {"mmdet_version": "1.2.0"}, "state_dict": _old(state_of(SMALL))}, path)
    old = load(path)
    assert old.spec == new.spec
    for name, tensor in new.tensors.items():
        assert torch.equal(old.tensors[name], tensor), name
    assert "boxes that end a pixel later" in " ".join(old.notes)
    assert "boxes that end a pixel later" not in " ".join(new.notes)


def test_what_else_it_trains_is_refused_by_name(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for names, message in [
        (["backbone.layer2.0.conv2_offset.weight"], "deformable convolutions"),
        (["backbone.layer2.0.conv2.conv_offset.bias"], "deformable convolutions"),
        (["roi_head.bbox_head.0.fc_cls.weight"], "a Cascade R-CNN"),
        (["roi_head.mask_iou_head.convs.0.conv.weight"], "a Mask Scoring R-CNN"),
        (["roi_head.point_head.fcs.0.conv.weight"], "a PointRend"),
        (["backbone.stem.0.weight"], "a ResNet with a deep stem"),
        (["backbone.layer1.0.downsample.2.weight"], "avg_down"),
        (["neck.1.refine.conv.weight"], "several necks"),
        (["neck.pafpn_convs.0.conv.weight"], "a PAFPN"),
        (["rpn_head.conv_loc.weight"], "anchors that are learnt"),
        (["roi_head.bbox_head.cls_convs.0.conv.weight"], "a box head with two branches"),
        (["neck.fpn_convs.4.conv.weight"], "extra levels by convolution"),
        (["roi_head.something.weight"], "unexpected tensors: 1, first 'roi_head.something.weight'"),
    ]:
        with subtests.test(message):
            path = tmp_path / "weights.pth"
            torch.save(
                {"state_dict": state_of(SMALL) | dict.fromkeys(names, torch.ones(2, 2))}, path
            )
            with pytest.raises(CheckpointError, match=f"weights.pth: .*{message}"):
                load(path)


def test_other_detectors_are_refused_by_name(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for without, instead, message in [
        (("rpn_head.", "roi_head."), "bbox_head.retina_cls.weight", "a RetinaNet"),
        (("rpn_head.", "roi_head."), "bbox_head.conv_cls.weight", "a one-stage detector"),
        (("neck.",), "roi_head.shared_head.layer4.0.conv1.weight", "a detector without FPN"),
        (("backbone.",), "backbone.patch_embed.projection.weight", "whose body is no ResNet"),
        (("roi_head.mask_head.upsample.",), "x", "tensor 'roi_head.mask_head.upsample.weight' is"),
        (("backbone.layer3.0.bn2.bias",), "", "missing tensors: 1"),
    ]:
        with subtests.test(message):
            state = {n: t for n, t in state_of(SMALL).items() if not n.startswith(without)}
            if instead:
                state[instead] = torch.ones(2, 2)
            path = tmp_path / "weights.pth"
            torch.save({"state_dict": state}, path)
            with pytest.raises(CheckpointError, match=message):
                load(path)


def test_heads_with_other_anchors(tmp_path: Path) -> None:
    state = state_of(SMALL)
    state["rpn_head.rpn_cls.weight"] = torch.ones(6, 16, 1, 1)
    state["rpn_head.rpn_cls.bias"] = torch.ones(6)
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"6 outputs for 3 anchors"):
        load(path)
    state = state_of(SMALL)
    for name, per_anchor in (("rpn_cls", 1), ("rpn_reg", 4)):
        state[f"rpn_head.{name}.weight"] = torch.ones(5 * per_anchor, 16, 1, 1)
        state[f"rpn_head.{name}.bias"] = torch.ones(5 * per_anchor)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"'anchors.ratios' are not in the weights"):
        load(path)
    anchors = {
        "sizes": [[8.0 * s] for s in (4, 8, 16, 32, 64)],
        "ratios": [[0.3, 0.5, 1, 2, 3.0]] * 5,
    }
    assert load(path, SpecOptions(overrides={"anchors": anchors})).spec.anchors.per_cell == 5


def test_the_error_on_a_training_state_has_a_remedy(tmp_path: Path) -> None:
    """Of objects that are not known here; `HistoryBuffer`s of version 3 do no harm."""
    import pickle
    import zipfile

    path = tmp_path / "epoch_12.pth"
    body = pickle.dumps({"state_dict": {}}, 2)[:-1] + b"cmmengine.runner\nRunner\n0."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", body)
        archive.writestr("weights/version", b"3\n")
    with pytest.raises(CheckpointError, match=r'MMDetection training.*\["state_dict"\] alone'):
        load(path)
