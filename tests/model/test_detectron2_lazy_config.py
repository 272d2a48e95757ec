"""LazyConfig's `config.yaml` gives the same spec as the configuration by keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from model.checkpoint import load
from model.errors import CheckpointError
from tests.detectron2_models import C4, FPN, saved


def call(name: str, **arguments: object) -> dict[str, Any]:
    """A class with its arguments, as LazyConfig saves it."""
    return {"_target_": f"detectron2.modeling.{name}", **arguments}


def _pooler(side: int) -> dict[str, Any]:
    return call("poolers.ROIPooler", output_size=side, sampling_ratio=0, pooler_type="ROIAlignV2")


def lazy(has_pyramid: bool = True) -> dict[str, Any]:
    """After detectron2's `configs/common/models/mask_rcnn_fpn.py` and `mask_rcnn_c4.py`."""
    stages = call("backbone.ResNet.make_default_stages", stride_in_1x1=True, norm="FrozenBN")
    body = call("backbone.ResNet", stages=stages, out_features=["res4"])
    features = [f"p{i}" for i in range(2, 7)] if has_pyramid else ["res4"]
    sizes = [[32], [64], [128], [256], [512]] if has_pyramid else [[32, 64, 128, 256, 512]]
    anchors = call(
        "anchor_generator.DefaultAnchorGenerator",
        sizes=sizes,
        aspect_ratios=[0.5, 1.0, 2.0],
        offset=0.0,
    )
    top = 1000 if has_pyramid else 6000
    proposals = call(
        "proposal_generator.RPN",
        in_features=features,
        head=call("proposal_generator.StandardRPNHead", num_anchors=3),
        anchor_generator=anchors,
        pre_nms_topk=[2 * top, top],
        post_nms_topk=[1000, 1000],
        nms_thresh=0.7,
    )
    predictor = call(
        "roi_heads.FastRCNNOutputLayers",
        test_score_thresh=0.05,
        box2box_transform=call("box_regression.Box2BoxTransform", weights=[10, 10, 5, 5]),
        num_classes="${..num_classes}",
    )
    mask_head = call("roi_heads.MaskRCNNConvUpsampleHead")
    common: dict[str, Any] = {"num_classes": 3, "box_predictor": predictor, "mask_head": mask_head}
    if has_pyramid:
        body = call("backbone.FPN", bottom_up=body, in_features=["res2", "res3", "res4", "res5"])
        heads = call(
            "roi_heads.StandardROIHeads",
            box_in_features=features[:-1],
            box_pooler=_pooler(7),
            mask_pooler=_pooler(14),
            **common,
        )
    else:
        heads = call("roi_heads.Res5ROIHeads", in_features=features, pooler=_pooler(14), **common)
    step = call("transforms.ResizeShortestEdge", short_edge_length=800, max_size=1333)
    return {
        "model": call(
            "meta_arch.rcnn.GeneralizedRCNN",
            backbone=body,
            proposal_generator=proposals,
            roi_heads=heads,
            pixel_mean=[103.53, 116.28, 123.675],
            pixel_std=[1.0, 1.0, 1.0],
            input_format="BGR",
        ),
        "dataloader": {"test": {"mapper": {"augmentations": [step]}}},
    }


def _load(folder: Path, spec: Any, tree: dict[str, Any]) -> Any:
    path = saved(folder, spec)
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return load(path)


@pytest.mark.parametrize("spec", [FPN, C4], ids=["FPN", "C4"])
def test_the_spec_is_that_of_the_other_configuration(spec: Any, tmp_path: Path) -> None:
    checkpoint = _load(tmp_path, spec, lazy(has_pyramid=spec is FPN))
    assert checkpoint.spec == spec
    assert {a.field for a in checkpoint.assumptions} == {"classes.names"}


def test_values_and_the_constructors_defaults(tmp_path: Path) -> None:
    tree = lazy()
    del tree["model"]["proposal_generator"]["anchor_generator"]["offset"]
    del tree["model"]["roi_heads"]["box_predictor"]["test_score_thresh"]
    tree["model"]["roi_heads"]["box_predictor"]["test_topk_per_image"] = 50
    tree["dataloader"]["test"]["mapper"]["augmentations"][0]["short_edge_length"] = 640
    spec = _load(tmp_path, FPN, tree).spec
    assert (spec.anchors.offset, spec.box.score_threshold) == (0.5, 0.0)
    assert (spec.box.detections, spec.preprocess.short_side) == (50, 640)


def test_other_classes_are_refused(tmp_path: Path) -> None:
    tree = lazy()
    tree["model"]["roi_heads"]["_target_"] = "detectron2.modeling.roi_heads.CascadeROIHeads"
    with pytest.raises(CheckpointError, match="'CascadeROIHeads', which cannot be exported"):
        _load(tmp_path, FPN, tree)
