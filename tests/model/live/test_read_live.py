"""A live model is read by its values: our network computes what the module does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from model.live.read import LiveModel, read_live
from model.spec import ModuleBodySpec, ResNetSpec
from model.spec_json import from_json, to_json
from runtime.predictor import Predictor
from tests.live_models import photos_of, run_object, verdict_of
from tests.live_variants import KEPT, OWN, VARIANTS, built

# One of each kind; the others are slow.
QUICK = ("box coders", "four channels", "RPN head")


def _computes_the_same(names: Iterable[str], subtests: pytest.Subtests) -> None:
    for name in names:
        with subtests.test(name):
            model = built(name)
            live = read_live(model)
            assert bool(live.kept_paths) == (name in KEPT)
            assert live.assumptions == ()
            assert from_json(to_json(live.spec)) == live.spec
            photos = photos_of(live.spec.preprocess.channels)
            with Predictor.open(model, on_uncertified="ignore") as predictor:
                results = predictor.predict(photos, batch_size=3)
            verdict = verdict_of(model, photos, results)
            assert verdict.detections >= 60
            assert verdict.passed, "\n".join(map(str, [verdict, *verdict.excesses]))


def test_our_network_computes_what_the_module_does(subtests: pytest.Subtests) -> None:
    _computes_the_same(QUICK, subtests)


@pytest.mark.slow
def test_every_variant_computes_what_the_module_does(subtests: pytest.Subtests) -> None:
    _computes_the_same([name for name in VARIANTS if name not in QUICK], subtests)


Value = Callable[[LiveModel], object]
VALUES: tuple[tuple[str, Value, object], ...] = (
    ("defaults", lambda m: m.spec.architecture, "maskrcnn_resnet_10_narrow_fpn"),
    ("defaults", lambda m: m.spec.rpn.pre_nms, 100),
    ("odd epsilon", lambda m: m.spec.body.norm_eps, 0.07),
    ("frozen norms", lambda m: isinstance(m.spec.body, ResNetSpec), True),
    ("dilated", lambda m: m.spec.body.dilations, (1, 1, 1, 2)),
    ("dilated", lambda m: m.spec.box.pooler.strides, (4, 8, 16, 16)),
    ("pooled levels", lambda m: m.spec.box.pooler.levels, (1, 2)),
    ("pooled with the extra level", lambda m: m.spec.mask.pooler.strides, (16, 32, 64)),
    ("level rule", lambda m: m.spec.box.pooler.canonical_size, 50.0),
    ("adaptive sampling", lambda m: m.spec.box.pooler.sampling_ratio, 0),
    ("mask dilation", lambda m: m.spec.mask.dilation, 3),
    ("anchors", lambda m: m.spec.anchors.sizes[1], (16.0, 20.0)),
    ("anchors", lambda m: m.spec.anchors.cells, ()),
    ("anchors of a subclass", lambda m: len(m.spec.anchors.cells[0]), 2),
    ("thresholds", lambda m: m.spec.box.score_threshold, 0.3),
    ("thresholds", lambda m: m.spec.rpn.score_threshold, 0.2),
    ("thresholds", lambda m: m.spec.box.detections, 33),
    ("every score", lambda m: m.spec.box.detections, 100),  # all that 50 proposals can give
    ("box coders", lambda m: m.spec.rpn.max_log_ratio, 0.1),
    ("box coders", lambda m: m.spec.box.box_weights, (8.0, 9.0, 4.0, 3.0)),
    ("fixed size", lambda m: m.spec.preprocess.fixed_hw, (128, 96)),
    ("size divisor", lambda m: m.spec.preprocess.size_divisor, 64),
    ("several sides", lambda m: m.spec.preprocess.short_side, 80),
    ("one mean", lambda m: m.spec.preprocess.mean, (0.4,) * 3),
    ("four channels", lambda m: m.spec.preprocess.channels, 4),
    ("one map", lambda m: isinstance(m.spec.body, ModuleBodySpec), True),
    ("one map", lambda m: m.spec.architecture, "fasterrcnn_custom"),
    ("RPN head", lambda m: m.spec.rpn.module, "tests.live_variants.TwoTowers"),
    ("mask predictor", lambda m: m.spec.mask_side, 42),
    ("keypoints", lambda m: len(m.spec.keypoint.names), 5),
)


@pytest.mark.slow
def test_values_in_the_spec(subtests: pytest.Subtests) -> None:
    models = {name: read_live(built(name)) for name in dict.fromkeys(row[0] for row in VALUES)}
    for name, value, expected in VALUES:
        with subtests.test(name, expected=expected):
            found = value(models[name])
            assert found == (pytest.approx(expected) if type(expected) is float else expected)


@pytest.mark.slow
def test_dilation_as_torchvision_lays_it() -> None:
    # The first block of a dilated stage has the dilation of the stage before.
    from torchvision.models import resnet50
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor

    from tests.live_variants import heads, mask_rcnn

    body = resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
    backbone = _resnet_fpn_extractor(body, 5)
    live = read_live(mask_rcnn(backbone, **heads(256)).eval())
    assert isinstance(live.spec.body, ResNetSpec)
    assert live.spec.body.first_dilations == (1, 1, 1, 2)
    assert live.spec.body.dilations == (1, 1, 2, 4)
    assert live.kept_paths == ()


def test_scales_of_a_model_that_has_run_are_its_own() -> None:
    # torchvision takes the strides from the first photo, and keeps them for all others.
    fresh = built("defaults")
    flat = built("defaults")
    with torch.inference_mode():
        flat([torch.rand(3, 8, 160)])
    assert read_live(fresh).spec.box.pooler.strides == (4, 8, 16, 32)
    assert read_live(flat).spec.box.pooler.strides[-1] < 32
    photo = photos_of()[0]
    with Predictor.open(flat, on_uncertified="ignore") as predictor:
        scores = predictor.predict(photo).scores
    # Most of its boxes are outside of the maps, so that many scores are equal.
    np.testing.assert_allclose(scores, run_object(flat, [photo])[0].scores, atol=1e-6)


def _state_of(model: nn.Module) -> tuple[object, ...]:
    """All that an export could change."""
    parts = list(model.modules())
    return (
        [p.training for p in parts],
        [(n, t.dtype, t.device, t.requires_grad, id(t)) for n, t in model.named_parameters()],
        [(n, t.dtype, id(t), t.sum().item()) for n, t in model.named_buffers()],
        [list(p._forward_hooks.values()) for p in parts],
        [list(p._forward_pre_hooks.values()) for p in parts],
        model.transform.min_size,
        model.roi_heads.score_thresh,
        model.roi_heads.box_roi_pool.scales,
        model.rpn.anchor_generator.cell_anchors[0].dtype,
        [sorted(vars(p)) for p in parts],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_the_object_stays_as_it_was(dtype: torch.dtype) -> None:
    model = built("defaults").to(dtype).train()
    model.backbone.fpn.eval()  # as a frozen part of a training
    next(model.parameters()).requires_grad = False
    seen: list[object] = []
    model.backbone.register_forward_hook(lambda *_: seen.append(1))
    before = _state_of(model)
    live = read_live(model)
    live.build()
    assert _state_of(model) == before
    assert {p.dtype for p in live.reference.parameters()} == {torch.float32}
    assert not any(p.training for p in live.reference.modules())
    assert "left out: the hooks of backbone" in live.notes
    assert not any(p._forward_hooks for p in live.build().modules())


class _Training(nn.Module):
    """A training's module, whose forward only calls the detector."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: list[torch.Tensor]) -> object:
        return self.detector(images)


def test_wrappers_are_taken_off(subtests: pytest.Subtests) -> None:
    from torch.optim.swa_utils import AveragedModel

    model = built("defaults")
    expected = read_live(model)
    compiled = built("defaults")
    compiled.backbone.body = torch.compile(compiled.backbone.body)
    wrapped: dict[str, nn.Module] = {
        "parallel": nn.DataParallel(model),
        "compiled": torch.compile(model),
        "a compiled part": compiled,
        "averaged": AveragedModel(model),
        "a training's": _Training(model),
        "several": nn.DataParallel(_Training(torch.compile(model))),
    }
    for name, module in wrapped.items():
        with subtests.test(name):
            live = read_live(module)
            assert (live.spec, live.sha256) == (expected.spec, expected.sha256)
            assert replace(live, notes=()).kept_paths == ()


def test_weight_norms_are_kept() -> None:
    model = built("defaults")
    layer = model.backbone.body.layer1[0].conv1
    torch.nn.utils.parametrizations.weight_norm(layer)
    live = read_live(model)
    assert live.kept_paths == ("backbone.body",)
    photos = photos_of()[:1]
    with Predictor.open(model, on_uncertified="ignore") as predictor:
        assert verdict_of(model, photos, predictor.predict(photos)).passed


def test_all_variants_are_of_one_table() -> None:
    assert set(QUICK) <= set(VARIANTS) == {*OWN, *KEPT}
