"""Compare a new file with the eager model on one photo, before it replaces the output."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from export.onnx_file import remove_checksum
from export.parity.eager_variants import model_noise
from export.parity.network_reference import NetworkEager, eager_reference
from export.parity.torchvision_reference import EagerRun, TorchvisionEager
from model.errors import ExportError
from model.live.source import AnyModel
from runtime.compare.limits import Verdict
from runtime.compare.matching import compare
from runtime.compare.noise_check import check_with_noise
from runtime.compare.result_protocol import DetectionResult
from runtime.detections import Detections
from runtime.predictor import Predictor

MIN_DETECTIONS = 20
_MAX_RANK = 60
_REMEDIES = "--nms-rounds, --candidates or --max-sampling"
_THRESHOLD_NAME = "select.score_threshold"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The verdict, its photo and its score threshold.

    `noise` is the model's own, if the limits allow for it; `reference` is the result of the eager
    model.
    """

    verdict: Verdict
    photo: str
    score_threshold: float
    lowered: bool
    certified: bool = True
    noise: str = ""
    reference: DetectionResult | None = None

    def __str__(self) -> str:
        threshold = f" at score threshold {self.score_threshold:.2g}" if self.lowered else ""
        uncertified = "" if self.certified else f" · not certified there: raise {_REMEDIES}"
        noise = f" · {self.noise}" if self.noise else ""
        on_photo = f"against eager PyTorch on {self.photo}{threshold}"
        return f"{self.verdict} · {on_photo}{uncertified}{noise}"


def check_file(
    checkpoint: AnyModel, path: Path, photo: npt.NDArray[np.uint8], name: str
) -> CheckReport:
    """Run the file in ONNX Runtime and the eager model on one photo.

    If the eager model finds fewer than 20 objects, the score threshold of both is lowered to the
    widest gap between its scores, so that the check always compares something. If the file
    exceeds the limits, the eager model runs once more, with other convolutions, and the file may
    differ from it by a multiple of what it differs from itself (`runtime.compare.noise_check`).

    Raises:
        ExportError: a difference beyond the limits, or fewer than
            20 detections at any threshold.
    """
    with Predictor.open(path, on_uncertified="ignore") as predictor:
        eager = eager_reference(checkpoint, predictor.artifact.manifest.canvas_hw)
        run = eager.run(photo)
        threshold = checkpoint.spec.box.score_threshold
        if len(run.detections) >= min(MIN_DETECTIONS, checkpoint.spec.box.detections):
            one = _Check(eager, photo, name, threshold, lowered=False)
            return one.report(run, predictor.predict(photo))
    threshold = _widest_gap(eager.run(photo, 0.0), name)
    run = eager.run(photo, threshold)
    one = _Check(eager, photo, name, threshold, lowered=True)
    with (
        at_threshold(path, threshold) as copy,
        Predictor.open(copy, on_uncertified="ignore") as predictor,
    ):
        return one.report(run, predictor.predict(photo))


def _widest_gap(run: EagerRun, name: str) -> float:
    """A threshold in the middle of the widest gap between the scores of rank 20 to 60."""
    scores = np.sort(run.detections.scores)[::-1][:_MAX_RANK]
    needed = min(MIN_DETECTIONS, run.trace.spec.box.detections)
    if len(scores) < needed:
        raise ExportError(
            f"check: expected at least {needed} objects on {name} at any score, the eager model "
            f"finds {len(scores)}; check on another photo with --check-image"
        )
    tail = scores[needed - 1 :]
    if len(tail) == 1:
        return float(tail[0]) / 2
    at = int(np.argmax(tail[:-1] - tail[1:]))
    return float(tail[at] + tail[at + 1]) / 2


@contextmanager
def at_threshold(path: Path, threshold: float) -> Iterator[Path]:
    """A temporary copy of a file with another score threshold."""
    with tempfile.TemporaryDirectory() as folder:
        with_threshold(path, Path(folder) / "lowered.onnx", threshold)
        yield Path(folder) / "lowered.onnx"


def with_threshold(source: Path, target: Path, threshold: float) -> None:
    """Copy a file with another score threshold.

    Raises:
        ExportError: the graph has no such initializer.
    """
    model = remove_checksum(onnx.load(source))
    for tensor in model.graph.initializer:
        if tensor.name == _THRESHOLD_NAME:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(np.array(threshold, np.float32), tensor.name)
            )
            onnx.save(model, target)
            return
    raise ExportError(f"check: expected an initializer '{_THRESHOLD_NAME}' in the graph")


@dataclass(frozen=True, slots=True)
class _Check:
    """One photo at one score threshold; `lowered` if it is not the model's own."""

    eager: TorchvisionEager | NetworkEager
    photo: npt.NDArray[np.uint8]
    name: str
    threshold: float
    lowered: bool

    def report(self, run: EagerRun, detections: Detections) -> CheckReport:
        verdict, noise = check_with_noise(
            [compare(run.detections, detections, self.name)],
            lambda _: run.trace,
            lambda: model_noise(
                self.eager, {self.name: self.photo}, {self.name: run}, self.threshold
            ),
        )
        why = "" if noise is None else f"; {noise}"
        if not verdict.passed and not detections.exact:
            raise ExportError(
                f"the file differs from the eager model ({verdict}{why}) and does not certify its "
                f"result on {self.name}; export with larger {_REMEDIES}; no file was written"
            )
        if not verdict.passed:
            first = [*verdict.statistics[:3], *[e for e in verdict.excesses if not e.near_tie][:3]]
            rows = "; ".join(map(str, first or verdict.excesses[:3]))
            raise ExportError(
                f"the file differs from the eager model beyond the limits ({verdict}{why}): "
                f"{rows}; no file was written"
            )
        return CheckReport(
            verdict,
            self.name,
            self.threshold,
            self.lowered,
            detections.exact,
            "" if noise is None else str(noise),
            run.detections,
        )
