"""mayaku's own results, where it is installed: pip install mayaku==2.0.1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from export.onnx import SAMPLE_PHOTO
from runtime.predictor import Predictor

pytestmark = pytest.mark.slow
KINDS: dict[str, dict[str, Any]] = {
    "faster_rcnn": {},
    "mask_rcnn": {"mask_on": True, "roi_mask_head": {"num_conv": 2, "conv_dim": 32}},
    "keypoint_rcnn": {
        "keypoint_on": True,
        "roi_keypoint_head": {"conv_dims": (32, 32), "num_keypoints": 5},
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_detections(kind: str, tmp_path: Path) -> None:
    """Random weights, and a photo of several shapes."""
    schemas = pytest.importorskip("mayaku.config.schemas")
    detectors = pytest.importorskip(f"mayaku.models.detectors.{kind}")
    from mayaku.inference.predictor import Predictor as Theirs
    from mayaku.utils.checkpoint import build_sidecar

    torch.manual_seed(0)
    config = schemas.MayakuConfig(
        model={
            "meta_architecture": kind,
            "fpn": {"out_channels": 32},
            "rpn": {"pre_nms_topk_test": 500, "post_nms_topk_test": 200},
            "roi_heads": {"num_classes": 3, "score_thresh_test": 0.2, "nms_thresh_test": 0.4},
            "roi_box_head": {"fc_dim": 64},
            **KINDS[kind],
        },
        input={"min_size_test": 240, "max_size_test": 400},
        test={"detections_per_image": 60},
    )
    model = getattr(detectors, f"build_{kind}")(config).eval()
    with torch.no_grad():
        model.rpn.head.objectness_logits.weight.mul_(10)
        model.roi_heads.box_predictor.cls_score.weight.mul_(4)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(8)
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.5)
    photo = np.array(Image.open(SAMPLE_PHOTO).convert("RGB"))
    theirs = Theirs._from_cfg(config, model)(photo)
    path = tmp_path / "model.pth"
    sidecar = build_sidecar(config, ["cat", "dog", "cow"])
    torch.save({"model": model.state_dict(), "mayaku": sidecar}, path)
    with Predictor.open(path) as predictor:
        ours = predictor.predict(photo)
        assert not any("score_threshold" in line for line in predictor.artifact.assumptions)
    assert len(ours) == len(theirs.scores) > 20
    boxes = theirs.pred_boxes.tensor.numpy()
    distance = np.abs(boxes[:, None] - ours.boxes[None]).max(axis=2)
    distance[theirs.pred_classes.numpy()[:, None] != ours.labels[None]] = np.inf
    row = distance.argmin(axis=1)  # equal scores may be in another order
    assert sorted(row) == list(range(len(ours)))
    assert distance.min(axis=1).max() < 1e-2
    np.testing.assert_allclose(ours.scores[row], theirs.scores, atol=1e-5)
    if kind == "mask_rcnn":
        assert ours.masks is not None
        assert (ours.masks[row] != theirs.pred_masks.numpy()).mean() < 1e-5
    if kind == "keypoint_rcnn":
        assert ours.keypoints is not None
        np.testing.assert_allclose(ours.keypoints[row], theirs.pred_keypoints, atol=1e-2)
