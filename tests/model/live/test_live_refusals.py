"""What cannot be exported is refused in one line, with the part, its class and what to do."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from model.errors import ModelError, UsageError
from model.live.read import read_live
from model.spec_options import SpecOptions
from tests.live_variants import SmallBody, built, faster_rcnn, mask_rcnn, pyramid


class _Heads(RoIHeads):
    def postprocess_detections(self, *args: Any) -> Any:
        return super().postprocess_detections(*args)


class _Transform(GeneralizedRCNNTransform):
    def normalize(self, image: Tensor) -> Tensor:
        return image - 0.5


class _Filtering(nn.Module):
    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        return [{k: v[r["scores"] > 0.5] for k, v in r.items()} for r in self.detector(images)]


class _Positions(nn.Module):
    """A body with learned positions, of one size of canvas."""

    def __init__(self, side: int = 96) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 16, 16)
        self.positions = nn.Parameter(torch.randn(1, 8, side // 16, side // 16))
        self.out_channels = 8

    def forward(self, x: Tensor) -> Tensor:
        return self.patches(x) + self.positions


class _Returns(nn.Module):
    def __init__(self, output: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.output, self.out_channels = output, 8

    def forward(self, x: Any) -> object:
        return self.output(x)


def _with(change: Callable[[Any], object]) -> nn.Module:
    model = built("defaults")
    change(model)
    return model


def _class(part: nn.Module, kind: type) -> None:
    part.__class__ = kind


def _set(path: str, value: object) -> nn.Module:
    model = built("defaults")
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, value)
    return model


def _quantized() -> nn.Module:
    model = built("defaults")
    model.roi_heads.box_head.fc6 = torch.ao.nn.quantized.dynamic.Linear(8 * 49, 16)
    return model


def _two(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros(len(x), 3), torch.zeros(len(x), 4)  # boxes of no class


def _of_library(module: str) -> nn.Module:
    """A stand-in for a model of a library that is not installed."""
    return type("Detector", (nn.Module,), {"__module__": module})()


REFUSALS: tuple[tuple[str, Callable[[], object], str], ...] = (
    ("a state dict", lambda: built("defaults").state_dict(), "pass its path"),
    ("a number", lambda: 3, "expected a module .*, got builtins.int"),
    ("no detector", lambda: nn.Linear(2, 2), "no two-stage detector .*; expected a MaskRCNN"),
    (
        "one stage",
        lambda: RetinaNet(pyramid(), 3),
        "RetinaNet: no two-stage detector",
    ),
    (
        "detectron2",
        lambda: nn.Sequential(_of_library("detectron2.modeling.meta_arch.rcnn")),
        "live models of detectron2 cannot be read; .* --config config.yaml",
    ),
    (
        "MMDetection",
        lambda: _of_library("mmdet.models.detectors.mask_rcnn"),
        "live models of mmdet cannot be read; .* --config config.py",
    ),
    (
        "two detectors",
        lambda: nn.ModuleDict({"student": built("defaults"), "teacher": built("defaults")}),
        "2 detectors .'student', 'teacher'.; pass the one",
    ),
    ("a wrapper that filters", lambda: _Filtering(built("defaults")), "pass its part 'detector'"),
    ("a script", lambda: torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), "TorchScript"),
    ("quantized", _quantized, "fc6: torch.ao.* is quantized by PyTorch; pass the model in float"),
    ("on the meta device", lambda: built("defaults").to("meta"), "meta device.*; load the weights"),
    (
        "RoI heads of a subclass",
        lambda: _with(lambda m: _class(m.roi_heads, _Heads)),
        r"roi_heads: .*_Heads replaces postprocess_detections\(\) of RoIHeads",
    ),
    (
        "a transform of a subclass",
        lambda: _with(lambda m: _class(m.transform, _Transform)),
        r"transform: .*_Transform replaces normalize\(\)",
    ),
    (
        "a method of the instance",
        lambda: _with(lambda m: setattr(m.rpn, "filter_proposals", lambda *a: a)),
        r"rpn: .* replaces filter_proposals\(\)",
    ),
    (
        "another pooler",
        lambda: _set("roi_heads.box_roi_pool", nn.Identity()),
        "box_roi_pool: .*Identity cannot be exported; expected MultiScaleRoIAlign",
    ),
    (
        "a pool that is not square",
        lambda: _set("roi_heads.box_roi_pool", MultiScaleRoIAlign(["0"], (7, 5), 2)),
        "output_size 7x5 cannot be exported; expected a square",
    ),
    (
        "maps of other names",
        lambda: _set("roi_heads.box_roi_pool", MultiScaleRoIAlign(["p3"], 7, 2)),
        r"featmap_names \['p3'\] are none of the body's maps; expected some of",
    ),
    (
        "levels with a gap",
        lambda: _set("roi_heads.box_roi_pool", MultiScaleRoIAlign(["0", "2"], 7, 2)),
        "strides 4, 16 .* equal or double",
    ),
    (
        "a body that returns a list",
        lambda: faster_rcnn(_Returns(lambda x: [x])),
        r"backbone: .*_Returns returns \[tensor .*; expected a map",
    ),
    (
        "a body that fails",
        lambda: faster_rcnn(_Returns(lambda x: x.missing)),
        "backbone: .*_Returns fails on tensor .*missing",
    ),
    (
        "a body of one size",
        lambda: faster_rcnn(_Positions()),
        "needs a canvas of 96x96; export with --size 96x96, or set .*fixed_size to .96, 96.",
    ),
    (
        "boxes of no class",
        lambda: _set("roi_heads.box_predictor", _Returns(_two)),
        r"box_predictor: .* returns \(tensor \[2, 3\], tensor \[2, 4\]\) .*; expected \(scores",
    ),
    (
        "one mask for all classes",
        lambda: _set("roi_heads.mask_predictor", _Returns(lambda x: x[:, :1])),
        r"mask_predictor: .* returns tensor \[2, 1, .*; expected square logits \[2, 3, S, S\]",
    ),
    (
        "an RPN head without deltas",
        lambda: _set("rpn.head", _Returns(lambda maps: ([m[:, :3] for m in maps], maps))),
        "rpn.head: .*_Returns does not return scores",
    ),
    (
        "levels without anchors",
        lambda: mask_rcnn(rpn_anchor_generator=AnchorGenerator(((8,),), ((1.0,) * 3,))),
        "sizes for 1 levels, but the backbone returns 5 maps",
    ),
    (
        "different anchors per level",
        lambda: mask_rcnn(
            rpn_anchor_generator=AnchorGenerator(((8, 9), *((8,),) * 4), ((0.5, 1.0, 2.0),) * 5)
        ),
        "equally many anchors per cell",
    ),
    (
        "maps of different widths",
        lambda: faster_rcnn(
            SmallBody(), rpn_anchor_generator=AnchorGenerator(((8,),) * 4, ((1.0,),) * 4)
        ),
        r"maps of \[8, 12, 16, 24\] channels; expected the same number",
    ),
    (
        "two means",
        lambda: mask_rcnn(image_mean=[0.5, 0.5], image_std=[1.0] * 3),
        "image_mean has 2 values, the model takes 3 channels",
    ),
)


def test_refusals(subtests: pytest.Subtests) -> None:
    for name, build, message in REFUSALS:
        with subtests.test(name), pytest.raises(ModelError, match=message) as caught:
            read_live(build())
        assert "\n" not in str(caught.value)


def test_a_body_of_one_size_takes_that_size() -> None:
    model = faster_rcnn(_Positions()).eval()
    assert read_live(model, canvas_hw=(96, 96)).spec.body.strides == (16,)
    with pytest.raises(ModelError, match=re.escape("needs a canvas of 96x96, got 64x96")):
        read_live(model, canvas_hw=(64, 96))
    fixed = faster_rcnn(_Positions(), fixed_size=(96, 96)).eval()
    assert read_live(fixed).spec.preprocess.fixed_canvas_hw == (96, 96)


def test_options_of_a_live_model() -> None:
    model = built("defaults")
    options = SpecOptions(
        norm_eps=0.0,
        short_side=64,
        score_threshold=0.2,
        nms_iou=0.4,
        detections=7,
        names=("cat", "dog"),
    )
    live = read_live(model, options)
    assert live.spec.classes.names == ("__background__", "cat", "dog")
    assert (live.spec.box.score_threshold, live.spec.preprocess.short_side) == (0.2, 64)
    heads, transform = live.reference.roi_heads, live.reference.transform
    assert (heads.score_thresh, heads.nms_thresh, heads.detections_per_img) == (0.2, 0.4, 7)
    assert transform.min_size == (64,)
    assert live.spec.body.norm_eps == live.reference.backbone.body.bn1.eps == 0.0
    assert model.roi_heads.score_thresh == 0.05
    with pytest.raises(UsageError, match="'rpn' is decided by the model"):
        read_live(model, SpecOptions(overrides={"rpn": {"pre_nms": 7}}))


def test_a_dictionary_that_is_ordered_is_a_body() -> None:
    body = _Returns(lambda x: OrderedDict([("only", torch.ones(len(x), 8, 4, 4))]))
    pool = MultiScaleRoIAlign(["only"], 7, 2)
    assert read_live(faster_rcnn(body, box_roi_pool=pool)).spec.box.pooler.strides == (64,)
