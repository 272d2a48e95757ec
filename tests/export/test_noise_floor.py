"""Noisy networks through the whole check: eager with other rounding passes, faults are refused.

The tiny network's own rounding is too small to matter. Here every layer's output is rounded at
random to a coarser step, as a network would that amplifies rounding; every seed is another library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.negative_controls import Model, outcome
from bench.noisy_models import adapt
from export.parity.network_reference import NetworkEager
from export.parity.torchvision_reference import EagerRun
from model.checkpoint import Checkpoint, SpecOptions
from model.mask_rcnn import MaskRCNN
from runtime.compare.limits import FP32_ONNX, Verdict
from runtime.compare.matching import compare
from runtime.compare.noise import measure
from runtime.compare.noise_check import check_with_noise
from runtime.detections import Detections
from tests.lively import enliven_network, picture
from tests.reliability import tiny
from tests.zoo import LONG_SIDE, SHORT_SIDE, ZOO

THRESHOLD = 0.05
SPEC = replace(
    tiny.SPEC,
    dialect="detectron2",
    box=replace(tiny.SPEC.box, detections=40, candidates=200, score_threshold=THRESHOLD),
    rpn=replace(tiny.SPEC.rpn, pre_nms=300, post_nms=100),
)
NOISY, QUIET = 3e-5, 0.0
PHOTO = tiny.photo(96, 128, seed=5)
Fault = Callable[[MaskRCNN], None]


@cache
def _network() -> MaskRCNN:
    pictures = [tiny.photo(96, 96, seed) for seed in range(3)]
    images = torch.stack([torch.tensor(p).permute(2, 0, 1).float() / 255 for p in pictures])
    return enliven_network(MaskRCNN(SPEC).eval().requires_grad_(False), images)


def _eager(fault: Fault | None = None) -> NetworkEager:
    checkpoint = Checkpoint(Path("none"), "", SPEC, _network().state_dict(), {}, ())
    eager = NetworkEager(checkpoint)
    if fault is not None:
        fault(eager.model)
    return eager


@contextmanager
def _rounded(model: nn.Module, step: float, seed: int) -> Iterator[None]:
    """Round the output of every layer by up to `step` of its largest value."""
    random = torch.Generator().manual_seed(seed)

    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        amount = step * float(output.abs().max())
        return output + amount * (torch.rand(output.shape, generator=random) - 0.5)

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _run(eager: NetworkEager, step: float, seed: int) -> Detections:
    with _rounded(eager.model, step, seed):
        return eager.run(PHOTO, THRESHOLD).detections  # type: ignore[return-value]


@cache
def _clean() -> tuple[NetworkEager, EagerRun]:
    eager = _eager()
    return eager, eager.run(PHOTO, THRESHOLD)


def _check(candidate: Detections, step: float) -> Verdict:
    eager, run = _clean()
    verdict, _ = check_with_noise(
        [compare(run.detections, candidate, "photo")],
        lambda _: run.trace,
        lambda: measure([[compare(run.detections, _run(eager, step, seed=1), "photo")]]),
    )
    assert verdict.detections == 40
    return verdict


def test_another_rounding_of_a_noisy_network_passes() -> None:
    for seed in (2, 3, 4):
        candidate = _run(_eager(), NOISY, seed)
        verdict = _check(candidate, NOISY)
        assert (verdict.worst_score_diff or 0) > 2 * FP32_ONNX.score.value
        assert verdict.passed, [*map(str, (verdict, *verdict.statistics, *verdict.excesses))]
        assert not _check(candidate, QUIET).passed


def _shift_rois(model: MaskRCNN) -> None:
    """By a tenth of a cell."""
    cell = 0.1 / SPEC.box.pooler.output_size

    def shifted(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        features, rois, *rest = inputs
        wh = rois[..., 2:] - rois[..., :2]
        return features, rois + cell * torch.cat((wh, wh), dim=-1), *rest

    model.box_pool.register_forward_pre_hook(shifted)


def _swap_classes(model: MaskRCNN) -> None:
    head = model.box_head
    for tensor in (head.cls_score.weight, head.cls_score.bias):
        tensor[[1, 2]] = tensor[[2, 1]].clone()


def _swap_channels(model: MaskRCNN) -> None:
    weight = model.get_parameter("body.conv1.weight")
    weight.copy_(weight.flip(1))


def _scale_bias(name: str) -> Fault:
    def fault(model: MaskRCNN) -> None:
        model.get_parameter(f"{name}.bias").mul_(1.01)

    return fault


FAULTS: dict[str, Fault] = {
    "RoIAlign shifted by a tenth of a cell": _shift_rois,
    "two classes swapped": _swap_classes,
    "channels swapped": _swap_channels,
    "bias of the pyramid x 1.01": _scale_bias("fpn.layer_blocks.0.0"),
    "bias of the RPN x 1.01": _scale_bias("rpn.head.conv.0.0"),
}


@pytest.mark.parametrize("step", [QUIET, NOISY], ids=["quiet", "noisy"])
def test_faults_of_the_network_are_refused(step: float, subtests: pytest.Subtests) -> None:
    for kind, fault in FAULTS.items():
        with subtests.test(kind):
            verdict = _check(_run(_eager(fault), step, seed=2), step)
            assert not verdict.passed


@pytest.mark.parametrize("step", [QUIET, NOISY], ids=["quiet", "noisy"])
def test_faults_of_the_results_are_refused(step: float) -> None:
    candidate = _run(_eager(), step, seed=2)
    assert not _check(candidate.take(np.arange(39)), step).passed
    assert candidate.mask_probs is not None
    probs = candidate.mask_probs.copy()
    asymmetry = np.abs(probs - probs.transpose(0, 2, 1)).max(axis=(1, 2))
    row = int(asymmetry.argmax())
    probs[row] = probs[row].T
    assert not _check(replace(candidate, mask_probs=probs), step).passed


@pytest.mark.slow
def test_faults_of_a_file_are_refused(tmp_path: Path) -> None:
    weights, options = tmp_path / "v2.pth", SpecOptions(short_side=SHORT_SIDE, long_side=LONG_SIDE)
    photos = [picture(150, 200, seed) for seed in (1, 2)]
    torch.manual_seed(7)
    network = ZOO["v2-91"]().eval()
    adapt(network, [torch.tensor(p).permute(2, 0, 1).float() / 255 for p in photos])
    torch.save(network.state_dict(), weights)
    model = Model("v2", weights, options, photos[0])
    verdict = model.verdict(model.correct)
    assert verdict.passed, [*map(str, (verdict, *verdict.statistics, *verdict.excesses))]
    controls = list(model.controls())
    assert len(controls) >= 10
    for control in controls:
        assert outcome(model, control).refused, control.kind
