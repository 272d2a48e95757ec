"""Every kind of torchvision model against our eager network and the exported ONNX; slow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from export.onnx import export_onnx
from export.parity.torchvision_reference import EagerRun, TorchvisionEager
from model.checkpoint import SpecOptions, load
from runtime.compare.attribution import explain
from runtime.compare.limits import Verdict, check
from runtime.compare.matching import compare
from runtime.predictor import Predictor
from runtime.sessions.torch import TorchSession
from tests.lively import enliven, picture
from tests.zoo import LONG_SIDE, SHORT_SIDE, ZOO

SIZES_HW = ((150, 200), (260, 170), (181, 333))


def _groups() -> list[list[np.ndarray]]:
    """The three sizes one by one, and two batches of all three."""
    first, second = (
        [picture(*hw, seed=10 * s + i) for i, hw in enumerate(SIZES_HW)] for s in (0, 1)
    )
    return [*([photo] for photo in first), first, second]


def _verdict(
    groups: Sequence[list[np.ndarray]], runs: Sequence[list[EagerRun]], predictor: Predictor
) -> Verdict:
    comparisons, traces = [], {}
    for group, theirs in zip(groups, runs, strict=True):
        results = predictor.predict(group, batch_size=len(group))
        for run, detections in zip(theirs, results, strict=True):
            name = str(len(comparisons))
            traces[name] = run.trace
            comparisons.append(compare(run.detections, detections, name))
    return explain(check(comparisons), comparisons, traces.get)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ZOO)
def test_eager_and_onnx_equal_torchvision(kind: str, tmp_path: Path) -> None:
    theirs = enliven(ZOO[kind](), seed=sum(map(ord, kind)))
    weights = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), weights)
    options = SpecOptions(short_side=SHORT_SIDE, long_side=LONG_SIDE)
    checkpoint = load(weights, options)
    eager, groups = TorchvisionEager(checkpoint, model=theirs), _groups()
    runs = [eager.run_batch(group) for group in groups]

    ours = _verdict(groups, runs, Predictor(TorchSession(checkpoint)))
    assert ours.detections >= 500
    assert ours.passed, "\n".join(map(str, [ours, *ours.excesses]))

    path = tmp_path / "model.onnx"
    export_onnx(weights, path, options, check_photo=None)
    exported = _verdict(groups, runs, Predictor.open(path))
    assert exported.detections >= 500
    assert exported.passed, "\n".join(map(str, [exported, *exported.excesses]))
